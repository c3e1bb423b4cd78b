"""From the words of a command line to checked settings. Needs neither torch nor images."""

import dataclasses
import difflib
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ...compose import hydra_reason
from ...errors import UserError
from ...hydra_program import check_launcher
from ...overrides import check_number, checked, command_of, is_search
from ...search_path import check_searchpath
from .settings import Settings

CONF = Path(__file__).resolve().parent / "conf"
MODULE = "lora_bench.studies.low_rank"

ConfigStore.instance().store("low_rank_schema", Settings)


def from_config(config: Any) -> Settings:
    """Settings from a composed configuration (OmegaConf or nested dicts)."""
    return cast(
        Settings, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), config))
    )


def compose(words: list[str]) -> Settings:
    """The settings of one run, not checked yet.

    Args:
        words: Hydra's overrides, as in ``layer=low_rank rank=8``.

    Raises:
        UserError: one line that names the word and what is allowed.
    """
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return from_config(hydra.compose("config", words))
    except MissingMandatoryValue:
        raise UserError("lr: no rate was tuned for this layer and optimizer; set it") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(hydra_reason(error)) from None
    except (ValueError, TypeError, RecursionError) as error:  # Hydra's own
        raise UserError(f"{' '.join(words)}: cannot be composed: {hydra_reason(error)}") from None


def plan(words: list[str], *, sweep: bool) -> list[Settings]:
    """What a command line asks for, in its order.

    In a sweep over layers and ranks, a full-rank layer has no rank.

    Args:
        words: Hydra's overrides.
        sweep: whether comma-separated values stand for one run each (``-m``).

    Raises:
        UserError: one line that names the word and what is allowed.
    """
    parsed = [checked(word, _check_key) for word in words]
    if is_search(words):
        raise UserError(
            "hydra/sweeper: the study has no search; -m with lists of values is a sweep"
        )
    check_launcher(words, multirun=sweep)
    check_searchpath(words)
    if not sweep:
        return [compose(words)]
    check_number(parsed)
    try:
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except HydraException as error:
        raise UserError(hydra_reason(error)) from None
    found = [compose(list(job)) for job in jobs]
    ranked = any(settings.kind != "full" for settings in found)
    return [without_rank(settings) for settings in found] if ranked else found


def without_rank(settings: Settings) -> Settings:
    """The settings, without a rank if the layer has none."""
    return dataclasses.replace(settings, rank=None) if settings.kind == "full" else settings


def command(words: list[str], settings: Settings) -> str:
    """The command that reproduces a run.

    It states the learning rate, because the rates in the presets may be tuned again.

    Args:
        words: overrides that the run was started with.
        settings: settings of the run.
    """
    words = [word for word in words if settings.kind != "full" or word.split("=")[0] != "rank"]
    if not any(word.startswith("lr=") for word in words):
        words = [*words, f"lr={settings.lr!r}"]
    return command_of(words, MODULE)


def _check_key(word: str, override: Override) -> None:
    # the layer's preset sets its kind
    known = [field.name for field in dataclasses.fields(Settings) if field.name != "kind"]
    key = override.key_or_group
    if key not in known:
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{word}: no such setting; {hint}must be one of {', '.join(known)}")
    if override.is_delete() or override.package is not None:
        raise UserError(f"{word}: must be {key}=<value>")
