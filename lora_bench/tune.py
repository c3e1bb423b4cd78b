"""``python -m lora_bench.tune``: the learning rate of each system, with one budget for all."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import tuned
from .checkpoint import init_cell
from .compose import Composer, check_same, compose, plan
from .errors import SpecError, UserError, counted
from .overrides import command_of, path_of, report_replaced, without_replaced
from .program import program
from .record import DIVERGED, Record, write_whole
from .spec import Spec, settings
from .sweep.plan import Sweep
from .sweep.session import Session, check_folders, interruptible
from .training.prepared import DataCache, Run, prepare
from .tuned import SETTING, Trial, name_of, tuning_key

PROGRAM, PREFIX, EPOCHS = "lora_bench.tune", "tune.", "train.epochs"
USAGE = f"""\
Find the learning rate of each system, with one budget for all, and write it to conf/tuned/,
where recipe=tuned reads it.

  python -m {PROGRAM} recipe=tuned task=stsb method=lora,peft_lora method.rank=4,8

Arguments are the settings of a sweep, without presets of +sweep, and those of the search:
%s
The rates are trained first, then two more around the best one. The best rate has the highest first
metric after the last epoch, averaged over the seeds, on rows held out of the training data; a rate
at which a run diverges is never chosen, and any other failure ends the search. Run the command
again to complete what is missing, or run it in several shells at once to divide the work."""

# Settings that the search controls, and the option to use instead.
CONTROLLED = {
    SETTING: "tune.rates",
    "seed": "tune.seeds",
    "data.tuning_rows": "tune.rows",
}

LAUNCHING = ("hydra.launcher", "hydra.sweeper")


@dataclass
class Search:
    """What is tried, the same for every system."""

    # three and a half decades: full fine-tuning needs the low end, VeRA the high one
    rates: list[float] = field(
        default_factory=lambda: [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    )
    seeds: list[int] = field(default_factory=lambda: [1000, 1001])  # not used by any reported run
    rows: int = 500  # training rows, held out to select the rate
    refine: bool = True  # two more rates, half a step of the grid below and above the best
    halving: bool = False  # drop the worse half of the rates after 1/4 of the epochs, and 1/2

    def check(self) -> None:
        """Check the settings of the search, which no run checks.

        Raises:
            UserError: names the setting, its value and what is allowed.
        """
        ascending = all(low < high for low, high in zip(self.rates, self.rates[1:], strict=False))
        if len(self.rates) < 2 or not ascending:
            raise UserError(f"tune.rates={self.rates}: must be two or more rates, ascending")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"tune.seeds={self.seeds}: must be one or more different seeds")

    def rungs(self, epochs: int) -> list[int]:
        """Numbers of epochs; after each except the last, half of the rates are dropped."""
        shares = (1 / 4, 1 / 2, 1) if self.halving else (1,)
        return sorted({math.ceil(epochs * share) for share in shares})


class System:
    """A system on one task, model and data, and what was tried.

    Args:
        words: words of the command line, for this system alone.
        spec: settings of the system, with any learning rate.

    Raises:
        UserError: the adapter to start from cannot be read.
    """

    def __init__(self, words: Sequence[str], spec: Spec):
        self.words, self.spec = list(words), spec
        self.start = init_cell(spec)
        self.trials: list[Trial] = []
        self.records: list[Record] = []  # of the runs behind the trials

    @property
    def name(self) -> str:
        """Name of its file in ``conf/tuned/``."""
        return name_of(self.spec, self.start)

    def words_of(self, lr: float, epochs: int, seed: int) -> list[str]:
        """The words of one run."""
        words = [*self.words, f"{SETTING}={lr!r}", f"seed={seed}"]
        if epochs == self.spec.train.epochs:
            return words
        return [word for word in words if path_of(word) != EPOCHS] + [f"{EPOCHS}={epochs}"]

    def best(self, epochs: int) -> list[Trial]:
        """Trials with that many epochs that did not fail, best first; ties: lower rate first."""
        found = [t for t in self.trials if t.epochs == epochs and t.mean is not None]
        return sorted(found, key=lambda trial: (-(trial.mean or 0.0), trial.lr))

    @property
    def ranked(self) -> list[Trial]:
        """The trials of all epochs, the best first; empty where every rate has a failed run."""
        return self.best(self.spec.train.epochs)

    def around_best(self, rates: Sequence[float]) -> list[float]:
        """The rates midway between the best one and its neighbors, on a log scale.

        Without a neighbor on one side, the distance is that of the other side. A rate that is
        already in a narrow grid is left out.
        """
        if not self.ranked:
            return []
        at = rates.index(self.ranked[0].lr)
        below = rates[at] / rates[at - 1] if at else rates[1] / rates[0]
        above = rates[at + 1] / rates[at] if at + 1 < len(rates) else below
        middle = (rates[at] / math.sqrt(below), rates[at] * math.sqrt(above))
        rounded = [float(f"{rate:.2g}") for rate in middle]
        return [rate for rate in rounded if rate not in rates]


@program
@interruptible()
def main(arguments: Sequence[str] | None = None) -> None:
    """Search the rate of every system on the command line; write and print the result."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or {"-h", "--help"} & set(words):
        print(USAGE % _settings_text())
        return
    search, given = split(words)
    systems = systems_of(given, search)
    check_folders([system.spec for system in systems])
    command = command_of(words, PROGRAM)
    tune(systems, search, command)
    lost = [system.name for system in systems if not system.ranked]
    for system in systems:
        if system.ranked:
            path = tuned.FOLDERS[0] / f"{system.name}.yaml"
            write_whole(path, content(system, search, command))
            print(f"{path}\n{table(system)}\n")
    if lost:
        raise UserError(f"{', '.join(lost)}: runs diverged at every rate of {search.rates}")


