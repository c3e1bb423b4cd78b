"""Submission files for the GLUE server."""

import json
import shutil
import zipfile

import pytest
from safetensors.torch import load_file, save_file

from lora_bench.checkpoint import __main__ as adapters
from lora_bench.checkpoint.facts import file_hash
from lora_bench.predict import EVERY_FILE, main, write_submission
from lora_bench.spec import UserError
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run

from .helpers import GLUE, every, write_official


def folder_of(spec):
    return prepare(spec).folder


def finished(tiny_spec, tmp_path, task):
    spec = tiny_spec(f"task={task}", "data=local", f"data.root={tmp_path}/glue", "train.epochs=1")
    write_official(tmp_path / "glue", spec.task)
    write_official(tmp_path / "glue", spec.task, list(spec.task.submission), count=13)
    run(spec)
    return spec


@pytest.mark.parametrize("task", every(3, GLUE))
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


def test_the_best_epochs_adapter_predicts_where_it_is_asked_for(tiny_spec, tmp_path):
    folder = folder_of(finished(tiny_spec, tmp_path, "stsb"))
    (last,) = write_submission(folder, tmp_path / "last")
    weights = folder / "adapter_best" / "adapter.safetensors"
    facts = weights.with_name("adapter.json")
    state = load_file(weights)
    save_file({name: tensor + 0.3 for name, tensor in state.items()}, weights)
    told = json.loads(facts.read_text()) | {"weights_sha256": file_hash(weights)}
    facts.write_text(json.dumps(told))
    (again,) = write_submission(folder, tmp_path / "again")
    main([str(folder), "--out", str(tmp_path / "best"), "--epoch", "best"])
    best = tmp_path / "best" / last.name
    assert last.read_text() == again.read_text() != best.read_text()
    shutil.rmtree(folder / "adapter_best")
    with pytest.raises(UserError, match="the adapter is missing"):
        write_submission(folder, tmp_path / "none", epoch="best")


@pytest.mark.parametrize("command", ["inspect", "merge", "convert"])
def test_adapter_commands_take_the_epoch(tiny_spec, tmp_path, command, capsys):
    run(spec := tiny_spec("train.epochs=2"))
    folder = folder_of(spec)
    more = {"inspect": [], "merge": ["--out"], "convert": ["--to", "peft", "--out"]}[command]

    def result(name, *words):
        out = tmp_path / name
        adapters.main([command, *map(str, words), *more, *([str(out)] if more else [])])
        files = sorted(out.rglob("*.safetensors"))
        return [file.read_bytes() for file in files] or capsys.readouterr().out

    shutil.rmtree(folder / "adapter_best")
    with pytest.raises(SystemExit, match="no adapter_best in it for epoch best"):
        result("a", folder, "--epoch", "best")
    shutil.move(folder / "adapter", folder / "adapter_best")
    with pytest.raises(SystemExit, match="no adapter in it for epoch last"):
        result("b", folder)
    best = result("c", folder, "--epoch", "best")
    assert best == result("d", folder / "adapter_best")
    with pytest.raises(SystemExit, match="must be the folder of a run"):
        result("e", folder / "adapter_best", "--epoch", "best")
