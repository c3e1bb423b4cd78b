"""Checkpoints of a run: stopped, killed, damaged; it ends like an uninterrupted run."""

import os
import random
import signal
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
import torch
from safetensors.torch import load_file

from lora_bench import record
from lora_bench.presets import CONF
from lora_bench.sweep import search
from lora_bench.training import checkpoint
from lora_bench.training.fit import RestoreError
from lora_bench.training.member import Members
from lora_bench.training.prepared import prepare
from lora_bench.training.run import execute
from lora_bench.training.stop import REQUEUE, Stopped, StopSignals

from .helpers import COMMON, command_line, every, forked_command, mostly_slow
from .test_group import MEMBERS
from .test_run import TIMINGS
from .test_spec import OURS, PEFT

ROOT = Path(__file__).parent.parent
BEGIN_AGAIN = {"galore", "peft_adalora"}  # their state cannot be saved
LARGE = {"qlora"}  # NF4's blocks do not fit the tiny encoder


def results(specs) -> list[tuple[dict, dict]]:
    """Record without costs, and weights of both adapters, of finished runs."""
    found = []
    for spec in specs:
        folder = prepare(spec).folder
        content = vars(record.read(folder))
        facts = {n: v for n, v in content.items() if n not in TIMINGS | {"provenance"}}
        weights = {
            f"{name}/{key}": value
            for name in ("adapter", "adapter_best")
            for key, value in load_file(folder / name / "adapter.safetensors").items()
        }
        found.append((facts, weights))
    return found


def assert_same(found, expected) -> None:
    for (facts, weights), (other_facts, other_weights) in zip(found, expected, strict=True):
        assert facts == other_facts
        assert weights.keys() == other_weights.keys()
        assert all(torch.equal(value, other_weights[name]) for name, value in weights.items())


class StopAt(StopSignals):
    """Asks to stop at a step."""

    def __init__(self, pauses: int):
        self.left = pauses

    @property
    def received(self):
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def stopped_and_continued(specs, *pauses: int) -> None:
    """Stop a group after each number of pauses (steps, and ends of epochs), then finish it."""
    for count in pauses:
        with pytest.raises(Stopped, match=r"SIGTERM at step \d+ of"):
            execute([prepare(spec) for spec in specs], StopAt(count))
        assert all(record.read(prepare(spec).folder) is None for spec in specs)
    assert all(outcome.error is None for outcome in execute([prepare(spec) for spec in specs]))


@pytest.mark.parametrize("method", mostly_slow(sorted({*OURS, *PEFT} - LARGE), COMMON))
def test_every_method_continues_as_if_it_had_not_been_stopped(tiny_spec, method, tmp_path, capsys):
    more = {
        "relora": ["method.args.every=2"],
        "peft_vblora": ["method.args.num_vectors=16", "method.args.vector_length=8"],
    }.get(method, [])
    specs = [tiny_spec(f"method={method}", "train.lr=1e-2", *more) for _ in range(2)]
    specs[1].out_dir += "/stopped"
    execute([prepare(specs[0])])
    capsys.readouterr()
    stopped_and_continued(specs[1:], 1, 2)  # steps 2 and 4 or 5: in both epochs
    assert_same(results(specs[1:]), results(specs[:1]))
    assert ("continues from step" not in capsys.readouterr().err) == (method in BEGIN_AGAIN)
    assert not list(Path(specs[1].out_dir).rglob("checkpoint*"))


@pytest.mark.parametrize("pauses", mostly_slow(range(8), [0, 3, 7]))
def test_a_run_can_be_stopped_anywhere(tiny_spec, pauses):
    """After each step of two epochs of three, and between an epoch's last step and its scoring."""
    specs = [tiny_spec("task=stsb", "train.lr=1e-2") for _ in range(2)]
    specs[1].out_dir += "/stopped"
    execute([prepare(specs[0])])
    stopped_and_continued(specs[1:], pauses)
    assert_same(results(specs[1:]), results(specs[:1]))


