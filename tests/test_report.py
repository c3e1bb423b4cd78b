"""Tables, pictures and the page against made-up records, whose numbers are computed again here."""

import copy
import dataclasses
import itertools
import json
import random
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

from lora_bench.errors import UserError
from lora_bench.plans import write_plan
from lora_bench.record import FILE, read_all, write
from lora_bench.report import load_records, pictures
from lora_bench.report.__main__ import main
from lora_bench.report.build import Choices, all_tables
from lora_bench.report.cells import make_cells
from lora_bench.report.commands import COMMANDS
from lora_bench.report.formats import fold_constants, to_csv, to_latex, to_markdown, to_terminal
from lora_bench.report.methods_table import methods_table
from lora_bench.report.names import distinguishing_settings, show
from lora_bench.report.pairs import paired_table
from lora_bench.report.pictures import draw, pareto
from lora_bench.report.published import load_published, published_pairs, published_table
from lora_bench.report.query import export
from lora_bench.report.readme import README, comparisons, headline, update_readme
from lora_bench.report.sweeps import sweeps
from lora_bench.report.table import Number, Table
from lora_bench.spec import PROCEDURE, Identity, Spec, Start, part_of, settings
from tests.report_records import composed, grid, made_of, made_up, seeded, tables_of

from .helpers import every
from .test_record import OLD

RESULTS = README.parent / "results"
MAIN = RESULTS / "main"
COMMITTED = sorted(path.parent.name for path in RESULTS.glob("*/table_last.md"))
BASELINES = {"low_rank": "full", "placement": "lora r=36"}  # by the first letters of a folder
CONSTRAINTS = README.parent / "constraints.txt"
MNLI = Start("mnli-minilm-lora-r8-0123456789", "f")


def cells_of(folder, protocol="last") -> pd.DataFrame:
    return make_cells(load_records(folder), protocol)


def test_seeds_make_one_cell_and_protocols_are_apart(tmp_path):
    for seed, last in enumerate((0.5, 0.6, 0.7)):
        made_up(tmp_path, f"seed={seed}", last=last, best=last + 0.1)
    made_up(tmp_path, "method.rank=4", last=0.2)
    made_up(tmp_path, "method=full", status="failed")
    methods = tables_of(tmp_path)["methods"]
    column = methods.rows.columns[2]
    assert column == "cola matthews" and "minilm, toy data, 1,200 training rows" in methods.title
    shown = dict(zip(methods.rows.method, methods.rows[column], strict=True))
    assert (
        shown["lora r=8"] == "60.0 ± 10.0 (3)"
        and shown["lora r=4"] == "20.0 (1)"
        and shown["full"] == "failed"
    )
    assert (shown["chance"], shown["ceiling"]) == ("0.0", "90.0")
    assert "**" not in to_markdown(methods)  # one seed of rank 4 may be noise
    best = tables_of(tmp_path, "best")["methods"].rows
    assert "70.0 ± 10.0 (3)" in best[column].tolist()
    assert tables_of(tmp_path)["failed"].rows.error.tolist() == ["it broke"]


def test_a_cell_says_how_many_of_its_runs_failed(tmp_path):
    for seed, status in enumerate(("ok", "ok", "failed")):
        made_up(tmp_path, f"seed={seed}", status=status)
    assert "50.0 ± 0.0 (2, 1 failed)" in to_markdown(tables_of(tmp_path)["methods"])


def test_other_settings_or_rows_are_other_systems_and_none_is_chosen(tmp_path):
    overrides = (
        "seed=0",
        "train.lr=2e-3",
        "method.alpha=8",
        "method.biases=all",
        "precision=bf16",
        "head=article",
        "train.optimizer=adamw8bit",
        "method.layers=[0]",
    )
    for override in overrides:
        made_up(tmp_path, override)
    cells = cells_of(tmp_path)
    assert len(cells) == 8 and (cells.n == 1).all() and cells.label.nunique() == 8
    named = [set(label.split()) for label in cells.label]
    plain = {"lr=0.0015", "alpha=16", "biases=none", "precision=fp32", "head=standard"}
    assert {"lora", "r=8", *plain, "optimizer=adamw", "layers=null"} in named
    for override in overrides[1:]:
        value = override.rpartition(".")[2].replace("2e-3", "0.002")
        assert sum(value in words for words in named) == 1, override
    made_up(tmp_path, "seed=1", "data.train_rows=99", data="d99", rows=99)
    columns = list(tables_of(tmp_path)["methods"].rows.columns)
    expected = {"cola matthews (train_rows=null)", "cola matthews (train_rows=99)"}
    assert set(columns[2:4]) == expected


def test_seeds_with_a_start_of_their_own_are_one_system(tmp_path):
    for seed in (0, 1):
        made_up(tmp_path, "task=rte", f"seed={seed}", start=Start(MNLI.cell, f"f{seed}"))
    made_up(tmp_path, "task=rte")
    cells = cells_of(tmp_path)
    assert sorted(zip(cells.start, cells.n, strict=True)) == [("mnli", 2), ("plain", 1)]
    assert set(cells.label) == {f"lora r=8 init_from={MNLI.cell}", "lora r=8 init_from=null"}


def test_an_average_is_shown_only_if_every_task_has_a_score(tmp_path):
    for task, score in (("cola", 0.2), ("rte", 0.6), ("mnli", 0.7)):
        made_up(tmp_path, f"task={task}", last=score)
        if task != "rte":
            made_up(tmp_path, f"task={task}", "method=full", last=score + 0.1)
    rows = tables_of(tmp_path)["methods"].rows.set_index("method")
    assert list(rows.columns) == [
        "parameters",
        "mnli accuracy_matched",
        "cola matthews",
        "rte accuracy",
        "average",
    ]  # as the paper
    assert rows.loc["lora r=8", "average"] == "50.0" and rows.loc["full", "average"] is None
    assert "–" in to_markdown(tables_of(tmp_path)["methods"])


