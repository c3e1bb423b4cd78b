"""From the words of a command line to validated Specs. Needs neither torch nor data."""

import dataclasses
import difflib

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from .data import check_source
from .methods import check_method
from .presets import CONF
from .spec import Spec, SpecError, UserError
from .tasks import check_task

ConfigStore.instance().store("schema", Spec)


def validate(spec: Spec) -> Spec:
    """Check every setting, those of the task's kind, the data source and the method too.

    Returns:
        The same Spec.

    Raises:
        SpecError: names the setting, its value and what is allowed.
    """
    spec.check()
    for check in (check_task, check_source, check_method):
        check(spec)
    return spec


def compose(overrides: list[str]) -> Spec:
    """The validated Spec of one run.

    Args:
        overrides: words of Hydra's grammar, as in ``task=cola`` or ``train.lr=1e-3``.

    Raises:
        UserError: one line that names the setting and what is allowed.
    """
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            spec = Spec.from_config(hydra.compose("config", completed(overrides)))
        return validate(spec)
    except SpecError as error:
        given = any(_path(override) == error.path for override in overrides)
        origin = "the command line" if given else "a preset or default"
        raise UserError(f"{error} (set by {origin})") from None
    except MissingMandatoryValue as error:
        name = error.full_key or str(error).splitlines()[0].rpartition(" ")[2]
        raise UserError(
            f"{name}: the chosen presets leave it open; set it on the command line"
        ) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_unknown_setting(overrides) or one_line(error)) from None


def completed(overrides: list[str]) -> list[str]:
    """The overrides as Hydra needs them: ``task.args`` may name settings that no preset writes."""
    return [f"++{word}" if word.startswith("task.args.") else word for word in overrides]


def plan(overrides: list[str], *, sweep: bool) -> list[tuple[list[str], Spec]]:
    """The words and the validated Spec of every run that a command line asks for.

    Args:
        overrides: words of Hydra's grammar.
        sweep: whether comma-separated values stand for one run each (``-m``).

    Raises:
        UserError: one line that names the setting and what is allowed.
    """
    if not sweep:
        return [(overrides, compose(overrides))]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except HydraException as error:
        raise UserError(one_line(error)) from None
    return [(list(job), compose(list(job))) for job in jobs]


def one_line(error: Exception) -> str:
    """Hydra's message without its search path and type names."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    return text.split(" Config search path:")[0].split(" full_key:")[0]


def _path(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _unknown_setting(overrides: list[str]) -> str | None:
    """The message for the first override that names no setting; None where all do."""
    for override in overrides:
        path = _path(override)
        section, _, name = path.rpartition(".")
        if section == "method.args":
            known = compose([other for other in overrides if other != override]).method.args
            if name not in known:
                allowed = ", ".join(known) or "nothing here"
                return f"{override}: no such setting; {section} has {allowed}"
        elif (fields := _fields(section)) and name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {section}.{near[0]}? " if near else ""
            return f"{override}: no such setting; {hint}{section} has {', '.join(fields)}"
    return None


def _fields(section: str) -> list[str]:
    """Names of the settings in a section such as ``method``; none for an unknown section."""
    node: object = Spec()
    for name in filter(None, section.split(".")):
        node = getattr(node, name, None)
    return [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
