"""``python -m lora_bench.tune``: the learning rate of each system, with one budget for all."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import tuned
from ..compose import Composer, check_same, plan
from ..errors import SpecError, UserError
from ..overrides import command_of, path_of, report_replaced, without_replaced
from ..program import program
from ..record import write_whole
from ..spec import settings
from ..sweep.session import check_folders, interruptible
from ..tuned import SETTING, tuning_key
from .search import Search, System, tune

PROGRAM, PREFIX = "lora_bench.tune", "tune."
USAGE = f"""\
Find the learning rate of each system, with one budget for all, and write it to conf/tuned/,
where recipe=tuned reads it.

  python -m {PROGRAM} recipe=tuned task=stsb method=lora,peft_lora method.rank=4,8

Arguments are the settings of a sweep (without +sweep presets) and the settings of the search:
%s
The rates are trained first, then two more around the best one. The best rate has the highest first
metric after the last epoch, averaged over the seeds, on rows held out of the training data; of
equal ones, the lowest. A rate at which a run diverges is never chosen, and any other failure ends
the search. Run the command again to complete what is missing, or run it in several shells at once
to divide the work."""

# Settings that the search controls, and the option to use instead.
CONTROLLED = {
    SETTING: "tune.rates",
    "seed": "tune.seeds",
    "data.tuning_rows": "tune.rows",
}

LAUNCHING = ("hydra.launcher", "hydra.sweeper")


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
            raise UserError(f"{word}: the search takes only settings; it needs no -m")
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
        options = ", ".join(f"{PREFIX}{entry}" for entry in default)
        raise UserError(f"{PREFIX}{word}: must be a value for one of {options}")
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
