"""What is computed again and again, recorded as a CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

An update is hundreds of small kernels. Launched one by one they keep the CPU busy for longer than the GPU; a graph is one launch.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from Common import Parallel

WARM_UP = 3  # calls before a recording, in which libraries allocate what they keep


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    gradients: list[torch.Tensor | None]


class Recorded:
    """Calls a function of tensors, which may leave gradients in a module, from a recording for each shape of its inputs.

    The function must read the same memory each time, its inputs apart, and never wait for the GPU. Random numbers are new ones
    in each call.

    Args:
        module: its gradients are afterwards those that the function left.
        function: takes tensors on the module's device and returns detached ones (a recording fails while an earlier call's
            autograd graph is alive), without further effects. If it makes gradients, it first sets those there are to None.
    """

    def __init__(self, module: nn.Module, function: Callable[..., dict[str, torch.Tensor]]):
        self._parameters, self._function = list(module.parameters()), function
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the function returns for `inputs`."""
        shapes = tuple(value.shape for value in inputs.values())
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(inputs)
        recording = self._recordings[shapes]
        for name, value in inputs.items():
            recording.inputs[name].copy_(value)
        for parameter, gradient in zip(self._parameters, recording.gradients):
            parameter.grad = gradient
        recording.graph.replay()
        return {name: value.clone() for name, value in recording.outputs.items()}

    def _record(self, inputs: dict[str, torch.Tensor]) -> _Recording:
        own = {name: value.clone() for name, value in inputs.items()}
        device = self._parameters[0].device
        with torch.cuda.device(device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside), torch.random.fork_rng([device]):  # a resumed run warms up once more
                for _ in range(WARM_UP):
                    self._function(**own)
            torch.cuda.current_stream().wait_stream(aside)
            gc.collect()  # of an earlier trainer's graphs, not while this one is recorded
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=aside):  # its own, for on a shared one graphs share cuBLAS's workspace
                outputs = self._function(**own)
        return _Recording(graph, own, outputs, [parameter.grad for parameter in self._parameters])


def recorded(
    module: nn.Module, device: torch.device, function: Callable[..., dict[str, torch.Tensor]]
) -> Callable[..., dict[str, torch.Tensor]]:
    """Return `function`, on CUDA if this process is alone as `Recorded`."""
    return Recorded(module, function) if device.type == "cuda" and Parallel.count() == 1 else function
