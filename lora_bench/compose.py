"""From the words of a command line to validated Specs. Needs neither torch nor data."""

import copy
import dataclasses
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .checkpoint import init_cell
from .data import check_source
from .errors import SpecError, UserError, one_line
from .methods import check_method
from .model.source import check_model, source_name
from .overrides import (
    check_number,
    expected,
    groups,
    in_dict,
    parsed,
    path_of,
    setting_paths,
    without_replaced,
)
from .presets import CONF
from .search_path import check_searchpath
from .spec import Spec, is_within, typed
from .tasks import check_task
from .tuned import SETTING as TUNED_SETTING
from .tuned import tuned_rate

ConfigStore.instance().store("schema", Spec)


def validate(spec: Spec) -> Spec:
    """Check every setting, including those of the task's kind, data source, model and method.

    Returns:
        The same Spec.

    Raises:
        SpecError: names the setting, its value and what is allowed.
    """
    spec.check()
    for check in (check_task, check_source, check_model, check_method):
        check(spec)
    return spec


def compose(overrides: list[str]) -> Spec:
    """The validated Spec of one run.

    Args:
        overrides: words of Hydra's grammar, as in ``task=cola`` or ``train.lr=1e-3``; of those
            that name one setting or group, the last counts.

    Raises:
        UserError: one line that names the setting and what is allowed.
    """
    return Composer().compose(overrides)


class Composer:
    """Composes command lines; those with the same presets are composed by Hydra once."""

    def __init__(self) -> None:
        self._presets: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: list[str]) -> Spec:
        """As :func:`compose`."""
        overrides = without_replaced(overrides)
        for word in overrides:
            if parsed(word).key_or_group == "sweep":  # Hydra would add it, and nothing read it
                raise UserError(f"{word}: stands for many runs; write the settings of one")
        check_searchpath(overrides)
        try:
            return validate(from_config(self._config(overrides), overrides))
        except SpecError as error:
            given = _is_given(error.path, overrides)
            origin = "the command line" if given else "a preset or default"
            raise UserError(f"{error} (set by {origin})") from None
        except (HydraException, OmegaConfBaseException) as error:
            line = _unknown_argument(overrides) or _wrong_type(overrides) or hydra_reason(error)
            raise UserError(line) from None
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"a preset cannot be read: {hydra_reason(error)}") from None
        except (ValueError, TypeError, RecursionError) as error:  # from Hydra or OmegaConf
            line = " ".join(overrides)
            raise UserError(f"{line}: cannot be composed: {hydra_reason(error)}") from None

    def takes_tuned_rate(self, overrides: list[str]) -> bool:
        """Whether neither the words of a command line nor their presets set the learning rate."""
        if TUNED_SETTING in map(path_of, overrides):
            return False
        presets, _ = self._divided(overrides)
        return OmegaConf.is_missing(self._composed(presets).train, "lr")

    def _divided(self, overrides: list[str]) -> tuple[tuple[str, ...], list[str]]:
        """The words for Hydra, and those that set one value after it."""
        sections = set(map(path_of, overrides)) - set(groups())
        values = [word for word in overrides if _is_value(word, sections)]
        return tuple(word for word in overrides if word not in values), values

    def _composed(self, presets: tuple[str, ...]) -> DictConfig:
        if presets not in self._presets:
            self._presets[presets] = _by_hydra(presets)
        return self._presets[presets]

    def _config(self, overrides: list[str]) -> DictConfig:
        presets, values = self._divided(overrides)
        config = copy.deepcopy(self._composed(presets))
        try:
            for word in map(parsed, values):  # as Hydra does, after the presets
                OmegaConf.update(config, word.key_or_group, word.value(), merge=True)
        except OmegaConfBaseException:
            return _by_hydra(overrides)  # for its message
        return config


def _is_value(word: str, sections: Collection[str]) -> bool:
    """Whether a word sets one setting, and none of the words sets a section around it."""
    path = path_of(word)
    whole = any(path != section and is_within(path, section) for section in sections)
    return word.startswith(path) and path in setting_paths() and not in_dict(path) and not whole


