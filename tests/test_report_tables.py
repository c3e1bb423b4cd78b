"""Tables as papers print them, choices of a layout, selection, and hostile records."""

import contextlib
import copy
import io
import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lora_bench import spec
from lora_bench.plans import write_plan
from lora_bench.presets import CONF, task_presets
from lora_bench.record import FILE, suffix_of
from lora_bench.report.__main__ import main
from lora_bench.report.commands import COMMANDS
from lora_bench.report.formats import to_csv, to_latex, to_markdown, to_terminal
from lora_bench.report.latex import escape
from lora_bench.report.layout import DEFAULT, as_published, published_names
from lora_bench.report.pairs import clear_best
from lora_bench.report.readme import README
from lora_bench.report.table import Number, Table
from tests.helpers import mostly_slow, seeds_of_fuzz
from tests.report_records import composed, made_of, made_up, seeded, tables_of

RESULTS = README.parent / "results"
HOSTILE = (
    r"\input{/etc/passwd}", r"$x^2_{3}$ % ~ # & \\", "a|b*c*`d`<script>", "=HYPERLINK(1)", "@x",
    "line\nbreak\r\t\x1b[31m", "汉字 ñ ß", "x" * 200, "[bold]red[/bold]", "", "-", "}{",
)  # fmt: skip