def test_systems_over_tasks_are_compared_where_nothing_is_missing(tmp_path):
    """Two tasks of six common seeds; a system, a task and a seed that not all have are named."""
    noise = {seed: (7 * seed % 5) / 1000 for seed in range(6)}
    for task, base in (("cola", 0.2), ("rte", 0.6)):
        for method, better in (("full", 0.05), ("lora", 0.0), ("bitfit", -0.05)):
            last = {seed: base + better + more for seed, more in noise.items()}
            seeded(tmp_path, f"task={task}", f"method={method}", last=last)
    seeded(tmp_path, "task=cola", "method=lora", last={9: 0.9})
    made_up(tmp_path, "task=cola", "method=head_only", last=0.1)
    made_up(tmp_path, "task=rte", "method=head_only", status="failed")
    made_up(tmp_path, "task=mrpc", "method=full")
    table = tables_of(tmp_path)["overall"]
    rows = table.rows.set_index("method")
    assert list(rows.index) == ["bitfit", "lora r=8", "full"]
    more = 100 * np.array(sorted(noise.values()))
    assert rows.average.tolist() == [f"{mean + more.mean():.1f}" for mean in (35, 40, 45)]
    assert rows["mean rank"].tolist() == ["3.00", "2.00", "1.00"]
    assert rows["rank interval"].tolist() == [f"[{r}.00, {r}.00]" for r in (3, 2, 1)]
    # six of the twelve scores: the three best ones of cola, the three worst ones of rte
    middle = [*(25 + more[3:]), *(65 + more[:3])]
    assert rows.loc["full", "IQM"] == f"{np.mean(middle):.1f}"
    assert table.best == {(2, 1)}
    assert table.notes[:4] == [
        "Tasks: cola matthews, rte accuracy, with 6 common seeds each.",
        "Systems left out because a score is missing: head_only.",
        "Tasks left out because a score is missing: mrpc accuracy.",
        "Seeds left out, so that all systems and tasks have the same number: 1 of cola matthews "
        "(missing for bitfit, full).",
    ]
    assert "without normalizing" in table.notes[4] and "2 tasks" in table.title


@pytest.mark.parametrize("seeds", [((0, 1), (2, 3)), ((0,), ())])
def test_without_two_tasks_in_common_nothing_is_averaged_over_tasks(seeds, tmp_path):
    """Full and LoRA share cola; of rte they have no seed, or no score, in common."""
    for method, own in zip(("full", "lora"), seeds, strict=True):
        seeded(tmp_path, "task=cola", f"method={method}", last={0: 0.5})
        seeded(tmp_path, "task=rte", f"method={method}", last=dict.fromkeys(own, 0.5))
    table = tables_of(tmp_path)["overall"]
    assert table.rows.empty
    assert table.notes == ["No two systems have a seed in common on two tasks."]


def test_one_seed_has_no_interval_over_tasks(tmp_path):
    for task, last in (("cola", {0: 0.5, 1: 0.6}), ("rte", {0: 0.5})):
        for method in ("full", "lora"):
            seeded(tmp_path, f"task={task}", f"method={method}", last=last)
    table = tables_of(tmp_path)["overall"]
    assert table.rows[["IQM interval", "rank interval"]].isna().all(axis=None)
    assert table.rows["mean rank"].tolist() == ["1.50", "1.50"]
    assert table.rows.average.tolist() == ["50.0", "50.0"]
    assert table.notes[:2] == [
        "Tasks: cola matthews, rte accuracy, with 1 common seed each.",
        "Seeds left out, so that all systems and tasks have the same number: 1 of cola matthews.",
    ]


def test_ranks_alphas_and_squad_have_layouts_of_their_own(tmp_path):
    for rank in (2, 4):
        for alpha in (4, 8):
            made_up(
                tmp_path,
                f"method.rank={rank}",
                f"method.alpha={alpha}",
                last=rank / 10 + alpha / 100,
            )
    found = tables_of(tmp_path)
    grid = found["alpha_rank"].rows
    assert grid.columns.tolist() == ["alpha", "r=2", "r=4"] and grid.alpha.tolist() == ["4", "8"]
    assert grid["r=4"].tolist() == ["44.0 (1)", "48.0 (1)"] and not found["alpha_rank"].best
    assert found["over_rank"].rows["rank"].tolist() == ["2", "4", "2", "4"]
    assert found["over_rank"].rows.system.tolist() == ["lora alpha=4"] * 2 + ["lora alpha=8"] * 2
    assert found["over_rank"].rows["cola matthews"].tolist() == [
        "24.0 (1)", "44.0 (1)", "28.0 (1)", "48.0 (1)"]  # fmt: skip
    for method in ("lora", "full"):
        made_up(tmp_path / "squad", "task=squad_v1", f"method={method}")
    assert tables_of(tmp_path / "squad")["squad"].rows.columns.tolist() == ["method", "squad_v1 f1"]


def test_costs_are_medians_and_constant_columns_are_said_once(tmp_path):
    for seed, seconds in enumerate((10.0, 30.0, 20.0)):
        made_up(tmp_path, f"seed={seed}", train_seconds=seconds)
    made_up(tmp_path, "method=head_only", peak_memory_bytes=None)
    table = tables_of(tmp_path)["costs"]
    assert table.rows["train, s"].tolist() == ["10.0", "20.0"] and table.rows["rank"].tolist() == [
        None,
        8,
    ]
    rest, line = fold_constants(table)
    assert line == "All rows: model minilm; data toy, 1,200 rows." and "model" not in rest.rows
    assert (
        "| head_only | –" in to_markdown(rest)
        and "73,728" in to_markdown(rest)
        and "nan" not in to_markdown(rest)
    )


def test_every_format_holds_the_same_cells():
    rows = pd.DataFrame(
        {"method": ["lora_plus", "full"], "cola": [Number("1.0", "0.1", "2"), None],
         "share %": [5000, 3]},
        dtype=object,
    )  # fmt: skip
    table = Table("t", "A_title", rows, {(0, 1)})
    latex = to_latex(table)
    assert r"lora\_plus & \bfseries 1.0{$_{\pm 0.1}$\,(2)} & 5000 \\" in latex
    assert r"share \%" in latex and r"A\_title" in latex
    assert r"full & {--} & 3 \\" in latex and latex.index(r"\toprule") < latex.index(
        r"\midrule"
    ) < latex.index(r"\bottomrule")
    assert "\033[1m1.0 ± 0.1 (2)\033[0m" in to_terminal(
        table
    ) and "**1.0 ± 0.1 (2)**" in to_markdown(table)
    assert to_csv(table).splitlines()[1:] == ["lora_plus,1.0 ± 0.1 (2),5000", "full,,3"]


