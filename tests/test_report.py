"""Tables against made-up records."""

import pandas as pd
import pytest

from lora_bench.__main__ import compose
from lora_bench.record import Record, write
from lora_bench.report import load_records
from lora_bench.report.tables import failures, fold_constants, mean_spread, method_table, score_table, to_markdown


def made_up(folder, *overrides, last=0.5, best=0.6, status="ok"):
    """Write a record as a run would."""
    spec = compose(list(overrides))
    name = spec.task.metrics[0]
    epochs = [{"epoch": 1, "loss": 1.0, "scores": {name: best}}, {"epoch": 2, "loss": 0.5, "scores": {name: last}}]
    write(
        folder / spec.key(),
        Record(
            spec.key(), status, spec.to_dict(), "python -m lora_bench", "now", {},
            data={"train": {"rows": 1200}, "validation": {"rows": 400, "chance": {name: 0.0}, "ceiling": {name: 0.9}}},
            epochs=epochs, best=epochs[0], last=epochs[1], adapter_bytes=1 << 20, train_seconds=10.0,
            tokens_per_second=900.0, parameters={"adapter": 73728, "trained": 222338},
            error=None if status == "ok" else "it broke",
        ),
    )  # fmt: skip


def test_seeds_make_one_cell_and_protocols_are_apart(tmp_path):
    for seed, last in enumerate((0.5, 0.6, 0.7)):
        made_up(tmp_path, f"seed={seed}", last=last, best=last + 0.1)
    made_up(tmp_path, "method.rank=4", last=0.2)
    made_up(tmp_path, "method=full", "train.lr=1e-4", status="failed")
    runs = load_records(tmp_path)
    table = score_table(runs, "last").set_index("rank")
    assert list(table.index) == [4, 8]
    assert table.loc[8, "score"] == "matthews 60.0 ± 10.0" and table.loc[8, "n"] == 3
    assert table.loc[4, "score"] == "matthews 20.0" and table.loc[8, "ceiling"] == "90.0"
    assert score_table(runs, "best").set_index("rank").loc[8, "score"] == "matthews 70.0 ± 10.0"
    assert failures(runs).error.tolist() == ["it broke"]


def test_other_recipes_rows_or_policies_are_other_rows(tmp_path):
    for override in (
        "seed=0",
        "train.lr=2e-3",
        "method.alpha=8",
        "method.biases=all",
        "precision=bf16",
        "head=article",
    ):
        made_up(tmp_path, override)
    assert score_table(load_records(tmp_path), "last").n.tolist() == [1] * 6


def test_constant_columns_are_said_once_and_gaps_are_dashes(tmp_path):
    made_up(tmp_path)
    made_up(tmp_path, "method=head_only")
    rest, line = fold_constants(score_table(load_records(tmp_path), "last"))
    assert line == "All rows: model minilm; data toy, 1,200 rows; n 1." and "model" not in rest
    text = to_markdown(rest)
    assert "| head_only | –" in text and "73,728" in text and "nan" not in text


def test_methods_stand_side_by_side_and_recipes_are_never_chosen_between(tmp_path):
    for seed, last in enumerate((0.5, 0.7)):
        made_up(tmp_path, f"seed={seed}", last=last)
    made_up(tmp_path, "method=head_only", last=0.1)
    made_up(tmp_path, "method=full", "train.lr=1e-4", last=0.65)
    made_up(tmp_path, "method=full", "train.lr=2e-4", last=0.55)
    made_up(tmp_path, "method=bitfit", status="failed")
    table = method_table(load_records(tmp_path), "last")
    assert table["lora r=8"].tolist() == ["60.0 ± 14.1 (n=2)"] and table["head_only"].tolist() == ["10.0 (n=1)"]
    full = [c for c in table if c.startswith("full (")]
    assert sorted(table[c].item() for c in full) == ["55.0 (n=1)", "65.0 (n=1)"]
    order = [c for c in table if c not in ("task", "metric", "model", "data", "chance", "ceiling")]
    assert order[0] == "head_only" and "bitfit" not in order and "bag_of_words" not in table
    assert table[["chance", "ceiling"]].values.tolist() == [["0.0", "90.0"]]


def test_only_failed_runs_make_empty_tables_and_a_list(tmp_path):
    made_up(tmp_path, status="failed")
    runs = load_records(tmp_path)
    assert score_table(runs, "last").empty and method_table(runs, "last").empty and len(failures(runs)) == 1
    assert to_markdown(fold_constants(method_table(runs, "last"))[0]) is not None


def test_no_runs_make_an_empty_table(tmp_path):
    assert load_records(tmp_path).empty
    assert score_table(pd.DataFrame({"status": []}), "last").empty


def test_spread_is_the_sample_standard_deviation():
    assert mean_spread(pd.Series([1.0, 3.0])) == "2.0 ± 1.4"
    assert mean_spread(pd.Series([1.0])) == pytest.approx("1.0")
