"""The command line as a user sees it."""

import dataclasses
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_bench import record
from lora_bench.compose import compose
from lora_bench.hydra_program import REFUSED_FLAGS
from lora_bench.overrides import command_of
from lora_bench.search_path import with_presets_of

from .helpers import TASKS, write_official
from .helpers import command_line as cli

ROOT = Path(__file__).parent.parent


def process(*arguments: str, module: str = "lora_bench") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_real_process_answers_as_main_does():
    """The tests below call ``main`` in this process."""
    for words, module in (
        (["method.rank=-1"], "lora_bench"),
        (["--runs", "nowhere"], "lora_bench.report"),
        (["inspect", "nowhere"], "lora_bench.checkpoint"),
    ):
        real, ours = process(*words, module=module), cli(*words, module=module)
        assert (real.returncode, real.stdout, real.stderr) == (1, ours.stdout, ours.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=nosuch"], "error: In 'config': Could not find 'task/nosuch' Available options in"),
        (["method.rnak=4"], "did you mean method.rank?"),
        (
            ["method=relora", "method.args.evry=4"],
            "method.args.evry=4: no such setting; method.args has every, warmup",
        ),
        (["+sweep=ranks"], "+sweep=ranks: is a sweep; add -m"),
        (["method.rank=-1"], "method.rank=-1: must be 1 or more"),
        (["data=local", "data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (["-m", "method.rank=4,-1", "seed=0,1"], "method.rank=-1: must be 1 or more"),
        (["method.rank=[4"], "error: "),
        (["-m", "task.columns=1,2,range(1,4)"], "must list its values, as in 1,2,3 or range(1,4)"),
        (["model=tiny", "task.metrics=[[1]]"], "task.metrics.0=[1]: must be a valid string"),
        (["model=tiny", "seed=99999999999"], "seed=99999999999: must be at most 2147483647"),
        (
            ["hydra.searchpath=[pkg://nosuch]"],
            "pkg://nosuch: no such folder; must be a folder, file://folder or pkg",
        ),
        (["--config-dir", "a", "--config-dir=b"], "--config-dir: must be one folder"),
        (["hydra.searchpath=[nosuch://x]"], "nosuch://x: no such folder"),
        (["hydra/launcher=processes"], "hydra/launcher=processes: only applies to a sweep; add -m"),
        (["hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs=2: only applies to a sweep; add -m"),
        (["hydra.run.dir=x"], "out_dir says where the files of a run go"),
        (["-m", "hydra.sweep.dir=x"], "out_dir says where the files of a run go"),
        (
            ["-m", "model=tiny", "eval_batch_size=4,8"],
            "eval_batch_size=4 and eval_batch_size=8: must be one value; both are the run",
        ),
    ],
)
def test_a_wrong_input_gives_a_one_line_error_and_a_non_zero_exit(tmp_path, arguments, message):
    done = cli(*arguments, f"out_dir={tmp_path}")
    assert done.returncode != 0
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert "torch" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize("module", ["lora_bench", "lora_bench.studies.low_rank"])
@pytest.mark.parametrize("flag", REFUSED_FLAGS)
def test_a_flag_of_hydra_that_would_change_the_runs_gives_a_one_line_error(flag, module):
    option = f"--{flag.replace('_', '-')}"
    done = cli(option, "x", module=module)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {option}: {REFUSED_FLAGS[flag]}\n"


@pytest.mark.parametrize("name", ["task/mine", "recipe/mine"])
@pytest.mark.parametrize("text", ["name: [a\nx: {", "name: a\nname: b\n"])
def test_a_damaged_preset_gives_a_one_line_error_that_names_its_file(tmp_path, name, text):
    path = tmp_path / "presets" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    group, _, choice = name.partition("/")
    words = [f"--config-dir={tmp_path}/presets", f"{group}={choice}", f"out_dir={tmp_path}/out"]
    done = cli(*words)
    assert done.returncode != 0 and done.stdout == ""
    assert str(path) in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_help_shows_tasks_methods_models_and_recipes():
    text = cli("--help").stdout
    for part in (
        "task: cola, mnli, mrpc, qnli, qqp, rte, squad_v1, squad_v2, sst2, stsb, wnli",
        "method: adapter_houlsby, adapter_pfeiffer, bitfit, full",
        "sweep: alphas, article, methods",
        "roberta_base",
        "recipe: article, paper_base, paper_large, quick",
    ):
        assert part in text
    assert "\ntuned:" not in text and "recipe_for_" not in text  # not for a user to choose


def test_a_sweep_continues_after_a_failure_resumes_and_reports(tmp_path):
    small = ["model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1"]
    folders = [f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
    done = cli("-m", *small, *folders, "method.layers=[7],[0]", "seed=0,1")
    assert done.returncode != 0
    assert "sweep: 0 of 4 runs done, 4 to do\n" in done.stderr
    assert "[0 of 4 runs done, 2 failed, 2 to do]" in done.stderr
    assert "[2 of 4 runs done, 2 failed, 0 to do]" in done.stderr
    end = done.stderr.split("error: 2 of 4 runs failed:\n")[1].splitlines()
    assert len(end) == 2 and all(
        "layers=[7]: this encoder has layers 0 to 1" in line for line in end
    )
    found = record.read_all(tmp_path / "out")[0]
    assert sorted(r.status for r in found) == ["failed", "failed", "ok", "ok"]
    again = cli("-m", *small, *folders, "method.layers=[0]", "seed=0,1")
    assert again.returncode == 0 and again.stderr.count("already done") == 2
    assert "sweep: 2 of 2 runs done, 0 to do" in again.stderr
    table = cli("--runs", f"{tmp_path}/out", module="lora_bench.report")
    assert "CoLA<br>Matthews" in table.stdout and "Failed runs" in table.stdout
    names = {p.name for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert names == {"multirun.yaml", "table_best.md", "table_last.md"}
    status = cli("status", "--runs", f"{tmp_path}/out", module="lora_bench.report").stdout
    assert (
        "4 runs: 2 done, 2 failed, 0 missing" in status
        and "2 runs: 2 done, 0 failed, 0 missing" in status
    )


@pytest.mark.slow
def test_the_recorded_command_gives_the_same_scores_again(tmp_path):
    small = ["model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1"]
    first, again = (
        [f"out_dir={tmp_path}/{name}", f"cache_dir={tmp_path}/{name}/cache"]
        for name in ("first", "again")
    )
    assert (
        cli(
            "-m",
            "+sweep=ranks",
            *small,
            *first,
            "method.rank=2,4",
            "seed=3",
            "task=stsb",
            "group=1",  # as the recorded command trains: in a group, sums round differently
        ).returncode
        == 0
    )
    for done in record.read_all(tmp_path / "first")[0]:
        program, *arguments = done.command.removeprefix("python -m ").split()
        assert cli(*arguments, *again, module=program).returncode == 0
    before, now = (record.read_all(tmp_path / name)[0] for name in ("first", "again"))
    assert len(now) == 2 and [(r.key, r.epochs) for r in now] == [(r.key, r.epochs) for r in before]


def test_a_recorded_command_is_one_that_a_shell_reads(tmp_path):
    words = ["-m", "seed=range(0,2)", "method.targets=[query,value]", "task.hub.path=it's a $path"]
    command = command_of(words)
    assert shlex.split(command) == ["python", "-m", "lora_bench", *words]
    assert " method.targets=[query,value] " in command
    assert command_of([*words, "out_dir=x", "++cache_dir=y", "++group=2"]) == command


def test_a_folder_of_presets_may_have_a_quote_in_its_name(tmp_path):
    folder = tmp_path / "it's"
    folder.mkdir()
    assert compose(with_presets_of(str(folder), ["seed=3"])).seed == 3


def test_a_report_on_nothing_says_what_to_do(tmp_path):
    done = cli("--runs", f"{tmp_path}/none", module="lora_bench.report")
    assert done.returncode != 0 and "train a run first" in done.stderr


def small_run(folder: Path) -> list[str]:
    return [
        "model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1",
        f"out_dir={folder}/out", f"cache_dir={folder}/cache",
    ]  # fmt: skip


def test_a_done_run_without_its_adapter_says_so_and_how_to_train_it_again(tmp_path):
    words = small_run(tmp_path)
    assert cli(*words).returncode == 0
    (folder,) = (tmp_path / "out" / "runs" / "cola").iterdir()
    shutil.rmtree(folder / "adapter")
    done = cli(*words)
    assert done.returncode == 0 and (folder / record.FILE).is_file()
    assert "already done, but adapter/ is missing: move the folder away to train it" in done.stderr
    folder.rename(tmp_path / "away")
    assert "trained in" in cli(*words).stdout and (folder / "adapter").is_dir()
    assert "is missing" not in cli(*words).stderr


def test_a_failed_record_that_was_edited_to_ok_gives_a_one_line_error_that_names_it(tmp_path):
    words = [*small_run(tmp_path), "method.layers=[7]"]
    assert cli(*words).returncode == 1
    (path,) = tmp_path.glob(f"out/runs/cola/*/{record.FILE}")
    path.write_text(path.read_text().replace('"status": "failed"', '"status": "ok"'))
    done = cli(*words)
    assert (done.returncode, done.stdout) == (1, "")
    reason = "last: is null although status is ok; move the file away to run again"
    assert done.stderr == f"error: {path}: {reason}\n"


def test_a_failure_that_cannot_be_recorded_names_no_traceback(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(record, "write", full)
    done = cli(*small_run(tmp_path))
    assert done.returncode == 1 and "failed: OSError: no space left\n" in done.stderr


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_a_run_whose_folder_was_moved_aside_is_trained_again(tmp_path, status):
    """A failed one that was found there was trained for ever: its own folder got no record."""
    words = small_run(tmp_path)
    assert cli(*words).returncode == 0
    (folder,) = (tmp_path / "out" / "runs" / "cola").iterdir()
    record.write(folder, dataclasses.replace(record.read(folder), status=status))
    folder.rename(f"{folder}.old")
    assert f"; {folder})" in cli(*words).stdout and (folder / "adapter").is_dir()


@pytest.mark.slow
def test_a_done_run_under_an_older_key_is_reported_with_its_own_folder(tmp_path):
    words = small_run(tmp_path)
    assert cli(*words).returncode == 0
    (folder,) = (tmp_path / "out" / "runs" / "cola").iterdir()
    older = folder.rename(folder.with_name(f"cola-tiny-lora-r8-s0-{'0' * 10}"))
    assert f"(already done; {older})" in cli(*words).stderr


def test_a_gpu_that_is_not_there_gives_a_one_line_error(tmp_path):
    done = cli("model=tiny", "device=cuda:99", f"out_dir={tmp_path}", f"cache_dir={tmp_path}/c")
    assert done.returncode != 0 and done.stderr.count("\n") == 1
    assert "error: device=cuda:99: there is no such CUDA device here; must be cpu" in done.stderr


@pytest.mark.slow
def test_diagnostics_that_come_after_a_run_make_another_run(tmp_path):
    task, root = TASKS["mnli"], tmp_path / "data"
    words = [
        "task=mnli", "model=tiny", "data=local", f"data.root={root}", "train.epochs=1",
        f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    write_official(root, task)
    assert cli(*words).returncode == 0
    write_official(root, task, ["diagnostics"])
    done = cli(*words)
    assert done.returncode == 0 and "matthews_diagnostics" in done.stdout and not done.stderr
    found, _ = record.read_all(tmp_path / "out")
    assert sorted("diagnostics" in one.data for one in found) == [False, True]
    assert {one.status for one in found} == {"ok"}
