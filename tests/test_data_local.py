"""The official layouts, with made-up rows, and what happens when a file is broken."""

import pytest

from lora_bench.__main__ import compose
from lora_bench.data import DataError, load, load_split

MNLI_HEAD = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
HEADERS = {
    "STS-B": [
        "index",
        "genre",
        "filename",
        "year",
        "old_index",
        "source1",
        "source2",
        "sentence1",
        "sentence2",
        "score",
    ],
    "MNLI train": [*MNLI_HEAD.split(), "sentence1", "sentence2", "label1", "gold_label"],
    "MNLI dev": [*MNLI_HEAD.split(), "sentence1", "sentence2", *[f"label{i}" for i in range(1, 6)], "gold_label"],
}


@pytest.fixture
def glue(tmp_path):
    """A folder in the official layout: 30 rows for each file."""
    for folder in ("CoLA", "STS-B", "MNLI"):
        (tmp_path / folder).mkdir()
    for name in ("train", "dev"):
        lines = [f'xy01\t{i % 2}\t{"" if i % 2 else "*"}\tThe {name} cat number {i} "sleeps.' for i in range(30)]
        (tmp_path / "CoLA" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        rows = [
            f"{i}\tnews\tf\t2020\t{i}\ta\tb\tA {name} {i}.\tB {name} {i}.\t{i % 6}.0".split("\t") for i in range(30)
        ]
        write(tmp_path / "STS-B" / f"{name}.tsv", [HEADERS["STS-B"], *rows])
    labels = ["entailment", "neutral", "contradiction"]
    for name, header in (("train", "MNLI train"), ("dev_matched", "MNLI dev"), ("dev_mismatched", "MNLI dev")):
        votes = 1 if name == "train" else 5
        rows = [
            [str(i), "1", "1", "g", *["n/a"] * 4, f"P {name} {i}", f"H {name} {i}", *["neutral"] * votes, labels[i % 3]]
            for i in range(30)
        ]
        write(tmp_path / "MNLI" / f"{name}.tsv", [HEADERS[header], *rows])
    return tmp_path


def write(path, rows):
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n")


def spec(glue, task, *more):
    return compose([f"task={task}", "data=local", f"data.root={glue}", *more])


def test_reads_each_layout(glue):
    cola = load(*two(spec(glue, "cola")))
    assert len(cola["train"].rows) == 30
    assert cola["train"].rows[1] == {"sentence": 'The train cat number 1 "sleeps.', "label": 1}
    assert load(*two(spec(glue, "stsb")))["validation"].rows[5]["label"] == 5.0
    mnli = load(*two(spec(glue, "mnli")))
    assert set(mnli) == {"train", "validation_matched", "validation_mismatched"}
    assert mnli["validation_matched"].rows[2] == {
        "premise": "P dev_matched 2",
        "hypothesis": "H dev_matched 2",
        "label": 2,
    }


def test_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(glue):
    path = glue / "STS-B" / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_split(*two(spec(glue, "stsb")), "train").rows[5]["label"] == 5.0


def test_other_unicode_line_ends_do_not_cut_a_row(glue):
    path = glue / "CoLA" / "train.tsv"
    path.write_text(path.read_text().replace("cat number 3", "cat\u2028number\x853"), newline="\n")
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
        ("cola", "CoLA/dev.tsv", lambda s: s.replace("\t0\t", "\t2\t"), "line 17: label is '2'; must be one of 0, 1"),
        ("cola", "CoLA/train.tsv", lambda s: "\t".join(s.split("\t")[:3]) + "\t ", "column sentence is empty"),
        ("cola", "CoLA/train.tsv", lambda s: "\t".join(s.split("\t")[::-1]), "line 17: column source is"),
        ("stsb", "STS-B/train.tsv", lambda s: s[:-3] + "5.5", "label is '5.5'; must be a number from 0 to 5"),
        ("stsb", "STS-B/train.tsv", lambda s: s[:-3] + "nan", "label is 'nan'"),
        ("stsb", "STS-B/dev.tsv", lambda s: s[:-3] + "high", "label is 'high'"),
        (
            "mnli",
            "MNLI/dev_matched.tsv",
            lambda s: s.rpartition("\t")[0] + "\t-",
            "label is '-'; must be one of entail",
        ),
        ("mnli", "MNLI/train.tsv", lambda s: "x" + s, "column index is 'x15'"),
        ("mnli", "MNLI/train.tsv", lambda s: "", "line 17: has 1 tab-separated columns"),
        ("cola", "CoLA/train.tsv", lambda s: s + "\0", "line 17: holds a NUL character"),
    ],
)
def test_a_broken_line_17_is_named(glue, task, file, change, message):
    edit_line(glue / file, 17, change)
    with pytest.raises(DataError, match=message) as caught:
        load(*two(spec(glue, task)))
    assert file in str(caught.value) and "line 17" in str(caught.value) and "\n" not in str(caught.value)


def test_skip_bad_leaves_rows_out_and_says_which(glue):
    edit_line(glue / "CoLA/train.tsv", 17, lambda s: s + "\textra")
    found = load_split(*two(spec(glue, "cola", "data.skip_bad=true")), "train")
    assert len(found.rows) == 29
    assert found.skipped == ["train.tsv line 17: has 5 tab-separated columns; must have as many as the header"]


def test_swapped_header_wrong_encoding_empty_file_and_folder(glue):
    path = glue / "STS-B/train.tsv"
    good = path.read_bytes()

    def error() -> str:
        with pytest.raises(DataError) as caught:
            load(*two(spec(glue, "stsb")))
        return str(caught.value)

    edit_line(path, 1, lambda s: s.replace("sentence2\tscore", "score\tsentence2"))
    assert "line 1: header is" in error()
    path.write_bytes(good.replace(b"A train 9", b"A tr\xe4in 9"))
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
    assert few["train"].fingerprint() == again["train"].fingerprint() != other["train"].fingerprint()


@pytest.mark.parametrize(("task", "train", "validation"), [("cola", 8551, 1043), ("stsb", 5749, 1500)])
def test_real_files_have_the_official_rows(real_glue, task, train, validation):
    found = load(*two(spec(real_glue, task)))
    assert (len(found["train"].rows), len(found["validation"].rows)) == (train, validation)


def two(spec):
    return spec.task, spec.data
