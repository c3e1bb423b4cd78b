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


def _gains(folder, *, failed=(), seeds=range(10)):
    """Full fine-tuning ten points above LoRA on two tasks, without the runs of some seeds."""
    for task in ("cola", "rte"):
        for method, last in (("lora", 0.5), ("full", 0.6)):
            kept = [s for s in seeds if method == "lora" or s not in failed]
            noise = {s: last + (7 * s % 5 + (method == "full") * s) / 1000 for s in kept}
            seeded(folder, f"task={task}", f"method={method}", last=noise)
            for seed in {*seeds} - {*kept}:
                made_up(folder, f"task={task}", f"method={method}", f"seed={seed}", status="failed")


def test_a_system_with_failed_runs_is_not_called_better_for_the_others(tmp_path):
    """The mean over the runs that did not fail is too good."""
    _gains(tmp_path, failed=(7, 8, 9))
    tables = tables_of(tmp_path)
    assert set(tables["paired"].rows.result) == {"runs failed"}
    assert "- runs failed on cola and rte: full" in comparisons(tables["paired"])
    assert not tables["methods"].best and not tables["overall"].best
    assert any("3 of cola matthews (missing for full)" in n for n in tables["overall"].notes)
    assert any("are over different seeds; compare" in n for n in tables["methods"].notes)


def test_seeds_needed_are_never_fewer_than_the_corrected_test_needs(tmp_path):
    _gains(tmp_path)
    rows = paired_table(cells_of(tmp_path)).rows
    assert set(rows.result) == {"better"} and set(rows["seeds needed"]) == {7}


def test_columns_of_one_task_are_not_averaged_as_tasks(tmp_path):
    for rows in (50, 100):
        for method in ("lora", "full"):
            for seed in (0, 1):
                words = ("task=sst2", f"data.train_rows={rows}", f"method={method}")
                made_up(tmp_path, *words, f"seed={seed}", last=0.5 + 0.1 * seed)
    tables = tables_of(tmp_path)
    assert "average" not in tables["methods"].rows
    assert tables["overall"].title.startswith("Methods over 2 columns")


def test_equal_differences_have_no_spread_whatever_float_noise_they_have(tmp_path):
    for method, gain in (("lora", 0.0), ("full", 0.1)):
        last = {seed: 0.3 + seed / 7 + gain for seed in range(3)}
        seeded(tmp_path, "task=sst2", f"method={method}", last=last)
    assert paired_table(cells_of(tmp_path)).rows["seeds needed"].tolist() == [None]