def split(words: Sequence[str]) -> tuple[Search, list[str]]:
    """The settings of the search, and the words for the runs.

    Raises:
        UserError: names the word and what is allowed.
    """
    report_replaced(words)
    words = without_replaced(words)
    own = [word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX)]
    given = [word for word in words if not word.startswith(PREFIX)]
    for word in given:
        if word.startswith("-"):
            raise UserError(f"{word}: the search takes settings alone, and is a sweep without -m")
        if path_of(word) in CONTROLLED:
            raise UserError(f"{word}: the search sets it; use {CONTROLLED[path_of(word)]} instead")
        if path_of(word).replace("/", ".").startswith(LAUNCHING):
            raise UserError(
                f"{word}: the search runs in this process; start it in several shells to divide it"
            )
    search = Search()
    for word in own:
        search = _with(search, word)
    search.check()
    return search, given


def _with(search: Search, word: str) -> Search:
    """The search with one setting changed.

    Args:
        search: the settings so far.
        word: name and value, without ``tune.``.

    Raises:
        UserError: names the word and what is allowed.
    """
    name, _, value = word.partition("=")
    default = dataclasses.asdict(Search())
    if name not in default or not value:
        settings = ", ".join(f"{PREFIX}{entry}" for entry in default)
        raise UserError(f"{PREFIX}{word}: must be a value for one of {settings}")
    try:
        changed = OmegaConf.merge(OmegaConf.structured(search), OmegaConf.from_dotlist([word]))
        return cast(Search, OmegaConf.to_object(changed))
    except (OmegaConfBaseException, yaml.YAMLError):
        like = f"{PREFIX}{name}={default[name]}".replace(" ", "")
        raise UserError(f"{PREFIX}{word}: must be of the form {like}") from None


def systems_of(words: Sequence[str], search: Search) -> list[System]:
    """The distinct systems that a command line names.

    Raises:
        UserError: see ``compose.plan`` and ``System``; two systems would have the same rate; or no
            run would read it.
        SpecError: a setting that a search with fewer epochs cannot have.
    """
    fixed = [f"data.tuning_rows={search.rows}", f"{SETTING}=1"]
    found: dict[str, System] = {}
    composer = Composer()
    for own, spec in plan([*words, *fixed], sweep=True):
        kept = [word for word in own if path_of(word) != SETTING]
        system = System(kept, spec)
        first = found.setdefault(system.name, system)
        check_same(f"the rate {system.name}", settings(first.spec), settings(spec))
        if search.halving and spec.train.patience is not None:
            allowed = "must be null with tune.halving=true, whose first runs have fewer epochs"
            raise SpecError("train.patience", spec.train.patience, allowed)
        if search.halving and len(search.rungs(spec.train.epochs)) == 1:
            raise UserError("tune.halving=true: has no effect with train.epochs=1")
        if not composer.takes_tuned_rate(kept):
            reason = "so no run would read a tuned rate; write recipe=tuned"
            raise UserError(f"{SETTING}: the presets of this command set it, {reason}")
    return list(found.values())