def test_only_failed_runs_make_a_list_and_no_tables(tmp_path):
    made_up(tmp_path, status="failed")
    assert tables_of(tmp_path).keys() == {"failed"}
    assert load_records(tmp_path / "none").empty and cells_of(tmp_path / "none").empty


def test_systems_are_compared_over_common_seeds(tmp_path):
    for seed in range(3):
        made_up(tmp_path, f"seed={seed}", last=0.5 + seed / 100)
        made_up(tmp_path, f"seed={seed}", "method=full", last=0.52 + seed / 50)
    made_up(tmp_path, "seed=9", "method=full", last=0.0)
    (row,) = tables_of(tmp_path)["paired"].rows.to_dict("records")
    assert row["system"] == "full" and row["difference"] == "+3.00" and row["n"] == 3
    assert row["interval"] == "[+2.0, +4.0]"


def test_published_numbers_are_complete_and_sourced():
    found = load_published()
    assert (
        len(found) > 250
        and not found.duplicated(
            ["source", "model", "method", "parameters", "rank", "note", "task", "metric"]
        ).any()
    )
    table2 = found[
        (found.source == "LoRA (arXiv 2106.09685v2), Table 2")
        & (found.method == "lora")
        & (found.model == "roberta_base")
    ]
    assert dict(zip(table2.task, table2.value, strict=True))["rte"] == 86.6
    assert set(table2[table2.start == "mnli"].task) == {"mrpc", "rte", "stsb"}
    assert table2["value"].mean().round(2) == 87.24  # as microsoft/LoRA's README has it
    assert found.value.between(40, 100).all() and set(found.protocol) == {"best", "last", "unknown"}


PUBLISHED_SIZE = {"head": 592130, "trained": 592130 + 294912}  # r = 8 on query and value: 0.3M


def verdicts(folder, protocol) -> pd.DataFrame:
    runs = load_records(folder)
    rows = published_table(make_cells(runs, protocol), runs, protocol).rows
    return rows[rows.source.str.startswith("LoRA (") & rows.source.str.contains("roberta_base")]


def test_reproduced_is_reported_only_where_model_protocol_start_and_data_are_the_same(tmp_path):
    official = composed("task=cola").task.official_rows
    for name, model, start in (
        ("same", "roberta_base", None),
        ("model", "minilm", None),
        ("start", "roberta_base", MNLI),
    ):
        record = made_up(
            tmp_path / name, "task=cola", f"model={model}", "data=hub", start=start, best=0.631,
            rows=official["train"], parameters=PUBLISHED_SIZE,
        )  # fmt: skip
        record.data["validation"]["rows"] = official["validation"]
        write(tmp_path / name / record.key, record)
    same = verdicts(tmp_path / "same", "best").iloc[0]
    assert (same.verdict, same.difference, same.published) == (
        "comparable",
        "-0.3",
        "63.4 ± 1.2",
    )
    for name, protocol, reason in (
        ("same", "last", "protocol (last, theirs best)"),
        ("model", "best", "model (minilm, theirs roberta_base)"),
        ("start", "best", "start (mnli, theirs plain)"),
    ):
        (verdict,) = verdicts(tmp_path / name, protocol).verdict
        assert verdict == f"not comparable: {reason}"


@pytest.mark.parametrize(
    ("overrides", "more", "reason"),
    [
        (["data=toy"], {}, "data (generated, theirs official)"),
        (["data=hub"], {}, "data (1,200 training rows, theirs 8,551)"),
        (["data=hub"], {"rows": None}, "data (not the official rows)"),
        (
            ["data=hub"], {"rows": 8551},  # of 400 validation rows
            "data (not scored on the official rows)",
        ),
        (
            ["data=toy", "method.targets=[query,key,value,output]"],
            {"parameters": {"trained": 589824}},
            "data (generated, theirs official), trained parameters (589,824, theirs 0.3M)",
        ),
    ],
)  # fmt: skip
def test_what_differs_from_a_published_number_is_named(overrides, more, reason, tmp_path):
    words = ("task=cola", "model=roberta_base", *overrides)
    made_up(tmp_path, *words, **{"parameters": PUBLISHED_SIZE, **more})
    (verdict,) = verdicts(tmp_path, "best").verdict
    assert verdict == f"not comparable: {reason}"


def test_both_parts_of_mnli_together_are_compared_with_published_accuracies(tmp_path):
    """Weighted by their 9,815 and 9,832 rows."""
    for seed, scores in enumerate(((0.85, 0.87), (0.86, 0.88))):
        names = ("accuracy_matched", "accuracy_mismatched")
        epoch = {"epoch": 1, "loss": 1.0, "scores": dict(zip(names, scores, strict=True))}
        words = ("task=mnli", "model=roberta_base", f"seed={seed}")
        spec = composed(*words)
        record = made_of(tmp_path, spec, spec.identity(data="d", model="m"))
        write(tmp_path / record.key, dataclasses.replace(record, last=epoch, best=epoch))
    rows = published_table(*cells_and_runs(tmp_path), "last").rows
    paper = rows[rows.source.str.contains("LoRA \\(") & rows.source.str.contains("roberta_base")]
    assert paper.metric.tolist() == ["accuracy_overall"]
    (pair,) = (
        published_pairs(*cells_and_runs(tmp_path), "last")
        .query(
            "model_published == 'roberta_base' and source.str.startswith('LoRA (')", engine="python"
        )
        .itertuples()
    )
    assert pair.ours == pytest.approx((85.5 * 9815 + 87.5 * 9832) / 19647, abs=1e-9)


