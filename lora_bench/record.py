"""Record: what one run did and how it went, as one JSON file, written completely or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from .errors import SpecError, UserError, first_line, first_problem
from .files import whole_file
from .record_formats import LONG_NUMBER, fault_of, too_large, upgrade
from .spec import DIGITS, Identity, Spec, settings, typed

FORMAT = 2
FILE = "record.json"
TAIL = f'"format": {FORMAT}\n}}\n'.encode()  # end of a file that ``write`` wrote


DIVERGED = "training diverged: "  # start of the error of a run whose loss or scores are not finite


class RecordError(UserError):
    """A record that this version cannot read: the message names the file and the reason."""


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
@dataclass
class Record:
    """One run. Unknown values are None, never a number; a field's name ends in its unit."""

    key: str
    status: Literal["ok", "failed"]
    where: dict[str, Any]  # what was solved: dotted path of a setting -> value (spec.Identity)
    system: dict[str, Any]  # how it was solved, in the same form
    seed: int
    spec: dict[str, Any]  # every setting, except out_dir, cache_dir and group
    command: str  # reproduces the run, from the project's folder
    started: str  # UTC, ISO 8601
    provenance: dict[str, Any]
    start: dict[str, Any] | None = None  # the adapter that it started from: task, cell, fingerprint
    streams: list[str] = field(default_factory=list)  # the random streams that it used
    # split -> source, fingerprint, rows, skipped; for scored splits also ceiling, chance ...
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)  # epoch, loss, scores
    best: dict[str, Any] | None = None  # the epoch with the best first metric
    last: dict[str, Any] | None = None  # the last epoch
    reloaded: dict[str, float] | None = None  # scores of the saved adapter in a fresh model
    parameters: dict[str, int] | None = None  # trained, by group, and total
    adapter_bytes: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    examples_per_second: float | None = None  # training
    tokens_per_second: float | None = None  # training, real tokens
    peak_memory_bytes: int | None = None  # None if the run was trained in a group
    # size, train_seconds, eval_seconds, peak_memory_bytes of the group that it was trained in; its
    # own seconds are a share of the group's; None: it was trained alone
    group: dict[str, Any] | None = None
    error: str | None = None  # one line; the traceback is beside the record
    format: int = FORMAT

    @property
    def main_score(self) -> float | None:
        """The score by which runs are compared, after the last epoch; None if it failed."""
        return self.last["scores"][main_metric(self.where)] if self.last else None

    @property
    def identity(self) -> Identity:
        """The identity that the record states."""
        fingerprint = (self.start or {}).get("fingerprint")
        return Identity(self.where, self.system, self.seed, fingerprint)

    @property
    def core_seconds(self) -> float | None:
        """Seconds of training and scoring times threads; in a group, the run's share.

        None: not known, or the device is not a CPU.
        """
        threads = self.provenance.get("threads")
        if self.train_seconds is None or threads is None or self.provenance.get("device") != "cpu":
            return None
        return (self.train_seconds + (self.eval_seconds or 0.0)) * threads


_schema = TypeAdapter(Record)


def suffix_of(split: str) -> str:
    """What a score's name adds for its split: ``_matched`` for ``validation_matched``, else "".

    Rows held out of the training data take the place of ``validation``.
    """
    if split == "held_out":
        return ""
    return ("_" + split.removeprefix("validation").strip("_")).rstrip("_")


def main_metric(where: Mapping[str, Any]) -> str:
    """Name of the score by which runs are compared: the first metric, on the first split.

    Args:
        where: settings of a record's ``where``.
    """
    return str(where["task.metrics"][0] + suffix_of(where["task.validation"][0]))


def metrics_of(scores: Mapping[str, float]) -> list[str]:
    """The names of the metrics in ``scores``: ``*_thresh`` is a chosen threshold, not a score."""
    return [name for name in scores if "_thresh" not in name]


def scores_text(scores: Mapping[str, float], digits: int) -> str:
    """Scores in percent, as in "f1 81.2, exact_match 73.4"."""
    return ", ".join(f"{name} {100 * scores[name]:.{digits}f}" for name in metrics_of(scores))


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Path, record: Record) -> Path:
    """Write ``record.json`` into ``folder``: readers see the whole file or none."""
    return write_whole(folder / FILE, json.dumps(asdict(record), indent=1, allow_nan=False))


def write_whole(path: Path, text: str) -> Path:
    """Write a text file, creating its folder: readers see the whole file or none."""
    with whole_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return path


def read(folder: Path) -> Record | None:
    """The record in ``folder``, upgraded to the current format; None if there is none.

    Raises:
        RecordError: it is damaged, has a newer format, or has fields of the wrong type.
    """
    return _read(folder / FILE)


def _read(path: Path | str) -> Record | None:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error}); move it away to run again") from None
    record = _parse_current(text) or _of_any_format(path, text)
    fault = fault_of(vars(record)) or _without_main_metric(record)
    if fault is None and LONG_NUMBER.search(text):
        fault = too_large(vars(record))
    if fault is not None:
        raise RecordError(f"{path}: {fault}")
    return record


