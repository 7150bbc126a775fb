"""Augmentation: each transform by its effect on pictures that are known."""

import pytest
import torch

from Algorithm.Augmentation import TRANSFORMS, Augmentation
from Algorithm.Config import AUGMENTATIONS, CloningConfig, PPDConfig
from Common.Errors import BadSetting

EMPTY = torch.zeros(32, 48)
PATTERN = torch.arange(32 * 48).reshape(1, 1, 32, 48).remainder(251).to(torch.uint8).repeat(16, 4, 1, 1)
GRAY = torch.full((200, 4, 32, 48), 100, dtype=torch.uint8)


def augment(frames, *augment, still=EMPTY):
    torch.manual_seed(0)
    changed = Augmentation(augment, {"Frame": still})({"Frame": frames})["Frame"]
    assert (changed.dtype, changed.shape) == (torch.uint8, frames.shape)
    return changed


def test_every_transform_has_a_limit_and_leaves_other_observations_alone():
    assert AUGMENTATIONS.keys() == TRANSFORMS.keys()
    obs = {"Frame": PATTERN, "State": torch.zeros(16, 3)}
    assert Augmentation((), {"Frame": EMPTY})(obs)["Frame"] is PATTERN
    assert Augmentation(["noise=3"], {"Frame": EMPTY})(obs)["State"] is obs["State"]


def test_shift_moves_a_stack_as_a_whole():
    shifted = augment(PATTERN, "shift=3")
    assert (shifted[:, :1] == shifted).all()
    inner = {tuple(stack[0, 3:-3, 3:-3].flatten().tolist()) for stack in shifted}
    places = [(y, x) for y in range(-3, 4) for x in range(-3, 4)]
    possible = {tuple(PATTERN[0, 0, 3 + y : 29 + y, 3 + x : 45 + x].flatten().tolist()) for y, x in places}
    assert len(inner) > 1
    assert inner <= possible


def test_what_stands_still_stays_where_the_student_subtracts_it():
    assert torch.equal(augment(PATTERN, "shift=3", "crop=0.2", "contrast=0.5", still=PATTERN[0, 0].float()), PATTERN)


def test_crop_shows_a_part_in_full_size():
    ramp = torch.arange(48, dtype=torch.uint8).expand(200, 4, 32, 48).contiguous()
    cropped = augment(ramp, "crop=0.5")
    widths = cropped[:, 0, 0, -1].int() - cropped[:, 0, 0, 0].int()
    assert 22 <= widths.min() <= 26
    assert 44 <= widths.max() <= 47
    assert cropped[:, 0, 0, 0].max() > 10  # not always the same corner
    assert (cropped.int().diff(dim=-1) >= 0).all()


def test_brightness_contrast_and_noise_have_their_amounts():
    brighter = augment(GRAY, "brightness=20")
    assert (brighter == brighter[:, :1, :1, :1]).all()
    assert (brighter.min(), brighter.max()) == (80, 120)
    contrast = augment(GRAY, "contrast=0.5", still=EMPTY + 60)
    assert contrast.min() in range(80, 83)
    assert contrast.max() in range(118, 121)
    noisy = augment(GRAY, "noise=5", still=EMPTY + 100)
    assert noisy.float().std() == pytest.approx(5, rel=0.05)
    assert augment(GRAY, "noise=255").float().min() == 0


def test_cutout_covers_one_square():
    covered = augment(GRAY[:, :, :, :32], "cutout=10", still=torch.full((32, 32), 100.0)) != 100
    assert (covered[:, :1] == covered).all()
    sides = covered[:, 0].any(1).sum(1), covered[:, 0].any(2).sum(1)
    assert max(side.max() for side in sides) == 10
    assert torch.equal(covered[:, 0].sum((1, 2)), sides[0] * sides[1])


def test_pictures_of_three_colours_change_together():
    colours = torch.stack([PATTERN, PATTERN, PATTERN], 2)
    shifted = augment(colours, "shift=3", "brightness=5", still=torch.zeros(3, 32, 48))
    assert (shifted == shifted[:, :1, :1]).all()


@pytest.mark.parametrize("wrong", ["sepia=3", "shift", "shift=-1", "shift=x", "crop=2", "shift=0.4", "cutout=500"])
def test_augmentations_that_do_not_exist_are_refused(wrong):
    for config in (CloningConfig, PPDConfig):
        with pytest.raises(BadSetting, match="augment"):
            config(augment=(wrong,)).check()
        with pytest.raises(BadSetting, match="2 times"):
            config(augment=("noise=1", "noise=2")).check()