def cells_and_runs(folder):
    runs = load_records(folder)
    return make_cells(runs, "last"), runs


def test_a_published_number_without_a_rank_is_not_reproduced(tmp_path):
    made_up(tmp_path, "task=cola", "method.rank=3")
    runs = load_records(tmp_path)
    (row,) = published_table(make_cells(runs, "last"), runs, "last").rows.itertuples()
    assert row.source.startswith("GraLoRA") and "rank (3, theirs not stated)" in row.verdict


def test_a_table_without_a_published_number_says_so(tmp_path):
    made_up(tmp_path, "method=head_only")
    runs = load_records(tmp_path)
    table = published_table(make_cells(runs, "last"), runs, "last")
    assert table.rows.empty and table.notes[0].startswith("No published number")


@pytest.mark.slow
def test_ten_thousand_records_make_tables_in_seconds(tmp_path):
    """2,500 systems of four seeds."""
    made_up(tmp_path)
    base = load_records(tmp_path).iloc[0].to_dict()
    rows = []
    for i in range(10_000):
        method, rank, lr = f"m{i // 1000}", 1 + (i // 40) % 25, 1e-4 * (1 + (i // 4) % 10)
        system = base["system"] | {"method.name": method, "method.rank": rank, "train.lr": lr}
        facts = {"key": f"k{i}", "seed": i % 4, "method": method, "rank": rank}
        id_ = f"{method} {rank} {lr}"
        rows.append({**base, **facts, "system": system, "system_id": id_})
    runs = pd.DataFrame(rows)
    cells = make_cells(runs, "last")
    assert len(cells) == 2500 and (cells.n == 4).all() and cells.label.nunique() == 2500
    tables = {table.name: table for table in all_tables(cells, runs, Choices())}
    assert len(tables["methods"].rows) == 2502 and len(tables["over_lr"].rows) == 2500


def test_a_setting_of_several_types_is_exported_as_text(tmp_path):
    for value in ("false", "pissa"):
        made_up(tmp_path, "method=peft_pissa", f"method.args.init_lora_weights={value}")
    made_up(tmp_path)
    export(load_records(tmp_path), tmp_path / "runs.parquet")
    found = pd.read_parquet(tmp_path / "runs.parquet")["method.args.init_lora_weights"]
    assert {"false", "pissa"} < set(found)


def test_status_trace_and_export(tmp_path, capsys, monkeypatch):
    ok = made_up(tmp_path / "runs", "seed=0", last=0.25)
    failed = made_up(tmp_path / "runs", "seed=1", status="failed")
    write_plan(
        tmp_path,
        "python -m lora_bench -m seed=0,1,2",
        [ok.key, failed.key, "cola-minilm-lora-r8-s2-x"],
    )
    made_up(tmp_path / "runs", "task=rte")
    main(["status", "--runs", str(tmp_path)])
    text = capsys.readouterr().out
    assert (
        "3 runs: 1 done, 1 failed, 1 missing" in text and f"failed {failed.key}: it broke" in text
    )
    assert (
        "missing cola-minilm-lora-r8-s2-x" in text
        and "not part of a sweep: 1 done, 0 failed" in text
        and text.endswith("\n0.02 core hours of training and scoring, in 3 runs\n")  # 3 x 10 s x 2
    )
    made_up(tmp_path / "runs", "train.warmup=0.1", "seed=3")
    for setting in ("train.warmup=0.1", "warmup=0.10", "task=cola"):
        main(["trace", setting, "seed=3", "model=minilm", "--runs", str(tmp_path)])
        assert "train.warmup=0.1 seed=3" in capsys.readouterr().out
    main(["trace", "task=cola", "rank=8", "status=ok", "warmup=0.06", "--runs", str(tmp_path)])
    text = capsys.readouterr().out
    assert (
        text.startswith("1 run of 1 system, ")
        and "matthews 25.00" in text
        and "python -m lora_bench seed=0" in text
    )
    for wrong, message in (
        (["nosuch=1"], "must be a run key, or setting=value"),
        (["abc"], "no run below"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["trace", *wrong, "--runs", str(tmp_path)])
    for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        main(["export", "--runs", str(tmp_path), "--out", str(tmp_path / f"all.{suffix}")])
        table = read(tmp_path / f"all.{suffix}").set_index("key")
        assert (
            len(table) == 4
            and table.loc[ok.key, "last.matthews"] == 0.25
            and table.loc[ok.key, "train.warmup"] == 0.06
            and table.loc[ok.key, "method.targets"] == "[query,value]"
            and table.loc[ok.key, "rank"] == 8
        )
    with pytest.raises(SystemExit, match="must end in .csv or .parquet"):
        main(["export", "--runs", str(tmp_path), "--out", "runs.xlsx"])


def test_control_characters_of_records_and_plans_are_not_printed(tmp_path, capsys):
    bad = "a\x1b[2Jb\nc"
    failed = made_up(tmp_path, status="failed", error=bad, command=bad)
    write_plan(tmp_path, bad, [failed.key])
    main(["status", "--runs", str(tmp_path)])
    main(["trace", "task=cola", "--runs", str(tmp_path)])
    text = capsys.readouterr().out
    assert "\x1b" not in text and text.count("a [2Jb c") == 3


def test_status_ends_with_an_error_if_a_plan_cannot_be_read(tmp_path, capsys):
    made_up(tmp_path)
    write_plan(tmp_path, "command", ["key"])
    (tmp_path / "sweeps" / "a.json").write_text("{")
    with pytest.raises(SystemExit, match="^error: 1 sweep plan could not be read, see above"):
        main(["status", "--runs", str(tmp_path)])
    assert "1 run: 0 done, 0 failed, 1 missing" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"compare", "tuning"}))
@pytest.mark.parametrize("name", ["nowhere", "afile", "n" * 300])
def test_runs_that_are_no_folder_are_an_error(tmp_path, command, name):
    (tmp_path / "afile").touch()
    with pytest.raises(SystemExit, match="^error: --runs .*: no such folder; train a run first"):
        main([command, "--runs", str(tmp_path / name)])