def printed(*words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(list(words))
    return out.getvalue()


def two_tasks(folder) -> None:
    """Three systems of six seeds on two tasks; full is the best beyond noise."""
    for task in ("cola", "rte"):
        for seed in range(6):
            for method, last in (("full", 0.8), ("lora", 0.5), ("bitfit", 0.49)):
                noise = random.Random(f"{task}{seed}{method}").uniform(-0.01, 0.01)
                made_up(
                    folder, f"task={task}", f"seed={seed}", f"method={method}", last=last + noise
                )


def test_every_preset_and_metric_has_a_published_name():
    names = published_names()
    methods = {yaml.safe_load(path.read_text())["name"] for path in CONF.glob("method/*.yaml")}
    assert methods == names["methods"].keys()
    tasks = task_presets()
    assert tasks.keys() == names["tasks"].keys()
    for task in tasks.values():
        for metric in task.metrics:
            known = {metric + suffix_of(split) for split in task.validation}
            assert known <= names["metrics"].keys()


def test_bold_needs_a_difference_beyond_noise_and_all_equal_bests_have_it(tmp_path):
    two_tasks(tmp_path)
    table = tables_of(tmp_path)["methods"]
    full = table.rows.method.tolist().index("full")
    assert {row for row, _ in table.best} == {full} and len(table.best) == 3  # the average too
    same = {seed: 5.0 + seed / 1000 for seed in range(6)}
    low = {seed: 1.0 + seed**2 / 1000 for seed in range(6)}
    noisy = {seed: 9.0 * (seed % 2) for seed in range(6)}
    few = {s: same[s] for s in range(5)}
    assert clear_best([5.0, 4.5], [same, noisy], [0, 0]) == set()
    assert clear_best([5.0, 1.0], [few, low], [0, 0]) == set()  # p >= 0.06
    assert clear_best([5.0, 1.0, 5.0], [same, low, same], [0, 1, 0]) == {0, 2}
    assert clear_best([5.0, 1.0], [same, low], [1, 0]) == set()  # only its good runs are left
    assert clear_best([5.0, 1.0], [same, {0: 1.0}], [0, 0]) == set()  # one seed may be noise
    assert clear_best([5.0, np.nan], [same, {}], [0, 0]) == set()  # nothing to be better than


def test_both_parts_of_mnli_stand_side_by_side(tmp_path):
    record = made_up(tmp_path, "task=mnli")
    for part in (record.last, record.best):
        part["scores"] = {"accuracy_matched": 0.8, "accuracy_mismatched": 0.7}
    (tmp_path / record.key / FILE).write_text(json.dumps(vars(record)))
    table = as_published(tables_of(tmp_path)["methods"], DEFAULT)
    heads = [table.heading(name) for name in table.rows.columns]
    assert heads[2:] == [("MNLI", "m"), ("MNLI", "mm")]
    assert r"\multicolumn{2}{c}{MNLI} \\\cmidrule(lr){3-4}" in to_latex(table)


def test_a_layout_chooses_orders_and_renames(tmp_path):
    two_tasks(tmp_path / "runs")
    file = tmp_path / "paper.yaml"
    file.write_text(
        "tasks: [rte, cola]\nmethods: [lora, full]\ncolumns: [tasks, parameters]\n"
        "rename: {lora r=8: Ours, matthews: MCC}\nsort: given\nspread: none\ncaption: My caption\n"
    )
    out = tmp_path / "out"
    printed("--runs", str(tmp_path / "runs"), "--out", str(out), "--layout", str(file))
    text = (out / "tables" / "methods_last.tex").read_text()
    rows = [line.split(" & ")[0] for line in text.splitlines() if line.endswith(r"\\")]
    assert rows[2:] == ["Chance", "Ours", "Full", "Ceiling"]
    assert text.index("RTE") < text.index("CoLA") and "MCC" in text and r"\pm" not in text
    assert r"\caption{My caption." in text and r"\label{tab:methods-last}" in text
    flat = pd.read_csv(out / "tables" / "methods_last.csv")
    assert flat.columns.tolist() == ["method", "rte accuracy", "cola matthews", "parameters"]
    assert set(flat.method) == {"chance", "lora r=8", "full", "ceiling"}  # names that trace takes
    option = ("--layout", str(file), "--tasks", "cola", "--sort", "family")
    text = printed("--runs", str(tmp_path / "runs"), "--out", str(out), *option)
    assert "RTE" not in text and text.index("| Full") < text.index("| Ours")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--tasks", "nosuch"], "tasks: nosuch: must be one of cola, rte"),
        (["--methods", "lora r=9"], "methods: lora r=9: must be one of bitfit; full; lora r=8"),
        (["--rename", "x=y"], "rename: x: must be one of"),
        (["--rename", "x"], "--rename x: must be old=new"),
        (["--columns", "n"], "--columns: must be 'parameters'"),
        (["--sort", "given"], "sort: given needs methods"),
        (["--layout", "LAYOUT"], "nosuch: must be one of tasks, methods"),
        (["--layout", "missing.yaml"], "--layout missing.yaml: cannot be read"),
        (["best"], "best: needs --over"),
        (["best", "--over", "seed"], "--over seed: must be a setting that runs differ in: "),
        (["curve", "--x", "train.lr"], "--x train.lr: must be a swept setting: nothing"),
        (["compare", "a"], "compare: needs two folders"),
        (["compare", "nosuch", "b"], "compare nosuch: no such folder"),
        (["--columns", ""], "argument --columns: '' names nothing"),
        (["--methods", ","], "argument --methods: ',' names nothing"),
        (["--sort", "nosuch"], "argument --sort: invalid choice: 'nosuch'"),
        (["curve", "--x"], "argument --x: expected one argument"),
        (["status", "--over", "train.lr"], "--over: has no effect with status, only with best"),
        (["tables", "train.lr=1"], "train.lr=1: has no effect with tables"),
        (["compare", "a", "b", "--runs", "c"], "--runs: has no effect with compare, only with"),
    ],
)
def test_a_wrong_choice_gives_a_one_line_error(tmp_path, words, message):
    two_tasks(tmp_path)
    (tmp_path / "layout.yaml").write_text("nosuch: 1")
    words = [str(tmp_path / "layout.yaml") if word == "LAYOUT" else word for word in words]
    with pytest.raises(SystemExit) as stopped:
        printed(*words, *(["--runs", str(tmp_path)] if words[0] != "compare" else []))
    assert message in str(stopped.value) and "\n" not in str(stopped.value)


def test_tuned_rates_are_not_written_to_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match="nosuch: no such folder"):
        printed("tuning", "--runs", str(tmp_path / "nosuch"))
    assert not (tmp_path / "nosuch").exists()


