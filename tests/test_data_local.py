"""The official layouts, with made-up rows, and what happens when a file is broken."""

import pytest

from lora_bench.data import DataError, load, load_split, local, table
from lora_bench.data.__main__ import check
from lora_bench.data.__main__ import main as data_main
from lora_bench.errors import SpecError
from lora_bench.spec import DataSpec, LocalLayout, TaskSpec
from lora_bench.tasks import make_task
from lora_bench.training.prepared import DataCache

from .conftest import compose_in
from .helpers import GLUE, TASKS, official_rows, write_official


@pytest.fixture
def glue(tmp_path):
    """A folder in the official layout, every task, 30 rows for each file."""
    for name in GLUE:
        write_official(tmp_path, TASKS[name])
    return tmp_path


def spec(glue, task, *more):
    found = compose_in(glue, f"task={task}", "data=local", "data.root=here", *more)
    found.data.root = str(glue)
    return found


@pytest.mark.parametrize("name", GLUE)
def test_reads_each_layout(glue, name):
    found = spec(glue, name)
    splits = load(*two(found))
    assert set(splits) == {"train", *found.task.validation}
    for split, rows in splits.items():
        assert len(rows.rows) == 30
        for i, row in enumerate(rows.rows):
            assert row.pop("label") == (i % len(found.task.labels) if found.task.labels else i % 6)
            assert row == {
                c: f'{found.task.local.columns[c]} of {split} {i} "quoted'
                for c in found.task.columns
            }


def test_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(glue):
    path = glue / "STS-B" / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_split(*two(spec(glue, "stsb")), "train").rows[5]["label"] == 5.0


def test_other_unicode_line_ends_do_not_cut_a_row(glue):
    path = glue / "CoLA" / "train.tsv"
    path.write_text(path.read_text().replace("of train 3 ", "of\u2028train\x853 "), newline="\n")
    rows = load_split(*two(spec(glue, "cola")), "train").rows
    assert len(rows) == 30 and "\u2028" in rows[3]["sentence"]


def edit_line(path, number, change):
    lines = path.read_text().split("\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("task", "file", "change", "message"),
    [
        ("cola", "CoLA/train.tsv", lambda s: s[:7], "line 17: has 3 tab-separated columns"),
        ("cola", "CoLA/train.tsv", lambda s: s + "\textra", "line 17: has 5 tab-separated columns"),
        (
            "cola",
            "CoLA/dev.tsv",
            lambda s: s.replace("\t0\t", "\t2\t"),
            "line 17: label is '2'; must be one of 0, 1",
        ),
        (
            "cola",
            "CoLA/train.tsv",
            lambda s: "\t".join(s.split("\t")[:3]) + "\t ",
            "column sentence is empty",
        ),
        (
            "cola",
            "CoLA/train.tsv",
            lambda s: "\t".join(s.split("\t")[::-1]),
            "line 17: column source is",
        ),
        (
            "stsb",
            "STS-B/train.tsv",
            lambda s: s[:-3] + "5.5",
            "label is '5.5'; must be a number from 0 to 5",
        ),
        ("stsb", "STS-B/train.tsv", lambda s: s[:-3] + "nan", "label is 'nan'"),
        ("stsb", "STS-B/dev.tsv", lambda s: s[:-3] + "high", "label is 'high'"),
        (
            "mnli",
            "MNLI/dev_matched.tsv",
            lambda s: s.rpartition("\t")[0] + "\t-",
            "label is '-'; must be one of entail",
        ),
        ("mnli", "MNLI/train.tsv", lambda s: "x" + s, "column index is 'x15'"),
        ("mnli", "MNLI/train.tsv", lambda s: "", "line 17: has 1 tab-separated column;"),
        ("cola", "CoLA/train.tsv", lambda s: s + "\0", "line 17: holds a NUL character"),
    ],
)
def test_a_broken_line_17_is_named(glue, task, file, change, message):
    edit_line(glue / file, 17, change)
    with pytest.raises(DataError, match=message) as caught:
        load(*two(spec(glue, task)))
    assert (
        file in str(caught.value)
        and "line 17" in str(caught.value)
        and "\n" not in str(caught.value)
    )


def test_skip_bad_leaves_rows_out_and_says_which(glue):
    edit_line(glue / "CoLA/train.tsv", 17, lambda s: s + "\textra")
    found = load_split(*two(spec(glue, "cola", "data.skip_bad=true")), "train")
    assert len(found.rows) == 29
    assert found.skipped == [
        "train.tsv line 17: has 5 tab-separated columns; must have as many as the header"
    ]


