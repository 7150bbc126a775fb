"""Samples a second through every student, forward and forward with backward, against default PyTorch.

The baseline is the same network as one writes it first: float32 frames, contiguous, no autocast. The reference is a large
matrix product in the same precision on the same machine; what fraction of its rate a student reaches follows from its
counted floating-point operations. Prints JSON; run it on an otherwise idle machine.
"""

import argparse
import functools
import json
from collections.abc import Callable

import Algorithm  # noqa: F401, isort: skip  # settles how threads wait before PyTorch is loaded
import gymnasium as gym
import torch
from common import in_turn, machine
from torch.utils.flop_counter import FlopCounterMode

from Enviroment.My_wrapper import observation_space
from Enviroment.Tasks import TASKS
from Models.Base_Model import ActorCritic, Observation, resolve_device
from Models.Model_Pusher import FILTERS, get_Teacher_model, make_student


class DefaultStudent(ActorCritic):
    """The student without any of the speed-ups."""

    def features(self, obs: Observation) -> torch.Tensor:
        """Return the features, float32 and contiguous all the way."""
        vector = (obs[self._vector] - self.vector_mean) / self.vector_std
        if self.backbone is None:
            return vector
        seen = self.backbone((obs["Frame"].float() - self.background) / 64)
        return torch.cat([seen, self.lift(vector)], dim=1)


def matmul_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Return the floating-point operations a second of a matrix product."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        a @ b
        wait(device)

    return 2 * size**3 / in_turn({"product": product}, 5, 3)["product"]


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="ImpaalaMid, batches of 64, few repeats: under a minute")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    task, teacher = TASKS["Pusher"], get_Teacher_model()
    space = observation_space(task, len(teacher.statistics.mean), True)
    modes, batches, repeats = (["ImpaalaMid"], [64], 3) if arguments.quick else (list(FILTERS), [64, 256, 1024], 5)
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16}
    rates = {name: matmul_rate(dtype, device) for name, dtype in precisions.items()}

    results = []
    for mode in modes:
        fast = make_student(
            mode, space, gym.spaces.Box(-2, 2, (7,)), task.proprioception, teacher.statistics, task.stack
        ).to(device)
        default = DefaultStudent(**fast.arguments).to(device, memory_format=torch.contiguous_format)
        for batch in batches:
            obs = {
                "State": torch.randn(batch, 23, device=device),
                "PartialState": torch.randn(batch, 17, device=device),
                "Frame": torch.randint(0, 256, (batch, task.stack, *task.frame_size), dtype=torch.uint8, device=device),
            }

            def forward(student: ActorCritic, precision: str, obs: Observation = obs) -> None:
                student.precision = precision
                with torch.no_grad():
                    student(obs)
                wait(device)

            def both(student: ActorCritic, precision: str, obs: Observation = obs) -> None:
                student.precision = precision
                student.zero_grad()
                policy, value = student(obs)
                (policy.mean.square().mean() + policy.log_std.mean() + value.square().mean()).backward()
                wait(device)

            for what, call in (("forward", forward), ("forward and backward", both)):
                with FlopCounterMode(display=False) as counter:
                    call(default, "fp32")
                candidates: dict[str, Callable[[], None]] = {"default": functools.partial(call, default, "fp32")}
                candidates |= {name: functools.partial(call, fast, name) for name in precisions}
                seconds = in_turn(candidates, repeats)
                flops = counter.get_total_flops()
                results.append(
                    {
                        "mode": mode,
                        "batch": batch,
                        "what": what,
                        "samples_per_s": {name: round(batch / value, 1) for name, value in seconds.items()},
                        "over_default": {name: round(seconds["default"] / seconds[name], 2) for name in precisions},
                        "of_matmul_rate": {
                            name: round(flops / seconds[name] / rate, 3) for name, rate in rates.items()
                        },
                        "mflop_per_sample": round(flops / batch / 1e6, 2),
                    }
                )
    print(
        json.dumps(
            {
                "what": "samples a second through the students",
                "device": str(device),
                "machine": machine(),
                "matmul_gflop_per_s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
                "results": results,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