def test_the_tables_command_writes_every_format(tmp_path, capsys):
    grid(tmp_path)
    main(["--runs", str(tmp_path), "--published", "--format", "latex"])
    out = capsys.readouterr().out
    assert (
        r"\begin{tabular}" in out and "No system lora r=8 to compare with in cola matthews" in out
    )
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    for protocol in ("last", "best"):
        assert (tmp_path / f"table_{protocol}.md").is_file() and {
            f"methods_{protocol}.csv",
            f"alpha_rank_{protocol}.tex",
        } <= names
    cells = pd.read_csv(tmp_path / "tables" / "cells_last.csv").set_index("system")
    full = cells.loc["full"]
    assert (full["mean"], full["median"], full.n, len(full["keys"].split())) == (70.0, 70.0, 2, 2)
    assert "## Failed runs" in (tmp_path / "table_last.md").read_text()


def test_the_readme_shows_the_committed_results():
    """Stale? ``python -m lora_bench.report readme --runs results/main`` updates it."""
    assert headline(load_records(MAIN), "results/main") in README.read_text()


def test_the_picture_of_the_readme_is_that_of_the_committed_results(tmp_path, monkeypatch):
    if f"\nmatplotlib=={matplotlib.__version__}\n" not in CONSTRAINTS.read_text():
        pytest.skip("committed pictures are drawn by the Matplotlib of constraints.txt")
    monkeypatch.setattr(pictures, "PICTURES", (pareto,))
    runs = load_records(MAIN)
    drawn = draw(make_cells(runs, "last"), runs, tmp_path)
    (shown,) = (path for path in drawn if f"/pictures/{path.name})" in README.read_text())
    assert shown.read_text() == (MAIN / "pictures" / shown.name).read_text()


def test_a_system_is_better_or_worse_only_if_the_corrected_test_shows_it(tmp_path):
    gains = {
        "method=full": {"cola": 0.1, "rte": 0.1},
        "method=bitfit": {"cola": 0.1, "rte": -0.1},
        "method=head_only": {"cola": -0.1, "rte": 0.0},
    }
    for task in ("cola", "rte"):
        base = {seed: 0.5 + seed / 1000 for seed in range(8)}
        seeded(tmp_path, f"task={task}", "method=lora", last=base)
        for method, gain in gains.items():
            moved = {seed: score + gain[task] + (-1) ** seed / 500 for seed, score in base.items()}
            seeded(tmp_path, f"task={task}", method, last=moved)
    few = {seed: 0.9 for seed in range(5)}  # five seeds cannot show a difference
    seeded(tmp_path, "task=cola", "method=lora", "method.rank=2", last=few)
    table = paired_table(make_cells(load_records(tmp_path), "last"))
    for row in table.rows.to_dict("records"):
        is_shown = float(row["p, Holm"].value) <= 0.05
        sign = "better" if float(row["difference"].value) > 0 else "worse"
        assert row["result"] == (sign if is_shown else None)
    assert comparisons(table).splitlines()[2:] == [
        "- better on cola and rte: full",
        "- worse on cola: head_only",
        "- better on cola, worse on rte: bitfit",
        "- fewer than the 6 seeds that can show a difference on one task: lora r=2",
    ]


def test_six_seeds_are_too_few_for_two_tasks_and_the_tables_say_so(tmp_path):
    """Holm's correction doubles the smaller p, 2 / 2^6."""
    for task in ("cola", "rte"):
        for method, gain in (("lora", 0.0), ("full", 0.1 if task == "cola" else 0.0)):
            scores = {s: 0.5 + gain + (-1) ** s * (gain + 0.1) / 500 for s in range(6)}
            seeded(tmp_path, f"task={task}", f"method={method}", last=scores)
    table = paired_table(make_cells(load_records(tmp_path), "last"))
    (row,) = (row for row in table.rows.to_dict("records") if row["task"] == "cola")
    assert (float(row["p"].value), row["result"], row["seeds needed"]) == (0.031, None, 7)
    assert comparisons(table).splitlines()[2:] == [
        "- fewer than the 7 seeds that can show a difference on one task: full"
    ]
    (one,) = paired_table(
        make_cells(load_records(tmp_path).query("`task.name` == 'cola'"), "last")
    ).rows.to_dict("records")
    assert (one["result"], one["seeds needed"]) == ("better", 6)


def test_every_score_of_every_seed_is_shown(tmp_path):
    """Also where seeds have different scores; the order in the file decides nothing."""
    for seed, names in enumerate((["a", "accuracy"], ["accuracy"], ["accuracy", "f1"])):
        _scored(tmp_path, seed, names)
    cells = make_cells(load_records(tmp_path), "last")
    assert dict(zip(cells.metric, cells.n, strict=True)) == {"accuracy": 3, "a": 1, "f1": 1}
    assert list(cells.metric[cells["first"]]) == ["accuracy"]


def _scored(folder, seed, names):
    """A record with scores of these names."""
    spec = composed("task=sst2", f"seed={seed}")
    done = made_of(folder, spec, spec.identity(data="d", model="m"))
    for protocol in ("last", "best"):
        getattr(done, protocol)["scores"] = dict.fromkeys(names, 0.5)
    write(folder / done.key, done)


def test_a_finished_run_without_the_score_to_compare_by_is_no_record(tmp_path):
    _scored(tmp_path, 0, ["f1"])
    _, (problem,) = read_all(tmp_path)
    assert "last.scores: must have accuracy, by which runs of this task are compared" in problem


def test_a_baseline_whose_runs_failed_is_named(tmp_path):
    seeded(tmp_path, "task=cola", "method=full", last={0: 0.5})
    spec = composed("task=cola", "method=lora")
    made_of(tmp_path, spec, spec.identity(data="d", model="m"), status="failed")
    notes = paired_table(make_cells(load_records(tmp_path), "last")).notes
    assert "No finished run of lora r=8 to compare with in cola matthews." in notes


