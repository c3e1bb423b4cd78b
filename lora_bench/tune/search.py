"""What is tried for each system, and the runs that try it."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..checkpoint import init_cell
from ..compose import Composer
from ..errors import UserError, counted
from ..overrides import command_of, path_of
from ..record import DIVERGED, Record
from ..spec import Spec
from ..sweep.plan import Sweep
from ..sweep.session import Session
from ..training.prepared import DataCache, Run, prepare
from ..tuned import SETTING, Trial, name_of

EPOCHS = "train.epochs"


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
    composer = Composer()
    for system, rates, epochs in wanted:
        for lr in rates:
            words = [system.words_of(lr, epochs, seed) for seed in seeds]
            runs = [prepare(composer.compose(own), cache, command_of(own)) for own in words]
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
    return record.main_score if record is not None and record.status == "ok" else None
