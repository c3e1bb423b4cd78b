"""Tables, pictures and the page against made-up records, whose numbers are computed again here."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lora_bench.__main__ import compose
from lora_bench.record import Record, write, write_plan
from lora_bench.report import load_records
from lora_bench.report.__main__ import main
from lora_bench.report.cells import compare_systems, labels, make_cells
from lora_bench.report.formats import fold_constants, to_csv, to_latex, to_markdown, to_terminal
from lora_bench.report.page import write_page
from lora_bench.report.plots import _front, draw
from lora_bench.report.published import load_published, published_table
from lora_bench.report.readme import END, PICTURE, README, START, headline, update_readme
from lora_bench.report.statistics import _power, bootstrap, compare, seeds_needed, summarize
from lora_bench.report.tables import Table, all_tables, methods_table

REAL = README.parent / "results" / "real"


def made_up(folder, *overrides, last=0.5, best=0.6, status="ok", rows=1200, **more):
    """Write a record as a run would."""
    spec = compose(list(overrides))
    name = spec.task.metrics[0] + ("_matched" if spec.task.name == "mnli" else "")
    epochs = [
        {"epoch": 1, "loss": 1.0, "scores": {name: best}},
        {"epoch": 2, "loss": 0.5, "scores": {name: last}},
    ]
    facts = {
        "train": {"rows": rows},
        "validation": {"rows": 400, "chance": {name: 0.0}, "ceiling": {name: 0.9}},
    }
    command = f"python -m lora_bench {' '.join(overrides)}"
    costs = {
        "adapter_bytes": 1 << 20,
        "train_seconds": 10.0,
        "tokens_per_second": 900.0,
        "peak_memory_bytes": 1 << 30,
    }
    record = Record(
        spec.key(), status, spec.to_dict(), command, "now", {"commit": "c0ffee", "versions": {"torch": "2.13.0"}},
        data=facts, epochs=epochs, best=epochs[0], last=epochs[1], parameters={"adapter": 73728, "trained": 222338},
        error=None if status == "ok" else "it broke", **{**costs, **more},
    )  # fmt: skip
    write(folder / spec.key(), record)
    return record


def tables_of(folder, protocol="last") -> dict[str, Table]:
    runs = load_records(folder)
    cells = make_cells(runs, protocol)
    found = all_tables(cells, runs, "mean", compare_systems(cells, "lora r=8"), "lora r=8")
    return {table.name: table for table in found}


def test_seeds_make_one_cell_and_protocols_are_apart(tmp_path):
    for seed, last in enumerate((0.5, 0.6, 0.7)):
        made_up(tmp_path, f"seed={seed}", last=last, best=last + 0.1)
    made_up(tmp_path, "method.rank=4", last=0.2)
    made_up(tmp_path, "method=full", status="failed")
    methods = tables_of(tmp_path)["methods"]
    column = methods.rows.columns[1]
    assert column == "cola matthews" and "minilm, toy data, 1,200 training rows" in methods.title
    shown = dict(zip(methods.rows.method, methods.rows[column], strict=True))
    assert (
        shown["lora r=8"] == "60.0 ± 10.0 (3)"
        and shown["lora r=4"] == "20.0 (1)"
        and shown["full"] == "failed"
    )
    assert (shown["chance"], shown["ceiling"]) == ("0.0", "90.0")
    assert "**60.0 ± 10.0 (3)**" in to_markdown(methods) and "**20.0" not in to_markdown(methods)
    best = tables_of(tmp_path, "best")["methods"].rows
    assert "70.0 ± 10.0 (3)" in best[column].tolist()
    assert tables_of(tmp_path)["failed"].rows.error.tolist() == ["it broke"]


def test_a_cell_says_how_many_of_its_runs_failed(tmp_path):
    for seed, status in enumerate(("ok", "ok", "failed")):
        made_up(tmp_path, f"seed={seed}", status=status)
    assert "50.0 ± 0.0 (2, 1 failed)" in to_markdown(tables_of(tmp_path)["methods"])


def test_other_recipes_policies_or_rows_are_other_systems_and_none_is_chosen(tmp_path):
    overrides = (
        "seed=0",
        "train.lr=2e-3",
        "method.alpha=8",
        "method.biases=all",
        "precision=bf16",
        "head=article",
    )
    for override in (*overrides, "train.optimizer=adamw8bit", "method.layers=[0]"):
        made_up(tmp_path, override)
    cells = make_cells(load_records(tmp_path), "last")
    assert len(cells) == 8 and (cells.n == 1).all() and labels(cells).nunique() == 8
    assert "lora r=8, biases all" in set(
        labels(cells)
    ) and "lora r=8 (lr 0.002, 3 epochs, batch 8, alpha 16)" in set(labels(cells))
    made_up(tmp_path, "seed=1", rows=99)
    columns = list(tables_of(tmp_path)["methods"].rows.columns)
    assert columns[1:3] == ["cola matthews (1,200 rows)", "cola matthews (99 rows)"] or columns[1:3] == [
        "cola matthews (99 rows)", "cola matthews (1,200 rows)"]  # fmt: skip


def test_seeds_with_a_start_of_their_own_are_one_system(tmp_path):
    for seed in (0, 1):
        made_up(
            tmp_path,
            "task=rte",
            f"seed={seed}",
            f"init_from=x/mnli-minilm-lora-r8-s{seed}-0123456789/adapter",
        )
    made_up(tmp_path, "task=rte")
    cells = make_cells(load_records(tmp_path), "last")
    assert sorted(zip(cells.start, cells.n, strict=True)) == [("mnli", 2), ("plain", 1)]
    assert "lora r=8, started from mnli-minilm-lora-r8" in set(labels(cells))


def test_the_average_stands_only_where_every_task_does(tmp_path):
    for task, score in (("cola", 0.2), ("rte", 0.6), ("mnli", 0.7)):
        made_up(tmp_path, f"task={task}", last=score)
        if task != "rte":
            made_up(tmp_path, f"task={task}", "method=full", last=score + 0.1)
    rows = tables_of(tmp_path)["methods"].rows.set_index("method")
    assert list(rows.columns) == [
        "mnli accuracy_matched",
        "cola matthews",
        "rte accuracy",
        "average",
    ]  # as the paper
    assert rows.loc["lora r=8", "average"] == "50.0" and rows.loc["full", "average"] is None
    assert "–" in to_markdown(tables_of(tmp_path)["methods"])


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
    assert grid["r=4"].tolist() == ["44.0 (1)", "48.0 (1)"] and found["alpha_rank"].best == {
        (1, 1),
        (1, 2),
    }
    assert found["ranks"].rows["rank"].str.startswith(("2 (", "4 (")).all()
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
        {"method": ["lora_plus", "full"], "cola": ["1.0 ± 0.1 (2)", None], "share %": [5000, 3]},
        dtype=object,
    )
    table = Table("t", "A_title", rows, {(0, 1)})
    latex = to_latex(table)
    assert r"lora\_plus & \textbf{1.0 $\pm$ 0.1 (2)} & 5,000 \\" in latex and r"share \%" in latex
    assert r"full & -- & 3 \\" in latex and latex.index(r"\toprule") < latex.index(
        r"\midrule"
    ) < latex.index(r"\bottomrule")
    assert "\033[1m1.0 ± 0.1 (2)\033[0m" in to_terminal(
        table
    ) and "**1.0 ± 0.1 (2)**" in to_markdown(table)
    assert to_csv(table).splitlines()[1:] == ["lora_plus,1.0 ± 0.1 (2),5000", "full,,3"]


def test_only_failed_runs_make_a_list_and_no_tables(tmp_path):
    made_up(tmp_path, status="failed")
    assert tables_of(tmp_path).keys() == {"failed"}
    assert (
        load_records(tmp_path / "none").empty
        and make_cells(load_records(tmp_path / "none"), "last").empty
    )


def test_summaries_agree_with_numpy_and_scipy():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 30):
        values = rng.normal(80, 2, n)
        found = summarize(values)
        assert (found.n, found.mean, found.median) == (
            n,
            pytest.approx(np.mean(values)),
            pytest.approx(np.median(values)),
        )
        assert found.sd == pytest.approx(np.sqrt(((values - values.mean()) ** 2).sum() / (n - 1)))
        means = (
            np.random.default_rng(1).choice(values, (20_000, n)).mean(axis=1)
        )  # resampled by hand
        low, high = np.percentile(means, [2.5, 97.5])
        assert found.low == pytest.approx(low, abs=0.25 * found.sd) and found.high == pytest.approx(
            high, abs=0.25 * found.sd
        )
        assert bootstrap(values) == bootstrap(values)
    assert summarize([3.0]).sd is None and summarize([2.0, 2.0]).low == 2.0
    with pytest.raises(ValueError, match="no values"):
        summarize([])


def test_a_paired_difference_uses_common_seeds_only():
    a, b = {0: 3.0, 1: 5.0, 2: 9.0, 7: 100.0}, {0: 1.0, 1: 4.0, 2: 5.0, 8: -100.0}
    found = compare(a, b)
    differences = np.array([2.0, 1.0, 4.0])
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    assert (found.n, found.difference) == (3, pytest.approx(differences.mean()))
    assert (found.low, found.high) == (
        pytest.approx(differences.mean() - half),
        pytest.approx(differences.mean() + half),
    )
    assert compare({0: 1.0}, {1: 1.0}) is None and compare({0: 2.0}, {0: 1.0}).low is None
    equal = compare({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert (equal.low, equal.high, equal.seeds_needed) == (1.0, 1.0, None)


def test_seeds_needed_give_the_promised_power():
    """Known: an effect of half a standard deviation takes 34 pairs (Cohen 1988). And by simulation."""
    assert seeds_needed(0.5, 1.0) == 34
    assert (
        seeds_needed(0.0, 1.0) is None
        and seeds_needed(0.01, 1.0) is None
        and seeds_needed(30.0, 1.0) == 2
    )
    n = seeds_needed(1.0, 1.0)
    draws = np.random.default_rng(0).normal(1.0, 1.0, (4000, n))
    seen = (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean()
    assert seen == pytest.approx(float(_power(1.0, np.array([n]))[0]), abs=0.03) and seen >= 0.78


def test_systems_are_compared_over_common_seeds(tmp_path):
    for seed in range(3):
        made_up(tmp_path, f"seed={seed}", last=0.5 + seed / 100)
        made_up(tmp_path, f"seed={seed}", "method=full", last=0.52 + seed / 50)
    made_up(tmp_path, "seed=9", "method=full", last=0.0)
    (row,) = tables_of(tmp_path)["paired"].rows.to_dict("records")
    assert row["system"] == "full" and row["difference"] == "+3.00" and row["n"] == 3
    assert row["interval"] == "+0.5 to +5.5"


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


def test_reproduced_is_said_only_where_model_protocol_start_and_data_are_the_same(tmp_path):
    official = compose(["task=cola"]).task.official_rows
    for name, overrides in {
        "same": [],
        "model": ["model=minilm"],
        "start": ["init_from=mnli-x-s0-0123456789"],
    }.items():
        record = made_up(
            tmp_path / name,
            "task=cola",
            "model=roberta_base",
            *overrides,
            best=0.631,
            rows=official["train"],
        )
        record.data["validation"]["rows"] = official["validation"]
        write(tmp_path / name / record.key, record)

    def verdict(name, protocol):
        rows = published_table(make_cells(load_records(tmp_path / name), protocol), protocol).rows
        return rows[
            rows.source.str.startswith("LoRA (") & rows.source.str.contains("roberta_base")
        ].iloc[0]

    same = verdict("same", "best")
    assert (same.verdict, same.difference, same.published) == (
        "reproduced within 0.3",
        "-0.3",
        "63.4 ± 1.2",
    )
    assert verdict("same", "last").verdict == "not comparable: protocol last, theirs best"
    assert verdict("model", "best").verdict == "not comparable: model minilm, theirs roberta_base"
    assert verdict("start", "best").verdict == "not comparable: start mnli, theirs plain"
    made_up(tmp_path / "capped", "task=cola", "model=roberta_base")
    assert verdict("capped", "best").verdict == "not comparable: not the whole official data"


def grid(folder):
    """Runs that fill every picture."""
    for seed in (0, 1):
        for rank in (2, 4):
            for alpha in (4, 8):
                made_up(
                    folder,
                    f"seed={seed}",
                    f"method.rank={rank}",
                    f"method.alpha={alpha}",
                    last=0.4 + rank / 50 + seed / 100,
                )
        made_up(folder, f"seed={seed}", "method=full", last=0.7)
    made_up(folder, "method=bitfit", status="failed")
    return load_records(folder)


def test_every_picture_is_drawn_the_same_twice(tmp_path):
    runs = grid(tmp_path / "runs")
    cells = make_cells(runs, "last")
    first = {path.name: path.read_bytes() for path in draw(cells, runs, tmp_path / "a")}
    assert first.keys() == {
        f"{name}_cola.svg"
        for name in ("rank", "pareto_parameters", "pareto_size", "epochs", "costs")
    } | {"heat_cola_lora.svg"}
    assert first == {path.name: path.read_bytes() for path in draw(cells, runs, tmp_path / "b")}
    (tmp_path / "a" / "stale.svg").touch()
    assert (
        "stale.svg" not in {path.name for path in draw(cells, runs, tmp_path / "a")}
        and not (tmp_path / "a" / "stale.svg").exists()
    )
    assert b"trained parameters, head included" in first["pareto_parameters_cola.svg"]


def test_the_pareto_front_holds_what_nothing_beats():
    assert _front(np.array([1, 2, 3, 2, 4]), np.array([5, 7, 6, 4, 7])) == [0, 1]


def browser() -> str:
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no Chromium here to open the page in")
    return found


def dom(page, state: str, tmp_path) -> str:
    """The page as a real browser has it after its script has run."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path}/profile",
    ]
    done = subprocess.run(
        [browser(), *flags, "--dump-dom", f"file://{page}#{state}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


def test_the_page_sorts_filters_and_traces_in_a_real_browser(tmp_path):
    runs = grid(tmp_path / "runs")
    write_page(runs, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert not re.search(r"(src|href)=\"?https?:", text)  # nothing from a network

    def systems(state):
        return re.findall(
            r"<td>((?:lora|full|bitfit)[^<]*)</td>", dom(tmp_path / "index.html", state, tmp_path)
        )

    assert len(systems("")) == 6
    assert (
        systems("sort=mean&direction=descending")[0] == "full"
        and systems("sort=mean&direction=descending")[-1] == "bitfit, biases all"
    )
    assert (
        systems("q=full") == ["full"]
        and systems("q=r%3D4") == systems("q=lora+r%3D4")
        and len(systems("q=r%3D4")) == 2
    )
    full = runs[(runs.method == "full") & (runs.seed == 0)].key.item()
    opened = dom(tmp_path / "index.html", f"q=full&open={full}:matthews", tmp_path)
    assert (
        "python -m lora_bench seed=0 method=full" in opened
        and "commit c0ffee; torch 2.13.0" in opened
    )
    assert opened.count("<figure>") == 6


def test_text_of_a_run_cannot_become_script(tmp_path):
    made_up(tmp_path / "runs", status="failed")
    record = json.loads(next((tmp_path / "runs").rglob("record.json")).read_text())
    record["error"] = "</script><script>alert(1)</script>"
    next((tmp_path / "runs").rglob("record.json")).write_text(json.dumps(record))
    write_page(load_records(tmp_path / "runs"), tmp_path / "index.html")
    assert "</script><script>alert" not in (tmp_path / "index.html").read_text()


def test_ten_thousand_records_make_tables_in_seconds(tmp_path):
    """2,500 systems of four seeds."""
    made_up(tmp_path)
    base = load_records(tmp_path)
    runs = pd.concat([base] * 10_000, ignore_index=True)
    index = np.arange(10_000)
    runs["seed"], runs["rank"] = index % 4, 1 + (index // 4) % 50
    runs["method"] = [f"m{i // 200}" for i in index]
    runs["key"] = [f"k{i}" for i in index]
    cells = make_cells(runs, "last")
    assert len(cells) == 2500 and (cells.n == 4).all()
    assert len(methods_table(cells, runs, "mean").rows) == 2502


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
    assert "missing cola-minilm-lora-r8-s2-x" in text and "beside sweeps: 1 done, 0 failed" in text
    main(["trace", "task=cola", "rank=8", "status=ok", "--runs", str(tmp_path)])
    text = capsys.readouterr().out
    assert (
        text.startswith("1 runs of 1 systems")
        and "matthews 25.00" in text
        and "python -m lora_bench seed=0" in text
    )
    for wrong, message in (
        (["nosuch=1"], "must be a run key, or column=value"),
        (["abc"], "no run below"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["trace", *wrong, "--runs", str(tmp_path)])
    for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        main(["export", "--runs", str(tmp_path), "--out", str(tmp_path / f"all.{suffix}")])
        table = read(tmp_path / f"all.{suffix}").set_index("key")
        assert (
            len(table) == 3
            and table.loc[ok.key, "last.matthews"] == 0.25
            and table.loc[ok.key, "rank"] == 8
        )
    with pytest.raises(SystemExit, match="must end in .csv or .parquet"):
        main(["export", "--runs", str(tmp_path), "--out", "runs.xlsx"])


def test_the_tables_command_writes_every_format(tmp_path, capsys):
    grid(tmp_path)
    main(["--runs", str(tmp_path), "--published", "--format", "latex"])
    out = capsys.readouterr().out
    assert (
        r"\begin{tabular}" in out and "% Difference from lora r=8" not in out
    )  # there is no such system here
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


def test_the_readme_shows_the_committed_results(tmp_path):
    """Stale? ``python -m lora_bench.report readme --runs results/real`` mends it."""
    runs = load_records(REAL)
    assert headline(runs, "results/real") in README.read_text()
    (drawn,) = (
        path for path in draw(make_cells(runs, "last"), runs, tmp_path) if path.stem == PICTURE
    )
    assert drawn.read_text() == (REAL / "pictures" / drawn.name).read_text()


def test_the_readme_block_is_replaced_and_only_that(tmp_path):
    runs = grid(tmp_path / "runs")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    update_readme(runs, tmp_path / "runs", readme)
    once = readme.read_text()
    assert (
        once.startswith("before\n")
        and once.endswith("\nafter\n")
        and "old" not in once
        and "| full " in once
    )
    update_readme(runs, tmp_path / "runs", readme)
    assert readme.read_text() == once and headline(runs, (tmp_path / "runs").as_posix()) in once
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="lacks <!-- results: start -->"):
        update_readme(runs, tmp_path / "runs", readme)