def test_the_readme_of_one_system_has_no_picture_and_of_failed_runs_is_refused(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results: start -->\n<!-- results: end -->\n")
    seeded(tmp_path / "one", "task=cola", "method=lora", last={0: 0.5})
    update_readme(load_records(tmp_path / "one"), tmp_path / "one", readme)
    shown = readme.read_text()
    assert "![" not in shown and "Compared with" not in shown
    spec = composed("task=cola")
    made_of(tmp_path / "failed", spec, spec.identity(data="d", model="m"), status="failed")
    with pytest.raises(UserError, match="failed: no finished run there"):
        update_readme(load_records(tmp_path / "failed"), tmp_path / "failed", readme)
    assert readme.read_text() == shown


@pytest.mark.slow
def test_the_readme_block_is_replaced_and_only_that(tmp_path):
    runs = grid(tmp_path / "runs")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results: start -->\nold\n<!-- results: end -->\nafter\n")
    update_readme(runs, tmp_path / "runs", readme)
    once = readme.read_text()
    assert (
        once.startswith("before\n")
        and once.endswith("\nafter\n")
        and "\nold\n" not in once
        and "| Full " in once
    )
    update_readme(runs, tmp_path / "runs", readme)
    assert readme.read_text() == once and headline(runs, (tmp_path / "runs").as_posix()) in once
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="lacks <!-- results: start -->"):
        update_readme(runs, tmp_path / "runs", readme)


def leaves() -> list[str]:
    """Every setting that is in the identity, those of one method or task included."""
    spec = identified()
    return [path for path in settings(spec) if part_of(path) in ("where", "system")]


def identified() -> Spec:
    spec = copy.deepcopy(composed())
    spec.method.args = {"lr_ratio": 2.0, "cycles": 3}
    spec.task.args = {"held_out": 0.5}
    return spec