def test_swapped_header_wrong_encoding_empty_file_and_folder(glue):
    path = glue / "STS-B/train.tsv"
    good = path.read_bytes()

    def error() -> str:
        with pytest.raises(DataError) as caught:
            load(*two(spec(glue, "stsb")))
        return str(caught.value)

    edit_line(path, 1, lambda s: s.replace("sentence2\tscore", "score\tsentence2"))
    assert "line 1: header is" in error()
    path.write_bytes(good.replace(b"sentence1 of train 9", b"s\xe4ntence1 of train 9"))
    assert "line 11: byte 0xe4 is not UTF-8" in error()
    path.write_bytes(b"")
    assert "line 1: header is" in error()
    path.write_bytes(good.split(b"\n")[0] + b"\n")
    assert "split train of stsb is empty" in error()
    path.unlink()
    assert "no such file" in error()
    path.mkdir()
    assert "is a folder, not a file" in error()


def test_train_rows_draws_a_seeded_subset_and_leaves_validation_whole(glue):
    few = load(*two(spec(glue, "cola", "data.train_rows=10")))
    again = load(*two(spec(glue, "cola", "data.train_rows=10")))
    other = load(*two(spec(glue, "cola", "data.train_rows=10", "data.seed=1")))
    assert len(few["train"].rows) == 10 and len(few["validation"].rows) == 30
    assert (
        few["train"].fingerprint() == again["train"].fingerprint() != other["train"].fingerprint()
    )


def joined(rows) -> bytes:
    return ("\n".join("\t".join(row) for row in rows) + "\n").encode()


def swap(rows, one, other):
    """The rows with two columns swapped; a header line stays unchanged."""
    for row in rows:
        row[one], row[other] = row[other], row[one]
    return rows


# name -> (rows of the official file, task) -> bytes of a broken file; a single bad line is line 17
BREAK = {
    "cut line": lambda rows, task: joined([*rows[:16], rows[16][:-1], *rows[17:]]),
    "extra tab": lambda rows, task: joined([*rows[:16], [*rows[16], ""], *rows[17:]]),
    "two lines in one": lambda rows, task: joined([*rows[:16], rows[16] + rows[17], *rows[18:]]),
    "blank line": lambda rows, task: joined([*rows[:16], [""], *rows[16:]]),
    "bad label": lambda rows, task: joined(
        [*rows[:16], with_label(rows[16], task, "maybe"), *rows[17:]]
    ),
    "no label": lambda rows, task: joined([*rows[:16], with_label(rows[16], task, ""), *rows[17:]]),
    "label out of range": lambda rows, task: joined(
        [*rows[:16], with_label(rows[16], task, "7"), *rows[17:]]
    ),
    "empty text": lambda rows, task: joined(
        [*rows[:16], with_text(rows[16], task, " "), *rows[17:]]
    ),
    "latin-1": lambda rows, task: (
        joined([*rows[:16], with_text(rows[16], task, "caf\xe9"), *rows[17:]])
        .decode()
        .encode("latin-1")
    ),
    "utf-16": lambda rows, task: joined(rows).decode().encode("utf-16"),
    "NUL": lambda rows, task: joined([*rows[:16], with_text(rows[16], task, "a\0b"), *rows[17:]]),
    "commas": lambda rows, task: joined(rows).replace(b"\t", b","),
    "empty file": lambda rows, task: b"",
    "header only": lambda rows, task: b"" if task.local.headerless else joined(rows[:1]),
    "swapped header": lambda rows, task: joined([rows[0][::-1], *rows[1:]]),
    "swapped columns": lambda rows, task: joined(
        [rows[0], *swap(rows[1:], label_at(task), text_at(task))]
    ),
}


def label_at(task):
    return task.local.headers["train"].index(task.local.label)


def text_at(task):
    return task.local.headers["train"].index(next(iter(task.local.columns.values())))


def with_label(row, task, value):
    return [value if i == label_at(task) else cell for i, cell in enumerate(row)]


def with_text(row, task, value):
    return [value if i == text_at(task) else cell for i, cell in enumerate(row)]


def test_there_are_over_a_hundred_broken_variants():
    assert len(BREAK) * len(GLUE) >= 100


@pytest.mark.parametrize("kind", BREAK)
@pytest.mark.parametrize("name", GLUE)
def test_no_broken_file_is_trained_on(tmp_path, name, kind):
    task = TASKS[name]
    write_official(tmp_path, task)
    path = tmp_path / task.local.folder / "train.tsv"
    path.write_bytes(BREAK[kind](official_rows(task, "train"), task))
    with pytest.raises(DataError) as caught:
        load(*two(spec(tmp_path, name)))
    message = str(caught.value)
    assert (
        f"{task.local.folder}/train.tsv" in message and "\n" not in message and len(message) < 900
    )
    if kind in ("cut line", "extra tab", "bad label", "latin-1", "NUL", "blank line"):
        assert "line 17" in message


