"""Submission files for the GLUE server."""

import dataclasses
import json
import shutil
import zipfile

import pytest
from safetensors.torch import load_file, save_file

from lora_bench.checkpoint import __main__ as adapters
from lora_bench.checkpoint.facts import file_hash
from lora_bench.errors import UserError
from lora_bench.predict import EVERY_FILE, main, write_submission, write_zip
from lora_bench.record_formats import UNKNOWN
from lora_bench.tasks import make_task
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run

from .helpers import GLUE, TASKS, every, write_official


def folder_of(spec):
    return prepare(spec).folder


def finished(tiny_spec, tmp_path, task, *more):
    spec = tiny_spec(
        f"task={task}", "data=local", f"data.root={tmp_path}/glue", "train.epochs=1", *more
    )
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


@pytest.mark.parametrize(("highest", "text"), [(5.0, "0.001"), (0.001, "0.000877")])
def test_a_value_has_decimals_for_its_range(highest, text):
    task = make_task(dataclasses.replace(TASKS["stsb"], value_range=[0.0, highest]))
    assert task.submission_value(0.000877) == text


def test_other_tasks_do_not_ask_for_the_files_of_glue(tmp_path):
    (tmp_path / "a.tsv").touch()
    assert write_zip(tmp_path, [tmp_path / "a.tsv"])[1] == []


def test_the_zip_holds_all_and_says_what_is_missing(tiny_spec, tmp_path, capsys):
    folders = [str(folder_of(finished(tiny_spec, tmp_path, task))) for task in ("cola", "mnli")]
    main([*folders, "--out", str(tmp_path / "out")])
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert sorted(archive.namelist()) == ["AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"]
    said = capsys.readouterr()
    assert "the server needs 7 more: MRPC, QNLI, QQP, RTE, SST-2, STS-B, WNLI" in said.out
    assert "CoLA.tsv: 13 of 1,063 rows; the server will refuse it" in said.err


def test_a_record_of_the_first_format_predicts(tiny_spec, tmp_path):
    """It has no fingerprint of its encoder, which therefore cannot have changed."""
    folder = folder_of(finished(tiny_spec, tmp_path, "rte"))
    path = folder / "record.json"
    content = json.loads(path.read_text())
    content["where"]["model.fingerprint"] = UNKNOWN
    path.write_text(json.dumps(content))
    assert write_submission(folder, tmp_path / "out")
    content["where"]["model.fingerprint"] = "another"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has changed since"):
        write_submission(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("eval_batch_size", 0, "record.json: eval_batch_size=0: must be 1 or more"),
        ("precision", "fp64", "record.json: precision=fp64: must be one of"),
    ],
)
def test_a_wrong_setting_in_a_record_is_named(name, value, message, tiny_spec, tmp_path):
    folder = folder_of(finished(tiny_spec, tmp_path, "rte"))
    path = folder / "record.json"
    content = json.loads(path.read_text())
    content["spec"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        write_submission(folder, tmp_path / "out")


def test_a_run_of_another_device_predicts_on_this_one(tiny_spec, tmp_path):
    folder = folder_of(finished(tiny_spec, tmp_path, "rte"))
    path = folder / "record.json"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda:77"'))
    with pytest.raises(UserError, match="device=cuda:77: there is no such CUDA device here"):
        write_submission(folder, tmp_path / "out")
    assert write_submission(folder, tmp_path / "out", device="cpu")


def test_two_runs_of_a_task_are_refused_and_old_files_stay_out_of_the_zip(
    tiny_spec, tmp_path, capsys
):
    first = finished(tiny_spec, tmp_path, "rte")
    second = tiny_spec("task=rte", "data=local", f"data.root={tmp_path}/glue", "train.epochs=1",
                       "seed=1")  # fmt: skip
    run(second)
    folders, out = [str(folder_of(spec)) for spec in (first, second)], tmp_path / "files"
    with pytest.raises(SystemExit) as caught:
        main([*folders, "--out", str(out)])
    assert str(caught.value).startswith(f"error: {folders[0]} and {folders[1]}: both would write")
    assert "RTE.tsv" in str(caught.value) and not out.exists()
    out.mkdir()
    (out / "CoLA.tsv").write_text("of an earlier call")
    main([folders[1], "--out", str(out)])
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.namelist() == ["RTE.tsv"]
    assert "the server needs 10 more: AX, CoLA" in capsys.readouterr().out


@pytest.mark.parametrize("skip_bad", ["true", "false"])
def test_a_bad_test_row_is_refused_whatever_skip_bad_is(tiny_spec, tmp_path, skip_bad):
    spec = finished(tiny_spec, tmp_path, "rte", f"data.skip_bad={skip_bad}")
    path = tmp_path / "glue" / "RTE" / spec.task.local.files["test"]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "cut", *lines[4:]]) + "\n")
    with pytest.raises(UserError, match=r"test.tsv line 4: .*needs every row of test") as caught:
        write_submission(folder_of(spec), tmp_path / "files")
    assert "\n" not in str(caught.value) and not [*tmp_path.glob("files/*")]
    path.write_text("\n".join([lines[0], "cut"]) + "\n")
    with pytest.raises(UserError, match="split test of rte is empty; the first bad row: test.tsv"):
        write_submission(folder_of(spec), tmp_path / "files")


