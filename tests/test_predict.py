"""Submission files for the GLUE server."""

import zipfile

import pytest

from lora_bench.predict import EVERY_FILE, main, write_submission
from lora_bench.spec import UserError
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run

from .helpers import GLUE, write_official


def folder_of(spec):
    return prepare(spec).folder


def finished(tiny_spec, tmp_path, task):
    spec = tiny_spec(f"task={task}", "data=local", f"data.root={tmp_path}/glue", "train.epochs=1")
    write_official(tmp_path / "glue", spec.task)
    write_official(tmp_path / "glue", spec.task, list(spec.task.submission), count=13)
    run(spec)
    return spec


@pytest.mark.parametrize("task", GLUE)
def test_every_task_writes_its_files_as_the_server_reads_them(tiny_spec, tmp_path, task):
    spec = finished(tiny_spec, tmp_path, task)
    written = write_submission(folder_of(spec), tmp_path / "out")
    assert [p.name for p in written] == list(spec.task.submission.values())
    for path in written:
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        assert lines[0] == ["index", "prediction"]
        assert [line[0] for line in lines[1:]] == [str(i) for i in range(13)]
        for _, value in lines[1:]:
            assert (
                value in spec.task.local.label_values
                if spec.task.labels
                else 0 <= float(value) <= 5
            )


def test_the_zip_holds_all_and_says_what_is_missing(tiny_spec, tmp_path, capsys):
    folders = [str(folder_of(finished(tiny_spec, tmp_path, task))) for task in ("cola", "mnli")]
    main([*folders, "--out", str(tmp_path / "out")])
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert sorted(archive.namelist()) == ["AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"]
    assert (
        "the server needs 7 more: MRPC, QNLI, QQP, RTE, SST-2, STS-B, WNLI"
        in capsys.readouterr().out
    )


def test_the_presets_together_fill_the_servers_list():
    from lora_bench.presets import task_presets

    assert sorted(
        f for task in task_presets().values() for f in task.submission.values()
    ) == sorted(f"{n}.tsv" for n in EVERY_FILE)


def test_a_run_without_test_split_record_or_adapter_is_one_line(tiny_spec, tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        write_submission(tmp_path, tmp_path / "out")
    toy = tiny_spec()
    run(toy)
    with pytest.raises(UserError, match="data=toy has no test split of cola"):
        write_submission(folder_of(toy), tmp_path / "out")
    spec = finished(tiny_spec, tmp_path, "rte")
    for file in (folder_of(spec) / "adapter").iterdir():
        file.unlink()
    (folder_of(spec) / "adapter").rmdir()
    with pytest.raises(
        UserError, match="the adapter is missing; move this folder away and run again"
    ):
        write_submission(folder_of(spec), tmp_path / "out")
