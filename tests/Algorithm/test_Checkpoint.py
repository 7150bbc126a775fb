"""What a checkpoint holds is looked at before it is used."""

import pytest
import torch

from Algorithm.Checkpoint import check_optimizer


def spoilt(change):
    """An optimizer whose saved state was changed and loaded again."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    change(state["state"][0], state["param_groups"][0])
    optimizer.load_state_dict(state)
    return optimizer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state, group: state.update(exp_avg=None), "exp_avg does not fit"),
        (lambda state, group: state.update(exp_avg=torch.ones(3)), "exp_avg does not fit"),
        (lambda state, group: group.update(betas=[0.9]), "betas is"),
        (lambda state, group: group.update(lr="x"), "lr is x"),
        (lambda state, group: group.update(eps=float("nan")), "eps is nan"),
        (lambda state, group: group.update(amsgrad=True), "amsgrad is True"),
    ],
)
def test_a_state_that_does_not_fit_is_noticed_when_it_is_loaded(change, message):
    with pytest.raises(ValueError, match=message):
        check_optimizer(spoilt(change))


def test_a_sound_state_fits_and_so_does_an_older_one():
    check_optimizer(spoilt(lambda state, group: group.update(lr=0.5, fused=None)))
