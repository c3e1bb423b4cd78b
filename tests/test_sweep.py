"""Sweeps: presets, the estimate of the time left, plans, and being killed."""

import dataclasses
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_bench import record
from lora_bench.errors import UserError
from lora_bench.model.encoder import load_encoder
from lora_bench.plans import read_plans
from lora_bench.record import Record
from lora_bench.report import load_records
from lora_bench.sweep import session
from lora_bench.sweep.groups import check_group, groups, max_group_size
from lora_bench.sweep.plan import Sweep, duration, expand
from lora_bench.sweep.session import Session
from lora_bench.training import memory
from lora_bench.training.prepared import DataCache, Run, prepare
from lora_bench.training.run import execute

from .helpers import command_line

ROOT = Path(__file__).parent.parent


def test_a_preset_stands_for_its_overrides_and_the_command_line_wins():
    assert expand(["+sweep=ranks", "task=rte"], sweep=True) == [
        "method.rank=1,2,4,8,16,32,64",
        "seed=0,1,2",
        "task=rte",
    ]
    assert expand(["task=rte", "+sweep=ranks", "seed=7"], sweep=True) == [
        "task=rte",
        "method.rank=1,2,4,8,16,32,64",
        "seed=7",
    ]
    with pytest.raises(UserError, match=r"\+sweep=rnaks: must be one of alphas, article"):
        expand(["+sweep=rnaks"], sweep=True)
    with pytest.raises(UserError, match=r"\+sweep=ranks: is a sweep; add -m"):
        expand(["+sweep=ranks"], sweep=False)


def test_the_last_preset_of_a_sweep_replaces_the_others():
    last = expand(["+sweep=ranks"], sweep=True)
    assert expand(["+sweep=alphas", "+sweep=ranks", "seed=1"], sweep=True) == [
        word for word in last if not word.startswith("seed=")
    ] + ["seed=1"]
    assert expand(["+sweep=ranks", "+sweep=ranks"], sweep=True) == last


def test_each_output_folder_has_the_plan_of_its_own_runs(tiny_spec, tmp_path):
    runs = []
    for seed in range(3):
        spec = tiny_spec(f"seed={seed}")
        spec.out_dir = f"{tmp_path}/{seed % 2}"
        runs.append(prepare(spec))
    Sweep(runs).write_plans("the command")
    plans = {name: read_plans(tmp_path / name)[0][0].keys for name in "01"}
    assert plans == {"0": [runs[0].key, runs[2].key], "1": [runs[1].key]}


def test_data_that_changed_after_the_plan_end_the_sweep(tiny_spec, monkeypatch, capsys):
    planned = prepare(tiny_spec("train.epochs=1")).planned
    session = Session(Sweep([prepare(tiny_spec("train.epochs=1"))]), DataCache(), multirun=False)
    other = prepare(tiny_spec("train.epochs=1", "data.toy_train=50"))
    monkeypatch.setattr("lora_bench.sweep.session.prepare", lambda *_: other)
    session.run()
    said = capsys.readouterr().err
    assert f"error: {planned.key}: would be {other.key} now, because the data" in said
    with pytest.raises(SystemExit):
        session.end()


def write(planned: Run, status: str, seconds: float | None = 0.0, started: str = "now") -> None:
    """Write a record as the run would."""
    found = planned.identity
    parts = {"where": found.where, "system": found.system, "seed": found.seed}
    facts = {"spec": {}, "command": "", "started": started, "provenance": {}}
    costs = {"train_seconds": seconds, "eval_seconds": 0.0}
    epoch = {"epoch": 1, "scores": {"matthews": 0.5}} if status == "ok" else None
    ends = {"last": epoch, "best": epoch}
    record.write(planned.folder, Record(planned.key, status, **parts, **facts, **costs, **ends))


def keys(found: list[list[Run]]) -> list[list[str]]:
    return [[run.key for run in group] for group in found]


def test_runs_that_fit_together_are_groups(tiny_spec):
    """In the order of the command line; the size is a setting, or follows from the batch size."""
    cache = DataCache()

    def made(*more: str) -> list[Run]:
        words = [
            ["seed=0"], ["method=full"], ["task=stsb"], ["seed=1", "method.rank=2"],
            ["method=bitfit"], ["task=stsb", "seed=1"], ["method=full", "seed=1"], ["seed=2"],
        ]  # fmt: skip
        return [prepare(tiny_spec(*own, *more), cache) for own in words]

    runs = made()
    expected = [[0, 3, 4, 7], [1], [2, 5], [6]]
    assert keys(groups(runs)) == [[runs[i].key for i in group] for group in expected]
    small = made("group=2")
    expected = [[0, 3], [1], [2, 5], [4, 7], [6]]
    assert keys(groups(small)) == [[small[i].key for i in group] for group in expected]
    assert [len(group) for group in groups(made("group=1"))] == [1] * 8
    assert max_group_size(runs[0]) == 8 and max_group_size(made("device=cuda")[0]) == 16
    assert max_group_size(made("train.batch_size=300")[0]) == 1
    assert [run.key for run in made("group=2")] == [run.key for run in runs]


