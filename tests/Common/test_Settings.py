"""Limits of settings."""

import pytest

from Common.Errors import BadSetting
from Train_Teacher_Pusher.Settings import PPOConfig


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308])
def test_a_number_that_pytorch_cannot_hold_is_refused(number):
    with pytest.raises(BadSetting, match="is needed"):
        PPOConfig(clip_range=number).check()
    PPOConfig(clip_range=3e38).check()
