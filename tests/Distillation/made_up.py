"""Made-up runs."""

import csv
import json


def write_run(folder, method="PPD", mode="State", finals=1.0, tests=4, **settings):
    """A run's folder as the logger leaves it, with made-up figures that rise linearly to `finals`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"method": method, "mode": mode, "run_index": 0, **settings}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        names = ["x_axis/optimization_steps", "x_axis/samples_collected", "time/elapsed_s", "training/loss"]
        parts = [f"test/{part}/" for part in ("ID", "OD")]
        figures = ["return", "normalized_return", "success", "action_accuracy", "teacher_return", "zero_return"]
        writer = csv.writer(file)
        writer.writerow([*names, *(part + figure for part in parts for figure in figures), "test/OD/teacher_success"])
        for i in range(tests):
            score = finals * i / (tests - 1)
            row = [i * 100, i * 1000, i * 60.0, 1.0 / (i + 1)]
            writer.writerow([*row, *[-55 + 30 * score, score, score / 2, 0.9, -25.0, -55.0] * 2, 0.95])
            writer.writerow([*(value + 1 for value in row), *[""] * 13])  # a row between two tests
    return folder