def test_the_optional_diagnostics_are_scored_where_they_are(glue):
    task = TASKS["mnli"]
    write_official(glue, task, ["diagnostics"])
    splits = load(*two(spec(glue, "mnli")))
    assert splits["diagnostics"].rows[1] == {
        "premise": 'sentence1 of diagnostics 1 "quoted',
        "hypothesis": 'sentence2 of diagnostics 1 "quoted',
        "label": 1,
    }


def test_check_reports_rows_labels_overlap_and_problems(glue, capsys):
    train = glue / "RTE" / "train.tsv"
    train.write_text(
        train.read_text()
        .replace("of train 3 ", "of train 4 ")
        .replace("of train 5 ", "of validation 5 ")
    )
    (glue / "WNLI" / "dev.tsv").write_text("index\tsentence\n")
    with pytest.raises(SystemExit):
        data_main(["check", str(glue), "--tokenizer", "random:tiny"])
    done = capsys.readouterr()
    rows = {tuple(c.strip() for c in line.split("|")[1:3]): line for line in done.out.splitlines()}
    header = [c.strip() for c in next(iter(rows.values())).split("|")]
    facts = dict(zip(header, (c.strip() for c in rows["rte", "train"].split("|")), strict=True))
    assert (facts["rows"], facts["repeated"], facts["verdict"]) == (
        "30",
        "1",
        "NOT the official split",
    )
    assert facts["labels"] == "entailment 15 (50.0%), not_entailment 15 (50.0%)"
    other = dict(
        zip(header, (c.strip() for c in rows["rte", "validation"].split("|")), strict=True)
    )
    assert other["also in train"] == "1" and other["file"] == "RTE/dev.tsv"
    assert (
        "WNLI/dev.tsv line 1: header is ['index', 'sentence']" in done.err
        and len(done.err.splitlines()) == 1
    )


def test_check_names_a_folder_in_the_place_of_a_file(tmp_path, capsys):
    (tmp_path / "RTE" / "dev.tsv").mkdir(parents=True)
    with pytest.raises(SystemExit):
        data_main(["check", str(tmp_path), "--tokenizer", "random:tiny"])
    assert f"{tmp_path}/RTE/dev.tsv: is a folder, not a file" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_check_of_a_folder_without_the_files_says_what_is_expected(tmp_path, folder):
    with pytest.raises(SystemExit, match="must hold CoLA/"):
        data_main(["check", str(tmp_path / folder), "--tokenizer", "random:tiny"])


# Rows of the local copies, and whether these are the official ones.
LOCAL_COPIES = {
    "CoLA/train.tsv": (8551, True),
    "CoLA/dev.tsv": (1043, True),
    "SST-2/train.tsv": (67349, True),
    "SST-2/dev.tsv": (872, True),
    "MRPC/train.tsv": (3668, True),
    "MRPC/dev.tsv": (408, True),
    "STS-B/train.tsv": (5749, True),
    "STS-B/dev.tsv": (1500, True),
    "QQP/train.tsv": (12000, False),
    "QQP/dev.tsv": (5000, False),
    "MNLI/train.tsv": (10471, False),
    "MNLI/dev_matched.tsv": (9815, True),
    "MNLI/dev_mismatched.tsv": (1000, False),
    "QNLI/train.tsv": (10293, False),
    "QNLI/dev.tsv": (5463, True),
    "RTE/train.tsv": (2490, True),
    "RTE/dev.tsv": (277, True),
    "WNLI/train.tsv": (635, True),
    "WNLI/dev.tsv": (71, True),
}


@pytest.mark.slow
def test_check_agrees_with_what_is_known_of_the_real_files(real_glue):
    table, problems = check(real_glue, "random:tiny")
    assert not problems
    found = {
        row["file"]: (row["rows"], row["verdict"] == "official count")
        for _, row in table.iterrows()
    }
    assert found == LOCAL_COPIES


def two(spec):
    return make_task(spec.task), spec.data


def own(tmp_path, suffix, text, **changes):
    """Rows of a file of a user's task."""
    task = TaskSpec(name="own", columns=["text"], **changes)
    (tmp_path / f"own{suffix}").write_text(text)
    return table.read(tmp_path / f"own{suffix}", task, "train", skip_bad=False).rows


