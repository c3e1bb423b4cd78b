"""Tuning: the budget, the choice, the file, and the recipe that takes the rate from it."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import yaml

from lora_bench import provenance, tuned
from lora_bench.checkpoint import FACTS
from lora_bench.compose import compose
from lora_bench.data import load
from lora_bench.errors import UserError
from lora_bench.plans import read_plans
from lora_bench.presets import CONF
from lora_bench.record import Record, read_all
from lora_bench.spec import Spec, part_of, settings
from lora_bench.tasks import make_task
from lora_bench.training import member
from lora_bench.tune import __main__ as tune
from lora_bench.tune import search as searching

from .helpers import write_random_adapter

WORDS = ["recipe=tuned", "task=stsb", "model=tiny", "train.epochs=4", "data.toy_train=60"]
FEW = ["tune.rows=20", "tune.seeds=[7]", "progress=false"]


@pytest.fixture
def search(tmp_path, monkeypatch, capsys):
    """Run a search; return the entries that it wrote, by name."""
    monkeypatch.setattr(tuned, "FOLDERS", (tmp_path / "tuned",))

    def searched(*words):
        folders = [f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
        tune.main([*WORDS, *FEW, *folders, *words])
        found = (tmp_path / "tuned").glob("*.yaml")
        return {path.stem: yaml.safe_load(path.read_text()) for path in found}

    return searched


def records_of(tmp_path):
    return [record for record in read_all(tmp_path / "out")[0] if record.status == "ok"]


def test_a_search_tries_the_grid_then_two_rates_around_the_best(search, tmp_path):
    (entry,) = search("tune.rates=[0.001,0.01,0.1]").values()
    assert len(entry["curve"]) == entry["budget"]["runs"] == len(records_of(tmp_path)) == 5
    scores = {trial["lr"]: trial["scores"][0] for trial in entry["curve"]}
    best = max((0.001, 0.01, 0.1), key=lambda rate: (scores[rate], -rate))
    step = math.sqrt(10)
    assert scores.keys() - {0.001, 0.01, 0.1} == {
        float(f"{best / step:.2g}"),
        float(f"{best * step:.2g}"),
    }
    assert entry["lr"] == max(sorted(scores), key=scores.__getitem__)
    seconds = sum(record.core_seconds for record in records_of(tmp_path))
    assert entry["budget"]["core_hours"] == round(seconds / 3600, 3)
    by_rate = {r.system["train.lr"]: r.last["scores"]["pearson"] for r in records_of(tmp_path)}
    assert by_rate == scores
    assert {(r.seed, r.where["data.tuning_rows"]) for r in records_of(tmp_path)} == {(7, 20)}


@pytest.mark.slow
def test_halving_drops_the_worse_half_and_says_what_was_tried(search):
    (entry,) = search(
        "tune.rates=[0.0001,0.001,0.01,0.1]", "tune.halving=true", "tune.refine=false"
    ).values()
    rates = {
        epochs: {t["lr"]: t["scores"][0] for t in entry["curve"] if t["epochs"] == epochs}
        for epochs in (1, 2, 4)
    }
    assert [len(rates[epochs]) for epochs in (1, 2, 4)] == [4, 2, 1]
    for before, after in ((1, 2), (2, 4)):
        left = min(rates[before][rate] for rate in rates[after])
        assert all(
            score <= left for rate, score in rates[before].items() if rate not in rates[after]
        )
    assert entry["lr"] in rates[4] and entry["budget"]["halving"]


def test_the_recipe_takes_the_rate_and_refuses_settings_that_were_not_tuned(search, tmp_path):
    entries = search("method=lora,head_only", "tune.rates=[0.01,0.1]", "tune.refine=false")
    assert len(entries) == 2
    for method in ("lora", "head_only"):
        (entry,) = (e for name, e in entries.items() if f"-{method}" in name)
        for same in ([], ["seed=3"], ["data.validation_rows=9"], ["data.seed=2"], ["group=1"]):
            spec = compose([*WORDS, f"method={method}", *same])
            assert spec.train.lr == entry["lr"]
    for other in ("train.epochs=5", "method.rank=4", "task=sst2", "data.toy_train=61"):
        words = [word for word in WORDS if word.split("=")[0] != other.split("=")[0]]
        with pytest.raises(UserError, match=r"train.lr=\?\?\?: the recipe does not set it"):
            compose([*words, other])


@pytest.mark.parametrize("task", sorted(path.stem for path in (CONF / "task").glob("*.yaml")))
def test_the_recipe_finds_the_rate_of_every_task(monkeypatch, tmp_path, task):
    """A kind of task may complete its settings only when they are checked, as SQuAD's does."""
    words = [f"task={task}", "method=lora", "recipe=tuned"]
    monkeypatch.setattr(tuned, "FOLDERS", (tmp_path,))
    name = tuned.name_of(compose([*words, "train.lr=1"]), None)
    (tmp_path / f"{name}.yaml").write_text("lr: 0.025\n")
    assert compose(words).train.lr == 0.025


