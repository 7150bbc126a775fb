"""Draw a run: return against updates, with its teacher and standing still."""

import csv
from pathlib import Path

from Distillation.Utils import OneLineParser


def draw_curve(folder: Path) -> Path:
    """Draw `curve.png` from a run's `metrics.csv`; returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("test/OD/return")]
    steps = [float(row["x_axis/optimization_steps"]) for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for part, colour, label in (
        ("ID", "tab:blue", "seeds of the dataset (ID)"),
        ("OD", "tab:orange", "other seeds (OD)"),
    ):
        left.plot(steps, [float(row[f"test/{part}/return"]) for row in rows], color=colour, marker=".", label=label)
        left.axhline(float(rows[0][f"test/{part}/teacher_return"]), color=colour, linestyle="--", linewidth=1)
        right.plot(steps, [float(row[f"test/{part}/success"]) for row in rows], color=colour, marker=".", label=label)
    left.plot([], [], color="gray", linestyle="--", linewidth=1, label="teacher on the same seeds")
    left.set(xlabel="gradient updates", ylabel="return")
    right.set(xlabel="gradient updates", ylabel="success", ylim=(-0.03, 1.03))
    left.legend(fontsize=8)
    figure.suptitle(folder.name, fontsize=10)
    path = folder / "curve.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def main() -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="a run's folder")
    arguments = parser.parse_args()
    if not (arguments.run / "metrics.csv").is_file():
        parser.error(f"{arguments.run}: no run (a folder with metrics.csv is needed)")
    print(draw_curve(arguments.run))


if __name__ == "__main__":
    main()
