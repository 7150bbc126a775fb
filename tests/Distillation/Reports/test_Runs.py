"""Runs are grouped and named."""

from Distillation.Reports.Runs import find_runs, group_runs
from Distillation.Reports.Tables import scores
from tests.Distillation.made_up import write_run


def test_runs_are_grouped_by_all_but_their_seeds_and_named_by_what_differs(tmp_path):
    for k in range(3):
        settings = {"stack": 4} if k else {}  # a run from before there was a setting had its default
        write_run(tmp_path / f"a{k}", run_index=k, num_workers=k, PPD_parameter=5.0, finals=0.8 + k / 10, **settings)
    write_run(tmp_path / "b", PPD_parameter=1.0, finals=0.5)
    write_run(tmp_path / "deep" / "er" / "c", method="BC_phase", mode="ImpaalaMid", dataset="10k")
    for stack, loss_type in ((4, "KL"), (1, "KL"), (4, "NLL")):
        settings = {"dataset": "10k", "stack": stack, "loss_type": loss_type}
        write_run(tmp_path / f"e{stack}{loss_type}", method="BC_phase", mode="ImpaalaSmall", **settings)
    cloning = {"method": "BC_phase", "mode": "State", "dataset": "10k", "mode_alpha": "constant"}
    for alpha in (0.0, 0.6):
        write_run(tmp_path / f"parent{alpha}", **cloning, alpha=alpha)
        for k in range(2):
            parent = {**cloning, "alpha": alpha, "run_index": k}
            data = {"samples": 10000, "crc32": k}  # collected on two machines
            settings = {"run_index": k, "dataset": "10k", "parent": parent, "data": data}
            before = {"x_axis/optimization_steps": 1000 * (k + 1), "time/elapsed_s": 60.0}
            write_run(tmp_path / f"d{alpha}{k}", method="Dagger_phase", **settings, before=before)
    write_run(tmp_path / "linear", **cloning | {"mode_alpha": "linear"}, alpha=0.0)
    groups = {group.label: group for group in group_runs(find_runs([tmp_path]))}
    assert {label: len(group.runs) for label, group in groups.items()} == {
        "PPD State": 3,
        "PPD State, λ 1": 1,
        "BC ImpaalaMid 10k": 1,
        "BC ImpaalaSmall 10k, KL": 1,
        "BC ImpaalaSmall 10k, KL, stack 1": 1,
        "BC ImpaalaSmall 10k, NLL": 1,  # the default, but here the rarer
        "BC State 10k": 1,
        "BC State 10k, α 0.6": 1,
        "BC State 10k, α linear": 1,
        "DAgger State 10k": 2,
        "DAgger State 10k, parent's α 0.6": 2,
    }
    dagger = groups["DAgger State 10k"].runs
    after = [run.series("x_axis/optimization_steps", "time/elapsed_s")[:, -1].tolist() for run in dagger]
    assert after == [[1301, 241], [2301, 241]]  # with what cloning took
    table = scores(find_runs([tmp_path]))
    assert table[0][:7] == ["", "runs", "updates", "episodes", "return", "normalized", "normalized, ID"]
    row = next(row for row in table if row[0] == "PPD State")
    assert row[1:4] == ["3 (3 unfinished)", "300", ""]
    assert row[5].startswith("0.900 [0.8")
    worst, teacher, zero = table[-3:]
    assert worst[0] == "PPD State, λ 1"
    assert worst[4:] == ["-40.00", "0.500", "0.500", "0.25", "0.9000", "3.0"]
    assert teacher[4:8] == ["-25.00", "1.000", "1.000", "0.95"]
    assert zero[4:7] == ["-55.00", "0.000", "0.000"]