def test_the_command_in_the_help_is_accepted(capsys):
    tune.main(["--help"])
    (command,) = re.findall(r"^  python -m lora_bench.tune (.+)$", capsys.readouterr().out, re.M)
    searched, words = tune.split(command.split())
    assert len(tune.systems_of(words, searched)) == 4


def test_halving_refuses_early_stopping(search):
    with pytest.raises(SystemExit, match="train.patience=2: must be null with tune.halving=true"):
        search("tune.halving=true", "train.patience=2")


def test_a_rate_for_one_seed_of_a_start_applies_to_its_other_seeds(search, tmp_path):
    write_random_adapter(tmp_path / "made", compose(["task=mnli", "model=tiny"]))
    for name, cell in (("a", "m"), ("b", "m"), ("c", "n")):  # two seeds of one run, and another run
        folder = shutil.copytree(tmp_path / "made", tmp_path / name)
        facts = json.loads((folder / FACTS).read_text())
        (folder / FACTS).write_text(json.dumps(facts | {"cell": cell}))
    few = ["train.epochs=1", "tune.rates=[0.01,0.1]", "tune.refine=false"]
    (entry,) = search(*few, f"init_from={tmp_path}/a").values()
    assert entry["settings"]["init_from"] == "m"
    words = [*WORDS, "train.epochs=1"]
    assert compose([*words, f"init_from={tmp_path}/b"]).train.lr == entry["lr"]
    for other in ("init_from=null", f"init_from={tmp_path}/c"):
        with pytest.raises(UserError, match=r"train.lr=\?\?\?: the recipe does not set it"):
            compose([*words, other])
    with pytest.raises(UserError, match="^init_from=nowhere: must be the key of a run below"):
        compose([*words, "init_from=nowhere"])


@pytest.mark.slow
def test_a_repeated_search_trains_nothing_again_and_an_interrupted_one_continues(
    search, tmp_path, monkeypatch
):
    words = ["tune.rates=[0.01,0.1]", "tune.refine=false"]
    first = search(*words)
    monkeypatch.setattr(provenance, "_git", lambda *_: "another")  # it did none of the runs
    started = {record.key: record.started for record in records_of(tmp_path)}
    assert search(*words) == first
    assert {record.key: record.started for record in records_of(tmp_path)} == started


@pytest.mark.slow
def test_a_failure_other_than_divergence_ends_the_search(search, monkeypatch, tmp_path):
    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr(member, "write_predictions", fails)
    with pytest.raises(SystemExit, match="3 runs failed .no space left.; nothing was written"):
        search("tune.rates=[0.001,0.01,0.1]")
    assert not list(tmp_path.glob("tuned/*"))
    monkeypatch.undo()
    monkeypatch.setattr(tuned, "FOLDERS", (tmp_path / "tuned",))
    (entry,) = search("tune.rates=[0.001,0.01,1e38]", "tune.refine=false").values()
    assert {trial["lr"]: trial["scores"] for trial in entry["curve"]}[1e38] == [None]


def test_a_search_whose_rate_no_run_would_read_is_refused(search, tmp_path):
    with pytest.raises(SystemExit, match="train.lr: the presets of this command set it, so no run"):
        search("recipe=quick")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.slow
def test_a_rate_at_which_a_run_fails_is_never_chosen(search, monkeypatch):
    """The first rate would score best, but one of its seeds fails."""
    scores = {(0.01, 7): 0.9, (0.1, 7): 0.2, (0.1, 8): 0.3}
    monkeypatch.setattr(
        searching, "_score", lambda record: scores.get((record.system["train.lr"], record.seed))
    )
    (entry,) = search("tune.rates=[0.01,0.1]", "tune.seeds=[7,8]", "tune.refine=false").values()
    assert entry["lr"] == 0.1 and entry["curve"][0]["scores"] == [0.9, None]
    monkeypatch.setattr(searching, "_score", lambda record: None)
    with pytest.raises(SystemExit, match="runs diverged at every rate of "):
        search("tune.rates=[0.01,0.1]", "tune.seeds=[7,8]")


