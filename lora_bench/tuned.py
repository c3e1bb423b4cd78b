"""The tuned learning rates in ``conf/tuned/``: one file for each tuned system, task and model.

``python -m lora_bench.tune`` writes them. A recipe that leaves ``train.lr`` open, as ``tuned``
does, takes the rate from there. A rate applies only to the settings with which it was found: the
name of its file holds a hash of them.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .errors import SpecError
from .presets import CONF, INSTALLED, load_yaml
from .spec import Spec, digest, non_default, stem_of

SETTING = "train.lr"
SHIPPED = CONF / "tuned"
# Where rates are looked up; new ones are written to the first folder. An installed package is not
# written to: a user's own rates are then in the working folder.
FOLDERS = (Path("conf", "tuned"), SHIPPED) if INSTALLED else (SHIPPED,)

# Settings for which a rate need not be tuned again: what is scored, and how rows are chosen.
ANY = ("data.tuning_rows", "data.validation_rows", "data.seed", "procedure", SETTING)
# Two sources of the same files.
OFFICIAL = ("local", "hub")


@dataclass(frozen=True)
class Trial:
    """One learning rate with a number of epochs, and the score of each seed.

    ``mean`` is None if a run failed.
    """

    lr: float
    epochs: int
    scores: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """Mean score over the seeds."""
        found = [score for score in self.scores if score is not None]
        return statistics.mean(found) if len(found) == len(self.scores) else None


def tuning_key(spec: Spec, start: str | None) -> dict[str, Any]:
    """The settings for which a rate is tuned, without those at their default.

    Args:
        spec: settings of a run.
        start: cell of the run behind ``init_from``, the same for all of its seeds; None without
            one.
    """
    whole = {**spec.where(), **spec.system(), "init_from": start}
    settings = {p: v for p, v in whole.items() if p not in ANY}
    if spec.data.source in OFFICIAL:
        settings["data.source"] = "official"
    return non_default(settings)


def name_of(spec: Spec, start: str | None) -> str:
    """Name of the file for the settings of a run, without its suffix.

    Args:
        spec: settings of the run.
        start: as in :func:`tuning_key`.
    """
    stem = stem_of(spec.task.name, spec.model.name, spec.method.name, spec.method.rank)
    return f"{stem}-{digest(tuning_key(spec, start))}"


def tuned_rate(spec: Spec, start: str | None) -> float:
    """The learning rate that was tuned for the settings of a run.

    Args:
        spec: settings of the run.
        start: as in :func:`tuning_key`.

    Raises:
        SpecError: there is none.
    """
    name = f"{name_of(spec, start)}.yaml"
    path = next((folder / name for folder in FOLDERS if (folder / name).exists()), None)
    if path is None:
        raise SpecError(
            SETTING,
            "???",
            f"the recipe does not set it, and conf/tuned has no rate for {spec.method.name} on "
            f"{spec.task.name} with these settings; find one with python -m lora_bench.tune and "
            "the same words, or set it",
        )
    return _read(path)


def files() -> dict[str, Path]:
    """The file of each tuned rate by name; the first folder that has it takes precedence."""
    found = [path for folder in reversed(FOLDERS) for path in sorted(folder.glob("*.yaml"))]
    return {path.stem: path for path in found}


def _read(path: Path) -> float:
    """The rate in a file.

    Raises:
        UserError: it cannot be read.
        SpecError: it holds none.
    """
    found = OmegaConf.to_container(load_yaml(path))
    rate = found.get("lr") if isinstance(found, dict) else None
    if not isinstance(rate, float) or not rate > 0:
        raise SpecError(SETTING, rate, f"is not a learning rate, in {path}")
    return rate
