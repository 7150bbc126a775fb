"""Turn a Stable-Baselines3 SAC checkpoint into `teacher.pt`, plain tensors that load without Stable-Baselines3."""

import pickle
import sys
from pathlib import Path
from typing import Any, cast

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecNormalize

from Algorithm.Policies import check_fits
from Common.Command_line import OneLineParser, one_line, one_line_errors
from Common.Errors import BadFile, BadInput, brief
from Common.Files import RESULTS
from Enviroment.Tasks import Task, find_task
from Models.Model_Pusher import Teacher

STATISTICS = "vecnormalize.pkl"  # beside every checkpoint `<name>.zip` of a run: `<name>_vecnormalize.pkl`


def teacher_from_sac(model: SAC, statistics: VecNormalize) -> Teacher:
    """Return a SAC actor, with the normalization of its environments, as a teacher that acts as the original does.

    The model needs an MLP policy of ReLU layers, without state-dependent exploration.
    """
    actor, rms, bounds = model.policy.actor, cast(Any, statistics.obs_rms), cast(Any, model.action_space)
    teacher = Teacher(
        mean=rms.mean.tolist(),
        variance=rms.var.tolist(),
        epsilon=statistics.epsilon,
        clip=statistics.clip_obs,
        hidden=[layer.out_features for layer in actor.latent_pi if isinstance(layer, torch.nn.Linear)],
        action_low=bounds.low.tolist(),
        action_high=bounds.high.tolist(),
    )
    teacher.load_state_dict({name.replace("latent_pi", "trunk"): value for name, value in actor.state_dict().items()})
    return teacher.eval().requires_grad_(False)


def load_sac(checkpoint: Path, device: str = "cpu") -> tuple[SAC, VecNormalize]:
    """Load a checkpoint `NAME.zip` and the `NAME_vecnormalize.pkl` beside it: pickles, which can carry code.

    Raises `BadFile` if one of them is missing or damaged.
    """
    statistics = checkpoint.with_name(f"{checkpoint.stem}_{STATISTICS}")
    for path in (checkpoint, statistics):
        if not path.is_file():
            raise BadFile(f"{path}: no such file (a checkpoint is NAME.zip with NAME_{STATISTICS} beside it)")
    if not checkpoint.resolve().is_relative_to(RESULTS):
        message = f"warning: {checkpoint} is not of this repository; .zip and .pkl files can carry code, which runs"
        print(one_line(message), file=sys.stderr)
    try:
        model = SAC.load(checkpoint, device=device)
        with open(statistics, "rb") as file:
            return model, pickle.load(file)
    except Exception as error:  # pickle and zip raise a dozen kinds for a damaged file
        raise BadFile(f"{checkpoint}: not a Stable-Baselines3 SAC checkpoint ({error})") from error


def main() -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="NAME.zip, with NAME_vecnormalize.pkl beside it")
    parser.add_argument("--task", default="Pusher", help="the task it was trained on (default: Pusher)")
    parser.add_argument("--output", type=Path, help="default: the teacher that the task's students learn from")
    arguments = parser.parse_args()
    with one_line_errors(parser.prog):
        save_weights(arguments.checkpoint, find_task(arguments.task), arguments.output)


def save_weights(checkpoint: Path, task: Task, output: Path | None) -> None:
    """Write a checkpoint as the teacher of a task, without `output` as the one that the task's students learn from.

    Raises `BadInput` if it is no such checkpoint, or if it does not fit the task.
    """
    output = output or RESULTS / task.name / "Teacher" / "teacher.pt"
    model, statistics = load_sac(checkpoint)
    try:
        teacher = teacher_from_sac(model, statistics)
    except Exception as error:  # another policy or other statistics may break anything
        raise BadFile(f"{checkpoint}: not a SAC teacher and its statistics ({brief(error)})") from error
    check_fits(checkpoint, teacher, task)
    if output.is_dir():
        raise BadInput(f"--output {output} is a folder; a file's name is needed")
    teacher.save(output, task.reference, task.name)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