@pytest.mark.slow
def test_a_system_without_a_rate_keeps_that_of_no_other(search, monkeypatch, tmp_path):
    real = searching._score
    failing = "lora"
    monkeypatch.setattr(
        searching, "_score", lambda r: None if r.system["method.name"] == failing else real(r)
    )
    with pytest.raises(
        SystemExit, match="^error: [^,]*-lora-[^,]*: runs diverged at every rate of "
    ):
        search("method=lora,head_only", "tune.rates=[0.01,0.1]", "tune.seeds=[7]")
    (found,) = (tmp_path / "tuned").iterdir()
    assert "-head_only-" in found.name


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.lr=0.1", "train.lr=0.1: the search sets it; use tune.rates instead"),
        ("-m", "error: -m: the search takes only settings"),
        ("seed=1", "seed=1: the search sets it; use tune.seeds instead"),
        ("data.tuning_rows=5", "the search sets it; use tune.rows instead"),
        ("data.validation_rows=5", "has no effect with data.tuning_rows"),
        ("tune.rates=[0.1]", "must be two or more rates, ascending"),
        ("tune.rates=[0.1,0.01]", "must be two or more rates, ascending"),
        ("tune.rates=[0,0.1]", "train.lr=0.0: must be a finite number above 0"),
        ("tune.rates=0.1", "error: tune.rates=0.1: must be of the form tune.rates=[3e-05,0.0001,"),
        ("tune.rates=x", "error: tune.rates=x: must be of the form"),
        ("tune.rates=[", "error: tune.rates=[: must be of the form"),
        ("tune.rates=${x}", "error: tune.rates=${x}: must be of the form"),
        ("tune.seeds=[]", "must be one or more different seeds"),
        ("tune.seeds=[1,1]", "must be one or more different seeds"),
        ("tune.rows=0", "data.tuning_rows=0: must be 1 or more"),
        ("tune.rows=60", "data.tuning_rows=60: must be below the 60 rows"),
        ("tune.budget=3", "tune.budget=3: must be a value for one of tune.rates, tune.seeds"),
        ("tune.halving=perhaps", "tune.halving=perhaps: must be of the form tune.halving=False"),
        (
            "data.seed=0,1",
            "data.seed=0 and data.seed=1: must be one value; both are the rate stsb-",
        ),
        ("eval_batch_size=4,8", "eval_batch_size=4 and eval_batch_size=8: must be one value"),
        ("method=nosuch", "nosuch"),
        ("+sweep=ranks", "+sweep=ranks: stands for many runs; write the settings of one"),
        ("hydra/launcher=joblib", "hydra/launcher=joblib: the search runs in this process"),
        ("hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs=2: the search runs in this process"),
    ],
)
def test_a_wrong_word_gives_a_one_line_error(search, tmp_path, word, message):
    with pytest.raises(SystemExit) as caught:
        search(word)
    text = str(caught.value.code)
    assert message in text and text.startswith("error: ") and "\n" not in text
    assert not (tmp_path / "tuned").exists() and not records_of(tmp_path)


@pytest.mark.parametrize("name", ["out_dir", "cache_dir"])
def test_a_folder_that_cannot_be_written_gives_a_one_line_error_before_the_first_run(
    search, tmp_path, name
):
    (tmp_path / "afile").touch()
    with pytest.raises(SystemExit, match=f"^error: {name}={tmp_path}/afile: cannot be written"):
        search(f"{name}={tmp_path}/afile")
    assert not list((tmp_path).rglob("record.json"))


def test_every_setting_but_the_named_ones_has_a_rate_of_its_own():
    """A new setting of Spec is covered: its rate must be tuned again."""
    spec = compose([*WORDS, "train.lr=1"])
    names = {tuned.name_of(spec, None)}
    assert tuned.name_of(spec, "cell") not in names
    for path, value in settings(spec).items():
        if part_of(path) not in ("where", "system") or path == "init_from":  # its cell counts
            continue
        other = Spec.from_dict(spec.to_dict())
        section = other
        *sections, last = path.split(".")
        for part in sections:
            section = getattr(section, part)
        setattr(section, last, f"another than {value}")
        name = tuned.name_of(other, None)
        assert (name in names) == (path in tuned.ANY), path