def _without_main_metric(record: Record) -> str | None:
    """A line about the scores that lack it; None if they have it or the run failed."""
    main = main_metric(record.where)
    for name, epoch in (("last", record.last), ("best", record.best)):
        if record.status == "ok" and epoch is not None and main not in epoch["scores"]:
            return f"{name}.scores: must have {main}, by which runs of this task are compared"
    return None


def _parse_current(text: bytes) -> Record | None:
    """A record as ``write`` wrote it; None for any other, which ``_of_any_format`` checks."""
    try:
        return _schema.validate_json(text) if text.endswith(TAIL) else None
    except ValidationError:
        return None


def _of_any_format(path: Path | str, text: bytes) -> Record:
    try:
        content = json.loads(text.decode())  # of bytes, it would also read UTF-16
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: cannot be read ({error}); move it away to run again") from None
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise RecordError(f"{path}: is not a record; must be an object with a format number")
    number = content["format"]
    if not 1 <= number <= FORMAT:
        raise RecordError(
            f"{path}: has format {number}; this version reads 1 to {FORMAT}: update lora-bench"
        )
    try:
        return _schema.validate_json(text if number == FORMAT else json.dumps(upgrade(content)))
    except ValidationError as error:
        parts = filter(None, first_problem(error))
        raise RecordError(f"{path}: {': '.join(parts)}") from None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise RecordError(
            f"{path}: is malformed for format {number}: {first_line(error)}"
        ) from None


def read_finished(folder: Path) -> Record:
    """The record of a run that finished successfully.

    Raises:
        UserError: there is none in ``folder``.
    """
    record = read(folder)
    if record is None or record.status != "ok":
        raise UserError(f"{folder}: has no finished run ({FILE} with status ok)")
    return record


def spec_of(record: Record) -> Spec:
    """The settings of a run.

    Raises:
        RecordError: this version does not know a setting, one has another type, or one is missing.
    """
    try:
        Spec.from_dict(record.spec)  # pydantic ignores unknown fields of a dataclass
        spec = typed(record.spec)
    except SpecError as error:
        raise RecordError(f"{record.key}: spec.{error.path}: {error.allowed}") from None
    except (TypeError, AttributeError) as error:
        raise RecordError(f"{record.key}: spec: {error}") from None
    if missing := [path for path, value in settings(spec).items() if value == MISSING]:
        raise RecordError(f"{record.key}: spec: lacks {', '.join(missing)}")
    return spec


def walk(root: Path, problems: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Every folder below ``root`` once, following symbolic links, and the names of its files.

    Args:
        root: folder to start at; it is included.
        problems: gets one line for each folder that cannot be read.
    """
    seen = set()
    found = os.walk(root, onerror=lambda error: problems.append(str(error)), followlinks=True)
    for folder, inside, names in found:
        status = os.stat(folder)
        place = (status.st_dev, status.st_ino)
        if place in seen:  # links may lead in circles
            inside.clear()
            continue
        seen.add(place)
        yield folder, names


def read_all(root: Path) -> tuple[list[Record], list[str]]:
    """Every record below ``root``, sorted by key, and a line for each that cannot be read."""
    found: list[Record | None] = []
    problems: list[str] = []
    paths = [os.path.join(folder, FILE) for folder, names in walk(root, problems) if FILE in names]
    for path in sorted(paths, key=lambda path: path.split(os.sep)):
        try:
            found.append(_read(path))
        except RecordError as error:
            problems.append(str(error))
    records = [record for record in found if record is not None]
    return sorted(records, key=lambda record: record.key), problems


def folder_of(root: Path, identity: Identity) -> Path:
    """The folder of a run below ``root``."""
    return root / "runs" / identity.where["task.name"] / identity.key


def find(root: Path, identity: Identity) -> tuple[Path, Record | None]:
    """The folder and the record of a run.

    A finished record of an earlier version may have been filed under another key: it is found by
    its identity, so that renaming a setting repeats no run.

    Raises:
        UserError: the record under this key was written when a setting had another default.
        RecordError: the record under this key cannot be read.
    """
    folder = folder_of(root, identity)
    record = read(folder)
    if record is None:
        return _renamed(root, identity) or (folder, None)
    if record.identity != identity:
        raise UserError(
            f"{folder}: was run with different settings ({'; '.join(_changes(record, identity))}); "
            "choose another out_dir"
        )
    return folder, record


def _renamed(root: Path, identity: Identity) -> tuple[Path, Record] | None:
    """The finished record of the same identity under another key.

    A folder that the user moved aside, as ``<key>.old``, has no key for its name.
    """
    key = f"{identity.where['task.name']}-*-s{identity.seed}-{'[0-9a-f]' * DIGITS}"
    for folder in folder_of(root, identity).parent.glob(key):
        try:
            record = read(folder)
        except RecordError:  # reported where records are listed; it is not this run
            continue
        if record is not None and record.status == "ok" and record.identity == identity:
            return folder, record
    return None


def _changes(record: Record, identity: Identity) -> list[str]:
    before, now = {**record.where, **record.system}, {**identity.where, **identity.system}
    return [
        f"{path} was {before.get(path)}, is {now.get(path)}"
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]