def tune(systems: Sequence[System], search: Search, command: str) -> None:
    """Execute every trial. In each stage, the runs of all systems form one sweep.

    Args:
        systems: the systems, which get their trials.
        search: what is tried.
        command: the search's command line, for its plans.

    Raises:
        UserError: a setting or the data is wrong.
        Stopped: the process was asked to stop.
    """
    cache = DataCache()
    rungs = [search.rungs(system.spec.train.epochs) for system in systems]
    rates = [list(search.rates) for _ in systems]
    for stage in range(max(map(len, rungs))):
        wanted = []
        for system, own, epochs in zip(systems, rates, rungs, strict=True):
            if stage < len(epochs):
                if stage:
                    kept = system.best(epochs[stage - 1])
                    own[:] = sorted(t.lr for t in kept[: math.ceil(len(own) / 2)])
                wanted.append((system, list(own), epochs[stage]))
        _try(wanted, search.seeds, cache, f"{command}  # stage {stage + 1}")
    if search.refine:
        last = [(s, s.around_best(search.rates), s.spec.train.epochs) for s in systems]
        _try(last, search.seeds, cache, f"{command}  # refinement")


def _try(
    wanted: Sequence[tuple[System, list[float], int]],
    seeds: Sequence[int],
    cache: DataCache,
    stage: str,
) -> None:
    """Execute the runs of some rates for each system, and store the scores.

    A run that diverges has a score of None.

    Args:
        wanted: systems, each with its rates and its number of epochs.
        seeds: seeds of each rate.
        cache: data that the runs share.
        stage: command line of the search and name of the stage, for the plan.

    Raises:
        UserError: a run left no record or failed otherwise, so nothing is known about its rate.
    """
    trials: list[tuple[System, float, int, list[Run]]] = []
    for system, rates, epochs in wanted:
        for lr in rates:
            words = [system.words_of(lr, epochs, seed) for seed in seeds]
            runs = [prepare(compose(own), cache, command_of(own)) for own in words]
            trials.append((system, lr, epochs, runs))
    runs = [run for *_, own in trials for run in own]
    if not runs:
        return
    sweep = Sweep(runs)
    sweep.write_plans(stage)
    print(f"search: {sweep.progress()}", file=sys.stderr)
    session = Session(sweep, cache, multirun=True)
    session.run()
    broken = {
        key: record.error or ""
        for key, record in sweep.failed.items()
        if not (record.error or "").startswith(DIVERGED)
    }
    for found, how in ((session.lost, "left no record"), (broken, "failed")):
        if found:
            reasons = "; ".join(dict.fromkeys(found.values()))
            what = f"{counted(len(found), 'run')} {how} ({reasons})"
            raise UserError(f"{what}; nothing was written; run the same command again")
    for system, lr, epochs, own in trials:
        ends = [sweep.done.get(run.key) or sweep.failed.get(run.key) for run in own]
        system.trials.append(Trial(lr, epochs, tuple(map(_score, ends))))
        system.records += [record for record in ends if record is not None]


def _score(record: Record | None) -> float | None:
    """The first metric after the last epoch; None if the run diverged."""
    if record is None or record.status != "ok" or record.last is None:
        return None
    return next(iter(record.last["scores"].values()))


def content(system: System, search: Search, command: str) -> str:
    """The file of a system that has a rate: the best one, how it was found, the whole curve."""
    origins = [record.provenance for record in system.records]
    seconds = [record.core_seconds for record in system.records]
    known = [value for value in seconds if value is not None]
    hours = round(sum(known) / 3600, 3) if len(known) == len(seconds) else None
    budget = {**dataclasses.asdict(search), "runs": _runs(system), "core_hours": hours}
    entry = {
        "lr": system.ranked[0].lr,
        "metric": system.spec.task.metrics[0],
        "budget": budget,
        "commits": sorted({origin["commit"] for origin in origins if origin.get("commit")}),
        "uncommitted_changes": any(origin.get("uncommitted_changes") for origin in origins),
        "settings": tuning_key(system.spec, system.start),
        "curve": [
            {"lr": trial.lr, "epochs": trial.epochs, "scores": list(trial.scores)}
            for trial in sorted(system.trials, key=lambda trial: (trial.epochs, trial.lr))
        ],
    }
    text = yaml.safe_dump(entry, sort_keys=False, default_flow_style=None, width=100)
    return f"# Written by\n#   {command}\n{text}"


def _runs(system: System) -> int:
    return sum(len(trial.scores) for trial in system.trials)


def table(system: System) -> str:
    """The rates of a system with their scores in percent, the best one marked."""
    lines = []
    for trial in sorted(system.trials, key=lambda trial: (trial.epochs, trial.lr)):
        mean = "failed" if trial.mean is None else f"{100 * trial.mean:.1f}"
        mark = "  best" if trial is system.ranked[0] else ""
        lines.append(f"  lr={trial.lr:<8g} epochs={trial.epochs:<3} {mean}{mark}")
    return "\n".join(lines)


def _settings_text() -> str:
    default = Search()
    return "\n".join(
        f"  {PREFIX}{entry.name}={getattr(default, entry.name)}"
        for entry in dataclasses.fields(Search)
    )


if __name__ == "__main__":
    main()
