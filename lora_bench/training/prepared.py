"""Prepared: a run's data, read and encoded once for all runs that share it, without a model."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..checkpoint import init_start
from ..data import HELD_OUT, Rows, load
from ..errors import counted
from ..model import source
from ..record import folder_of
from ..record_formats import fingerprint_of
from ..spec import Identity, Spec, Start
from ..tasks import Task, make_task
from ..tasks.encoding import Encoded, cached
from .progress import stage


class Prepared:
    """Rows, encodings and reference points of one task on one source, for any number of runs.

    Rows are read at once, so that a broken file is reported before torch is imported; encodings and
    reference points follow on first use.

    Args:
        spec: settings of any of the runs.

    Raises:
        DataError: the data cannot be read.
        UserError: the encoder's files cannot be found.
    """

    def __init__(self, spec: Spec):
        self.spec = spec
        self.task: Task = make_task(spec.task)
        with stage(f"reading {spec.task.name} and {spec.model.name}", shown=spec.progress):
            self.splits: dict[str, Rows] = load(self.task, spec.data)
            self._fingerprints = {name: rows.fingerprint() for name, rows in self.splits.items()}
            self.fingerprint = fingerprint_of(self._fingerprints)
            self.model_fingerprint = source.fingerprint(spec.model)

    @property
    def scored(self) -> list[str]:
        """The splits that a run reports on: all except the training data."""
        return [split for split in self.splits if split not in ("train", HELD_OUT)]

    @cached_property
    def encoded(self) -> dict[str, Encoded]:
        """Every split as token ids."""
        return {name: self.encode(split.rows) for name, split in self.splits.items()}

    def encode(self, rows: list[dict[str, Any]]) -> Encoded:
        """Rows as token ids, from the cache if they were encoded before."""
        length = self.spec.train.max_length
        tokenizer, content = self._tokenizer
        # the model's too: its tokenizer_config.json is not part of the content
        model = self.model_fingerprint
        dependencies = [self.task.encoding_settings, rows, length, content, model]
        folder = Path(self.spec.cache_dir)
        name = f"encoding {counted(len(rows), 'row')} of {self.spec.task.name}"
        with stage(name, shown=self.spec.progress):
            return cached(folder, dependencies, lambda: self.task.encode(rows, tokenizer, length))

    @cached_property
    def _tokenizer(self) -> tuple[Any, str]:
        """The tokenizer, and its content as it was loaded: a call leaves its truncation there."""
        from ..model.encoder import load_tokenizer

        tokenizer: Any = load_tokenizer(self.spec.model)
        return tokenizer, tokenizer.backend_tokenizer.to_str()

    @cached_property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What a record states about each split; for a scored one also its reference points."""
        facts = {
            name: {
                "source": split.source,
                "fingerprint": self._fingerprints[name],
                "rows": len(split.rows),
                "skipped": split.skipped,
            }
            for name, split in self.splits.items()
        }
        train = self.splits["train"].rows
        for name in self.scored:
            facts[name] |= self.task.reference_points(train, self.splits[name].rows, name)
        return facts


class DataCache:
    """Data shared by the runs of one process: each dataset is read and encoded once."""

    def __init__(self) -> None:
        self._prepared: dict[str, Prepared] = {}

    def __reduce__(self) -> tuple[type["DataCache"], tuple[()]]:
        """Pickles as an empty cache: another process reads its own data."""
        return DataCache, ()

    def prepared(self, spec: Spec) -> Prepared:
        """The prepared data of a run.

        Raises:
            UserError: see ``Prepared``.
        """
        name = repr([spec.task, spec.data, spec.model, spec.train.max_length, spec.cache_dir])
        if name not in self._prepared:
            self._prepared[name] = Prepared(spec)
            _report_skipped(self._prepared[name])
        return self._prepared[name]


def _report_skipped(prepared: Prepared) -> None:
    """Report malformed rows that were left out (``data.skip_bad``)."""
    for name, split in prepared.splits.items():
        if split.skipped:
            count = counted(len(split.skipped), "malformed row")
            first = f"the first: {split.skipped[0]}"
            print(f"{name}: data.skip_bad left out {count}; {first}", file=sys.stderr)


@dataclass(frozen=True)
class Planned:
    """What a run is, without its data.

    Attributes:
        spec: validated.
        identity: identity of the run.
        start: facts of the adapter that it starts from, as in the record.
        command: command that reproduces the run, for the record.
    """

    spec: Spec
    identity: Identity
    start: dict[str, Any] | None
    command: str

    @property
    def key(self) -> str:
        """Name of the run."""
        return self.identity.key

    @property
    def folder(self) -> Path:
        """The folder for record, adapters and predictions."""
        return folder_of(Path(self.spec.out_dir), self.identity)


@dataclass(frozen=True)
class Run(Planned):
    """A run with its data: everything that is known before training."""

    prepared: Prepared

    @property
    def planned(self) -> Planned:
        """The run without its data, which is small enough to be sent to another process."""
        return Planned(self.spec, self.identity, self.start, self.command)


def prepare(spec: Spec, cache: DataCache | None = None, command: str = "") -> Run:
    """Read the data of a run and compute its identity.

    Args:
        spec: validated.
        cache: data shared with other runs of the process.
        command: command that reproduces the run, for the record.

    Raises:
        UserError: the data, the encoder or the adapter to start from cannot be read.
    """
    prepared = (cache or DataCache()).prepared(spec)
    start = init_start(spec)
    known = None if start is None else Start(start["cell"], start["fingerprint"])
    identity = spec.identity(
        data=prepared.fingerprint, model=prepared.model_fingerprint, start=known
    )
    return Run(spec, identity, start, command, prepared)
