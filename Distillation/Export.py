"""Export a policy as an ONNX model, which needs neither PyTorch nor this repository, or as one small `.pt`; and its card."""

import importlib.util
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

from Common.Command_line import OneLineParser, one_line_errors
from Common.Errors import BadFile, BadInput, brief
from Common.Files import check_output, plain, replacing, write_text

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
EXAMPLE = "examples/onnx_student.py"
TOLERANCE = 1e-4  # between the exported model's actions and PyTorch's


def describe_policy(policy: Any, card: dict[str, Any], task: Any) -> dict[str, Any]:
    """Return the card of an exported policy: its origin, its inputs and its outputs."""
    from Enviroment.Renderer import FAST, FAST_OFF

    inputs: dict[str, Any] = {}
    for vector in policy.inputs:
        if vector not in policy.images:
            name, entries = "proprioception", list(task.proprioception)
            if vector == "State":
                name, entries = "state", list(range(*policy.input_shapes[vector]))
            inputs[name] = {"dtype": "float32", "shape": ["batch", len(entries)], "state_entries": entries}
    for image in policy.images:
        name = "frames" if image == "Frame" else f"frames_{image}"
        steps = [-k * policy.stack.stride for k in range(policy.stack.length - 1, -1, -1)]
        inputs[name] = {"dtype": "uint8", "shape": ["batch", *policy.input_shapes[image]], "steps": steps}
        inputs[name]["camera"] = plain(task.seen[image].description())
    for name, shape in memory_of(policy).items():
        inputs[name] = {"dtype": "float32", "shape": ["batch", *shape]}
    described = {key: value for key, value in card.items() if key not in ("render", "precision")}
    if policy.images:
        fast = card["render"]["quality"] == "fast"
        opengl = {"vis_quality": FAST if fast else {}, "flags_off": [int(flag) for flag in FAST_OFF] if fast else []}
        described["render"] = {**card["render"], **opengl}
    low, high = policy.arguments["action_low"], policy.arguments["action_high"]
    outputs: dict[str, Any] = {"action": {"dtype": "float32", "shape": ["batch", len(low)], "low": low, "high": high}}
    outputs |= {f"next_{name}": inputs[name] for name in memory_of(policy)}
    return {**described, "env_id": task.env_id, "inputs": inputs, "outputs": outputs}


