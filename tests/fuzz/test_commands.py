"""Malformed command lines are either executed or refused in one line that names the word."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from lora_bench import record
from lora_bench.overrides import groups, setting_paths

from .harness import ask, cases, check, random_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = [
    "model=tiny", "data.toy_train=16", "data.toy_validation=8", "train.epochs=1",
    "progress=false", "train.max_length=16",
]  # fmt: skip
PATHS = setting_paths()
# Exceptions that mean that a check is missing, not that a run failed.
BUGS = (
    "KeyError", "TypeError", "AttributeError", "IndexError", "NameError", "StopIteration",
    "AssertionError", "ZeroDivisionError", "UnboundLocalError", "RecursionError",
)  # fmt: skip

TEXTS = [
    "", "''", "' '", "null", "true", "0", "1", "-1", "2147483648", "9" * 30, "1e400", "nan", "inf",
    "-inf", "0.5", "x", "é", "../../outside", "/dev/null/x", "a/b", "a b", "'a\\nb'", "\\u202e",
    "x" * 300, "%s", "{}", "{a: 1}", "[]", "[[]]", "[x]", "[x,x]", "[0]", "[-1]", "[null]",
    "[1,x]", "{train: x}", "[train]", "[test]", "{'': ''}", "[[[[[[[[0]]]]]]]]",
]  # fmt: skip
GRAMMAR = [
    "=", "=1", "==", "[", "{", "'", '"', "\\", "1,2", "1,", ",", "range(1,4)", "range(4,1)",
    "range(1,2,0)", "interval(0,1)", "glob(*)", "choice()", "choice(1,2)", "shuffle(1,2)",
    "sort(2,1)", "tag(a,1,2)", "int(x)", "int(1)", "str(1)", "extend_list(1)", "cast(1)",
    "${seed}", "${nosuch}", "${oc.env:HOME}", "${oc.env:NOSUCH}", "${oc.create:{a: 1}}", "${",
    "${oc.decode:'[1'}", "${hydra:job.name}", "${hydra.job.name}", "???", "\0", "\ud800", "a:b",
    "!!python/object/apply:os.mkdir [executed]", "$(touch executed)", "%", "@x", "~", "+",
]  # fmt: skip
HYDRA = [
    ["=1"], ["-m", "train.lr=interval(0,1)"], ["--resolve"], ["recipe_for_task=nan"],
    ["recipe=nan"], ["recipe=[quick]"], ["--cfg", "job", "--resolve"], ["--cfg", "nosuch"],
    ["--info", "nosuch"], ["--package", "x"], ["-m"], ["-m", "seed="], ["-m", "task=glob(*)"],
    ["-m", "seed=range(0,1000000)"], ["-m", "seed=0,0,0"], ["-m", "seed=[0,1]"], ["~task"],
    ["~seed"], ["+seed=1"], ["++seed=1"], ["+nosuch=1"], ["++nosuch.a=1"], ["task@x=cola"],
    ["task@task=cola"], ["+task=cola"], ["task="], ["task=null"], ["task=1"], ["task=../task/cola"],
    ["task=[cola,stsb]"], ["task={a: 1}"], ["defaults=[]"], ["hydra=x"], ["hydra/launcher=nosuch"],
    ["hydra/sweeper=basic"], ["hydra.mode=MULTIRUN"], ["hydra.run.dir=x"], ["hydra.job.chdir=true"],
    ["hydra.searchpath=[file:///nowhere]"], ["hydra.searchpath=[pkg://nosuch]"],
    ["hydra.nosuch=1"], ["hydra.verbose=x"], ["hydra.job.name=a/b"], ["+sweep=nosuch"],
    ["-m", "+sweep=../task/cola"], ["-m", "+sweep=ranks,alphas"], ["sweep=ranks"], ["+sweep=ranks"],
    ["--config-dir", "/nowhere"], ["--config-name", "x"], ["--config-path", "x"], ["--nosuch"],
    ["-x"], ["--"], ["--multirun", "--run"], ["-c", "job", "-h"], ["--hydra-help", "x"],
    ["--shell-completion", "x"], ["--version"], ["method.args.nosuch=1"], ["method.args={a: 1}"],
    ["task.args.nosuch=1"], ["~method.args"], ["~method.args.nosuch"], ["task.args=null"],
    ["method=lora,full"], ["method.rank=4,8"], ["group=2"], ["-m", "group=0"], ["-m", "seed=0,x"],
    ["init_from=nowhere"], ["init_from=required"], ["logger=nosuch"], ["device=cuda:99"],
    ["data=local"], ["data=local", "data.root=/dev/null"], ["data=hub"], ["data=nosuch"],
    ["model.source=package:os"], ["model.source=package:"], ["model.source=package:no such"],
    ["model.source=/nowhere"], ["model.source=a/b/c"], ["model.source=random:x"], [""], [" "],
    ["\0"], ["é=1"], ["x" * 5000], ["a.b.c.d=1"], ["task.local.files.train=/etc/passwd"],
]  # fmt: skip


def words_of(fault: str, rng: random.Random) -> list[str]:
    """The malformed words of a case."""
    path = rng.choice(PATHS)
    if fault == "value":
        return [f"{path}={rng.choice(TEXTS)}"]
    if fault == "grammar":
        return [f"{path}={rng.choice(GRAMMAR)}"]
    if fault == "sweep":
        values = [rng.choice([*TEXTS, *GRAMMAR, "1", "0"]) for _ in range(2)]
        return ["-m", f"{path}={','.join(values)}"]
    if fault == "name":
        end = rng.randrange(len(path))
        wrong = rng.choice([path[:end], f"{path}.x", path + path, path[:end] + "_" + path[end:]])
        return [f"{rng.choice(['', '+', '++', '~'])}{wrong}={rng.choice(['1', 'x', 'null'])}"]
    if fault == "prefix":
        return [f"{rng.choice(['+', '++', '~', '@', '~~', '+~', '-'])}{path}={rng.choice(TEXTS)}"]
    if fault == "preset":
        name = rng.choice([*groups(), "sweep", "recipe_for_task", "hydra/launcher"])
        return [f"{rng.choice(['', '', '+', '~'])}{name}={rng.choice([*TEXTS, *GRAMMAR])}"]
    two = [rng.choice(PATHS) for _ in range(2)]
    return [f"{path}={rng.choice(TEXTS)}" for path in two]


def command_of(words: list[str], folder: Path) -> list[str]:
    """The words after those of a small run: a setting that is given twice has the last value."""
    given = {word.lstrip("+~").partition("=")[0] for word in words}
    mine = [*SMALL, f"out_dir={folder}/out", f"cache_dir={folder}/cache"]
    kept = [word for word in mine if word.partition("=")[0] not in given]
    flags = [word for word in words if word.startswith("-") or word == "job"]
    return [*flags, *kept, *(word for word in words if word not in flags)]


def named(words: list[str], folder: Path) -> list[Path]:
    """The folders that a command may write to: those that it names itself, too."""
    found = [folder / "out", folder / "cache"]
    for word in words:
        path, _, value = word.lstrip("+").partition("=")
        if path in ("out_dir", "cache_dir", "hydra.run.dir", "hydra.sweep.dir"):
            found += [Path.cwd() / part.strip("'[]") for part in value.split(",") if part]
    return found


def is_bug(folder: Path) -> str | None:
    """The end of the first traceback of a run that a check should have refused."""
    for path in folder.rglob("traceback.txt"):
        last = path.read_text().strip().splitlines()[-1]
        if last.split(":")[0].split(".")[-1] in BUGS:
            return path.read_text()[-2000:]
    return None


def run(words: list[str], folder: Path, monkeypatch) -> None:
    (folder / "cwd").mkdir()
    monkeypatch.chdir(folder / "cwd")
    whole = command_of(words, folder)
    answer = ask("lora_bench", *whole, named=named(words, folder))
    check(answer, folder)
    assert is_bug(folder) is None, is_bug(folder)
    if answer.code != 0:
        found, problems = record.read_all(folder)
        assert not problems and all(one.status == "failed" for one in found), whole


FAULTS = ["value", "grammar", "sweep", "name", "prefix", "preset", "two values"]


@cases(["words"], FAULTS, 20)
def test_generated_words(kind, fault, seed, tmp_path, monkeypatch):
    run(words_of(fault, random_of(fault, seed)), tmp_path, monkeypatch)


@pytest.mark.parametrize("words", HYDRA, ids=lambda words: " ".join(words)[:60].replace("\0", "0"))
def test_words_of_hydras_own(words, tmp_path, monkeypatch):
    run(words, tmp_path, monkeypatch)


@pytest.mark.parametrize("path", PATHS)
def test_every_setting_with_a_value_of_every_type(path, tmp_path, monkeypatch):
    """One case for each setting: a value of a type drawn at random, nothing else changed."""
    (tmp_path / "each").mkdir()
    rng = random_of(path)
    for number, value in enumerate(rng.sample(TEXTS, 3)):
        (folder := tmp_path / "each" / str(number)).mkdir()
        run([f"{path}={value}"], folder, monkeypatch)


STUDY = ["layer", "kind", "rank", "init", "lr", "epochs", "batch_size", "width", "data", "root",
         "split", "train_rows", "validation_rows", "data_seed", "seed", "optimizer",
         "lr_ratio", "out_dir"]  # fmt: skip


@cases(["study"], ["value", "grammar"], 15)
def test_words_of_the_study(kind, fault, seed, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    rng = random_of(kind, fault, seed)
    word = f"{rng.choice(STUDY)}={rng.choice(TEXTS if fault == 'value' else GRAMMAR)}"
    small = [
        "epochs=1",
        "width=8",
        "train_rows=64",
        "validation_rows=32",
        f"out_dir={tmp_path}/out",
    ]
    kept = [one for one in small if one.split("=")[0] != word.split("=")[0]]
    answer = ask("lora_bench.studies.low_rank", *kept, word, named=named([word], tmp_path))
    check(answer, tmp_path)
    assert is_bug(tmp_path) is None, is_bug(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_a_process_of_its_own_answers_the_same(seed, tmp_path):
    (tmp_path / "cwd").mkdir()
    words = command_of(words_of(FAULTS[seed], random_of("process", seed)), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "lora_bench", *words],
        cwd=tmp_path / "cwd", capture_output=True, text=True, env=None,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or done.stderr.count("error: ") == 1, done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"cwd", "out", "cache"}
    assert not list((tmp_path / "cwd").iterdir())
