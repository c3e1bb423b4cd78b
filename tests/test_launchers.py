"""Sweeps on real engines: joblib, submitit's processes, Ray, and a Slurm of two nodes.

Each sweep ends complete, with the records of a sweep in one process, even if a worker or a node is
lost on the way. A test is skipped if its engine is not installed.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lora_bench import record
from lora_bench.claims import FILE as CLAIM

from .helpers import command_line
from .test_sweep import facts

ROOT = Path(__file__).parent.parent
SLURM = ROOT / "scripts" / "slurm_on_one_host.sh"
ENGINES = {
    "processes": "hydra_plugins.hydra_joblib_launcher",
    "slurm_here": "hydra_plugins.hydra_submitit_launcher",
    "ray_tasks": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}
ON_SLURM = ["hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"]


def words(folder: Path, *more: str) -> list[str]:
    """Four groups of two runs."""
    return [
        "-m", "model=tiny", "data.toy_train=400", "data.toy_validation=24", "train.epochs=3",
        "method.rank=1,2,4,8", "seed=0,1", "group=2", "progress=false",
        "train.checkpoint_minutes=0.01", f"out_dir={folder}/out",
        f"cache_dir={folder}/cache", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The same sweep in one process."""
    folder = tmp_path_factory.mktemp("local")
    assert command_line(*words(folder)).returncode == 0
    return folder


@pytest.fixture
def engine(request, tmp_path) -> Iterator[str]:
    """A launcher that can work here."""
    name = request.param
    pytest.importorskip(ENGINES[name])
    if name != "slurm":
        yield name
        return
    if not (shutil.which("slurmctld") and shutil.which("munged") and os.geteuid() == 0):
        pytest.skip("needs root and the Debian packages slurm-wlm and munge")
    folder = tmp_path / "slurm"
    subprocess.run([SLURM, "start", folder], check=True, timeout=120)
    try:
        yield name
    finally:
        subprocess.run([SLURM, "stop", folder], check=True, timeout=60)


def started(tmp_path: Path, name: str) -> subprocess.Popen:
    more = [f"hydra/launcher={name}", *(ON_SLURM if name == "slurm" else [])]
    command = [sys.executable, "-m", "lora_bench", *words(tmp_path, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"SLURM_CONF": str(tmp_path / "slurm" / "slurm.conf")} if name == "slurm" else {}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **options)


