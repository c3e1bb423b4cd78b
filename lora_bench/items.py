"""``python -m lora_bench.items RUN [RUN]``: uncertainty from the choice of validation examples.

Prints the interval of a run's first metric when its validation examples are resampled: the spread
over examples of one trained model, which is not the spread over seeds. For two runs that were
scored on the same examples, it also prints the interval of their difference and, where an example
is either right or wrong, the p-value of McNemar's test.
"""

import numbers
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import argcomplete
import numpy as np
import pandas as pd

from . import record as records
from .errors import UserError, counted
from .program import Parser, program
from .record import Record, suffix_of
from .report.statistics import CONFIDENCE, mcnemar
from .tasks import Task, make_task

RESAMPLES = 1000  # of the examples; each is scored again


@dataclass(frozen=True)
class Scored:
    """The stored predictions of a run on one split.

    Attributes:
        key: key of the run.
        task: task of the run.
        split: the predicted split.
        table: as the task stores it, one row for each example.
        threshold: threshold that the run has chosen; None without one.
        rows: fingerprint of the split's rows; None where it is not known.
    """

    key: str
    task: Task
    split: str
    table: pd.DataFrame
    threshold: float | None
    rows: str | None = None

    @cached_property
    def _restored(self) -> tuple[Any, list[dict[str, Any]]]:
        return self.task.restored(self.table)

    @cached_property
    def metric(self) -> str:
        """Name of the first metric."""
        return next(iter(self._scores(np.arange(len(self.table)))))

    def _scores(self, chosen: np.ndarray) -> dict[str, float]:
        predictions, rows = self._restored
        own = (
            predictions[chosen]
            if isinstance(predictions, np.ndarray)
            else [predictions[i] for i in chosen]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resample may lack a class
            return self.task.score(own, [rows[i] for i in chosen], self.split, self.threshold)

    def score(self, chosen: np.ndarray) -> float:
        """The first metric over some examples, by indices (n,), which may repeat."""
        if self.of_each is not None:
            return float(self.of_each[chosen].mean())
        return self._scores(chosen)[self.metric]

    @cached_property
    def of_each(self) -> np.ndarray | None:
        """The first metric of each example (n,); None if the metric is not their mean."""
        every = np.arange(len(self.table))
        each = np.array([self._scores(every[i : i + 1])[self.metric] for i in every])
        rng = np.random.default_rng(0)
        samples = [every, *rng.integers(len(every), size=(3, len(every)))]
        is_mean = all(
            np.isclose(self._scores(rows)[self.metric], each[rows].mean(), rtol=0, atol=1e-9)
            for rows in samples
        )
        return each if is_mean else None

    @cached_property
    def right(self) -> np.ndarray | None:
        """Whether each example is right (n,); None if it can be in between."""
        reference = self.table["reference"].iloc[0]
        if isinstance(reference, str):  # a label
            return (self.table["prediction"] == self.table["reference"]).to_numpy()
        if isinstance(reference, numbers.Real):  # a target
            return None
        if self.of_each is not None and np.isin(self.of_each, (0.0, 1.0)).all():
            return self.of_each == 1.0
        return None


def read_scored(folder: Path) -> dict[str, Scored]:
    """The stored predictions of a run by split.

    Raises:
        UserError: there is no finished run, or its predictions are missing.
    """
    record = records.read_finished(folder)
    files = sorted((folder / "predictions").glob("*.parquet"))
    if not files:
        raise UserError(
            f"{folder}: its predictions are missing; move this folder away and run again: "
            f"{record.command}"
        )
    return {path.stem: _scored(record, path) for path in files}


def _scored(record: Record, path: Path) -> Scored:
    """The predictions in a file.

    Raises:
        UserError: the file cannot be read, or its scores differ from the record.
    """
    spec, split = records.spec_of(record), path.stem
    scores = (record.last or {}).get("scores", {})
    rows = record.data.get(split, {}).get("fingerprint")
    try:
        task = make_task(spec.task)
        table = pd.read_parquet(path)
        threshold = scores.get("chosen_thresh" + suffix_of(split))
        found = Scored(record.key, task, split, table, threshold, rows)
        score = found.score(np.arange(len(table)))
    except NotImplementedError:
        raise UserError(
            f"{record.key}: kind={spec.task.kind} cannot score what it stored"
        ) from None
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error})") from None
    expected = scores.get(found.metric + suffix_of(split))
    if expected is None or abs(score - expected) > 1e-6:
        raise UserError(f"{path}: gives {found.metric} {score}, and the record says {expected}")
    return found


def interval(runs: list[Scored]) -> tuple[float, float]:
    """95 % interval over resampled examples, of one run's score or of the difference of two."""
    first, second = runs[0], (runs[1] if len(runs) == 2 else None)
    count = len(first.table)
    draws = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    values = [first.score(rows) - (second.score(rows) if second else 0.0) for rows in draws]
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def describe(runs: list[Scored]) -> list[str]:
    """Lines about one split of one or two runs.

    Raises:
        UserError: two runs were scored on different examples.
    """
    lines = []
    every = np.arange(len(runs[0].table))
    for run in runs:
        low, high = interval([run])
        lines.append(
            f"{run.key}: {run.split} {run.metric} {100 * run.score(every):.1f}, 95 % interval over "
            f"{counted(len(run.table), 'example')} [{100 * low:.1f}, {100 * high:.1f}]"
        )
    if len(runs) == 1:
        return lines
    first, second = runs
    if not _same_examples(first, second):
        raise UserError(
            f"{first.key} and {second.key}: were not scored on the same examples of {first.split}"
        )
    low, high = interval(runs)
    difference = first.score(every) - second.score(every)
    lines.append(
        f"difference: {100 * difference:+.1f}, 95 % interval over the same examples "
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    )
    if first.right is not None and second.right is not None:
        in_first, in_second = (first.right & ~second.right), (second.right & ~first.right)
        lines.append(
            f"right in one run only: {in_first.sum()} and "
            f"{counted(int(in_second.sum()), 'example')}, McNemar's test p = "
            f"{mcnemar(first.right, second.right):.3g}"
        )
    return lines


def _same_examples(first: Scored, second: Scored) -> bool:
    if (
        first.metric != second.metric
        or first.rows != second.rows
        or len(first.table) != len(second.table)
    ):
        return False
    pairs = zip(first.table["reference"], second.table["reference"], strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@program
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m lora_bench.items", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folder of a finished run, or of two to compare"
    )
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    if len(args.runs) > 2:
        raise UserError(f"{counted(len(args.runs), 'run')}: must be one, or two to compare")
    found = [read_scored(folder) for folder in args.runs]
    splits = [split for split in found[0] if all(split in run for run in found)]
    if not splits:
        raise UserError(f"{args.runs[0]} and {args.runs[1]}: have no split in common")
    for split in splits:
        print("\n".join(describe([run[split] for run in found])))


if __name__ == "__main__":
    main()