@pytest.mark.parametrize(
    "more", every(2, [["method.layers=[1]", "train.frozen_prefix=cache"], ["task=squad_v2"]])
)
def test_a_cached_prefix_and_a_span_task_continue(tiny_spec, more):
    specs = [tiny_spec(*more, "train.lr=1e-2") for _ in range(2)]
    specs[1].out_dir += "/stopped"
    execute([prepare(specs[0])])
    stopped_and_continued(specs[1:], 1, 1)
    assert_same(results(specs[1:]), results(specs[:1]))


def test_a_group_continues(tiny_spec):
    """One member failed before the stop; it is retried, and the others continue together."""
    names = ("rank 2", "biases", "Houlsby")
    wild = ["seed=40", "train.lr=1e38", "train.max_grad_norm=1e38", "train.warmup=0"]
    words = [*(MEMBERS[name] for name in names), wild]
    whole = [tiny_spec(*own) for own in words]
    stopped = [tiny_spec(*own) for own in words]
    for spec in stopped:
        spec.out_dir += "/stopped"
    execute([prepare(spec) for spec in whole])
    with pytest.raises(Stopped):
        execute([prepare(spec) for spec in stopped], StopAt(4))
    outcomes = execute([prepare(spec) for spec in stopped])
    assert [outcome.error is None for outcome in outcomes] == [True, True, True, False]
    assert_same(results(stopped[:3]), results(whole[:3]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", b"x" * 1000])
def test_a_damaged_checkpoint_is_reported_and_the_run_begins_again(tiny_spec, content, capsys):
    spec = tiny_spec("train.epochs=1")
    folder = prepare(spec).folder
    folder.mkdir(parents=True)
    (folder / checkpoint.FILE).write_bytes(content)
    (outcome,) = execute([prepare(spec)])
    assert outcome.record.status == "ok" and not (folder / checkpoint.FILE).exists()
    assert "checkpoint.pt: cannot be read" in capsys.readouterr().err


def change_checkpoint(spec, change, pauses: int = 1) -> None:
    """Stop a run, by default after its second step, and change what it left."""
    with pytest.raises(Stopped):
        execute([prepare(spec)], StopAt(pauses))
    path = prepare(spec).folder / checkpoint.FILE
    state = torch.load(path)
    change(state)
    torch.save(state, path)


def test_a_checkpoint_that_does_not_fit_fails_its_run_which_then_begins_again(tiny_spec, capsys):
    spec = tiny_spec("train.epochs=1")
    change_checkpoint(spec, lambda state: state["parameters"].popitem())
    (outcome,) = execute([prepare(spec)])
    found = record.read(outcome.folder)
    assert found.status == "failed" and isinstance(outcome.error, RestoreError)
    assert "KeyError" in (outcome.folder / "traceback.txt").read_text()
    capsys.readouterr()
    (outcome,) = execute([prepare(spec)])
    assert outcome.record.status == "ok" and "goes on" not in capsys.readouterr().err


def test_the_last_scoring_is_repeated_where_other_hardware_rounds_differently(tiny_spec):
    def rounded_differently(state):
        (epoch,) = state["epochs"]
        epoch["scores"] = {name: score + 1e-3 for name, score in epoch["scores"].items()}
        outputs = state["best"]["outputs"]["validation"]
        outputs[0] += 1

    specs = [tiny_spec("task=stsb", "train.lr=1e-2", "train.epochs=1") for _ in range(2)]
    specs[1].out_dir += "/stopped"
    execute([prepare(specs[0])])
    change_checkpoint(specs[1], rounded_differently, pauses=3)
    (outcome,) = execute([prepare(specs[1])])
    assert outcome.error is None
    assert_same(results(specs[1:]), results(specs[:1]))


def test_a_checkpoint_of_another_kind_of_device_is_reported_and_the_run_begins_again(
    tiny_spec, capsys
):
    def on_a_gpu(state):
        state["device"] = "cuda:1"
        state["masks"]["generator"] = torch.zeros(16, dtype=torch.uint8)  # that of CUDA

    spec = tiny_spec("train.epochs=1")
    change_checkpoint(spec, on_a_gpu)
    (outcome,) = execute([prepare(spec)])
    assert outcome.error is None
    assert (
        "checkpoint.pt: comes from a run on cuda:1; the run starts over" in capsys.readouterr().err
    )


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    state = dict.fromkeys(checkpoint.ENTRIES, 0)
    checkpoint.write(tmp_path, "key", ["key"], state | {"step": 1})

    def full(handle):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.write(tmp_path, "key", ["key"], state | {"step": 2})
    assert os.listdir(tmp_path) == [checkpoint.FILE]
    assert checkpoint.read(tmp_path, "key", "cpu")["step"] == 1


def test_nothing_in_a_checkpoint_is_executed(tiny_spec, tmp_path):
    spec = tiny_spec("train.epochs=1")
    folder = prepare(spec).folder
    folder.mkdir(parents=True)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (f"{tmp_path}/executed",)

    torch.save({"format": 1, "key": "x", "evil": Evil()}, folder / checkpoint.FILE)
    execute([prepare(spec)])
    assert not (tmp_path / "executed").exists()


def test_checkpoints_are_written_when_they_are_due(tiny_spec, monkeypatch):
    written = []
    save = Members.pause
    monkeypatch.setattr(
        checkpoint, "write", lambda folder, key, group, state: written.append(state["counts"])
    )
    execute([prepare(tiny_spec("train.checkpoint_minutes=0"))])
    assert len(written) == 6 + 2  # after each of six steps and two epochs
    written.clear()
    execute([prepare(tiny_spec("seed=1"))])
    assert not written and save is Members.pause


def test_a_signal_stops_the_command_with_a_status_that_asks_to_be_requeued(tmp_path, monkeypatch):
    words = [
        "model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=3",
        f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    pause, steps = Members.pause, []

    def signalled(self, trainees, *, epoch_ended):
        steps.append(1)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        pause(self, trainees, epoch_ended=epoch_ended)

    with monkeypatch.context() as patch:
        patch.setattr(Members, "pause", signalled)
        done = command_line(*words)
    assert done.returncode == REQUEUE and "stopped by SIGUSR1 at step 4 of 18" in done.stderr
    again = command_line(*words)
    assert again.returncode == 0 and "continues from step 4 of 18" in again.stderr
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_a_signal_while_a_group_is_being_finished_stops_before_the_next(tmp_path, monkeypatch):
    words = [
        "-m", "model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1",
        "seed=0,1", "group=1", f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    end = Members.end

    def signalled(self, peak):
        os.kill(os.getpid(), signal.SIGTERM)
        end(self, peak)

    with monkeypatch.context() as patch:
        patch.setattr(Members, "end", signalled)
        done = command_line(*words)
    assert done.returncode == REQUEUE and "stopped by SIGTERM between two groups" in done.stderr
    assert len(record.read_all(tmp_path / "out")[0]) == 1
    assert command_line(*words).returncode == 0


def test_a_sweeper_ends_if_a_signal_arrives_while_a_run_is_being_finished(tmp_path, monkeypatch):
    words = [
        "model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1",
        f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    end = Members.end

    def signalled(self, peak):
        os.kill(os.getpid(), signal.SIGTERM)
        end(self, peak)

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", words)
    chosen = SimpleNamespace(overrides=SimpleNamespace(task=words))
    hydra_config = SimpleNamespace(get=lambda: chosen)
    monkeypatch.setattr(search, "HydraConfig", hydra_config)
    monkeypatch.setattr(Members, "end", signalled)
    with pytest.raises(Stopped, match="SIGTERM between two runs"):
        search.Search().job(config)
    assert [one.status for one in record.read_all(tmp_path / "out")[0]] == ["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_kills_inside_training_change_nothing(tmp_path, grouped):
    """A command that is killed repeatedly after the first step ends like an uninterrupted one."""
    words = [
        "model=tiny", "data.toy_train=160", "data.toy_validation=24", "train.epochs=12",
        "train.checkpoint_minutes=0", "progress=false", "train.lr=1e-2",
        f"cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    words = ["-m", *words, "seed=0,1", "method.rank=2,4"] if grouped else words
    assert command_line(*words, f"out_dir={tmp_path}/whole").returncode == 0
    rng, kills = random.Random(0), 0
    while kills < 20:
        process = forked_command(*words, f"out_dir={tmp_path}/killed")
        state = {path: path.stat().st_mtime_ns for path in tmp_path.glob("killed/runs/*/*/*.pt")}
        while process.is_alive():
            now = tmp_path.glob("killed/runs/*/*/*.pt")
            if any(state.get(path) != path.stat().st_mtime_ns for path in now if path.exists()):
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
    assert kills > 2
    assert command_line(*words, f"out_dir={tmp_path}/killed").returncode == 0
    expected, _ = record.read_all(tmp_path / "whole")
    found, _ = record.read_all(tmp_path / "killed")
    assert len(found) == (4 if grouped else 1)
    for one, other in zip(expected, found, strict=True):
        parts = [
            {n: v for n, v in vars(r).items() if n not in TIMINGS | {"provenance"}}
            for r in (one, other)
        ]
        assert parts[0] == parts[1]


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(tiny_spec, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    (outcome,) = execute([prepare(tiny_spec("train.checkpoint_minutes=0", "train.epochs=1"))])
    assert outcome.record.status == "ok"
    said = capsys.readouterr().err.splitlines()
    assert f"{outcome.run.key}: no checkpoint was written (No space left on device)" in said


def test_a_run_that_continues_alone_has_shares_of_its_group_in_its_costs(tiny_spec):
    specs = [tiny_spec("train.epochs=2", f"seed={seed}") for seed in (0, 1)]
    with pytest.raises(Stopped):
        execute([prepare(spec) for spec in specs], StopAt(2))
    with pytest.raises(Stopped):
        execute([prepare(specs[0])], StopAt(1))
    (outcome,) = execute([prepare(specs[0])])
    assert outcome.record.group["size"] == 2 and outcome.record.peak_memory_bytes is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.update(format=0), "comes from another run or version"),
        (lambda state: state.pop("counts"), "lacks counts"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_reported(change, reason, tiny_spec, capsys):
    spec = tiny_spec("train.epochs=1")
    change_checkpoint(spec, change)
    assert execute([prepare(spec)])[0].record.status == "ok"
    assert f"checkpoint.pt: {reason}; the run starts over" in capsys.readouterr().err


def test_the_best_adapter_is_that_of_the_checkpoint_not_of_an_epoch_that_was_lost(tiny_spec):
    """A process may be killed after a better epoch and before the next checkpoint."""
    spec = tiny_spec("train.lr=1e-12", "train.epochs=3")  # equal scores: the first epoch is kept
    steps = prepare(spec).prepared.encoded["train"].labels
    after_first_epoch = -(-len(steps) // spec.train.batch_size) + 2
    with pytest.raises(Stopped):
        execute([prepare(spec)], StopAt(after_first_epoch))
    best = prepare(spec).folder / "adapter_best"
    kept = {path.name: path.read_bytes() for path in best.iterdir()}
    for path in best.iterdir():
        path.write_bytes(b"of the lost epoch")
    (outcome,) = execute([prepare(spec)])
    assert outcome.record.best["epoch"] == 1
    assert {path.name: path.read_bytes() for path in best.iterdir()} == kept


def test_a_checkpoint_does_not_stay_in_memory_during_training(tiny_spec, monkeypatch):
    spec, loaded, alive = tiny_spec("train.epochs=1"), [], []
    with pytest.raises(Stopped):
        execute([prepare(spec)], StopAt(1))
    read = checkpoint.read

    def reading(*arguments):
        state = read(*arguments)
        loaded.extend(weakref.ref(tensor) for tensor in state["parameters"].values())
        return state

    class Watching(StopSignals):
        @property
        def received(self):
            alive.append(sum(reference() is not None for reference in loaded))

    monkeypatch.setattr(checkpoint, "read", reading)
    execute([prepare(spec)], Watching())
    assert loaded and alive and not any(alive)
