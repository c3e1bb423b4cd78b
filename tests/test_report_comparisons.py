"""Comparisons of systems: names, families of tests, and what is averaged over tasks."""

from lora_bench.report import load_records
from lora_bench.report.cells import make_cells
from lora_bench.report.layout import DEFAULT, as_published
from lora_bench.report.pairs import paired_table, pairs_table
from lora_bench.report.readme import comparisons
from tests.report_records import made_up, seeded, tables_of


def cells_of(folder):
    return make_cells(load_records(folder), "last")


def test_a_task_with_more_seeds_weighs_as_much_as_another_over_tasks(tmp_path):
    for task, count, scores in (("sst2", 8, (0.92, 0.90)), ("cola", 3, (0.30, 0.70))):
        for method, score in zip(("lora", "full"), scores, strict=True):
            seeded(
                tmp_path,
                f"task={task}",
                f"method={method}",
                last=dict.fromkeys(range(count), score),
            )
    rows = tables_of(tmp_path)["overall"].rows.set_index("method")
    assert rows.IQM.to_dict() == {"lora r=8": "61.0", "full": "80.0"} == rows.average.to_dict()


def test_rows_over_tasks_are_in_the_order_of_what_they_show(tmp_path):
    """By the seeds that all systems have, without which lora would be last."""
    for task in ("cola", "rte"):
        seeded(tmp_path, f"task={task}", "method=full", last={0: 0.4, 1: 0.4})
        seeded(tmp_path, f"task={task}", "method=lora", last={0: 0.5, 1: 0.5, 2: 0.0})
    rows = tables_of(tmp_path)["overall"].rows
    assert list(zip(rows.method, rows.average, strict=True)) == [
        ("full", "40.0"),
        ("lora r=8", "50.0"),
    ]


def test_holm_corrects_over_the_tasks_of_a_pair_whichever_is_better(tmp_path):
    noise = {seed: seed / 1000 for seed in range(6)}
    for task, gain in (("cola", 0.1), ("rte", -0.1)):
        seeded(tmp_path, f"task={task}", "method=lora", last={s: 0.5 + n for s, n in noise.items()})
        better = {s: 0.5 + gain + 2 * n for s, n in noise.items()}
        seeded(tmp_path, f"task={task}", "method=full", last=better)
    rows = pairs_table(cells_of(tmp_path)).rows
    assert sorted(zip(rows.task, rows.system, rows.than, strict=True)) == [
        ("cola", "full", "lora r=8"), ("rte", "lora r=8", "full")]  # fmt: skip
    assert set(rows.p) == {"0.031"} and set(rows["p, Holm"]) == {"0.062"}
    assert list(rows.result) == [None, None]


def test_a_name_that_covers_some_tasks_only_is_noted_beside_the_correction(tmp_path):
    for task, rates in (("cola", (1, 2)), ("rte", (1,))):
        seeded(tmp_path, f"task={task}", "method=lora", last={0: 0.5, 1: 0.6})
        for lr in rates:
            seeded(
                tmp_path, f"task={task}", "method=bitfit", f"train.lr={lr}", last={0: 0.5, 1: 0.6}
            )
    note = "bitfit lr=2: different systems, each corrected over its own tasks only."
    assert note in paired_table(cells_of(tmp_path)).notes


def test_a_task_with_two_data_sizes_has_rows_that_say_which(tmp_path):
    for rows in (50, 100):
        for method in ("lora", "full"):
            for seed in (0, 1):
                made_up(tmp_path, f"method={method}", f"data.train_rows={rows}", f"seed={seed}")
    found = paired_table(cells_of(tmp_path)).rows
    assert sorted(found.condition) == ["train_rows=100", "train_rows=50"]
    line = "fewer than the 7 seeds that can show a difference on one task: full"  # two "tasks"
    assert line in comparisons(paired_table(cells_of(tmp_path)))


def test_a_failed_run_of_a_task_without_scores_hides_no_average(tmp_path):
    for task in ("cola", "sst2"):
        made_up(tmp_path, f"task={task}")
    made_up(tmp_path, "task=rte", status="failed")
    table = as_published(tables_of(tmp_path)["methods"], DEFAULT)
    assert table.rows.average.tolist()[1] == "50.0"
    assert table.heading("rte accuracy") == ("RTE", "Acc.")


def test_targets_that_vary_with_the_rank_are_part_of_the_names(tmp_path):
    for rank, targets in ((18, "[query,key]"), (36, "[query]")):
        made_up(tmp_path, f"method.rank={rank}", f"method.targets={targets}")
    assert set(cells_of(tmp_path).label) == {
        "lora r=18 targets=[query,key]", "lora r=36 targets=[query]"}  # fmt: skip