def test_a_sweep_trains_groups_and_says_so(tmp_path):
    """A group of a text task; a member that diverges; one more seed later; one run at a time."""
    words = [
        "-m", "model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=2",
        "train.lr=1e-3,1e38", "train.max_grad_norm=1e38", "seed=0,1", f"cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    done = command_line(*words, f"out_dir={tmp_path}/out")
    assert done.returncode == 1 and done.stdout.count("its share of a group of 4") == 2
    assert done.stderr.count("Diverged") == 2 and "2 of 4 runs failed" in done.stderr
    assert "[2 of 4 runs done, 2 failed, 0 to do]" in done.stderr
    found, _ = record.read_all(tmp_path / "out")
    good = [one for one in found if one.status == "ok"]
    assert {one.group["size"] for one in good} == {4}
    assert all(one.peak_memory_bytes is None and "group" not in one.spec for one in good)
    assert {one.command.split("seed=")[1][0] for one in good} == {"0", "1"}
    assert all(one.command.startswith("python -m lora_bench model=tiny") for one in good)
    words[5], words[7] = "train.lr=1e-3", "seed=0,1,2,3"
    more = command_line(*words, f"out_dir={tmp_path}/out")
    assert more.returncode == 0 and more.stderr.count("already done") == 2
    assert more.stdout.count("its share of a group of 2") == 2
    alone = command_line(*words, f"out_dir={tmp_path}/alone", "group=1")
    assert alone.returncode == 0 and "share" not in alone.stdout
    runs = load_records(tmp_path / "out")
    shown = runs[runs.status == "ok"]
    assert shown.train_seconds.isna().all() and set(shown.group_size) == {4, 2}
    assert (shown.shared_train_seconds > 0).all()
    single, _ = record.read_all(tmp_path / "alone")
    grouped = {one.key: one for one in record.read_all(tmp_path / "out")[0]}
    for one in single:
        assert one.group is None and one.command == grouped[one.key].command
        assert one.last["scores"] == pytest.approx(grouped[one.key].last["scores"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["group=2"], "group=2: only applies to a sweep; add -m"),
        (
            ["-m", "group=2", "method=full,galore", "task=cola,stsb"],
            "group=2: has no effect: no run of this sweep can be in a group (method=full, galore)",
        ),
        (
            ["-m", "group=2", "method=lora", "method.embeddings=true"],
            "group=2: has no effect: no run of this sweep can be in a group (method=lora)",
        ),
    ],
)
def test_a_group_without_effect_is_refused(tmp_path, words, reason):
    done = command_line(*words, "model=tiny", f"out_dir={tmp_path}")
    assert done.returncode == 1 and done.stderr == f"error: {reason}\n"


def test_a_group_size_is_accepted_if_some_runs_of_the_sweep_can_be_in_one(tiny_spec):
    check_group(
        [tiny_spec("group=2", f"method={name}") for name in ("full", "lora")], multirun=True
    )


def test_one_run_in_two_folders_is_refused(tmp_path):
    """They have one key: one of the folders would stay empty."""
    words = ["model=tiny", "data.toy_train=48", f"out_dir={tmp_path}/a,{tmp_path}/b"]
    done = command_line("-m", *words, "task=cola,stsb")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"out_dir={tmp_path}/a and out_dir={tmp_path}/b: must be one value" in done.stderr
    assert not list(tmp_path.rglob("record.json"))


def test_a_launcher_that_leaves_no_trace_is_given_up(tiny_spec, monkeypatch):
    """As one that executes the runs in another folder."""
    monkeypatch.setattr(session, "POLL", 0.0)
    started = []
    run = prepare(tiny_spec(), DataCache())
    Session(Sweep([run]), DataCache(), multirun=False).run_all(started.append)
    assert len(started) == session.ATTEMPTS


def test_a_done_run_whose_seconds_are_unknown_is_reported(tiny_spec, capsys):
    cache = DataCache()
    done = prepare(tiny_spec(), cache)
    write(done.planned, "ok", seconds=None)
    Session(Sweep([done]), cache, multirun=True).report_done()
    assert f"{done.key}: matthews 50.0 (already done" in capsys.readouterr().err


