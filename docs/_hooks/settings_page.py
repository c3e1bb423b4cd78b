"""The settings reference, from the dataclasses of the code and the presets under ``conf/``."""

import ast
import dataclasses
import inspect
import io
import tokenize
from functools import cache
from itertools import takewhile
from typing import Any, cast

from omegaconf import MISSING, OmegaConf

from lora_bench.data import source_of
from lora_bench.methods import get_method
from lora_bench.presets import CONF
from lora_bench.spec import DataSpec, MethodSpec, Spec, part_of
from lora_bench.tasks import kinds

URI = "reference/settings.md"
INTRO = """\
# Settings

Every setting of a run, as [`spec.py`](../../lora_bench/spec.py) defines it. On a command line,
`path=value` sets one, as in `train.lr=2e-4`. A group of [presets](presets/task.md) sets many at
once, as in `recipe=quick`; settings on the command line override presets. `--cfg job` prints the
settings of a command line without running it.

The *identity* column shows which part of the [identity of a run](../concepts/identity.md) a
setting belongs to. A dash means that it is not part of it: it cannot change a score, or only
locates files, whose content is part of the identity by its fingerprint. A setting that has no
effect with the chosen method, task or data is refused.
"""
CHOSEN_BY = {
    "hydra": "their folder, as in `hydra/launcher=processes`",
    "recipe_for_method": "the recipe and the method in their names",
    "recipe_for_task": "the recipe and the task in their names",
    "sweep": "`+sweep=<name>` with `-m`",
    "tuned": "`recipe=tuned`, for the settings with which they were found",
}
TITLES = {
    "": "The run",
    "task.": "Task",
    "task.local.": "Official files of a task",
    "task.hub.": "A task on the hub",
    "model.": "Model",
    "method.": "Method",
    "data.": "Data",
    "train.": "Recipe",
}


def pages() -> dict[str, str]:
    """Address -> Markdown of every page of the reference."""
    text = "\n".join([INTRO, *_sections(Spec, ""), *_arguments()])
    return {URI: text} | {_preset_uri(group): _preset_page(group) for group in groups()}


def preset_nav() -> list[dict[str, str]]:
    """Navigation of the presets, a page for each group."""
    return [{group: _preset_uri(group)} for group in groups()]


