"""MuJoCo Warp's world beside Gymnasium's: states, rewards, frames, order of episodes, resumption. On Warp's CPU device."""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import mujoco
import pytest
import torch

pytest.importorskip("mujoco_warp")

from Common.Errors import BadSetting, NonFinite
from Enviroment.On_tensors import on_tensors
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from Enviroment.Views import VIEWS, Views
from Enviroment.Warp_render import with_cameras
from Enviroment.Warp_world import WarpWorld, check_memory

SHORT = replace(TASKS["Pusher"], max_episode_steps=6)
CPU = torch.device("cpu")


def _actions(seed: int, steps: int, num_envs: int) -> torch.Tensor:
    return 4 * torch.rand(steps, num_envs, 7, generator=torch.Generator().manual_seed(seed)) - 2


@contextlib.contextmanager
def _both(task, num_envs):
    warp, workers = WarpWorld(task, num_envs, True, CPU), make_world(task, num_envs, 1)
    with contextlib.closing(warp), contextlib.closing(workers):
        yield warp, workers


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().mean())


def test_states_rewards_and_frames_are_gymnasiums():
    task = TASKS["Pusher"].seen_by(("Frame", "wrist"))
    with _both(task, 3) as (warp, workers):
        ours, theirs = warp.reset([5, 6, 7]), workers.reset([5, 6, 7])
        assert torch.equal(ours["State"], theirs["State"])
        assert ours["Frame"].dtype == torch.uint8
        for action in _actions(0, 15, 3):
            step, reference = warp.step(action), workers.step(action)
            torch.testing.assert_close(step.obs["State"], reference.obs["State"], atol=1e-4, rtol=0)
            torch.testing.assert_close(step.reward, reference.reward, atol=1e-5, rtol=0)
            assert torch.equal(step.obs["PartialState"], step.obs["State"][:, :17])
        assert _difference(step.obs["Frame"], reference.obs["Frame"]) < 2
        assert _difference(step.obs["wrist"], reference.obs["wrist"]) < 3


@pytest.mark.parametrize("kind", ["rgb", "depth"])
def test_colour_and_depth_are_the_renderers(kind):
    with _both(SHORT.seen_by(("side",), kind), 2) as (warp, workers):
        ours, theirs = warp.reset([1, 2])["side"], workers.reset([1, 2])["side"]
        assert ours.shape == theirs.shape
        assert _difference(ours, theirs) < 2.5


def test_floors_with_a_pattern_are_smoothed_and_have_no_highlights_on_black():
    with _both(TASKS["Swimmer"], 2) as (warp, workers):
        assert _difference(warp.reset([1, 2])["Frame"], workers.reset([1, 2])["Frame"]) < 35


def test_worlds_of_other_seeds_begin_other_episodes():  # as those of several ranks do
    with contextlib.closing(WarpWorld(SHORT, 2, False, CPU)) as world:
        seeds = []
        for first in (600_000, 600_002):
            world.reset([first, first + 1])
            seeds += world.state()[0]["seeds"]
        assert len(set(seeds)) == len(seeds) == 8


def test_a_step_that_is_renewed_observes_where_it_has_come_to():
    own = on_tensors(SHORT)
    task = replace(SHORT, on_tensors=replace(own, renewed=True))
    with contextlib.closing(WarpWorld(task, 1, False, CPU)) as world, contextlib.closing(SHORT.make()) as env:
        world.reset([3])
        env.reset(seed=3)
        for action in _actions(7, 5, 1):
            state = world.step(action).obs["State"]
            env.step(action[0].numpy())
            inner = env.unwrapped
            lagging = torch.from_numpy(inner.data.xpos.copy())
            mujoco.mj_step1(inner.model, inner.data)
            fields = {name: torch.from_numpy(getattr(inner.data, name).copy())[None] for name in own.fields}
            torch.testing.assert_close(state, own.observe(inner, SimpleNamespace(**fields)).float(), atol=1e-5, rtol=0)
        assert (lagging - fields["xpos"][0]).abs().max() > 1e-4


def test_views_are_the_workers():
    pictures = replace(VIEWS["large"], noise=0.0, light_direction=20.0, light_colour=0.2, contrast=0.2)
    physics = Views(mass=0.4, friction=0.4, damping=0.4)
    with _both(replace(SHORT, views=pictures), 4) as (warp, workers):
        ours, theirs = warp.reset([0, 1, 2, 3]), workers.reset([0, 1, 2, 3])
        assert len({float(frame.float().mean()) for frame in ours["Frame"]}) == 4
        assert _difference(ours["Frame"], theirs["Frame"]) < 2
    with _both(replace(SHORT, views=physics), 2) as (warp, workers):
        warp.reset([0, 1]), workers.reset([0, 1])
        for action in _actions(1, 5, 2):
            step, reference = warp.step(action), workers.step(action)
            torch.testing.assert_close(step.obs["State"], reference.obs["State"], atol=1e-4, rtol=0)