def test_a_nul_in_json_is_refused_as_in_other_files(tmp_path):
    with pytest.raises(DataError, match="line 1: column text holds a NUL character"):
        own(tmp_path, ".jsonl", '{"text": "a\\u0000b", "label": "x"}', labels=["x", "y"])


def test_a_broken_line_of_json_lines_gives_a_one_line_error_with_what_is_allowed(tmp_path):
    with pytest.raises(DataError, match=r"line 2: column 1: Expecting value; must be a JSON obj"):
        own(tmp_path, ".jsonl", '{"text": "a", "label": "x"}\n\n', labels=["x", "y"])


def test_the_suffix_of_a_file_may_be_in_capitals(tmp_path):
    assert own(tmp_path, ".CSV", 'text,label\n"a, b",x\n', labels=["x", "y"]) == [
        {"text": "a, b", "label": 0}
    ]


def test_labels_that_yaml_read_as_true_or_false_are_explained(tmp_path):
    with pytest.raises(DataError, match=r"label is 'no'; must be one of False, True \(in a preset"):
        own(tmp_path, ".csv", "text,label\na,no\n", labels=["False", "True"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_pattern_of_a_column_that_no_file_has_is_refused(tmp_path, suffix):
    text = "text,label\na,x\n" if suffix == ".csv" else '{"text": "a", "label": "x"}\n'
    layout = LocalLayout(patterns={"text": "a", "txet": "a"})
    with pytest.raises(SpecError, match=r"task.local.patterns.txet=a: .* has no column txet; it "):
        own(tmp_path, suffix, text, labels=["x", "y"], local=layout)


def test_rows_that_are_left_out_are_reported(glue, capsys):
    edit_line(glue / "STS-B" / "train.tsv", 17, lambda line: line + "\t9")
    prepared = DataCache().prepared(spec(glue, "stsb", "data.skip_bad=true"))
    assert len(prepared.splits["train"].rows) == 29
    said = capsys.readouterr().err
    assert "train: data.skip_bad left out 1 malformed row; the first: train.tsv line 17" in said


def test_a_file_beside_a_linked_folder_is_beside_the_link(tmp_path):
    task = TASKS["mnli"]
    (tmp_path / "elsewhere" / "MNLI").mkdir(parents=True)
    (tmp_path / "glue" / "diagnostic").mkdir(parents=True)
    (tmp_path / "glue" / "MNLI").symlink_to(tmp_path / "elsewhere" / "MNLI")
    path = tmp_path / "glue" / "diagnostic" / "diagnostic-full.tsv"
    path.touch()
    data = DataSpec(source="local", root=str(tmp_path / "glue"))
    assert local.has(task, data, "diagnostics")
    assert local.file_of(task, tmp_path / "glue", "diagnostics") == path


@pytest.mark.parametrize("label", ["null", '["a"]', '{"a": 1}', "true"])
@pytest.mark.parametrize("classes", [True, False])
def test_a_label_that_is_no_text_or_number_is_refused(tmp_path, label, classes):
    line = f'{{"text": "x", "label": {label}}}'
    names = ["None", "['a']", "{'a': 1}", "True", ""]
    more = {"labels": names} if classes else {"value_range": [0.0, 20.0]}
    with pytest.raises(DataError, match=r"own.jsonl line 1: label is .*; must be") as caught:
        own(tmp_path, ".jsonl", line, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["1_0", "\u0661", "\uff11", "nan", "1e", ".", "0x1", "\xa01"])
def test_a_number_is_written_in_ascii(tmp_path, label):
    with pytest.raises(DataError, match=r"line 2: label is .*; must be a number from 0 to 20"):
        own(tmp_path, ".csv", f"text,label\nx,{label}\n", value_range=[0.0, 20.0])


def test_numbers_of_every_usual_form_are_read(tmp_path):
    forms = {"7": 7, "+7.": 7, ".5": 0.5, "1.5e1": 15, " 2": 2}
    lines = "".join(f"x,{form}\n" for form in forms)
    rows = own(tmp_path, ".csv", f"text,label\n{lines}", value_range=[0.0, 20.0])
    assert [row["label"] for row in rows] == [*forms.values()]
    line = '{"text": "x", "label": 1}'
    assert own(tmp_path, ".jsonl", line, labels=["0", "1"])[0]["label"] == 1


def test_a_long_text_of_a_csv_file_is_read(tmp_path):
    text = "long " * 40_000
    rows = own(tmp_path, ".csv", f"text,label\n{text},a\n", labels=["a", "b"])
    assert rows == [{"text": text, "label": 0}]
