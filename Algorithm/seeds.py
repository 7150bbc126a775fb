"""Every seed in the project."""

ID_TEST_SEEDS = range(2000, 2010)  # in-distribution: the first episodes of every dataset
OD_TEST_SEEDS = range(1900, 1910)  # out-of-distribution: never trained on
DATASET_FIRST_SEED = 2000
TEACHER_SELECTION_SEEDS = range(1800, 1850)  # choose a teacher's best checkpoint

RUN_INDICES = range(6)
_PHASE = {"training": 600_000, "BC": 700_000, "DAgger": 800_000}


def training_seed(phase: str, run_index: int) -> int:
    """Return the first seed of a run: phase `training`, `BC` or `DAgger`, run_index 0 to 5."""
    if run_index not in RUN_INDICES:
        raise ValueError(f"run_index {run_index}: {RUN_INDICES[0]} to {RUN_INDICES[-1]} is needed")
    return _PHASE[phase] + 10_000 * run_index