def changed(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    if isinstance(value, str):
        return f"{value}2"
    if isinstance(value, list):
        return [*value, "other"]
    return {"test": ["f1"]} if isinstance(value, dict) else 7


def set_value(spec: Spec, path: str, value) -> None:
    *sections, leaf = path.split(".")
    node = spec
    for name in sections:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    if isinstance(node, dict):
        node[leaf] = value
    else:
        setattr(node, leaf, value)


def identities(path: str) -> tuple[Identity, Identity, str, str]:
    """Two identities that differ in one setting only, and its values as text."""
    spec = identified()
    first = spec.identity(data="data1", model="model1")
    if path in ("data.fingerprint", "model.fingerprint"):
        kind = path.partition(".")[0]
        prints = {"data": "data1", "model": "model1"} | {kind: f"{kind}2"}
        return first, spec.identity(**prints), f"{kind}1", f"{kind}2"
    if path == "init_from":
        return first, spec.identity(data="data1", model="model1", start=MNLI), "null", MNLI.cell
    if path == "procedure":
        other = Identity(first.where, {**first.system, "procedure": PROCEDURE - 1}, first.seed)
        return first, other, str(PROCEDURE), str(PROCEDURE - 1)
    before = settings(spec)[path]
    set_value(spec, path, changed(before))
    second = spec.identity(data="data1", model="model1")
    return first, second, show(before), show(changed(before))


@pytest.mark.parametrize(
    "path", every(3, [*leaves(), "data.fingerprint", "model.fingerprint", "procedure"])
)
def test_runs_that_differ_in_one_setting_are_apart_and_named_by_it(path, tmp_path):
    first, second, before, after = identities(path)
    assert first.key != second.key
    for identity, last in ((first, 0.1), (second, 0.2)):
        made_of(tmp_path, identified(), identity, last=last)
    cells = cells_of(tmp_path)
    table = methods_table(cells, load_records(tmp_path), "mean").rows.set_index("method")
    scores = table.drop(index=["chance", "ceiling"])
    scores = scores.drop(columns=["average", "parameters"], errors="ignore")
    assert sorted(scores.stack().dropna()) == ["10.0 (1)", "20.0 (1)"]
    in_system = part_of(path) == "system" or path == "procedure"
    assert scores.shape == ((2, 1) if in_system else (1, 2))
    names = list(scores.index if in_system else scores.columns)
    section, _, leaf = path.rpartition(".")
    if path in ("method.name", "task.name"):
        assert [name.split()[0] for name in names] == [before, after]
    elif path == "method.rank":
        assert sorted(names) == sorted([f"lora r={before}", f"lora r={after}"])
    else:
        leaf = section if leaf == "name" else leaf  # as in model=minilm
        for value in (before, after):
            shown = re.compile(rf"[ (.]{leaf}={re.escape(value)}(?=[ ,)]|$)")
            assert sum(bool(shown.search(name)) for name in names) == 1, names


def test_names_hold_a_minimal_set_that_keeps_all_apart():
    """Random parts: no two have the same name, and no named setting is redundant."""
    rng = random.Random(0)
    for _ in range(60):
        paths = [f"train.x{i}" for i in range(rng.randint(2, 6))]
        parts = [{path: str(rng.randint(0, 2)) for path in paths} for _ in range(rng.randint(2, 9))]
        groups = [rng.randint(0, 1) for _ in parts]

        def distinct(of, groups=groups, parts=parts):
            return len({(g, *(p[path] for path in of)) for g, p in zip(groups, parts, strict=True)})

        chosen = distinguishing_settings(groups, parts)
        assert distinct(chosen) == distinct(paths)
        for path in chosen:
            assert distinct([other for other in chosen if other != path]) < distinct(paths)


def test_names_leave_out_what_goes_along(tmp_path):
    """Alpha in proportion to the rank, what a method's name means, and one of two twins."""
    for rank in (2, 4):
        made_up(tmp_path, f"method.rank={rank}", f"method.alpha={2 * rank}")
    made_up(tmp_path, "method=full")
    assert set(cells_of(tmp_path).label) == {"lora r=2", "lora r=4", "full"}
    made_up(tmp_path, "method.rank=2", "method.alpha=4", "train.warmup=0.5", "train.epochs=9")
    assert set(cells_of(tmp_path).label) == {
        "lora r=2 epochs=3", "lora r=2 epochs=9", "lora r=4 epochs=3", "full"}  # fmt: skip
    notes = tables_of(tmp_path)["methods"].notes
    assert notes == ["Settings that also differ between the systems of lora: warmup."]


def test_a_row_over_tasks_says_what_differs_between_them(tmp_path):
    made_up(tmp_path, "task=cola", "train.lr=1e-3")
    made_up(tmp_path, "task=rte", "train.lr=2e-3", "data.train_rows=50", data="e")
    table = tables_of(tmp_path)["methods"]
    assert table.rows.method.tolist()[1] == "lora r=8"
    assert table.notes == [
        "Settings that differ between columns: lr (lora r=8).",
        "Differs between tasks: train_rows=null (cola); train_rows=50 (rte).",
    ]


def test_two_runs_of_one_seed_with_other_scores_are_an_error(tmp_path, capsys):
    starts = [Start(MNLI.cell, fingerprint) for fingerprint in ("f1", "f2")]
    one, two = (made_up(tmp_path / "a", start=start) for start in starts)
    assert one.key != two.key and cells_of(tmp_path / "a").n.tolist() == [1]  # the same scores
    two = made_up(tmp_path / "a", start=starts[1], last=0.9)
    with pytest.raises(SystemExit) as stopped:
        main(["--runs", str(tmp_path / "a")])
    message = str(stopped.value)
    assert message.startswith("error: ") and one.key in message and two.key in message
    assert str(tmp_path / "a" / one.key) in message and "\n" not in message
    for folder, last in (("x", 0.1), ("y", 0.2)):
        made_up(tmp_path / "b" / folder, last=last)
    with pytest.raises(UserError, match=f"{tmp_path}/b/x/.*, {tmp_path}/b/y/"):
        load_records(tmp_path / "b")


def test_a_finished_run_counts_before_a_failed_one_of_its_seed(tmp_path):
    for folder, status in (("a", "failed"), ("b", "ok"), ("c", "failed")):
        made_up(tmp_path / folder, status=status)
    (cell,) = cells_of(tmp_path).to_dict("records")
    assert (cell["n"], cell["failed"], cell["mean"]) == (1, 0, 50.0)


def test_every_command_reports_records_that_it_cannot_read(tmp_path, capsys):
    made_up(tmp_path)
    for name, text in (("x", "{"), ("y", '{"format": 99}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_text(text)
    for command in ("tables", "plots", "page", "status", "trace", "export"):
        with pytest.raises(SystemExit, match="error: 2 records could not be read, see above"):
            main([command, "--runs", str(tmp_path)])
        error = capsys.readouterr().err
        assert "2 records could not be read:" in error and f"{tmp_path / 'y' / FILE}" in error
    assert (tmp_path / "table_last.md").exists() and (tmp_path / "index.html").exists()


@pytest.mark.slow
def test_any_swept_setting_makes_a_table_and_a_picture(tmp_path):
    swept = {
        "lr": ["train.lr=1e-4", "train.lr=1e-3", "train.lr=1e-2"],
        "warmup": ["train.warmup=0", "train.warmup=0.5"],
        "batch_size": ["train.batch_size=8", "train.batch_size=32"],
        "train_rows": ["data.train_rows=100", "data.train_rows=200"],
        "alpha": ["method.alpha=4", "method.alpha=8"],
    }
    for name, values in swept.items():
        for i, value in enumerate(values):
            data = f"d{i}" if name == "train_rows" else "d"
            made_up(tmp_path / name, value, last=i / 10, data=data)
        runs = load_records(tmp_path / name)
        cells = make_cells(runs, "last")
        (sweep,) = sweeps(cells)
        assert (sweep.name, sweep.points.line.tolist()) == (name, ["lora r=8"] * len(values))
        rows = tables_of(tmp_path / name)[f"over_{name}"].rows
        assert rows[name].tolist() == [f"{float(v.partition('=')[2]):g}" for v in values]
        assert rows["cola matthews"].tolist() == [f"{10 * i:.1f} (1)" for i in range(len(values))]
    drawn = {path.name for path in draw(cells, runs, tmp_path / "pictures")}
    assert "over_alpha_cola.svg" in drawn


def test_settings_of_one_method_are_swept_too_and_others_stay_apart(tmp_path):
    for ratio in (2, 4, 8):
        for batch_size in (8, 16):
            spec = copy.deepcopy(composed(f"train.batch_size={batch_size}"))
            spec.method.args = {"lr_ratio": ratio}
            made_of(tmp_path, spec, spec.identity(data="d", model="m"), last=ratio / 10)
    tables = tables_of(tmp_path)
    rows = tables["over_lr_ratio"].rows
    assert rows.system.tolist() == ["lora r=8 batch_size=16"] * 3 + ["lora r=8 batch_size=8"] * 3
    assert rows.lr_ratio.tolist() == ["2", "4", "8"] * 2
    assert len(tables["over_batch_size"].rows) == 6


def test_all_training_rows_stand_at_their_number_in_a_sweep_over_rows(tmp_path):
    made_up(tmp_path, "data.train_rows=100", rows=100, data="d1")
    made_up(tmp_path, rows=1200)
    rows = tables_of(tmp_path)["over_train_rows"].rows
    assert rows.train_rows.tolist() == ["100", "1200"]


def test_alpha_in_proportion_to_the_rank_is_one_sweep(tmp_path):
    for rank in (2, 4, 8):
        made_up(tmp_path, f"method.rank={rank}", f"method.alpha={2 * rank}")
    found = tables_of(tmp_path)
    assert found["over_rank"].rows["rank"].tolist() == [
        "2 (alpha=4)", "4 (alpha=8)", "8 (alpha=16)"]  # fmt: skip
    assert "over_alpha" not in found and "alpha_rank" not in found
    assert found["over_rank"].title.startswith("lora: score over rank; alpha varies with it (")


def test_ranks_with_a_rate_chosen_for_each_are_one_sweep_and_a_grid_of_both_is_two(tmp_path):
    for task, rates in (("cola", (1e-2, 1e-3)), ("sst2", (1e-3, 3e-3))):
        for rank, rate in zip((2, 8), rates, strict=True):
            size = [f"method.rank={rank}", f"method.alpha={2 * rank}"]
            made_up(tmp_path, f"task={task}", *size, f"train.lr={rate}")
    (sweep,) = sweeps(cells_of(tmp_path))
    assert sweep.title == "score over rank; alpha and lr vary with it"
    assert sweep.points.tick.tolist() == ["2 (alpha=4)", "2 (alpha=4)"] + ["8 (alpha=16)"] * 2
    made_up(tmp_path, "task=cola", "method.rank=2", "method.alpha=4", "train.lr=0.1")
    assert [sweep.name for sweep in sweeps(cells_of(tmp_path))] == ["lr"]


def test_an_older_procedure_is_in_the_title_or_in_the_names(tmp_path):
    spec = composed()
    now = spec.identity(data="d", model="m")
    before = Identity(now.where, {**now.system, "procedure": PROCEDURE - 1}, now.seed)
    made_of(tmp_path, spec, before)
    mark = f"procedure {PROCEDURE - 1}"
    for name in ("methods", "costs"):
        assert mark in tables_of(tmp_path)[name].title
    made_of(tmp_path, spec, now)
    made_up(tmp_path, "method=full")
    assert set(cells_of(tmp_path).label) == {
        f"lora r=8 procedure={PROCEDURE - 1}", f"lora r=8 procedure={PROCEDURE}",
        f"full procedure={PROCEDURE}"}  # fmt: skip
    assert mark not in tables_of(tmp_path)["methods"].title


def test_a_baseline_without_its_settings_is_the_one_with_the_fewest_changes(tmp_path):
    for seed in (0, 1):
        for biases in ("none", "all"):
            made_up(tmp_path, f"seed={seed}", f"method.biases={biases}")
    table = tables_of(tmp_path)["paired"]
    assert table.rows.system.tolist() == ["lora r=8 biases=all"]
    assert table.notes[0] == "The baseline lora r=8 is lora r=8 biases=none."
    for seed in (0, 1):
        for lr in (1, 2):
            made_up(tmp_path / "lr", f"seed={seed}", f"train.lr={lr}")
    table = tables_of(tmp_path / "lr")["paired"]
    assert table.rows.empty and table.notes == [
        "The baseline lora r=8 is ambiguous: lora r=8 lr=1; lora r=8 lr=2."]  # fmt: skip


def test_a_baseline_is_found_or_named_as_wrong(tmp_path):
    """By words of its label if they match one system; no comparison is lost silently."""
    for seed in (0, 1):
        for override in ("train.lr=1", "train.lr=2", "method=full"):
            made_up(tmp_path, f"seed={seed}", override, last=0.5 + seed / 10)
    made_up(tmp_path, "method=bitfit")
    cells = cells_of(tmp_path)
    table = paired_table(cells, "full")
    assert table.rows.system.tolist() == ["lora r=8 lr=1", "lora r=8 lr=2"]
    assert table.notes[0] == "Fewer than 2 common seeds, so no interval: bitfit (cola matthews)."
    assert "The baseline lora lr=2 is lora r=8 lr=2." in paired_table(cells, "lora lr=2").notes
    for wrong, message in (
        ("lora r=9", r"--baseline lora r=9: must be one of .*full; lora r=8 lr=1; lora r=8 lr=2"),
        ("lora", r"--baseline lora: matches lora r=8 lr=1; lora r=8 lr=2; choose one of them"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["--runs", str(tmp_path), "--baseline", wrong])


def test_a_baseline_that_is_there_is_not_called_wrong(tmp_path):
    """A single system, or no common seed: nothing to compare is not an error."""
    made_up(tmp_path, "method=full", "seed=0")
    alone = paired_table(cells_of(tmp_path), "full")
    assert alone.rows.empty and alone.notes == []
    made_up(tmp_path, "method=bitfit", "seed=1")
    (note,) = paired_table(cells_of(tmp_path), "full").notes
    assert note == "Fewer than 2 common seeds, so no interval: bitfit (cola matthews)."


def test_all_pairs_are_compared_on_request(tmp_path, capsys):
    for seed in (0, 1):
        for rank in (1, 2, 4):
            made_up(tmp_path, f"seed={seed}", f"method.rank={rank}", last=rank / 10 + seed / 50)
    main(["--runs", str(tmp_path), "--all-pairs", "--format", "csv"])
    rows = pd.read_csv(tmp_path / "tables" / "pairs_last.csv")
    assert {frozenset(pair) for pair in zip(rows.system, rows.than, strict=True)} == {
        frozenset(pair)
        for pair in itertools.combinations([f"lora r={rank}" for rank in (1, 2, 4)], 2)
    }
    assert (rows.difference > 0).all()  # the better one first


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_tables_are_those_of_the_committed_records(name, tmp_path):
    chosen = [baseline for start, baseline in BASELINES.items() if name.startswith(start)]
    words = [word for baseline in chosen for word in ("--baseline", baseline)]
    main(["--runs", str(RESULTS / name), "--out", str(tmp_path), *words])
    for path in tmp_path.glob("table_*.md"):
        assert (RESULTS / name / path.name).read_text() == path.read_text(), f"stale: {path.name}"


def test_records_of_the_first_format_are_grouped_as_their_settings_say():
    folder = OLD
    groups: dict[str, dict[int, dict]] = {}
    for path in folder.rglob(FILE):
        record = json.loads(path.read_text())
        spec = {k: v for k, v in record["spec"].items() if k not in ("seed", "device", "progress")}
        groups.setdefault(json.dumps(spec), {})[record["spec"]["seed"]] = record["last"]["scores"]
    expected = sorted(
        (metric, len(scores), round(100 * np.mean([s[metric] for s in scores.values()]), 6))
        for scores in groups.values()
        for metric in next(iter(scores.values()))
    )
    cells = cells_of(folder)
    found = zip(cells.metric, cells.n, cells["mean"], strict=True)
    assert sorted((metric, n, round(mean, 6)) for metric, n, mean in found) == expected
    runs = load_records(folder)
    title = methods_table(cells, runs, "mean").title
    assert title.endswith("procedure 1)") and len(runs) == len(read_all(folder)[0])