def groups() -> list[str]:
    """Names of the groups of presets."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def meanings(kind: type) -> dict[str, str]:
    """The comment of each field of a dataclass: at the end of its line or above it.

    Args:
        kind: the dataclass.

    Returns:
        Field -> comment; empty if the source has none.
    """
    source = inspect.cleandoc("\n" + inspect.getsource(kind))
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if token.line.strip().startswith("#"):
                alone.add(token.start[0])
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines, above = [], node.lineno - 1
            while above in alone:
                lines.insert(0, comments[above])
                above -= 1
            lines += [comments[n] for n in (node.end_lineno,) if n in comments and n not in alone]
            found[node.target.id] = " ".join(lines)
    return found


def _sections(kind: Any, prefix: str) -> list[str]:
    """The table of a section of settings, then those of the sections inside."""
    inside = [
        line
        for entry in dataclasses.fields(kind)
        if dataclasses.is_dataclass(entry.default_factory)
        for line in _sections(entry.default_factory, f"{prefix}{entry.name}.")
    ]
    about = inspect.cleandoc(kind.__doc__ or "")
    return [f"## {TITLES[prefix]}\n", about, "", _table(kind, prefix), *inside]


def _table(kind: type, prefix: str) -> str:
    """The settings of one dataclass, excluding those of its sections."""
    lines = ["| setting | type | default | meaning | identity |", "| --- | --- | --- | --- | --- |"]
    described, types = meanings(kind), inspect.get_annotations(kind)
    for entry in dataclasses.fields(kind):
        if dataclasses.is_dataclass(entry.default_factory):
            continue
        path = f"{prefix}{entry.name}"
        readers = _readers(path)
        meaning = described[entry.name] + (f" *Read by {readers}.*" if readers else "")
        lines.append(
            f'| <span id="{path}"></span>`{path}` | {_code(types[entry.name])} | {_default(entry)} '
            f"| {_escaped(meaning)} | {part_of(path) or '–'} |"
        )
    return "\n".join([*lines, ""])


def _code(type_: Any) -> str:
    name = type_.__name__ if isinstance(type_, type) and "[" not in str(type_) else str(type_)
    return "`" + name.replace("typing.", "").replace("|", "or") + "`"


def _default(entry: Any) -> str:
    if entry.default is not dataclasses.MISSING:
        value = entry.default
    elif entry.default_factory is not dataclasses.MISSING:
        value = entry.default_factory()
    else:
        return "required"
    if value == MISSING:
        return "from a preset"
    words = {None: "null", True: "true", False: "false", "": '""'}
    shown = words[value] if value is None or isinstance(value, bool) or value == "" else value
    return f"`{shown}`"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def _readers(path: str) -> str:
    """Which methods or data sources read a setting; empty for other sections."""
    section, _, name = path.partition(".")
    if section == "method" and name not in ("name", "file", "args"):
        reads = {method: name in fields for method, fields in _method_reads().items()}
    elif section == "data" and name != "source":
        always = {entry.name for entry in dataclasses.fields(DataSpec)} - _source_settings()
        if name in always:
            return ""
        reads = {source: name in fields for source, fields in _source_reads().items()}
    else:
        return ""
    yes, no = ([f"`{key}`" for key, value in reads.items() if value is w] for w in (True, False))
    if not no:
        return ""
    return ", ".join(yes) if len(yes) <= len(no) else f"all but {', '.join(no)}"


@cache
def _methods() -> dict[str, Spec]:
    """A Spec for each method preset; it may need packages that are not installed."""
    found = {}
    for path in sorted(CONF.glob("method/*.yaml")):
        merged = OmegaConf.merge(OmegaConf.structured(MethodSpec), OmegaConf.load(path))
        found[path.stem] = Spec(method=cast(MethodSpec, OmegaConf.to_object(merged)))
    return found


def _method_reads() -> dict[str, frozenset[str]]:
    return {name: get_method(s.method).reads_in(s) for name, s in _methods().items()}


def _source_reads() -> dict[str, frozenset[str]]:
    names = sorted(path.stem for path in CONF.glob("data/*.yaml"))
    return {name: source_of(DataSpec(source=name)).READS for name in names}


def _source_settings() -> frozenset[str]:
    return frozenset().union(*_source_reads().values())


def _arguments() -> list[str]:
    """Tables of the settings that only some methods or one kind of task have."""
    owners: dict[tuple[type, str], list[str]] = {}
    for name, spec in _methods().items():
        if (own := get_method(spec.method).Args) is not None:
            owners.setdefault((own, "method"), []).append(name)
    for name, kind in kinds().items():
        if kind.Args is not None:
            owners.setdefault((kind.Args, "task"), []).append(name)
    lines = []
    for (own, section), names in owners.items():
        what = "kind=" if section == "task" else "method="
        lines += [
            f"## {section}.args of {what}{','.join(names)}\n",
            _table(own, f"{section}.args."),
        ]
    return lines


def _overview() -> list[str]:
    """A table of the methods: what each is, where it can be trained, and what it needs."""
    lines = [
        "",
        "| method | what it is | in [groups](../../concepts/grouping.md) | extra to install |",
        "| --- | --- | --- | --- |",
    ]
    for name, spec in _methods().items():
        method = get_method(spec.method)
        extras = ", ".join(sorted(set(method.packages.values()))) or "–"
        in_groups = "yes" if method.grouped_in(spec) else "–"
        lines.append(f"| [{name}](#{name}) | {_first_sentence(name)} | {in_groups} | {extras} |")
    return lines


def _first_sentence(method: str) -> str:
    """The first sentence of the comment that opens a preset."""
    lines = (CONF / "method" / f"{method}.yaml").read_text().splitlines()
    comment = " ".join(line[2:] for line in takewhile(lambda line: line.startswith("# "), lines))
    return _escaped(comment.split(". ")[0].rstrip("."))


def _preset_uri(group: str) -> str:
    return f"reference/presets/{group}.md"


def _preset_page(group: str) -> str:
    """Every preset of a group, as its file defines it."""
    how = CHOSEN_BY.get(group, f"`{group}=<name>`")
    paths = sorted((CONF / group).rglob("*.yaml"))
    lines = [f"# Presets: {group}", "", f"Chosen by {how}; each is a file below `conf/{group}/`."]
    lines += _overview() if group == "method" else []
    for path in paths:
        name = path.relative_to(CONF / group).with_suffix("").as_posix()
        lines += ["", f"## {name}", "", "```yaml", path.read_text().rstrip(), "```"]
    return "\n".join([*lines, ""])
