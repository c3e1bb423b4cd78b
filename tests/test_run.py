"""One run as a whole: records, resume, failure, interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from lora_bench import checkpoint, claims, record
from lora_bench.checkpoint.restore import load_model
from lora_bench.errors import SpecError, UserError
from lora_bench.methods.lora import Lora
from lora_bench.model.group import Group
from lora_bench.training.evaluation import outputs_of, score
from lora_bench.training.memory import PeakMemory
from lora_bench.training.prepared import DataCache, prepare
from lora_bench.training.run import execute, run

from .helpers import command_line, every, mostly_slow, write_official
from .test_spec import OURS


def folder_of(spec) -> Path:
    return prepare(spec).folder


TIMINGS = {
    "started",
    "train_seconds",
    "eval_seconds",
    "examples_per_second",
    "tokens_per_second",
    "peak_memory_bytes",
    "group",
}


SCORES = {
    "cola": ["matthews"],
    "sst2": ["accuracy"],
    "mrpc": ["accuracy", "f1"],
    "stsb": ["pearson", "spearman"],
    "qqp": ["accuracy", "f1"],
    "mnli": ["accuracy_matched", "accuracy_mismatched", "matthews_diagnostics"],
    "qnli": ["accuracy"],
    "rte": ["accuracy"],
    "wnli": ["accuracy"],
}


@pytest.mark.parametrize("task", every(3, SCORES))
def test_a_run_trains_scores_saves_and_scores_again(tiny_spec, task):
    spec = tiny_spec(f"task={task}")
    done = run(spec, "the command")
    assert str(folder_of(spec).parents[2]) not in json.dumps(
        vars(done)
    )  # no folder of this machine
    assert done.status == "ok" and done.command == "the command" and done.error is None
    assert [e["epoch"] for e in done.epochs] == [1, 2]
    assert done.reloaded == pytest.approx(done.last["scores"], abs=1e-6)
    first = next(iter(done.last["scores"]))
    assert done.best["scores"][first] == max(e["scores"][first] for e in done.epochs)
    assert list(done.last["scores"]) == SCORES[task]
    points = done.data[spec.task.validation[0]]
    assert all(
        list(points[name]) == spec.task.metrics for name in ("chance", "ceiling", "bag_of_words")
    )
    assert done.parameters["adapter"] == 2 * 2 * 8 * (32 + 32)
    assert done.adapter_bytes == (folder_of(spec) / "adapter" / checkpoint.WEIGHTS).stat().st_size
    assert done.peak_memory_bytes > 50e6 and done.tokens_per_second > done.examples_per_second > 0
    assert done.data["train"]["rows"] == 48
    assert record.read(folder_of(spec)) == done


@pytest.mark.parametrize("task", every(3, SCORES))
def test_every_task_trains_on_official_files(tiny_spec, tmp_path, task):
    spec = tiny_spec(f"task={task}", "data=local", f"data.root={tmp_path}/glue", "train.epochs=1")
    write_official(tmp_path / "glue", spec.task)
    done = run(spec)
    assert done.status == "ok" and done.data[spec.task.validation[0]]["ceiling"] is None
    assert str(tmp_path) not in done.data["train"]["source"]


@pytest.mark.parametrize("task", mostly_slow(["rte", "squad_v1"], ["rte"]))
@pytest.mark.parametrize("method", every(2, sorted({*OURS} - {"lora"})))
def test_every_method_of_ours_trains_on_a_text_and_a_span_task(tiny_spec, method, task):
    more = {
        # NF4's blocks do not fit the tiny encoder's width
        "qlora": ["model=minilm", "data.toy_train=16", "data.toy_validation=8"],
        "relora": ["method.args.every=1"],
    }
    own = more.get(method, [])
    done = run(tiny_spec(f"task={task}", f"method={method}", "train.epochs=1", *own))
    counts = done.parameters
    assert counts["head"] > 0 and (counts["trained"] == counts["head"]) == (method == "head_only")
    assert (counts["trained"] == counts["total"]) == (method in ("full", "galore"))


def test_a_run_starts_from_another_runs_adapter(tiny_spec):
    mnli = run(tiny_spec("task=mnli", "train.lr=1e-2"))
    folder = folder_of(tiny_spec("task=mnli", "train.lr=1e-2"))
    started = tiny_spec("task=rte", f"init_from={folder}", "train.lr=1e-9", "train.epochs=1")
    plain = tiny_spec("task=rte", "train.lr=1e-9", "train.epochs=1")
    assert prepare(started).key != prepare(plain).key
    assert run(started).spec["init_from"] == str(folder)
    assert run(plain).epochs != run(started).epochs
    trained, base = (
        load_file(folder_of(s) / "adapter" / checkpoint.WEIGHTS) for s in (started, plain)
    )
    source = load_file(folder / "adapter" / checkpoint.WEIGHTS)
    name = "encoder.encoder.layer.1.attention.self.value.lora_b"
    torch.testing.assert_close(trained[name], source[name], atol=1e-7, rtol=0)
    assert base[name].abs().max() < 1e-7 < source[name].abs().max()
    assert (
        trained["head.out_proj.weight"].shape[0] == 2
        and source["head.out_proj.weight"].shape[0] == 3
    )
    assert mnli.spec["init_from"] is None
    with pytest.raises(UserError, match=r"has alpha=16.0, but the run has method.alpha=500.0$"):
        run(tiny_spec("task=rte", f"init_from={folder}", "method.alpha=500"))
    with pytest.raises(
        UserError,
        match="init_from=.*nowhere: must be the key of a run below .*, or a folder with an adapter",
    ):
        run(tiny_spec("init_from=/nowhere"))
    with pytest.raises(UserError, match=r"init_from=mnli\*: must be the key of a run below"):
        run(tiny_spec("init_from='mnli*'"))


def test_the_same_seed_gives_the_same_record_and_another_seed_does_not(tiny_spec, tmp_path):
    def scored(*overrides):
        found = vars(run(tiny_spec("train.lr=1e-2", *overrides)))
        return {k: v for k, v in found.items() if k not in TIMINGS | {"spec", "key"}}

    first = scored(f"out_dir={tmp_path}/a")
    assert scored(f"out_dir={tmp_path}/b") == first
    assert scored("seed=1")["epochs"] != first["epochs"]


def test_a_finished_run_is_not_done_again(tiny_spec, monkeypatch):
    spec = tiny_spec()
    first = run(spec)
    monkeypatch.setattr(Lora, "prepare", lambda *_: pytest.fail("trained again"))
    assert run(spec) == first


def test_other_data_make_another_run(tiny_spec, monkeypatch):
    from lora_bench.data import toy

    spec = tiny_spec()
    first, folder = run(spec), folder_of(spec)

    def other(rng):
        return (f"Sentence {rng.random()}.",), rng.randrange(2)

    monkeypatch.setitem(toy.GENERATORS, "cola", other)
    second = run(spec)
    assert second.key != first.key and folder_of(spec) != folder
    assert second.where["data.fingerprint"] != first.where["data.fingerprint"]
    assert record.read(folder) == first


def test_another_encoder_under_the_same_name_makes_another_run(tiny_spec, monkeypatch):
    first = prepare(tiny_spec())
    monkeypatch.setattr("lora_bench.model.source.fingerprint", lambda model: "other weights")
    assert prepare(tiny_spec()).key != first.key


def test_a_changed_default_is_not_taken_for_the_old_run(tiny_spec, monkeypatch):
    spec = tiny_spec()
    first = run(spec)
    spec.train.max_grad_norm = 2.0
    monkeypatch.setattr("lora_bench.spec.Identity.key", first.key)
    message = r"was run with different settings \(train.max_grad_norm was 1.0, is 2.0\)"
    with pytest.raises(UserError, match=message):
        run(spec)


def test_a_run_under_an_older_key_is_found_by_its_identity(tiny_spec, monkeypatch):
    """As if a setting had been renamed: the folder keeps its old name and nothing is repeated."""
    spec = tiny_spec()
    first, folder = run(spec), folder_of(spec)
    folder.rename(folder.with_name("cola-tiny-lora-r8-s0-0123456789"))
    monkeypatch.setattr(Lora, "prepare", lambda *_: pytest.fail("trained again"))
    assert run(spec) == first


def test_runs_of_one_process_read_their_data_once(tiny_spec, monkeypatch):
    from lora_bench.data import toy

    reads = []
    real = toy.load
    monkeypatch.setattr(toy, "load", lambda *a: reads.append(a[-1]) or real(*a))
    cache = DataCache()
    specs = [tiny_spec(f"method.rank={rank}", f"seed={seed}") for rank in (1, 2) for seed in (0, 1)]
    prepared = {id(prepare(spec, cache).prepared) for spec in specs}
    assert len(prepared) == 1 and sorted(reads) == ["train", "validation"]
    assert prepare(tiny_spec("data.toy_train=49"), cache).prepared.fingerprint


def test_a_second_command_encodes_no_split_again(tiny_spec):
    spec = tiny_spec()
    for _ in range(2):
        assert prepare(spec).prepared.encoded.keys() == {"train", "validation"}
        assert len(list(Path(spec.cache_dir).iterdir())) == 2


def test_best_and_last_adapters_are_saved_with_their_predictions(tiny_spec):
    spec = tiny_spec("task=stsb", "train.epochs=4", "train.lr=0.1")
    done = run(spec)
    planned = prepare(spec)
    assert done.best["epoch"] < done.last["epoch"] == 4  # a wild learning rate: the best is early
    stored = pd.read_parquet(planned.folder / "predictions" / "validation.parquet")
    assert list(stored) == ["prediction", "reference", "best_prediction"] and len(stored) == 24
    stored = stored.astype(float)  # the predictions are almost constant
    for column, epoch in (("prediction", done.last), ("best_prediction", done.best)):
        found = stats.pearsonr(stored[column], stored.reference).statistic
        assert found == pytest.approx(epoch["scores"]["pearson"], abs=1e-6)
    for name, epoch in (("adapter", done.last), ("adapter_best", done.best)):
        model, _, _ = load_model(planned.folder / name)
        (outputs,) = outputs_of(Group([model]), planned.prepared, spec)
        scores = score(outputs, planned.prepared).scores
        assert scores == pytest.approx(epoch["scores"], abs=1e-6)


def test_a_record_names_its_streams(tiny_spec):
    assert run(tiny_spec("train.epochs=1")).streams == ["head", "init", "dropout", "order"]


def test_a_good_record_is_never_replaced_by_a_failed_one(tiny_spec, monkeypatch):
    """Another process takes the run over, as after a long pause, and finishes it first."""
    spec = tiny_spec("train.epochs=1")
    planned = prepare(spec)

    def fail_late(*_):
        monkeypatch.undo()
        os.utime(planned.folder / claims.FILE, (0, 0))
        run(spec)
        raise MemoryError("out of memory")

    monkeypatch.setattr(Lora, "prepare", fail_late)
    with pytest.raises(MemoryError):
        run(spec)
    assert record.read(planned.folder).status == "ok"


def test_a_failed_run_leaves_its_reason_and_is_tried_again(tiny_spec, monkeypatch):
    spec = tiny_spec()
    with monkeypatch.context() as patch:
        patch.setattr(Lora, "prepare", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(spec)
    failed = record.read(folder_of(spec))
    assert (failed.status, failed.error) == ("failed", "division by zero")
    assert "ZeroDivisionError" in (folder_of(spec) / "traceback.txt").read_text()
    assert run(spec).status == "ok"
    assert not (folder_of(spec) / "traceback.txt").exists()


def test_an_adapter_that_scores_differently_after_loading_is_an_error(tiny_spec, monkeypatch):
    monkeypatch.setattr("lora_bench.training.member.load_adapter", lambda *_: None)
    spec = tiny_spec("task=stsb", "train.lr=1e-2", "train.epochs=3")
    with pytest.raises(RuntimeError, match="after saving and loading"):
        run(spec)


@pytest.mark.slow
def test_a_member_of_a_group_ends_as_its_single_run_and_fails_alone(tiny_spec):
    """Members of one group, one of which diverges and one of which is already done."""
    differing = [
        ["seed=1"],
        ["method.rank=2", "seed=2", "method.biases=all"],
        ["train.lr=1e38", "train.max_grad_norm=1e38"],
        ["method=bitfit"],
    ]
    single = [tiny_spec(*more, "train.epochs=3") for more in differing]
    grouped = [tiny_spec(*more, "train.epochs=3") for more in differing]
    for spec in grouped:
        spec.out_dir += "/grouped"
    run(grouped[3])
    outcomes = execute([prepare(spec) for spec in grouped])
    assert [outcome.error is None for outcome in outcomes] == [True, True, False, True]
    assert "Diverged" in type(outcomes[2].error).__name__
    written = folder_of(grouped[2])
    assert record.read(written).status == "failed" and (written / "traceback.txt").is_file()
    for alone, together, outcome in zip(single, grouped, outcomes, strict=True):
        if outcome.error is not None:
            with pytest.raises(type(outcome.error), match=re.escape(str(outcome.error))):
                run(alone)
            continue
        expected, found = run(alone), record.read(folder_of(together))
        assert found == outcome.record and found.key == expected.key
        assert {n: v for n, v in vars(found).items() if n not in {*TIMINGS, "provenance"}} == {
            n: v for n, v in vars(expected).items() if n not in {*TIMINGS, "provenance"}
        }
        weights = [
            load_file(folder_of(s) / "adapter/adapter.safetensors") for s in (alone, together)
        ]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_good_record_that_cannot_be_written_is_no_good_record(tiny_spec, monkeypatch):
    """As on a full disk that has room again when the failure is recorded."""
    spec, write = tiny_spec("train.epochs=1"), record.write

    def full_once(folder, found):
        if found.status == "ok":
            raise OSError(28, "No space left on device")
        write(folder, found)

    monkeypatch.setattr(record, "write", full_once)
    with pytest.raises(OSError, match="No space left"):
        run(spec)
    found = record.read(folder_of(spec))
    assert found.status == "failed"
    assert f"No space left on device: '{folder_of(spec)}'" in found.error


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_record_and_the_next_one_finishes(tmp_path):
    command = [
        *(sys.executable, "-m", "lora_bench", "model=tiny", "data.toy_train=400"),
        *("data.toy_validation=24", "train.epochs=30"),
        *(f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"),
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, env=os.environ)
    while not list((tmp_path / "cache").glob("*.npz")):  # it is past the data: training starts
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert record.read_all(tmp_path / "out") == ([], [])
    assert command_line(*command[3:], "train.epochs=1").returncode == 0
    assert [r.status for r in record.read_all(tmp_path / "out")[0]] == ["ok"]


def test_the_peak_memory_is_that_of_the_gpu_of_the_run(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda device: asked.append(device) or 7
    )
    with PeakMemory("cuda:1") as peak:
        pass
    assert peak.bytes == 7 and asked == ["cuda:1"] * 2


@pytest.mark.parametrize("task", ["stsb", "sst2"])
def test_a_run_that_diverges_in_its_last_step_fails_alone(tiny_spec, task):
    """Its last loss is finite, and its outputs are not; as classes, they would have a score."""
    words = [f"task={task}", "data.toy_train=16", "train.batch_size=16", "train.epochs=1"]
    wild = ["train.lr=1e38", "train.warmup=0", "train.max_grad_norm=1e38"]
    specs = [tiny_spec(*words, *wild), tiny_spec(*words, "train.warmup=0", "seed=2")]
    bad, good = execute([prepare(spec) for spec in specs])
    assert "outputs are NaN after epoch 1; try a lower train.lr than 1e+38" in str(bad.error)
    assert record.read(bad.folder).status == "failed" and good.error is None
    assert record.read(good.folder).status == "ok"


def test_a_score_that_is_no_number_fails_its_run(tiny_spec, monkeypatch):
    """A task of the user's own may compute one from finite outputs."""
    planned = prepare(tiny_spec("train.epochs=1"))
    assert planned.prepared.facts  # with scores of chance
    wrong = {"f1": np.float64("nan")}
    monkeypatch.setattr("lora_bench.tasks.text.TextTask.score", lambda *_: wrong)
    (outcome,) = execute([planned])
    assert "f1 is nan after epoch 1" in record.read(outcome.folder).error


def test_an_error_of_the_whole_group_is_recorded_for_each_run(tiny_spec, monkeypatch):
    def full(*_):
        raise MemoryError("no room for the prefix")

    monkeypatch.setattr("lora_bench.training.fit.Loop._frozen_prefix", full)
    specs = [tiny_spec("train.epochs=1"), tiny_spec("train.epochs=1", "seed=1")]
    outcomes = execute([prepare(spec) for spec in specs])
    assert all("no room" in record.read(outcome.folder).error for outcome in outcomes)


def test_numbers_of_another_type_are_the_same_run(tiny_spec):
    spec = tiny_spec("method.alpha=16", "train.epochs=1")
    spec.method.alpha = 16  # the command line makes it 16.0
    assert run(spec).key == prepare(tiny_spec("method.alpha=16", "train.epochs=1")).key
    spec.train.epochs = 1.5
    with pytest.raises(SpecError, match=r"train.epochs=1.5: "):
        run(spec)
