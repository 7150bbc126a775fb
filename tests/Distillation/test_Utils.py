"""Settings, their defaults and their flags."""

import dataclasses

from Distillation.Utils import METHODS as EXPERIMENTS
from tests.helpers import ROOT


def test_a_methods_own_defaults_are_its_flags_defaults():
    for config in EXPERIMENTS.values():
        for field in dataclasses.fields(config):
            own = next(base for base in config.__mro__ if field.name in vars(base).get("__annotations__", {}))
            assert field.default == own.__dataclass_fields__[field.name].default, (config, field.name)
    assert (EXPERIMENTS["BC_phase"]().learning_rate, EXPERIMENTS["PPD"]().learning_rate) == (3e-3, 1e-3)


def test_the_readme_names_every_flag():
    readme = (ROOT / "README.md").read_text()
    names = {f.name for config in EXPERIMENTS.values() for f in dataclasses.fields(config)} | {*EXPERIMENTS}
    assert not [
        name for name in names | {"resume", "overwrite"} if f"--{name}`" not in readme and f"--{name} " not in readme
    ]
