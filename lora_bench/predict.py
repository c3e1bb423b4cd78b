"""``python -m lora_bench.predict RUN ...``: files for the GLUE server from finished runs."""

import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import argcomplete

from . import record as records
from .compose import validate
from .data import DataError, load_split, source_of
from .errors import SpecError, UserError, counted
from .files import expanded
from .model.source import fingerprint
from .program import Parser, check_folder, program
from .record_formats import UNKNOWN
from .spec import DataSpec, Spec
from .tasks import check_submission, make_task

if TYPE_CHECKING:
    from .model.wrapper import LoraWrapperRoberta
    from .tasks import Task

EVERY_FILE = (
    "AX",
    "CoLA",
    "MNLI-m",
    "MNLI-mm",
    "MRPC",
    "QNLI",
    "QQP",
    "RTE",
    "SST-2",
    "STS-B",
    "WNLI",
)


def write_submission(
    folder: Path,
    out: Path,
    root: str | None = None,
    epoch: str = "last",
    device: str | None = None,
) -> list[Path]:
    """Predict every test split of a run's task that its data has.

    Args:
        folder: folder of a finished run.
        out: folder for the TSV files, one for each split.
        root: folder of the official files now (data=local); None: as for the run.
        epoch: epoch of the adapter to use, ``last`` or ``best``.
        device: ``cpu`` or ``cuda``; None: that of the run.

    Returns:
        The files.

    Raises:
        UserError: there is no finished run or adapter, the data has no test split, a row of it is
            malformed, or the encoder is another one now.
        SpecError: the device does not exist here.
    """
    from .model.encoder import load_tokenizer
    from .model.group import Group
    from .training.evaluation import predict

    record, spec, files = _read_run(folder, root)
    spec.device = device or spec.device
    task, tokenizer = make_task(spec.task), load_tokenizer(spec.model)
    model = _trained_model(folder, record, spec, epoch)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for split, name in files.items():
        rows = _every_row(task, spec.data, split)
        _report_other_count(name, len(rows), spec.task.official_rows.get(split))
        encoded = task.encode(rows, tokenizer, spec.train.max_length)
        (outputs,) = predict(Group([model]), task, encoded, spec)
        predictions = task.decode(outputs, rows, encoded)
        lines = [f"{i}\t{task.submission_value(value)}" for i, value in enumerate(predictions)]
        path = out / name
        path.write_text("\n".join(["index\tprediction", *lines]) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _trained_model(
    folder: Path, record: records.Record, spec: Spec, epoch: str
) -> "LoraWrapperRoberta":
    """The model of a finished run, with the adapter of its last or best epoch.

    Raises:
        UserError: the adapter is missing, or the encoder is another one now.
        SpecError: the device does not exist here.
    """
    from .checkpoint import EPOCHS, check_function, load_adapter
    from .checkpoint.facts import read_facts
    from .methods import get_method
    from .model.build import build, check_device
    from .model.streams import Streams

    spec.check()
    check_device(spec.device)
    adapter = folder / EPOCHS[epoch]
    if not adapter.is_dir():
        raise UserError(
            f"{folder}: the adapter is missing; move this folder away and run again: "
            f"{record.command}"
        )
    before, now = record.where.get("model.fingerprint"), fingerprint(spec.model)
    if before not in (None, UNKNOWN, now):
        reason = f"has changed since {folder} was trained ({before}, now {now})"
        raise UserError(f"model.source={spec.model.source}: {reason}")
    check_function(adapter, read_facts(adapter), spec.method)
    model = build(spec, make_task(spec.task), get_method(spec.method), Streams(spec.seed))
    load_adapter(adapter, model)
    return model


def _report_other_count(name: str, rows: int, expected: int | None) -> None:
    if expected is not None and rows != expected:
        print(
            f"{name}: {rows:,} of {counted(expected, 'row')}; the server will refuse it",
            file=sys.stderr,
        )


def _read_run(folder: Path, root: str | None) -> tuple[records.Record, Spec, dict[str, str]]:
    """Record and settings of a run, and the file of each test split that its data has.

    Raises:
        UserError: there is no finished run, its record has a wrong setting or names a file in
            another folder, its data comes from no folder although ``root`` is given or from one
            that does not exist, or it has no test split.
    """
    record = records.read_finished(folder)
    spec = records.spec_of(record)
    source, files = source_of(spec.data), spec.task.submission
    if root is not None:
        if "root" not in source.READS:
            reason = f"has no effect on {folder}, whose data={spec.data.source} reads no folder"
            raise UserError(f"--data-root {root}: {reason}")
        spec.data.root = root
    if spec.data.root is not None and not expanded(spec.data.root).is_dir():
        name = "data.root=" if root is None else "--data-root "
        raise UserError(f"{name}{spec.data.root}: no such folder; --data-root must name the data")
    found = {s: name for s, name in files.items() if source.has(spec.task, spec.data, s)}
    if not found:
        raise DataError(f"{folder}: data={spec.data.source} has no test split of {spec.task.name}")
    try:
        validate(spec)
        check_submission(spec.task)
    except SpecError as error:
        raise UserError(f"{folder / records.FILE}: {error}") from None
    return record, spec, found


def _every_row(task: "Task", data: DataSpec, split: str) -> list[dict[str, Any]]:
    """The rows of a test split, whatever ``data.skip_bad`` was for the training data.

    Raises:
        DataError: a row is malformed. Skipping it would shift the index of all later rows.
    """
    found = load_split(task, replace(data, skip_bad=True), split)
    if found.skipped:
        place = f"{found.source} of data.root={data.root}"
        raise DataError(f"{place}: {found.skipped[0]} (a submission needs every row of {split})")
    return found.rows


def check_clashes(folders: Sequence[Path], root: str | None) -> None:
    """Refuse two runs that would write the same file.

    Raises:
        UserError: names two runs and their file.
    """
    owners: dict[str, Path] = {}
    for folder in folders:
        for name in _read_run(folder, root)[2].values():
            if name in owners:
                message = f"both would write {name}; give one run of each task, or another --out"
                raise UserError(f"{owners[name]} and {folder}: {message}")
            owners[name] = folder


def write_zip(out: Path, files: Iterable[Path]) -> tuple[Path, list[str]]:
    """Zip submission files.

    Args:
        out: folder of the zip file.
        files: files to include; others in the folder come from earlier calls and are left out.

    Returns:
        The zip file, and the names of the other files that GLUE's server needs if it gets one.
    """
    path, names = out / "submission.zip", {file.name: file for file in files}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names):
            archive.write(names[name], name)
    missing = [name for name in EVERY_FILE if f"{name}.tsv" not in names]
    return path, missing if len(missing) < len(EVERY_FILE) else []  # else no file is for GLUE


@program
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m lora_bench.predict", description=__doc__)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="folders of finished runs, one for each task: <out_dir>/runs/<task>/<key>",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("submission"),
        help="folder for the files (default: %(default)s)",
    )
    parser.add_argument(
        "--data-root", help="folder of the official files, if not the one that the run used"
    )
    parser.add_argument(
        "--epoch",
        choices=("last", "best"),
        default="last",
        help="adapter to use: of the last or of the best epoch (default: %(default)s)",
    )
    parser.add_argument(
        "--device", help="cpu, cuda or cuda:<number>, if not the device that the run used"
    )
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    check_clashes(args.runs, args.data_root)
    check_folder(f"--out {args.out}", args.out)
    written = []
    for folder in args.runs:
        for path in write_submission(folder, args.out, args.data_root, args.epoch, args.device):
            print(path)
            written.append(path)
    path, missing = write_zip(args.out, written)
    needs = f" (the server needs {len(missing)} more: {', '.join(missing)})"
    print(f"{path}{needs if missing else ''}")


if __name__ == "__main__":
    main()
