"""PEFT's types and their settings, read from its source code: importing PEFT imports torch."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

# The base of every configuration: settings that describe a saved file, not a method.
BASE = "PeftConfig"


def peft_types() -> list[str]:
    """The types that PEFT implements, as ``peft.PeftType`` names them."""
    tree = ast.parse((_root() / "utils" / "peft_types.py").read_text(encoding="utf-8"))
    (enum,) = (node for node in tree.body if getattr(node, "name", "") == "PeftType")
    assert isinstance(enum, ast.ClassDef)
    names = [node.targets[0].id for node in enum.body if isinstance(node, ast.Assign)]  # type: ignore[attr-defined]
    return sorted(name for name in names if _config_file(f"tuners.{name.lower()}").is_file())


@cache
def config_fields(peft_type: str) -> dict[str, str]:
    """Settings of a type's configuration class.

    Args:
        peft_type: one of ``peft_types()``.

    Returns:
        Name of each setting and its annotation as written in the source; those that every
        PeftConfig has are left out.

    Raises:
        LookupError: PEFT has no configuration of this type.
    """
    module = f"tuners.{peft_type.lower()}"
    for node in ast.parse(_config_file(module).read_text(encoding="utf-8")).body:
        names = [part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)]
        if isinstance(node, ast.ClassDef) and peft_type in names:  # self.peft_type = PeftType.X
            return _fields(module, node.name)
    raise LookupError(f"{module}: no configuration class sets PeftType.{peft_type}")


def _fields(module: str, name: str) -> dict[str, str]:
    """Annotated fields of a class and its bases, found through the imports of its file."""
    if name == BASE:
        return {}
    body = ast.parse(_config_file(module).read_text(encoding="utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and node.module]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    found: dict[str, str] = {}
    for base in classes[name].bases:
        assert isinstance(base, ast.Name)
        home = module if base.id in classes else str(homes[base.id]).removeprefix("peft.")
        found |= _fields(home, base.id)
    for entry in classes[name].body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            found[entry.target.id] = ast.unparse(entry.annotation)
    return found


def _config_file(module: str) -> Path:
    """The file of a module such as ``tuners.lora``; for a package, its ``config.py``."""
    path = _root().joinpath(*module.split("."))
    return path / "config.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _root() -> Path:
    spec = importlib.util.find_spec("peft")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
