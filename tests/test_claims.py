"""Claims: one holder at a time, taken over only when the holder is gone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lora_bench import claims as module
from lora_bench import record
from lora_bench.claims import EXPIRY, FILE, Claimed, Holder, claims, holder_of
from lora_bench.compose import compose
from lora_bench.files import host_name
from lora_bench.training.prepared import prepare
from lora_bench.training.run import execute, run
from lora_bench.training.stop import REQUEUE

from .helpers import command_line, forked_command

ROOT = Path(__file__).parent.parent


def write(folder: Path, holder: Holder, age: float = 0.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age, time.time() - age))


@pytest.fixture
def other() -> Holder:
    """A process on another machine."""
    return Holder("elsewhere", 1, 0.0, "token")


def test_a_claim_is_held_for_a_block_and_by_one_holder(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    with claims(folders) as found:
        assert found == dict.fromkeys(folders)
        assert holder_of(folders[0]).process == os.getpid()
        with claims([folders[1], tmp_path / "c"]) as inner:
            assert str(inner[folders[1]]) == f"process {os.getpid()} on {host_name()}"
            assert inner[tmp_path / "c"] is None
        assert holder_of(folders[1]) is not None and holder_of(tmp_path / "c") is None
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_claims_are_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), claims([tmp_path]):
        raise ZeroDivisionError
    assert holder_of(tmp_path) is None


def test_claims_are_released_where_one_of_them_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), claims([tmp_path / "run", tmp_path / "file" / "run"]):
        pass
    assert holder_of(tmp_path / "run") is None


@pytest.mark.parametrize("age", [0.0, EXPIRY - 5])
def test_a_claim_of_another_machine_is_respected_while_it_is_fresh(tmp_path, other, age):
    write(tmp_path, other, age)
    with claims([tmp_path]) as found:
        assert found == {tmp_path: other}
    assert json.loads((tmp_path / FILE).read_text()) == asdict(other)  # and it is not removed


def test_an_expired_claim_is_taken_over(tmp_path, other):
    write(tmp_path, other, EXPIRY + 5)
    assert holder_of(tmp_path) is None
    with claims([tmp_path]) as found:
        assert found == {tmp_path: None} and holder_of(tmp_path).process == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"host": "x"}', b"\xff"])
def test_a_damaged_claim_is_respected_until_it_expires(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with claims([tmp_path]) as found:
        assert found[tmp_path] is not None
    os.utime(tmp_path / FILE, (0, 0))
    with claims([tmp_path]) as found:
        assert found[tmp_path] is None


def test_a_process_that_ended_on_this_machine_holds_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = module._start_of(module.psutil.Process(process.pid))
    holder = Holder(host_name(), process.pid, started, "t")
    write(tmp_path, holder)
    assert holder_of(tmp_path) == holder
    write(tmp_path, replace(holder, started=started - 50))  # another one with that number
    assert holder_of(tmp_path) is None
    write(tmp_path, holder)
    process.kill()
    process.wait()
    assert holder_of(tmp_path) is None


def test_of_many_that_want_a_run_one_gets_it(tmp_path, other):
    """Free, and expired: each thread stands for a process."""
    for state in ("free", "expired") * 10:
        folder = tmp_path / f"{state}{time.perf_counter_ns()}"
        if state == "expired":
            write(folder, other, EXPIRY + 5)
        barrier, got = threading.Barrier(8), []

        def attempt(_, folder=folder, barrier=barrier, got=got):
            barrier.wait()
            with claims([folder]) as found:
                got.append(found[folder] is None)
                barrier.wait()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(attempt, range(8)))
        assert sum(got) == 1, state


def test_a_live_claim_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    with claims([tmp_path]):
        os.utime(tmp_path / FILE, (0, 0))
        for _ in range(300):
            if (tmp_path / FILE).stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert holder_of(tmp_path) is not None


def test_a_claimed_run_is_left_to_its_holder(tiny_spec, other):
    specs = [tiny_spec("train.epochs=1", f"seed={seed}") for seed in (0, 1)]
    runs = [prepare(spec) for spec in specs]
    write(runs[0].folder, other)
    outcomes = execute(runs)
    assert isinstance(outcomes[0].error, Claimed) and "process 1 on elsewhere" in str(
        outcomes[0].error
    )
    assert outcomes[1].record.status == "ok" and record.read(runs[0].folder) is None
    with pytest.raises(Claimed):
        run(specs[0])


def test_a_run_that_was_finished_before_it_was_claimed_is_not_repeated(tiny_spec, monkeypatch):
    """Between looking for a record and claiming, another process finishes the run."""
    spec = tiny_spec("train.epochs=1")
    take = module._take

    def late(folder, mine):
        monkeypatch.undo()
        done.append(run(spec))
        return take(folder, mine)

    done: list[record.Record] = []
    monkeypatch.setattr(module, "_take", late)
    assert run(spec) == done[0]


def sweep_of(folder: Path, *more: str) -> list[str]:
    return [
        "-m", "model=tiny", "data.toy_train=200", "data.toy_validation=24", "train.epochs=4",
        "method.rank=1,2,4,8", "seed=0,1,2", "group=2", "progress=false",
        f"out_dir={folder}/out", f"cache_dir={folder}/cache", *more,
    ]  # fmt: skip


def test_a_sweep_waits_for_others_and_does_what_they_leave(tmp_path, other, monkeypatch, tiny_spec):
    words = sweep_of(tmp_path, "method.rank=1", "seed=0,1", "data.toy_train=48", "train.epochs=1")
    command_line(*words)
    found, _ = record.read_all(tmp_path / "out")
    folders = [tmp_path / "out" / "runs" / "cola" / one.key for one in found]
    (folders[1] / record.FILE).unlink()
    write(folders[1], other)
    looks = []

    def look(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            os.utime(folders[1] / FILE, (0, 0))

    monkeypatch.setattr("lora_bench.sweep.session.time.sleep", look)
    done = command_line(*words)
    assert done.returncode == 0 and len(looks) == 3
    assert done.stderr.count("waiting for 1 run of process 1 on elsewhere") == 1
    assert f"{found[1].key}: " in done.stdout and record.read(folders[1]).status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_four_processes_divide_a_sweep(tmp_path, killed):
    """12 runs are trained 12 times in total, even when one of the processes is killed."""
    outs = [tmp_path / f"{n}.out" for n in range(4)]
    processes = [forked_command(*sweep_of(tmp_path), out=out) for out in outs]
    if killed:
        runs = tmp_path / "out" / "runs" / "cola"
        while not (held := list(runs.glob(f"*/{FILE}"))):
            time.sleep(0.05)
        victim = json.loads(held[0].read_text())["process"]
        os.kill(victim, signal.SIGKILL)
    for process in processes:
        process.join()
    codes = sorted(process.exitcode for process in processes)
    assert codes == ([-9, 0, 0, 0] if killed else [0] * 4)
    texts = [out.read_text() for out in outs if out.exists()]
    trained = sum(text.count(": trained in") + text.count("(trained in") for text in texts)
    found, problems = record.read_all(tmp_path / "out")
    assert len(found) == 12 and not problems and {one.status for one in found} == {"ok"}
    assert trained == 12 or (killed and trained >= 10)  # what the victim finished it told before
    assert not list((tmp_path / "out").rglob("claim*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_setting_the_clock_ends_no_claim(tmp_path, monkeypatch):
    with claims([tmp_path]):
        real = module.psutil.Process.create_time
        monkeypatch.setattr(module.psutil.Process, "create_time", lambda self: real(self) + 50)
        assert holder_of(tmp_path).process == os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_container_does_not_judge_the_processes_of_another(tmp_path, monkeypatch):
    """Both have one host name, and process ids of their own."""
    write(tmp_path, replace(Holder.this_process(), process=2**22 + 1))  # not here
    assert holder_of(tmp_path) is None
    monkeypatch.setattr("lora_bench.files.FIRST_NAMESPACE", 0)
    assert holder_of(tmp_path) is not None


def test_a_signal_while_waiting_for_another_process_asks_to_be_requeued(
    tmp_path, monkeypatch, other
):
    words = ["model=tiny", "data.toy_train=48", f"out_dir={tmp_path}", f"cache_dir={tmp_path}/c"]
    write(prepare(compose(words)).folder, other)
    send = lambda _: os.kill(os.getpid(), signal.SIGUSR1)  # noqa: E731
    monkeypatch.setattr("lora_bench.sweep.session.time.sleep", send)
    done = command_line(*words)
    assert done.returncode == REQUEUE and "waiting for 1 run of process 1" in done.stderr
    assert done.stderr.endswith("stopped by SIGUSR1; run the same command again to continue\n")
