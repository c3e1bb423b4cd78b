"""Checks of settings that several methods share. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, TypeVar

from ..checks import MAX_COUNT, typed_args
from ..errors import SpecError, UserError
from ..spec import MethodSpec, Spec, settings

if TYPE_CHECKING:
    from types import ModuleType

    from ..model.wrapper import LoraWrapperRoberta

T = TypeVar("T")

# These name the method, or are checked against its Args.
ALWAYS_READ = frozenset({"name", "file", "args"})


def check_read(spec: Spec, reads: frozenset[str], ignores: frozenset[str]) -> None:
    """Refuse a setting that was changed although the method does not read it.

    Args:
        spec: settings of the run.
        reads: fields of ``MethodSpec`` that the method reads.
        ignores: paths of settings outside of ``method`` that it does not read.

    Raises:
        SpecError: names the setting and the settings that the method reads.
    """
    name, default = spec.method.name, MethodSpec()
    read = [f.name for f in dataclasses.fields(MethodSpec) if f.name in reads]
    for entry in dataclasses.fields(MethodSpec):
        value = getattr(spec.method, entry.name)
        if entry.name in reads | ALWAYS_READ or value == getattr(default, entry.name):
            continue
        reason = f"method={name} does not read it; it reads {', '.join(read) or 'no such setting'}"
        raise SpecError(f"method.{entry.name}", value, reason)
    given, defaults = settings(spec), settings(Spec())
    for path in sorted(ignores):
        if given[path] != defaults[path]:
            reason = f"method={name} does not read it; leave it at {defaults[path]}"
            raise SpecError(path, given[path], reason)


def arguments(spec: Spec, schema: type[T]) -> T:
    """``method.args`` as an instance of ``schema``, a dataclass whose fields must all be given.

    Raises:
        SpecError: a setting is missing, unknown or of the wrong type.
    """
    given, method = spec.method.args, f"method={spec.method.name}"
    names = [entry.name for entry in dataclasses.fields(schema)]  # type: ignore[arg-type]
    for name in given:
        if name not in names:
            raise SpecError(
                f"method.args.{name}", given[name], f"{method} takes {', '.join(names)}"
            )
    if missing := [name for name in names if name not in given]:
        raise SpecError("method.args", given, f"{method} needs {', '.join(missing)} too")
    return typed_args("method.args", given, schema)


def in_one_form(value: Any) -> Any:
    """Equal numbers as the same text, 16 and not 16.0, since they are part of a run's key."""
    if isinstance(value, dict):
        return {name: in_one_form(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [in_one_form(entry) for entry in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= MAX_COUNT
    return int(value) if is_whole else value


def adapted_modules(model: LoraWrapperRoberta, spec: Spec) -> list[str]:
    """Full names of the encoder's linear layers behind ``method.targets`` and ``method.layers``.

    Raises:
        SpecError: this encoder does not have a layer.
    """
    from ..model.inject import target_modules

    try:
        return target_modules(model.encoder, spec.method.targets, spec.method.layers)
    except ValueError as error:
        raise SpecError("method.layers", spec.method.layers, str(error)) from None


def one_of(path: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse a value that is not among the allowed ones.

    Raises:
        SpecError: names the setting and the allowed values.
    """
    if value not in allowed:
        raise SpecError(path, value, f"must be one of {', '.join(map(str, allowed))}")


def check_installed(package: str, extra: str, wanted_by: str) -> None:
    """Refuse a setting whose optional package is missing, without importing it.

    Args:
        package: import name.
        extra: extra of this distribution that installs it.
        wanted_by: the setting that needs it.

    Raises:
        UserError: the package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{wanted_by} needs {package}: pip install 'lora-bench[{extra}]'")


def require(package: str, extra: str, wanted_by: str) -> ModuleType:
    """Import an optional package; arguments as in ``check_installed``.

    Raises:
        UserError: the package is not installed.
    """
    check_installed(package, extra, wanted_by)
    return importlib.import_module(package)