def check(tmp_path: Path, local: Path, name: str, process: subprocess.Popen) -> str:
    """The sweep has ended complete, each run once; returns its messages."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    found, problems = record.read_all(tmp_path / "out")
    assert not problems and len(found) == 8
    assert facts(tmp_path / "out") == facts(local / "out")
    assert {one.provenance["launcher"] for one in found} == {name}
    assert all(one.provenance["host"] for one in found)
    told = Counter(re.findall(r"^(?:\x1b\S*)?(\S+): matthews .*trained in", out, re.MULTILINE))
    assert told == dict.fromkeys((one.key for one in found), 1), out
    assert "[8 of 8 runs done, 0 to do]" in err
    counts = [int(n) for n in re.findall(r"\[(\d) of 8 runs done", err)]
    assert counts == sorted(set(counts)), err  # counted on disk: never twice the same
    assert not list(tmp_path.rglob(CLAIM))
    return err


def slow_engines(test):
    return pytest.mark.slow(pytest.mark.engines(test))


every_engine = pytest.mark.parametrize("engine", ENGINES, indirect=True)


@slow_engines
@every_engine
def test_a_sweep_ends_as_in_one_process(tmp_path, local, engine):
    err = check(tmp_path, local, engine, started(tmp_path, engine))
    assert "started again" not in err


def victim(runs: Path) -> psutil.Process:
    """A process that is training, after its first checkpoint."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        for path in runs.glob("cola/*/checkpoint*"):
            try:
                return psutil.Process(json.loads((path.parent / CLAIM).read_text())["process"])
            except (OSError, ValueError, psutil.Error):
                continue
        time.sleep(0.05)
    raise AssertionError("nothing was trained")


def lose_node(worker: psutil.Process, conf: str, *, processes: bool) -> None:
    """Kill the daemon of the worker's Slurm node; with ``processes`` all that runs there, too."""
    node = worker.environ()["SLURMD_NODENAME"]
    for one in psutil.process_iter():
        try:
            here = one.environ().get("SLURM_CONF") == conf
            daemon = here and one.name() == "slurmd" and node in one.cmdline()
            inside = here and one.environ().get("SLURMD_NODENAME") == node
            parents = [up for up in one.parents() if up.name() == "slurmstepd"] if inside else []
            if daemon or (inside and processes):
                for dying in (one, *parents):
                    dying.kill()
        except psutil.Error:
            continue


@slow_engines
@pytest.mark.parametrize("lost", ["worker", "daemon", "node"])
@every_engine
def test_what_is_lost_on_the_way_costs_no_run(tmp_path, local, engine, lost):
    """A process of the launcher; or a Slurm node's daemon, with or without its processes."""
    if (engine == "slurm") != (lost != "worker"):
        pytest.skip("Slurm loses nodes, the others lose workers")
    process = started(tmp_path, engine)
    worker = victim(tmp_path / "out" / "runs")
    finished = {one.key: one.started for one in record.read_all(tmp_path / "out")[0]}
    if engine == "slurm":
        conf = str(tmp_path / "slurm" / "slurm.conf")
        lose_node(worker, conf, processes=lost == "node")
    else:
        worker.send_signal(signal.SIGKILL)
    check(tmp_path, local, engine, process)
    now = {one.key: one.started for one in record.read_all(tmp_path / "out")[0]}
    assert finished.items() <= now.items()  # what was done before is not done again


def long_words(folder: Path) -> list[str]:
    """One group that trains for longer than the time limit of its job."""
    return [
        "-m", "model=tiny", "data.toy_train=4000", "data.toy_validation=24", "train.epochs=6",
        "seed=0,1", "group=2", "progress=false", f"out_dir={folder}/out",
        f"cache_dir={folder}/cache",
    ]  # fmt: skip


@slow_engines
@pytest.mark.parametrize("engine", ["slurm"], indirect=True)
def test_a_job_at_its_time_limit_is_requeued_and_continues(tmp_path, engine):
    """By the launcher, and by sbatch alone as the documentation shows it."""
    python = [sys.executable, "-m", "lora_bench"]
    conf = {"SLURM_CONF": str(tmp_path / "slurm" / "slurm.conf")}
    environment = {**os.environ, **conf, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    options = {"cwd": ROOT, "env": environment, "text": True, "stdout": subprocess.PIPE}
    limits = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20"]
    launcher = ["hydra/launcher=slurm", *ON_SLURM, *limits]
    command = [*python, *long_words(tmp_path / "launcher"), *launcher]
    sent = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
    alone = shlex.join([*python, *long_words(tmp_path / "sbatch")])
    batch = ["sbatch", "--wait", "--requeue", "--time=1", "--signal=B:USR1@20", "--mem=2G"]
    files = [f"--output={tmp_path}/sbatch.log", "--open-mode=append"]
    done = subprocess.run([*batch, *files, "--wrap", f"exec {alone}"], timeout=900, **options)
    _, err = sent.communicate(timeout=900)
    assert done.returncode == 0 and sent.returncode == 0, err
    jobs = subprocess.run(["scontrol", "show", "job"], check=True, **options).stdout
    restarts = [int(count) for count in re.findall(r"Restarts=(\d+)", jobs)]
    assert len(restarts) == 2 and min(restarts) >= 1, jobs
    (log,) = (tmp_path / "launcher").rglob("*_0_log.err")
    for told in (log.read_text(), (tmp_path / "sbatch.log").read_text()):
        assert "continues from step" in told
    assert command_line(*long_words(tmp_path / "undisturbed")).returncode == 0
    undisturbed = facts(tmp_path / "undisturbed" / "out")
    assert facts(tmp_path / "launcher" / "out") == undisturbed == facts(tmp_path / "sbatch" / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra/sweeper=optuna"], "hydra/sweeper: only applies to a sweep; add -m"),
        (["-m", "hydra/sweeper=nosuch"], "Could not find 'hydra/sweeper/nosuch'"),
        (["-m", "hydra/sweeper=optuna", "group=2"], "group=2: has no effect in a search"),
        (["-m", "hydra/sweeper=optuna", "group=1,2"], "group=1,2: has no effect in a search"),
        (["-m", "hydra/sweeper=nosuch", "group=null"], "Could not find 'hydra/sweeper/nosuch'"),
        (["-m", "hydra/launcher=nosuch"], "Could not find 'hydra/launcher/nosuch'"),
    ],
)
def test_an_engine_that_cannot_do_it_gives_a_one_line_error(tmp_path, arguments, message):
    done = command_line(*arguments, "model=tiny", f"out_dir={tmp_path}/out")
    assert done.returncode != 0 and message in done.stderr.splitlines()[-1]
    assert record.read_all(tmp_path / "out")[0] == []


@pytest.mark.slow
def test_a_sweeper_gets_the_first_metric_of_each_run(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    pytest.importorskip("optuna")
    command = [
        sys.executable, "-m", "lora_bench", "-m", "hydra/sweeper=optuna", "model=tiny",
        "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=2", "train.epochs=1",
        "train.lr=interval(1e-4,1e-2)", "data.toy_train=48", "data.toy_validation=24",
        f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache", "progress=false", "task=sst2",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, problems = record.read_all(tmp_path / "out")
    assert len(found) == 2 and not problems
    best = max(one.last["scores"]["accuracy"] for one in found)
    (told,) = (tmp_path / "out").rglob("optimization_results.yaml")
    assert f"best_value: {best}" in told.read_text()
