"""Turn a Stable-Baselines3 or sb3-contrib zip into `teacher.pt`, plain tensors that load without either.

Nothing is written before the teacher is proven to act as the original does.
"""

import math
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Algorithm.Policies import check_fits, play
from Algorithm.seeds import ID_TEST_SEEDS
from Common.Command_line import OneLineParser, one_line, one_line_errors
from Common.Errors import BadFile, BadInput
from Common.Files import RESULTS, check_output
from Enviroment.Tasks import Task, find_task
from Enviroment.Utils import make_env, make_world
from Enviroment.World import World
from Models.Base_Model import CONSTANT_DEVIATION
from Models.Model_Pusher import Teacher
from Train_Teacher_Pusher.Original import Original, read_original
from Train_Teacher_Pusher.Statistics import find_statistics, observation_sizes

STATISTICS = "vecnormalize.pkl"  # beside every checkpoint `<name>.zip` of a run: `<name>_vecnormalize.pkl`
ACTION_TOLERANCE = 1e-5  # of half the range of actions
KEPT_STATES = 256  # in the proof


def teacher_from_model(model: Any, statistics: VecNormalize | None) -> Teacher:
    """Return the policy of a model of Stable-Baselines3, SAC, TQC, TD3, DDPG, PPO, A2C or TRPO, as a teacher.

    The model needs an MLP policy; `statistics` are those of its environments. Raises `BadInput` for layers of another kind.
    """
    policy, bounds = model.policy, model.action_space
    half, middle = (
        torch.from_numpy(x).to(policy.device) for x in ((bounds.high - bounds.low) / 2, (bounds.high + bounds.low) / 2)
    )
    if policy.squash_output:  # its Gaussian is over actions in [-1, 1] already
        half, middle = torch.ones_like(half), torch.zeros_like(middle)
    layers, mean, mean_clip = actor_layers(policy)
    deviation, weights = actor_deviation(policy, half)
    weights |= {f"trunk.{name}": value for name, value in nn.Sequential(*layers).state_dict().items()}
    weights |= {"mu.weight": mean.weight / half[:, None], "mu.bias": (mean.bias - middle) / half}
    teacher = Teacher(
        **normalization(statistics, policy.observation_space),
        hidden=[layer.out_features for layer in layers if isinstance(layer, nn.Linear)],
        action_low=bounds.low.tolist(),
        action_high=bounds.high.tolist(),
        activation=activation_name(layers),
        family="squashed" if policy.squash_output else "clipped",
        deviation=deviation,
        mean_clip=mean_clip,
    )
    teacher.load_state_dict(weights)
    return teacher.eval().requires_grad_(False)


def activation_name(layers: list[nn.Module]) -> str:
    """Return the class in `torch.nn` of the layers' activation; raises `BadInput` unless it has its default arguments."""
    found = {repr(layer): type(layer).__name__ for layer in layers if not isinstance(layer, nn.Linear)}
    for text, name in found.items():
        if len(found) > 1 or repr(getattr(nn, name, nn.Identity)()) != text:
            raise BadInput(f"its activation {' and '.join(found)} is not supported; a class of torch.nn as it comes is")
    return next(iter(found.values()), "Identity")


def actor_layers(policy: Any) -> tuple[list[nn.Module], nn.Linear, float]:
    """Return the hidden layers of a policy's actor, its last layer, and the bound of that one's output."""
    actor: Any = getattr(policy, "actor", None)
    if actor is None:
        return [*policy.mlp_extractor.policy_net], policy.action_net, math.inf
    if not hasattr(actor, "latent_pi"):  # TD3, DDPG: all layers and a tanh
        parts: list[Any] = [*actor.mu]
        return parts[:-2], parts[-2], math.inf
    if actor.use_sde and actor.clip_mean > 0:
        return [*actor.latent_pi], actor.mu[0], actor.clip_mean
    return [*actor.latent_pi], actor.mu, math.inf


def actor_deviation(policy: Any, half: torch.Tensor) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the kind and the weights of a `Teacher`'s deviation; `half` [A] is its unit."""
    actor = getattr(policy, "actor", policy)
    if getattr(actor, "use_sde", False):
        noise = actor.action_dist.get_std(actor.log_std) / half
        return "latent", {"noise": noise.square(), "floor": actor.action_dist.epsilon / half.square()}
    log_std = getattr(actor, "log_std", None)
    if isinstance(log_std, nn.Linear):
        return "state", {f"log_std.{name}": value for name, value in log_std.state_dict().items()}
    if log_std is None:
        return "constant", {"log_std": torch.full_like(half, CONSTANT_DEVIATION).log()}
    return "constant", {"log_std": log_std - half.log()}