def test_noise_is_of_its_strength_and_new_in_every_step():
    with contextlib.closing(WarpWorld(replace(SHORT, views=Views(noise=8.0), edge=True), 2, True, CPU)) as world:
        with contextlib.closing(WarpWorld(SHORT, 2, True, CPU)) as plain:
            noise = [
                world.reset([0, 1])["Frame"].double() - plain.reset([0, 1])["Frame"].double(),
                world.step(torch.zeros(2, 7)).obs["Frame"].double()
                - plain.step(torch.zeros(2, 7)).obs["Frame"].double(),
            ]
        middle = [part[:, 20:50, 20:100] for part in noise]  # where nothing is black or white
        assert all(7 < float(part.std()) < 9 for part in middle)
        assert abs(float(torch.corrcoef(torch.stack([part.flatten() for part in middle]))[0, 1])) < 0.05


def test_episodes_follow_each_other_as_in_workers():
    with _both(SHORT, 3) as (warp, workers):
        seeds = range(20, 27)
        ours, theirs = warp.start(seeds), workers.start(seeds)
        assert torch.equal(ours["State"], theirs["State"])
        for action in _actions(2, 20, 3):
            step, reference = warp.step(action), workers.step(action)
            assert torch.equal(step.done, reference.done)
            live = ~warp.resting
            torch.testing.assert_close(step.obs["State"][live], reference.obs["State"][live], atol=1e-4, rtol=0)
            if step.done.any():
                torch.testing.assert_close(
                    step.last_obs["State"][step.done], reference.last_obs["State"][step.done], atol=1e-4, rtol=0
                )
        assert warp.resting.all()


def test_an_endless_world_starts_anew_and_is_staggered():
    with contextlib.closing(WarpWorld(SHORT, 3, False, CPU)) as world:
        world.reset([0, 1, 2])
        world.stagger()
        ends = [world.step(torch.zeros(3, 7)).truncated.nonzero().flatten().tolist() for _ in range(12)]
        assert ends == [[], [2], [], [1], [], [0]] * 2


def test_it_continues_exactly():
    task = replace(SHORT, views=Views(noise=8.0, camera_position=0.02, mass=0.2))
    with (
        contextlib.closing(WarpWorld(task, 3, True, CPU)) as first,
        contextlib.closing(WarpWorld(task, 3, True, CPU)) as second,
    ):
        first.reset([0, 1, 2])
        first.stagger()
        for action in _actions(3, 4, 3):
            first.step(action)
        second.restore(first.state())
        for action in _actions(4, 9, 3):
            one, other = first.step(action), second.step(action)
            assert torch.equal(one.reward, other.reward)
            assert torch.equal(one.done, other.done)
            assert all(torch.equal(one.obs[key], other.obs[key]) for key in one.obs)
        with pytest.raises(ValueError, match="3"):
            second.restore([{}])


def test_what_it_cannot_simulate_is_refused():
    for task, reason in [
        (TASKS["FetchReach"], "on tensors"),
        (TASKS["cartpole-swingup"], "on tensors"),
        (replace(SHORT, env_id="Enviroment.DeepMind:dm_control/cartpole-swingup-v0"), "MujocoEnv"),
        (replace(SHORT, views=Views(texture=0.2)), "texture"),
    ]:
        with pytest.raises(BadSetting, match=f"{reason}.*--backend workers"):
            make_world(task, 1, backend="warp")


def test_worlds_that_do_not_fit_are_refused_with_the_number_that_does():
    check_memory(900, 1e6, free=1_000_000_000)
    with pytest.raises(BadSetting, match=r"num_envs 901: 0.8 GiB .* 0.9 GiB are free; 900 fit"):
        check_memory(901, 1e6, free=1_000_000_000)
    with contextlib.closing(WarpWorld(SHORT, 2, True, CPU)) as world:
        each = world._bytes_of_a_world(
            with_cameras(world._env.fullpath, world._env.model, ["Frame"]), {"nconmax": 24, "njmax": 129}
        )
        assert 64 * 128 * 24 < each < 10**6


def test_bad_actions_are_refused():
    with contextlib.closing(WarpWorld(SHORT, 2, False, CPU)) as world:
        world.reset([0, 1])
        with pytest.raises(ValueError, match="shape"):
            world.step(torch.zeros(2, 6))
        with pytest.raises(NonFinite, match="action of environment 1"):
            world.step(torch.tensor([[0.0] * 7, [float("nan")] * 7]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_simulates_and_renders_what_gymnasium_does():
    task = replace(SHORT, views=Views(noise=8.0, camera_position=0.02, mass=0.2))
    first, second = (WarpWorld(task, 4, True, torch.device("cuda"), starts=16) for _ in range(2))
    with contextlib.closing(first), contextlib.closing(second), contextlib.closing(make_world(task, 4, 1)) as workers:
        ours, theirs = first.reset([0, 1, 2, 3]), workers.reset([0, 1, 2, 3])
        assert torch.equal(ours["State"].cpu(), theirs["State"])
        for action in _actions(5, 5, 4):  # the third step is the first from a recorded graph
            step, reference = first.step(action.cuda()), workers.step(action)
            torch.testing.assert_close(step.obs["State"].cpu(), reference.obs["State"], atol=1e-4, rtol=0)
            assert _difference(step.obs["Frame"].cpu(), reference.obs["Frame"]) < 12
        second.restore(first.state())
        for action in _actions(6, 9, 4):
            one, other = first.step(action.cuda()), second.step(action.cuda())
            torch.testing.assert_close(one.obs["State"], other.obs["State"], atol=1e-4, rtol=0)
            assert torch.equal(one.done, other.done)