def test_official_files_have_one_rate_wherever_they_come_from():
    names = [
        tuned.name_of(compose(["train.lr=1", "task=rte", *data]), None)
        for data in (["data=hub"], ["data=local", "data.root=x"], ["data=toy"])
    ]
    assert names[0] == names[1] != names[2]


def test_tuning_rows_are_training_rows_that_nothing_is_trained_on():
    words = ["task=mnli", "data=toy", "data.toy_train=50", "data.toy_validation=10"]
    whole, held = (
        load(make_task(spec.task), spec.data)
        for spec in (compose(words), compose([*words, "data.tuning_rows=15"]))
    )
    assert set(held) == {"train", "validation_matched"}
    train, scored = held["train"].rows, held["validation_matched"].rows
    assert len(scored) == 15 and len(train) == 35
    key = str
    assert sorted(map(key, train + scored)) == sorted(map(key, whole["train"].rows))
    limited = compose([*words, "data.tuning_rows=15", "data.train_rows=20"])
    few = load(make_task(limited.task), limited.data)
    assert few["validation_matched"].rows == scored and len(few["train"].rows) == 20
    other = compose([*words, "data.tuning_rows=15", "data.seed=1", "data.train_rows=20"])
    assert load(make_task(other.task), other.data)["validation_matched"].rows != scored


ENTRIES = sorted((CONF / "tuned").glob("*.yaml"))


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_a_committed_rate_is_the_best_of_its_curve(path):
    entry = yaml.safe_load(path.read_text())
    whole = max(trial["epochs"] for trial in entry["curve"])
    means = {
        trial["lr"]: sum(trial["scores"]) / len(trial["scores"])
        for trial in entry["curve"]
        if trial["epochs"] == whole and None not in trial["scores"]
    }
    assert entry["lr"] == max(sorted(means), key=means.__getitem__)
    assert not entry["uncommitted_changes"] and entry["commits"]
    assert {field.name for field in dataclasses.fields(searching.Search)} < entry["budget"].keys()


def test_each_stage_has_its_plan_and_unknown_hours_are_null(search, tmp_path, monkeypatch):
    monkeypatch.setattr(Record, "core_seconds", None)  # as on a GPU
    (entry,) = search("tune.rates=[0.001,0.1]").values()
    assert entry["budget"]["core_hours"] is None
    plans = {plan.command.rpartition("  # ")[2]: plan for plan in read_plans(tmp_path / "out")[0]}
    assert {name: len(plan.keys) for name, plan in plans.items()} == {"stage 1": 2, "refinement": 2}


def test_a_run_that_left_no_record_is_no_bad_rate(search, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lora_bench.record.write", full)
    with pytest.raises(SystemExit, match="2 runs left no record .*No space left"):
        search("tune.rates=[0.001,0.1]")
    assert not (tmp_path / "tuned").exists()


def test_a_rate_is_tried_once():
    system = searching.System([], compose([*WORDS, "train.lr=1"]))
    system.trials = [tuned.Trial(rate, 4, (rate,)) for rate in (0.001, 0.0011)]
    assert system.around_best([0.001, 0.0011]) == [0.0012]


def test_halving_of_one_epoch_is_refused(search):
    with pytest.raises(SystemExit, match="tune.halving=true: has no effect with train.epochs=1"):
        search("tune.halving=true", "train.epochs=1")


def test_no_committed_run_shares_a_seed_or_a_row_with_its_tuning():
    """Rates are chosen on rows of the training file; runs are scored on another file."""
    results = Path(__file__).parent.parent / "results"
    searched = [yaml.safe_load(path.read_text()) for path in tuned.SHIPPED.glob("*.yaml")]
    seeds = {seed for entry in searched for seed in entry["budget"]["seeds"]}
    records = [r for name in ("main", "tasks", "cola") for r in read_all(results / name)[0]]
    assert seeds and records
    for record in records:
        assert record.seed not in seeds and record.where.get("data.tuning_rows") is None
        train = record.data["train"]["source"]
        assert all(facts["source"] != train for n, facts in record.data.items() if n != "train")