@pytest.mark.parametrize("absolute", [False, True])
def test_a_record_cannot_name_a_file_elsewhere(tiny_spec, tmp_path, absolute):
    folder = folder_of(finished(tiny_spec, tmp_path, "rte"))
    name = str(tmp_path / "x.tsv") if absolute else "../x.tsv"
    record = json.loads((folder / "record.json").read_text())
    record["spec"]["task"]["submission"] = {"test": name}
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit) as caught:
        main([str(folder), "--out", str(tmp_path / "files")])
    message = f"record.json: task.submission.test={name!r}: must be the name of a .tsv file"
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "x.tsv").exists()


def test_the_presets_together_fill_the_servers_list():
    from lora_bench.presets import task_presets

    assert sorted(
        f for task in task_presets().values() for f in task.submission.values()
    ) == sorted(f"{n}.tsv" for n in EVERY_FILE)


def test_a_run_without_test_split_record_or_adapter_gives_a_one_line_error(tiny_spec, tmp_path):
    with pytest.raises(UserError, match="has no finished run"):
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


@pytest.mark.parametrize("source", ["hub", "toy"])
def test_a_folder_of_data_for_a_run_that_reads_none_is_refused(tiny_spec, tmp_path, source):
    spec = tiny_spec("task=rte", "train.epochs=1")
    run(spec)
    path = folder_of(spec) / "record.json"
    record = json.loads(path.read_text())
    record["spec"]["data"]["source"] = source
    path.write_text(json.dumps(record))
    with pytest.raises(SystemExit) as caught:
        main([str(path.parent), "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)])
    line = f"error: --data-root {tmp_path}: has no effect on {path.parent}, whose data={source}"
    assert str(caught.value) == f"{line} reads no folder"


def test_the_home_folder_of_a_user_who_does_not_exist_is_no_folder(tiny_spec, tmp_path):
    folder = folder_of(finished(tiny_spec, tmp_path, "rte"))
    with pytest.raises(SystemExit, match="--data-root ~nosuchuser: no such folder"):
        main([str(folder), "--out", str(tmp_path / "out"), "--data-root", "~nosuchuser"])
    for word in ("data.root='~nosuchuser'", "model.source='~nosuchuser'"):
        with pytest.raises(UserError, match=r"~nosuchuser: no such folder"):
            run(tiny_spec("task=rte", "data=local", f"data.root={tmp_path}/glue", word))


def test_a_folder_of_data_that_is_not_there_is_named(tiny_spec, tmp_path):
    folder = folder_of(finished(tiny_spec, tmp_path, "rte"))
    arguments = [str(folder), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="^error: --data-root nowhere: no such folder"):
        main([*arguments, "--data-root", "nowhere"])
    (tmp_path / "glue").rename(tmp_path / "moved")
    with pytest.raises(SystemExit, match=f"^error: data.root={tmp_path}/glue: no such folder"):
        main(arguments)
    main([*arguments, "--data-root", str(tmp_path / "moved")])


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


def test_an_adapter_of_another_function_than_the_record_states_is_refused(tiny_spec, tmp_path):
    folder = prepare(finished(tiny_spec, tmp_path, "rte")).folder
    facts = folder / "adapter" / "adapter.json"
    text = facts.read_text()
    facts.write_text(text.replace('"alpha": 16.0', '"alpha": 32.0'))
    assert facts.read_text() != text
    with pytest.raises(UserError, match="has alpha=32.0, but the run has method.alpha=16.0"):
        write_submission(folder, tmp_path / "out")
