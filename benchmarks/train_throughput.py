"""Samples a second through every student, forward and forward with backward, against default PyTorch.

The baseline is the same network as one writes it first: float32 frames, contiguous, no autocast. The reference is a large
matrix product in the same precision, measured in turn with the students; what fraction of its rate a student reaches follows
from its counted floating-point operations. Prints JSON; run it on an otherwise idle machine.
"""

import argparse
import functools
import json
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import Common  # noqa: F401, isort: skip  # settles how threads wait before PyTorch is loaded
import torch
from baselines import DefaultStudent
from common import Apart, in_turn, machine, untrained_student
from torch.utils.flop_counter import FlopCounterMode

from Common.Machine import resolve_device
from Enviroment.Tasks import TASKS
from Models.Memory import Observation
from Models.Model_Pusher import FILTERS


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def build(_: ExitStack, mode: str, precision: str, device: torch.device) -> Callable[[int, str], int]:
    """Return what runs a student on a batch of so many samples and returns, if asked to count them, its floating-point operations.

    `precision` is fp32, bf16, or default: `DefaultStudent`.
    """
    task = TASKS["Pusher"]
    student = DefaultStudent.of(task, mode, device) if precision == "default" else untrained_student(task, mode, device)
    student.precision = precision
    batches: dict[int, Observation] = {}

    def run(batch: int, what: str) -> None:
        if what == "forward":
            with torch.no_grad():
                student(batches[batch])
        else:
            student.zero_grad()
            policy, value, *_ = student(batches[batch])
            (policy.mean.square().mean() + policy.log_std.mean() + value.square().mean()).backward()
        wait(device)

    def call(batch: int, what: str, count: bool = False) -> int:
        if batch not in batches:
            batches.clear()
            batches[batch] = {
                key: torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, device=device)
                if key in student.images
                else torch.randn(batch, *shape, device=device)
                for key, shape in student.input_shapes.items()
            }
        with FlopCounterMode(display=False) if count else nullcontext() as counter:
            run(batch, what)
        return counter.get_total_flops() if counter else 0

    return call


def product(_: ExitStack, precision: str, device: torch.device) -> Callable[[], None]:
    """Return what multiplies two matrices."""
    a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device).to(PRECISIONS[precision]) for _ in range(2))

    def call() -> None:
        a @ b
        wait(device)

    return call


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRODUCT_SIZE = 2048


def measure(
    mode: str,
    batches: list[int],
    repeats: int,
    products: dict[str, Apart],
    processes: ExitStack,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return the rates of one mode, for each batch forward alone and with backward."""
    students = {
        name: processes.enter_context(Apart(build, mode, name, device, stock=name == "default"))
        for name in ("default", *PRECISIONS)
    }
    results = []
    for batch in batches:
        for what in ("forward", "forward and backward"):
            flops = students["default"](batch, what, True)
            calls = {name: functools.partial(student, batch, what) for name, student in students.items()}
            seconds = in_turn({**calls, **products}, repeats)
            rates = {name: 2 * PRODUCT_SIZE**3 / seconds[f"product {name}"] for name in PRECISIONS}
            results.append(
                {
                    "mode": mode,
                    "batch": batch,
                    "what": what,
                    "samples_per_s": {name: round(batch / seconds[name], 1) for name in students},
                    "over_default": {name: round(seconds["default"] / seconds[name], 2) for name in PRECISIONS},
                    "product_gflop_per_s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
                    "of_product": {name: round(flops / seconds[name] / rate, 3) for name, rate in rates.items()},
                    "mflop_per_sample": round(flops / batch / 1e6, 2),
                }
            )
    return results


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="ImpaalaMid, batches of 64, few repeats: under a minute")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    modes, batches, repeats = (["ImpaalaMid"], [64], 9) if arguments.quick else (list(FILTERS), [64, 256, 1024], 3)
    results = []
    with ExitStack() as processes:
        # The product's rate is taken beside every measurement: both see the machine as it is then.
        products = {f"product {name}": processes.enter_context(Apart(product, name, device)) for name in PRECISIONS}
        for mode in modes:
            with ExitStack() as students:
                results += measure(mode, batches, repeats, products, students, device)
    result = {"what": "samples a second through the students", "device": str(device), "machine": machine()}
    print(json.dumps(result | {"results": results}, indent=2))


if __name__ == "__main__":
    main()
