"""Shows reports of robustness: as a table, in a few lines, and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from Algorithm.Robustness import SIZES, TRAINED
from Distillation.Reports.Curves import MARKERS, STYLE

# The unit in which a kind's strengths are shown, and how many of it make one of `Views`; that of all others is percent.
UNITS: dict[str, tuple[str, float]] = {
    "camera_position": ("cm", 100),
    "camera_angle": ("°", 1),
    "light_direction": ("°", 1),
    "brightness": ("gray levels", 1),
    "noise": ("gray levels", 1),
    "delayed_frames": ("steps", 1),
    "delayed_actions": ("steps", 1),
}
PANELS = {
    "camera": ("camera_position", "camera_angle", "camera_distance"),
    "light and colours": ("light", "light_direction", "light_colour", "colour", "texture"),
    "sensor": ("brightness", "contrast", "noise", "dropped_frames", "delayed_frames"),
    "physics": ("mass", "friction", "damping", "delayed_actions"),
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D31")  # colour-blind people can tell them apart
NOTE = (
    "Normalized return / success under one shift at a time, of its full size in a random direction. Normalized: the teacher "
    "under the same physics is 1, the baseline 0. The views small and large vary the kinds with a *"
)


def words(kind: str) -> str:
    """Return the name of a kind of shift, or of a change of observations, as words."""
    return kind.replace("_", " ") + ("*" if kind in TRAINED else "")


def strengths(kind: str, found: Mapping[str, Any]) -> str:
    """Return the strengths with their unit from a report's figures of a kind."""
    unit, factor = UNITS.get(kind, ("%", 100))
    return ", ".join(f"{found[size]['strength'] * factor:g}" for size in SIZES) + f" {unit}"


def robustness_table(report: Mapping[str, Any]) -> list[list[str]]:
    """Return a report as a table: its head, nothing shifted, every kind, means and worst cases, and camera use."""
    rows = [["clean", "", _cell(report["clean"]), "", ""]]
    rows += [
        [words(kind), strengths(kind, found), *(_cell(found[size]) for size in SIZES)]
        for kind, found in report["shifts"].items()
    ]
    for kinds, sizes in report["overall"].items():
        if kinds == "all" and report["shifts"].keys() <= set(TRAINED):
            continue  # the others say the same
        for figure in ("mean", "worst"):
            cells = [f"{sizes[size][figure]:.3f}" if size in sizes else "" for size in SIZES]
            rows.append([f"{figure} of {'those with *' if kinds == 'trained' else 'all'}", "", *cells])
    rows += [[words(name), "", _cell(found), "", ""] for name, found in report.get("camera_use", {}).items()]
    return [["", "strengths", *SIZES], *rows]


def _cell(found: Mapping[str, float]) -> str:
    figures = (("normalized_return", ".3f"), ("success", ".2f"))
    return " / ".join(f"{found[name]:{form}}" for name, form in figures if name in found)


def verdict(report: Mapping[str, Any]) -> str:
    """Say in a sentence whether a student that sees uses its camera."""
    clean, use = report["clean"].get("normalized_return", float("nan")), report["camera_use"]
    blank, swapped = (use[name].get("normalized_return", float("nan")) for name in ("frames_blanked", "frames_swapped"))
    figures = f"normalized return {clean:.2f}, {blank:.2f} with blank frames, {swapped:.2f} with another episode's"
    ignores = report["ignores_camera"]
    if ignores is None:
        return f"It scores too little to tell whether it uses its camera: {figures}."
    return f"It {'ignores' if ignores else 'uses'} its camera: {figures}."


def digest(report: Mapping[str, Any]) -> str:
    """Return a report in a few lines: the clean score, mean and worst of the small and the large shifts, and camera use.

    The clean score is without views, whatever the run was trained and tested on.
    """
    sizes = report["overall"]["all"]
    lines = [
        f"robustness: normalized return over {report['episodes']} episodes, clean and under {len(report['shifts'])} kinds of "
        "shifts, one at a time (docs/robustness.md):",
        f"{'':<9}{'mean':>8}{'worst':>8}",
        f"{'clean':<9}{report['clean'].get('normalized_return', float('nan')):>8.3f}",
    ]
    for size in (size for size in (SIZES[0], SIZES[-1]) if size in sizes):
        found = sizes[size]
        lines.append(f"{size:<9}{found['mean']:>8.3f}{found['worst']:>8.3f}   {words(found['kind']).rstrip('*')}")
    return "\n".join([*lines, verdict(report)] if "camera_use" in report else lines)


def draw_robustness(report: Mapping[str, Any], path: Path) -> Path:
    """Draw a report into `path`, a .png, .pdf or .svg file, whose folder is made; returns it.

    Each line is the normalized return over the strength of one kind of shift, solid where the views small and large vary
    it. Bars show camera use.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = {
        name: own for name, kinds in PANELS.items() if (own := [kind for kind in kinds if kind in report["shifts"]])
    }
    number = len(panels) + ("camera_use" in report)
    columns = 2 if number == 4 else min(3, number)
    rows = -(-number // columns)
    with plt.rc_context(STYLE):
        size = (4.6 * columns, 4.2 * rows)
        figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        axes = list(grid.flat)
        for one, (name, kinds) in zip(axes, panels.items()):
            _draw_kinds(one, report, name, kinds)
        if "camera_use" in report:
            _draw_camera_use(axes[len(panels)], report)
        for one in axes[number:]:
            one.remove()
        limits = [limit for one in axes[: len(panels)] for limit in one.get_ylim()]
        for one in axes[: len(panels)]:
            one.set_ylim(max(min(limits), -1), min(max(limits), 1.6))  # what is worse falls below the picture
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"CreationDate" if path.suffix == ".pdf" else "Date": None})
        plt.close(figure)
    return path


def _draw_kinds(axes: Any, report: Mapping[str, Any], name: str, kinds: Sequence[str]) -> None:
    """Draw the curve of each kind, from nothing shifted to its largest shift."""
    clean = report["clean"].get("normalized_return", float("nan"))
    for kind, colour, marker in zip(kinds, COLOURS, MARKERS):
        found = report["shifts"][kind]
        scores = [found[size].get("normalized_return", float("nan")) for size in SIZES]
        label = f"{words(kind)} {strengths(kind, found)}"
        look = {"color": colour, "marker": marker, "linestyle": "-" if kind in TRAINED else "--"}
        axes.plot(("none", *SIZES), [clean, *scores], markersize=5, label=label, **look)
    axes.axhline(1, color="black", linestyle=(0, (6, 3)), linewidth=1.2)
    axes.axhline(0, color="gray", linestyle=(0, (2, 2)), linewidth=1.2)
    axes.set(title=name, ylabel="normalized return")
    axes.legend(fontsize=8.5, framealpha=0.6)


def _draw_camera_use(axes: Any, report: Mapping[str, Any]) -> None:
    """Draw the score with changed observations as bars, and the clean one as a line."""
    uses = report["camera_use"]
    scores = [found.get("normalized_return", float("nan")) for found in uses.values()]
    bars = axes.barh([words(name).replace(" ", "\n") for name in uses], scores, color=COLOURS[0])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(report["clean"].get("normalized_return", float("nan")), color="black", linestyle=(0, (6, 3)))
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(title="camera use", xlabel="normalized return (dashed: clean)")
    axes.grid(visible=False, axis="y")