def test_memory_bounds_a_group(tiny_spec, monkeypatch, capsys):
    """With room for two steps of a run and a half, runs go one or two at a time."""
    specs = [tiny_spec("train.epochs=1", f"seed={seed}") for seed in range(5)]
    cache = DataCache()
    runs = [prepare(spec, cache) for spec in specs]
    lengths = runs[0].prepared.encoded["train"].lengths
    config = load_encoder(specs[0].model, dropout=0.1).config
    needed = memory.step_bytes(config, lengths, specs[0].train, "fp32")
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(2.5 * 2 * needed))
    outcomes = execute(runs)
    assert [outcome.record.group["size"] for outcome in outcomes[:4]] == [2, 2, 2, 2]
    assert outcomes[4].record.group is None and outcomes[4].record.status == "ok"
    assert "group of 5: 2 at a time, since a step of one run needs about" in capsys.readouterr().err


def test_the_time_left_comes_from_the_most_similar_runs(tiny_spec):
    cache = DataCache()
    overrides = [["seed=0"], ["seed=1"], ["seed=2"], ["method=bitfit"], ["task=stsb"]]
    runs = [prepare(tiny_spec(*words), cache) for words in overrides]
    sweep = Sweep(runs)
    assert sweep.seconds_left() is None and sweep.progress() == "0 of 5 runs done, 5 to do"

    def after(planned: Run, status: str, seconds: float = 0.0) -> None:
        write(planned, status, seconds, started="later")
        sweep.refresh()

    after(runs[0], "ok", 10.0)
    assert sweep.seconds_left() == 40.0  # all that is known
    after(runs[3], "ok", 100.0)
    # two more as the first, and STS-B as the median of all
    assert sweep.seconds_left() == 10 + 10 + 55
    after(runs[1], "failed")  # a failed run takes no more time
    assert sweep.progress() == "2 of 5 runs done, 1 failed, 2 to do, about 65 s left"
    again = Sweep([runs[1]])
    assert again.progress() == "0 of 1 run done, 1 to do"  # it will be tried again
    assert (duration(99), duration(600), duration(36000)) == ("99 s", "10 min", "10.0 h")


def test_extending_a_sweep_runs_the_difference(tmp_path):
    first = command(tmp_path, "seed=0,1")
    assert first.returncode == 0 and "0 of 2 runs done, 2 to do" in first.stderr
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(record.FILE)}
    second = command(tmp_path, "seed=0,1,2", "method.rank=2,8")
    assert "sweep: 2 of 6 runs done, 4 to do, about" in second.stderr
    assert len(list(tmp_path.rglob(record.FILE))) == 6
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items())
    plans, problems = read_plans(tmp_path)
    assert sorted(len(plan.keys) for plan in plans) == [2, 6] and not problems
    assert all(str(tmp_path) not in plan.command for plan in plans)


def arguments(folder: Path, *more: str) -> list[str]:
    small = [
        "model=tiny",
        "data.toy_train=48",
        "data.toy_validation=24",
        "train.epochs=1",
        "train.batch_size=16",
    ]
    folders = [f"out_dir={folder}/out", f"cache_dir={folder}/cache"]
    return [sys.executable, "-m", "lora_bench", "-m", *small, *folders, *more]


def command(folder: Path, *more: str) -> subprocess.CompletedProcess:
    return command_line(*arguments(folder, *more)[3:])


def facts(folder: Path) -> list[dict]:
    """Every record without what depends on the clock or the machine."""
    timed = {
        "started",
        "provenance",
        "group",
        "train_seconds",
        "eval_seconds",
        "examples_per_second",
        "tokens_per_second",
    }
    timed |= {"peak_memory_bytes"}
    records, problems = record.read_all(folder)
    assert not problems
    return [{k: v for k, v in dataclasses.asdict(r).items() if k not in timed} for r in records]


@pytest.mark.slow
def test_a_sweep_killed_ten_times_ends_as_an_undisturbed_one(tmp_path):
    twelve = ["task=cola,stsb", "method=lora,bitfit,head_only", "seed=0,1"]
    started = time.monotonic()
    assert command(tmp_path / "whole", *twelve).returncode == 0
    whole = time.monotonic() - started
    rng = random.Random(0)
    kills = 0
    while kills < 10:
        process = subprocess.Popen(
            arguments(tmp_path / "killed", *twelve),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(rng.uniform(0.1, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:  # it finished first: begin again, with nothing done
            for path in list((tmp_path / "killed").rglob(record.FILE))[::2]:
                path.unlink()
        kills += 1
    assert command(tmp_path / "killed", *twelve).returncode == 0
    assert len(facts(tmp_path / "killed")) == 12
    assert facts(tmp_path / "killed") == facts(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.part"))


@pytest.mark.slow
def test_a_launcher_of_processes_gets_a_job_for_each_group(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["hydra/launcher=processes", "group=2", "seed=0,1,2,3", "progress=false"]
    done = subprocess.run(arguments(tmp_path, *words), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("its share of a group of 2") == 4
    found, problems = record.read_all(tmp_path)
    assert len(found) == 4 and not problems and {one.group["size"] for one in found} == {2}
    assert all("hydra" not in one.command for one in found)