def _by_hydra(overrides: Sequence[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", completed(list(overrides)))


def from_config(config: DictConfig, overrides: Sequence[str]) -> Spec:
    """The Spec of a composed configuration, not validated yet.

    A recipe that leaves the learning rate open takes it from ``conf/tuned/``. If the command line
    sets only the source of the model, the name is derived from it, and the revision that the
    preset pins does not apply.

    Args:
        config: as Hydra composed it.
        overrides: the words that it was composed with.

    Raises:
        UserError: a setting is not set, or does not exist.
        SpecError: a setting has the wrong type.
    """
    missing = OmegaConf.missing_keys(config)
    untuned = TUNED_SETTING in missing
    if untuned:
        missing.remove(TUNED_SETTING)
        OmegaConf.update(config, TUNED_SETTING, 1.0)  # until the other settings are known
    for path in (path for path in setting_paths() if path in missing):
        raise UserError(f"{path}: the chosen presets do not set it; set it on the command line")
    _check_known(config, Spec(), "")
    untyped = cast(Spec, OmegaConf.to_object(config))  # config.yaml starts from the schema
    spec = typed(untyped.to_dict())  # OmegaConf does not check what ${...} stands for
    given = {path_of(word) for word in overrides}
    if "model.source" in given:
        if "model.name" not in given:
            spec.model.name = source_name(spec.model.source)
        if "model.revision" not in given:
            spec.model.revision = None
    if untuned:
        validate(spec)  # completes the settings of its kind of task, for which the rate was found
        spec.train.lr = tuned_rate(spec, init_cell(spec))
    return spec


def check_same(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse two sets of settings with one name: one of them would be dropped.

    Args:
        name: name of both, as in "the run <key>".
        before: settings of the first by name.
        now: settings of the second by name.

    Raises:
        UserError: names the first setting that differs.
    """
    for path in before:
        if before[path] != now[path]:
            raise UserError(
                f"{path}={before[path]} and {path}={now[path]}: must be one value; both are "
                f"{name}, which does not depend on it"
            )


def completed(overrides: list[str]) -> list[str]:
    """The overrides as Hydra needs them: dicts may get entries that no preset has."""
    return [
        f"++{word}"
        if in_dict(path_of(word)) and not word.startswith(("+", "~", "method.args."))
        else word
        for word in overrides
    ]


def plan(overrides: list[str], *, sweep: bool) -> list[tuple[list[str], Spec]]:
    """The words and the validated Spec of every run that a command line asks for.

    Of words that name one setting or group, the last counts. A learning rate that comes from
    ``conf/tuned/`` is added to the words.

    Args:
        overrides: words of Hydra's grammar.
        sweep: whether comma-separated values stand for one run each (``-m``).

    Raises:
        UserError: one line that names the setting and what is allowed.
    """
    jobs, composer = [without_replaced(overrides)], Composer()
    if sweep:
        words = [parsed(word) for word in jobs[0]]
        check_number(words)
        try:
            jobs = [list(job) for job in itertools.product(*map(_alternatives, words))]
        except HydraException as error:
            raise UserError(hydra_reason(error)) from None
    planned = []
    for job in jobs:
        spec = composer.compose(job)
        if composer.takes_tuned_rate(job):  # which may be tuned again: the words name this run
            job = [*job, f"{TUNED_SETTING}={spec.train.lr!r}"]
        planned.append((job, spec))
    return planned


def _alternatives(override: Override) -> list[str]:
    """The single-value words that one word of a sweep expands to."""
    if override.is_sweep_override():
        values = list(override.sweep_string_iterator())
    else:
        values = [override.get_value_element_as_str()]
    return [f"{override.get_key_element()}={value}" for value in values]


def hydra_reason(error: Exception) -> str:
    """Hydra's message and its cause, with the setting, without search path and type names."""
    lines = map(one_line, filter(None, (error, error.__cause__)))
    text = " ".join(dict.fromkeys(lines))
    setting = re.search(r" full_key: (\S+)", text)
    for more in (" Config search path:", " full_key:", " See https:"):
        text = text.split(more)[0]
    return text if setting is None or setting[1] in text else f"{setting[1]}: {text}"


def _is_given(path: str, overrides: Sequence[str]) -> bool:
    """Whether the command line sets a setting, an entry of it, or what it is an entry of."""
    given = [name for name in map(path_of, overrides) if "." in name or name == path]
    return any(is_within(name, path) or is_within(path, name) for name in given)


def _check_known(config: DictConfig, section: Any, prefix: str) -> None:
    """Refuse a key that is not a setting: ``+`` and presets can add one.

    Raises:
        UserError: names the key.
    """
    known = {entry.name: getattr(section, entry.name) for entry in dataclasses.fields(section)}
    for name in map(str, config):
        if name not in known:
            raise UserError(f"{prefix}{name}: no such setting; must be one of {', '.join(known)}")
        if dataclasses.is_dataclass(known[name]):
            _check_known(config[name], known[name], f"{prefix}{name}.")


def _wrong_type(overrides: Sequence[str]) -> str | None:
    """The message for the first word whose value has the wrong type; None if there is none."""
    for word in overrides:
        path, override = path_of(word), parsed(word)
        if path in setting_paths() and not in_dict(path) and not override.is_sweep_override():
            try:
                OmegaConf.update(OmegaConf.structured(Spec), path, override.value())
            except OmegaConfBaseException:
                return f"{word}: must be {expected(path)} (set by the command line)"
    return None


def _unknown_argument(overrides: list[str]) -> str | None:
    """The message for the first ``method.args`` entry that the preset lacks; None if none."""
    for override in overrides:
        section, _, name = path_of(override).rpartition(".")
        if section == "method.args":
            known = compose([other for other in overrides if other != override]).method.args
            if name not in known:
                allowed = ", ".join(known) or "nothing here"
                return f"{override}: no such setting; {section} has {allowed}"
    return None
