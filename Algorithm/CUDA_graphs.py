"""Functions captured as CUDA graphs (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

An update is hundreds of small kernels. Launched one by one they keep the CPU busy for longer than the GPU. A graph is one launch.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from Common import Parallel

WARM_UP = 3  # calls before a capture, in which libraries allocate the memory they keep


@dataclass
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    gradients: list[torch.Tensor | None]


class GraphedFunction:
    """Replays a function of tensors, which may leave gradients in a module, from one graph for each shape of its inputs.

    Apart from its inputs the function must read the same memory each time, and it must never wait for the GPU. Random numbers
    are new in each call.

    Args:
        module: its parameters get the gradients that the function leaves.
        function: takes tensors on the module's device and returns detached ones (a capture fails while an earlier call's
            autograd graph is alive), without further effects. If it makes gradients, it first sets the old ones to None.
    """

    def __init__(self, module: nn.Module, function: Callable[..., dict[str, torch.Tensor]]):
        self._parameters, self._function = list(module.parameters()), function
        self._graphs: dict[tuple[torch.Size, ...], _Graph] = {}

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the function returns for `inputs`."""
        shapes = tuple(value.shape for value in inputs.values())
        if shapes not in self._graphs:
            self._graphs[shapes] = self._capture(inputs)
        captured = self._graphs[shapes]
        for name, value in inputs.items():
            captured.inputs[name].copy_(value)
        for parameter, gradient in zip(self._parameters, captured.gradients):
            parameter.grad = gradient
        captured.graph.replay()
        return {name: value.clone() for name, value in captured.outputs.items()}

    def _capture(self, inputs: dict[str, torch.Tensor]) -> _Graph:
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
        return _Graph(graph, own, outputs, [parameter.grad for parameter in self._parameters])


def graphed(
    module: nn.Module, device: torch.device, function: Callable[..., dict[str, torch.Tensor]]
) -> Callable[..., dict[str, torch.Tensor]]:
    """Return `function`, on CUDA if this process is alone as a `GraphedFunction`."""
    return GraphedFunction(module, function) if device.type == "cuda" and Parallel.count() == 1 else function