def normalization(statistics: VecNormalize | None, space: spaces.Space) -> dict[str, Any]:
    """Return the arguments of a `Teacher` that normalize its state; where nothing is normalized, they change nothing."""
    moments: dict[str, Any] = {}
    epsilon, bound = 0.0, math.inf
    if statistics is not None and statistics.norm_obs:
        epsilon, bound = statistics.epsilon, statistics.clip_obs
        known: Any = statistics.obs_rms if isinstance(statistics.obs_rms, dict) else {"": statistics.obs_rms}
        keys = known if statistics.norm_obs_keys is None else statistics.norm_obs_keys
        moments = {key: known[key] for key in keys}
    mean: list[float] = []
    variance: list[float] = []
    clip: list[float] = []
    for key, size in observation_sizes(space).items():
        rms = moments.get(key)
        mean += [0.0] * size if rms is None else rms.mean.tolist()
        variance += [1.0 - epsilon] * size if rms is None else rms.var.tolist()
        clip += [math.inf if rms is None else bound] * size
    return {"mean": mean, "variance": variance, "epsilon": epsilon, "clip": clip if len(set(clip)) > 1 else clip[0]}


def prove(teacher: Teacher, original: Original, world: World) -> tuple[dict[str, Any], np.ndarray]:
    """Compare a teacher with its original, on the states of its own episodes and by return.

    Actions differ by at most 1e-5 of half their range. Mean returns of 10 episodes differ by at most 4 standard errors of
    the difference and a thousandth: on a chaotic task even rounding leads to other episodes. `world` has 10 environments.

    Returns the proof, to be saved with the teacher, and all its states [N, S]. Raises `BadFile` where they differ.
    """
    name, seeds = original.facts["file"], ID_TEST_SEEDS
    returns, states = play(world, teacher, seeds)
    wanted, _ = play(world, original, seeds)
    actions, half = original.act({"State": states}), teacher.scale.numpy()
    error = float((np.abs(teacher.act({"State": states}) - actions) / half).max())
    if not error <= ACTION_TOLERANCE:
        raise BadFile(f"{name}: converted, its actions differ by {error:.1e} of half their range from the original's")
    difference = abs(returns.mean() - wanted.mean())
    if not difference <= 4 * np.sqrt((returns.var() + wanted.var()) / len(seeds)) + 1e-3 * abs(wanted.mean()):
        raise BadFile(
            f"{name}: converted, it scores {returns.mean():.2f} where the original scores {wanted.mean():.2f}"
        )
    kept = np.linspace(0, len(states) - 1, min(KEPT_STATES, len(states))).astype(int)
    proof = {
        **original.facts,
        "states": torch.from_numpy(states[kept]),
        "actions": torch.from_numpy(actions[kept]),
        "error": error,
        "seeds": list(seeds),
        "returns": returns.tolist(),
        "original_returns": wanted.tolist(),
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "original_return": float(wanted.mean()),
        "original_return_std": float(wanted.std()),
        "episodes": len(seeds),
    }
    return proof, states


def main() -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="NAME.zip of SAC, TQC, TD3, DDPG, PPO, A2C or TRPO")
    parser.add_argument("--task", default="Pusher", help="the task it was trained on (default: Pusher)")
    parser.add_argument(
        "--statistics", type=Path, help="its VecNormalize file (default: found beside it by the usual names)"
    )
    parser.add_argument("--output", type=Path, help="default: the teacher that the task's students learn from")
    arguments = parser.parse_args()
    with one_line_errors(parser.prog):
        save_weights(arguments.checkpoint, find_task(arguments.task), arguments.output, arguments.statistics)


def save_weights(checkpoint: Path, task: Task, output: Path | None = None, statistics: Path | None = None) -> None:
    """Write a checkpoint as the teacher of a task, without `output` as the one that the task's students learn from.

    Raises `BadInput` if it is no such checkpoint, if it does not fit the task, or if the result acts in another way.
    """
    output = output or RESULTS / task.name / "Teacher" / "teacher.pt"
    env: Any = make_env(task, frames=False)
    env.close()
    statistics = statistics or find_statistics(checkpoint, task.env_id)
    check_output(output, (checkpoint, statistics))
    original = read_original(checkpoint, env.observation_space["State"].shape[0], env.action_space, statistics)
    print(f"original    {original.algorithm} in {checkpoint}\nstatistics  {statistics or 'none'}", flush=True)
    if statistics is None and original.was_normalized:
        message = (
            f"warning: {checkpoint} was trained with VecNormalize, and its file is missing; --statistics FILE names it"
        )
        print(one_line(message), file=sys.stderr)
    try:
        teacher = teacher_from_model(original, original.statistics)
    except BadInput as error:
        raise BadFile(f"{checkpoint}: {error}") from error
    check_fits(checkpoint, teacher, task)
    with closing(make_world(task, len(ID_TEST_SEEDS), frames=False)) as world:
        proof, states = prove(teacher, original, world)
    proof["statistics"] = statistics and statistics.name
    if teacher.clip.isinf().any():
        teacher.keep_statistics(states)
    teacher.save(output, task.reference, task.name, proof)
    print(
        f"return      {proof['return']:.2f} ± {proof['return_std']:.2f}, the original's {proof['original_return']:.2f} ± "
        f"{proof['original_return_std']:.2f}, {proof['episodes']} episodes\nactions     differ by at most {proof['error']:.1e} "
        f"of half their range\nteacher     {output}"
    )


if __name__ == "__main__":
    main()