def memory_of(policy: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of a recurrent policy's state by its name as an input of the model; other policies have none."""
    return {key.lower(): shape for key, shape in getattr(policy, "memory_shapes", {}).items()}


def check_packages() -> None:
    """Raise `BadInput` where an optional package is missing."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise BadInput(f"export to ONNX needs {' '.join(missing)}: pip install {' '.join(missing)}")


def export_onnx(policy: Any, card: dict[str, Any], path: Path) -> float:
    """Write the mean action of a policy (on the CPU, in fp32) and its preprocessing as an ONNX model; returns its error.

    A recurrent policy's state goes in, zeros at an episode's first step, and comes out. The error is the largest difference to
    PyTorch's outputs on random input, in the action's units. `card`, of `describe_policy`, becomes the model's metadata
    `card`, as JSON.

    Raises:
        BadInput: the error is above 1e-4.
    """
    import onnxruntime
    import torch

    from Models.Memory import FEATURES

    keys = sorted(policy.inputs, key=lambda key: key in policy.images)  # as the card has them: a vector, then frames
    states = getattr(policy, "memory_shapes", {})
    shapes = policy.input_shapes | states

    class MeanAction(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            obs = dict(zip((*keys, *states), inputs))
            after = {FEATURES: policy.features(obs)} if states else {}
            distribution = policy.distribution(obs | after)
            return distribution.action(distribution.mean), *after.values()

    generator = torch.Generator().manual_seed(0)

    def example(batch: int) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.randint(256, (batch, *shapes[key]), generator=generator, dtype=torch.uint8)
            if key in policy.images
            else torch.randn((batch, *shapes[key]), generator=generator)
            for key in (*keys, *states)
        )

    module = MeanAction().eval()
    content = _onnx_model(module, example(2), card)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = example(7)
    outputs = session.run(None, {name: part.numpy() for name, part in zip(card["inputs"], inputs)})
    with torch.no_grad():
        pairs = zip(outputs, module(*inputs))
        difference = max(float((torch.from_numpy(found) - wanted).abs().max()) for found, wanted in pairs)
    if not difference <= TOLERANCE:
        raise BadInput(f"{path}: not written, for the exported model's actions differ by {difference:.1e}")
    with replacing(path) as file:
        file.write(content)
    return difference


def _onnx_model(module: Any, inputs: tuple[Any, ...], card: dict[str, Any]) -> bytes:
    """Return a module as an ONNX model of any batch size, with the card in its metadata."""
    import onnx
    import torch

    shapes = (({0: torch.export.Dim("batch")},) * len(inputs),)  # of the one argument `*inputs`
    names: dict[str, Any] = {"input_names": list(card["inputs"]), "output_names": list(card["outputs"])}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports torchvision's absence, among other things
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, inputs, **names, dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto  # a new one on each access
    onnx.helper.set_model_props(model, {"card": json.dumps(card)})
    return model.SerializeToString()


def card_text(card: dict[str, Any], name: str, task: Any) -> str:
    """Return a card in Markdown, for people."""
    from Algorithm.Test_model import table
    from Distillation.Reports.Commands import commands

    scores = card.get("scores")
    lines = [f"# {name}", "", f"A policy for `{task.name}`: {card['mode']}, by {card['method']}.", ""]
    if scores and "figures" in scores:
        lines += [f"Seeds {scores['seeds']}, deterministic:", "", "```", table(scores["figures"], task), "```", ""]
    elif scores:
        figures = (f"- {key}: {value:.4g}" for key, value in scores.items())
        lines += ["Its last test while it trained:", "", *figures, ""]
    if calls := commands(card):
        told = f"What trains it{_by_whom(card, task)}, with defaults for all else:"
        lines += [told, "", "```bash", *calls, "```", ""]
    lines += ["| | | type | shape | |", "|---|---|---|---|---|"]
    for way in ("inputs", "outputs"):
        for key, spec in card[way].items():
            if key in ("memory", "next_memory"):
                what = "zeros at an episode's first step" if way == "inputs" else "is `memory` of the next step"
            elif way == "outputs":
                limits = spec["low"], spec["high"]
                low, high = (f"{values[0]:g}" if len(set(values)) == 1 else values for values in limits)
                what = f"in the environment's units, from {low} to {high}"
            elif "steps" in spec:
                what = f"{_shown(spec['camera'])} of steps {spec['steps']} from now, an episode's first for those before it"
            else:
                first, last = spec["state_entries"][0], spec["state_entries"][-1]
                which = f"{first}-{last}" if spec["shape"][1] == last - first + 1 else str(spec["state_entries"])
                what = f"entries {which} of the environment's observation, as they are"
            lines.append(f"| {way[:-1]} | `{key}` | {spec['dtype']} | {spec['shape']} | {what} |")
    if name.endswith(".onnx") and any("steps" in spec for spec in card["inputs"].values()):
        lines += ["", f"`{EXAMPLE}` runs it in plain Gymnasium, its frames drawn by MuJoCo alone."]
    return "\n".join([*lines, "", "```json", json.dumps(card, indent=2), "```", ""])


def _by_whom(card: dict[str, Any], task: Any) -> str:
    """Return what has to be given besides, where a student's teacher is not the one that the task has."""
    from Algorithm.Teacher_source import teacher_hash

    try:
        same = card.get("teacher_sha256") == teacher_hash(None, task)
    except BadInput:
        same = False
    return "" if same else f" with another `--teacher` than {task.name}'s own"


def _shown(camera: dict[str, Any]) -> str:
    """Return what the numbers in a camera's frames are."""
    if camera["frames"] == "depth":
        return "depth, 0 at {} m to 255 at {} m,".format(*camera["depth_range"])
    return "grayscale 0-255" if camera["frames"] == "gray" else "red, green and blue 0-255"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="a student, a run's folder, or a teacher")
    output = "an .onnx, or a .pt for this repository (default: the checkpoint's name with .onnx)"
    parser.add_argument("--output", type=Path, help=output)
    parser.add_argument("--seeds", help="score it on these episodes for the card, for example 1900-1999")
    arguments = parser.parse_args(argv)
    with one_line_errors(parser.prog):
        export(arguments.checkpoint, arguments.output, arguments.seeds)


def export(source: Path, output: Path | None, seeds_text: str | None) -> None:
    """Write a checkpoint's policy and its card; see the command line."""
    output = output or (source / "student.onnx" if source.is_dir() else source.with_suffix(".onnx"))
    from Enviroment.GL import find_gl_backend

    find_gl_backend()
    import torch

    from Algorithm.Policies import open_policy
    from Algorithm.Test_model import parse_seeds
    from Distillation.Play import score
    from Models.Base_Model import ActorCritic
    from Models.Model_Pusher import get_Teacher_model, save_student

    if output.suffix not in (".onnx", ".pt"):
        raise BadInput(f"--output {output}: a file name ending in .onnx or .pt is needed")
    check_output(output, [source])
    policy, card, task = open_policy(source)
    if output.suffix == ".onnx":
        check_packages()
        policy.precision = "fp32"  # of what is exported
    elif not isinstance(policy, ActorCritic):
        raise BadInput(f"{source}: a teacher is as small as it gets; --output to an .onnx is for it")
    else:  # scored as it is kept
        policy = policy.for_acting()
        policy.load_state_dict({name: value.half() for name, value in policy.state_dict().items()})
    if seeds_text:
        quality = card["render"]["quality"] if policy.images else "fast"
        seeds = parse_seeds(seeds_text)
        report, _ = score(policy, get_Teacher_model(task=task.name), task, seeds, render_quality=quality)
        card = card | {"scores": {"seeds": seeds_text, "figures": report}}
    try:
        described = describe_policy(policy, card, task)
        text = card_text(described, output.name, task)
    except Exception as error:  # foreign content may break anything
        raise BadFile(f"{source}: its card is damaged ({type(error).__name__}: {brief(error)})") from error
    if output.suffix == ".onnx":
        difference = export_onnx(policy, described, output)
        print(f"actions equal PyTorch's to {difference:.0e}")
    else:
        save_student(output, policy, card, torch.float16)
    written = output.with_suffix(".md")
    write_text(written, text)
    print(f"{'model' if output.suffix == '.onnx' else 'student':<8}{output}\n{'card':<8}{written}")


if __name__ == "__main__":
    main()