def test_best_finds_the_value_that_was_made_best(tmp_path):
    best = {"lora": 1e-3, "full": 1e-5}
    for method, peak in best.items():
        for i, lr in enumerate((1e-5, 1e-4, 1e-3)):
            for seed in (0, 1):
                last = (0.7 if lr == peak else 0.4 + i / 50) + seed / 100
                made_up(tmp_path, f"method={method}", f"train.lr={lr}", f"seed={seed}", last=last)
    made_up(tmp_path, "method=bitfit")
    words = ("best", "--over", "lr", "--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    text = printed(*words)
    assert "on which the scores are reported too" in text and "One value" not in text
    rows = pd.read_csv(tmp_path / "out" / "tables" / "best_last.csv", dtype=str)
    found = rows.set_index("system")
    assert found.best.to_dict() == {"full": "1e-05", "lora r=8": "0.001"}
    assert found["at the end"].tolist() == ["lowest", "highest"]
    assert found.p.tolist() == ["0.500", "0.500"]  # two seeds
    assert found.score.to_dict() == {"full": "70.5 ± 0.7 (2)", "lora r=8": "70.5 ± 0.7 (2)"}
    assert "so no choice: bitfit (cola matthews)" in text


def test_best_prefers_a_value_whose_runs_all_finished(tmp_path):
    for seed in (0, 1):
        made_up(tmp_path, "train.lr=1e-4", f"seed={seed}", last=0.5)
        failed = {"status": "failed"} if seed else {}
        made_up(tmp_path, "train.lr=1e-3", f"seed={seed}", last=0.9, **failed)
        made_up(tmp_path, "train.lr=1e-2", f"seed={seed}", status="failed")
        made_up(tmp_path, "method=full", "train.lr=1e-2", f"seed={seed}", status="failed")
    words = ("best", "--over", "lr", "--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    text = printed(*words)
    (row,) = pd.read_csv(tmp_path / "out" / "tables" / "best_last.csv").to_dict("records")
    assert (row["best"], row["second"], row["at the end"]) == (1e-4, "0.001: 90.0", "lowest")
    assert row["tried"] == "0.0001, 0.001 (failed), 0.01 (failed)"
    assert "No run finished: full (cola)." in text


def test_best_says_where_rows_were_held_out(tmp_path):
    for lr in (1e-4, 1e-3):
        made_up(tmp_path, f"train.lr={lr}", "data.tuning_rows=50")
    assert "Chosen on rows held out of the training data." in printed(
        "best", "--over", "train.lr", "--runs", str(tmp_path)
    )


def test_a_curve_is_a_table_and_a_picture(tmp_path):
    for lr in (1e-4, 2e-4, 5e-4):
        made_up(tmp_path, f"train.lr={lr}", last=0.5 + 100 * lr)
    words = ("curve", "--x", "train.lr", "--axis", "linear", "--format", "csv")
    text = printed(*words, "--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    assert text.strip().splitlines()[2:] == [
        "lr,cola matthews",
        "0.0001,51.0",
        "0.0002,52.0",
        "0.0005,55.0",
    ]
    assert (tmp_path / "out" / "pictures" / "over_lr_cola.svg").is_file()


def test_cells_with_equal_values_of_a_setting_and_other_data_are_no_sweep(tmp_path):
    """Three data sets of 59 rows and one of 60; and a cap that is the number of all rows."""
    for data, rows in (("a", 59), ("b", 59), ("c", 60)):
        made_up(tmp_path, data=data, rows=rows)
    made_up(tmp_path, "data.train_rows=59", data="a", rows=59)
    text = printed("tables", "--runs", str(tmp_path))
    assert all(f"(train_rows=null, fingerprint={data})" in text for data in "abc")
    assert "(train_rows=59, fingerprint=a)" in text and "by train_rows" not in text


def test_options_and_words_may_come_in_any_order(tmp_path):
    made_up(tmp_path)
    assert printed("trace", "--runs", str(tmp_path), "task=cola").startswith("1 run of 1 system")


def test_compare_shows_a_cell_whose_runs_now_fail(tmp_path):
    for seed in (0, 1):
        made_up(tmp_path / "a", f"seed={seed}")
        made_up(tmp_path / "b", f"seed={seed}", status="failed")
    text = printed(
        "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "o")
    )
    (row,) = pd.read_csv(tmp_path / "o" / "tables" / "changes_last.csv").to_dict("records")
    assert row["change"] == "failed" and row["second"] == "failed"
    assert "0 of 1 common cell changed beyond noise, 1 failed" in text
    back = printed("compare", str(tmp_path / "b"), str(tmp_path / "a"), "--format", "csv")
    assert "no longer failed" in back


def test_compare_counts_a_cell_of_which_more_runs_fail(tmp_path):
    for folder, failing in (("a", ()), ("b", (2, 3))):
        for seed in range(4):
            status = "failed" if seed in failing else "ok"
            made_up(tmp_path / folder, f"seed={seed}", status=status, last=0.5 + seed / 100)
    words = (str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "o"))
    out = printed("compare", *words)
    assert "0 of 1 common cell changed beyond noise, 1 failed" in out
    assert "failed: 2 more runs" in out


def test_compare_matches_equal_cells_before_those_of_another_encoder(tmp_path):
    for model, last in (("m", 0.5), ("n", 0.8)):
        made_up(tmp_path / "a", model=model, last=last)
    made_up(tmp_path / "b", model="m", last=0.5)
    words = ("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "o"))
    text = printed(*words)
    (row,) = pd.read_csv(tmp_path / "o" / "tables" / "changes_last.csv").to_dict("records")
    assert row["difference"] == 0 and "Only in the first: lora r=8" in text
    made_up(tmp_path / "c", model="o", last=0.5)  # which of the two it corresponds to is unknown
    text = printed("compare", str(tmp_path / "a"), str(tmp_path / "c"))
    assert "Only in the first: lora r=8" in text and "Only in the second: lora r=8" in text


def test_equal_changes_of_two_seeds_may_be_chance(tmp_path):
    for folder, last in (("a", 0.5), ("b", 0.6)):
        seeded(tmp_path / folder, last={0: last, 1: last + 0.1})
    words = ("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "csv")
    assert "noise unknown" in printed(*words)


def test_compare_finds_what_changed_beyond_noise(tmp_path):
    for folder, shift in (("a", 0.0), ("b", 0.1)):
        for seed in (0, 1, 2):
            noise = random.Random(f"{folder}{seed}").uniform(-0.001, 0.001)
            made_up(tmp_path / folder, f"seed={seed}", last=0.5 + shift + noise)
            made_up(tmp_path / folder, "method=full", f"seed={seed}", last=0.5 + noise)
    made_up(tmp_path / "a", "method=bitfit")
    made_up(tmp_path / "b", "task=rte")
    words = ("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out"))
    text = printed(*words)
    rows = pd.read_csv(tmp_path / "out" / "tables" / "changes_last.csv").set_index("system")
    assert rows.change.to_dict() == {"lora r=8": "beyond noise", "full": "within noise"}
    assert rows.loc["lora r=8", "difference"] == pytest.approx(10, abs=0.3)
    assert "Only in the first: bitfit (cola matthews)." in text
    assert "Only in the second: lora r=8 (rte accuracy)." in text
    assert "not corrected for the number of cells" in text
    assert "full" not in printed(*words, "--methods", "lora", "--tasks", "cola,rte")
    assert "Ours" in printed(*words, "--rename", "full=Ours")
    with pytest.raises(SystemExit, match="^error: rename: nonsense: must be one of "):
        printed(*words, "--rename", "nonsense=Ours")
    same = printed("compare", str(tmp_path / "a"), str(tmp_path / "a"), "--format", "csv")
    assert "0 of 3 common cells changed" in same and "differs between" not in same


def test_one_run_done_again_is_compared_with_the_same_seed(tmp_path):
    for seed in range(4):
        made_up(tmp_path / "a", f"seed={seed}", last=0.5 + seed / 100)
    made_up(tmp_path / "b", "seed=3", last=0.53)
    words = ("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "csv")
    text = printed(*words)
    assert "+0.00" in text and "1 pair," in text and ",none" in text
    made_up(tmp_path / "b", "seed=7", last=0.9)  # unpaired: one seed alone is common
    assert "4 and 2" in printed(*words)


def test_compare_says_which_procedures_and_encoders_it_sets_aside(tmp_path, monkeypatch):
    made_up(tmp_path / "b", model="new")
    monkeypatch.setattr(spec, "PROCEDURE", 1)
    made_up(tmp_path / "a", model="old")
    text = printed("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "csv")
    assert "of 1 common cell changed" in text
    assert "procedure differs between first and second: 1 and 2." in text
    assert "model.fingerprint differs between first and second: old and new." in text


def test_shares_of_a_group_are_marked_and_kept_apart(tmp_path):
    group = {"size": 4, "train_seconds": 40.0, "eval_seconds": 1.0, "peak_memory_bytes": 1}
    made_up(tmp_path, group=group, peak_memory_bytes=None)
    made_up(tmp_path, "method=full")
    table = tables_of(tmp_path)["costs"]
    assert set(table.rows["train, s"]) == {"10.0", "10.0 (share of 4)"}
    assert any("not comparable with" in note for note in table.notes)


def test_cells_that_a_spreadsheet_would_run_are_guarded():
    found = ["=1+1", "-2.5", "@sum", "+a", None, Number("-1.5", "2.0"), "1,195.0"]
    rows = pd.DataFrame({"=x": found}, dtype=object)  # as tables are: others turn Numbers to texts
    text = to_csv(Table("t", "t", rows))
    assert text.splitlines() == [
        "'=x",
        "'=1+1",
        "-2.5",
        "'@sum",
        "'+a",
        '""',
        "-1.5 ± 2.0",
        '"1,195.0"',
    ]


def test_text_of_a_record_is_no_markup_in_any_format():
    rows = pd.DataFrame({"method": list(HOSTILE), "n": range(len(HOSTILE))}, dtype=object)
    table = Table("t", "t", rows)
    cells = [line.split(" & ")[0] for line in to_latex(table).splitlines() if line.endswith(r"\\")]
    assert r"\textbackslash{}input\{/etc/passwd\}" in "".join(cells).replace(r"\allowbreak{}", "")
    assert escape(r"${\x}") == r"\$\{\textbackslash{}x\}"
    assert r"a\|b\*c\*\`d\`&lt;script>" in to_markdown(table)
    for text in (to_markdown(table), to_terminal(table, 80), to_latex(table)):
        assert "\x1b[31m" not in text and "\r" not in text
    assert "[bold]red[/bold]" in to_terminal(table, 80)
    assert to_markdown(table).count("\n") == len(HOSTILE) + 1


@pytest.mark.parametrize("width", [40, 60, 90, 200])
def test_the_terminal_is_never_too_narrow_and_says_what_is_left_out(width):
    for name, table in tables_of(RESULTS / "main").items():
        shown = as_published(table, DEFAULT)
        text = to_terminal(shown, width)
        plain = [line.replace("\033[1m", "").replace("\033[0m", "") for line in text.split("\n")]
        assert max(map(len, plain[:-1])) <= width, name
        for column in shown.rows.columns:
            head = shown.heading(column)[1].split()[0]
            assert head[:6] in text, (name, column)


LATEX_CLASSES = ("article", "IEEEtran")


def compiled(folder: Path, tables: list[str], name: str) -> str:
    """The log of pdflatex over some tables in a paper of two columns."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here to compile the tables with")
    found = subprocess.run(["kpsewhich", f"{name}.cls", "siunitx.sty"], capture_output=True)
    if len(found.stdout.split()) < 2:
        pytest.skip(f"the LaTeX here lacks {name} or siunitx")
    options = "twocolumn" if name == "article" else "journal"
    start = rf"\documentclass[{options}]{{{name}}}\usepackage[T1]{{fontenc}}"
    uses = r"\usepackage{booktabs,tabularx,siunitx}\begin{document}"
    # a paper has text between its tables; without any, LaTeX runs out of room for floats
    body = "\n\\clearpage\n".join(tables)
    (folder / "paper.tex").write_text("\n".join([start, uses, body, r"\end{document}"]))
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder, capture_output=True, timeout=120,
    )  # fmt: skip
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    return log


@pytest.mark.slow
@pytest.mark.parametrize("name", LATEX_CLASSES)
def test_committed_tables_fit_a_page_of_two_columns(name, tmp_path):
    tables = [path.read_text() for path in sorted(RESULTS.glob("*/tables/*_last.tex"))]
    assert len(tables) > 10
    log = compiled(tmp_path, tables, name)
    for fault in ("Overfull", "Float too large"):
        assert fault not in log


def test_hostile_text_compiles_and_runs_nothing(tmp_path):
    letters = "".join(map(chr, range(32, 127))) + "".join(map(chr, range(0xA0, 0x180)))
    rows = pd.DataFrame({"method": [*HOSTILE, letters], "n": 1}, dtype=object)
    table = Table("t", " ".join(HOSTILE), rows, notes=[letters], spare=("n",))
    log = compiled(tmp_path, [to_latex(table)], "article")
    assert "root:" not in log and "passwd" not in log.replace(letters, "")


def hostile_records(folder: Path, rng: random.Random) -> None:
    """A few records with random settings, values left out, and hostile text."""
    for i in range(rng.randint(1, 7)):
        task = rng.choice(("cola", "mnli", "squad_v2"))
        method = rng.choice(("lora", "full", "bitfit", "head_only", "peft_dora"))
        spec = copy.deepcopy(composed(f"task={task}", f"method={method}"))
        spec.seed, spec.train.lr = rng.randint(0, 1), rng.choice((1e-4, 1e-3))
        if rng.random() < 0.4:
            spec.method.name = rng.choice(HOSTILE) or "x"
        if rng.random() < 0.3:
            spec.model.name = rng.choice(HOSTILE) or "x"
        identity = spec.identity(data=rng.choice("de"), model="m")
        status = rng.choice(("ok", "ok", "failed"))
        error = rng.choice(HOSTILE) if status == "failed" else None
        made_of(
            folder / str(i), spec, identity, last=rng.random(), status=status,
            rows=rng.choice((None, 10)), error=error, command=rng.choice(HOSTILE),
            train_seconds=rng.choice((None, 1.0)), peak_memory_bytes=rng.choice((None, 1)),
            adapter_bytes=rng.choice((None, 1)),
        )  # fmt: skip
        (path,) = (folder / str(i)).rglob(FILE)  # a name may hold a slash
        content = json.loads(path.read_text())
        for name in rng.sample(sorted(content), rng.choice((0, 0, 0, 1, 2))):
            content[name] = rng.choice((None, "text", 7, {}, [], {"scores": 1}, [{}]))
        path.write_text(json.dumps(content))
    write_plan(folder, rng.choice(HOSTILE), ["a", "b"])
    if rng.random() < 0.5:
        (folder / "sweeps" / "damaged.json").write_text(rng.choice(("{", "[]", '{"keys": 1}')))


@pytest.mark.parametrize("seed", mostly_slow(seeds_of_fuzz(12), [0]))
def test_every_command_ends_in_success_or_one_line(seed, tmp_path):
    rng = random.Random(seed)
    hostile_records(tmp_path / "runs", rng)
    runs = str(tmp_path / "runs")
    out = ("--out", str(tmp_path / "out"))
    more = {
        "tables": (
            "--all-pairs",
            "--published",
            *out,
            "--format",
            rng.choice(("latex", "terminal")),
        ),
        "best": ("--over", "train.lr", *out),
        "curve": ("--x", "train.lr", *out),
        "compare": (runs, runs, *out),
        "page": out,
        "plots": out,
        "export": ("--out", str(tmp_path / "runs.csv")),
    }
    for command in COMMANDS.keys() - {"readme", "tuning"}:  # which reads no record
        try:
            printed(command, *more.get(command, ()), "--runs", runs)
        except SystemExit as stopped:
            message = str(stopped.code)
            assert message.startswith("error: ") and "\n" not in message, (command, message)
