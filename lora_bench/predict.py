"""``python -m lora_bench.predict RUN ...``: files for the GLUE server from finished runs."""

import argparse
import sys
import zipfile
from pathlib import Path

import argcomplete

from . import record as records
from .data import DataError, load_split, source_of
from .program import program
from .spec import Spec, UserError

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
    folder: Path, out: Path, root: str | None = None, epoch: str = "last"
) -> list[Path]:
    """Predict every test split of a run's task that its data has.

    Args:
        folder: of a finished run.
        out: where to write a TSV file for each split.
        root: folder of the official files now (data=local); None: as for the run.
        epoch: whose adapter predicts, ``last`` or ``best``.

    Returns:
        The files.

    Raises:
        UserError: there is no finished run or adapter, or the data has no test split.
    """
    from .checkpoint import EPOCHS, load_adapter
    from .methods import get_method
    from .model.build import build
    from .model.encoder import load_tokenizer
    from .model.group import Group
    from .model.streams import Streams
    from .tasks import make_task
    from .training.evaluation import predict

    record = records.read(folder)
    if record is None or record.status != "ok":
        raise UserError(f"{folder}: holds no finished run ({records.FILE} with status ok)")
    spec = Spec.from_dict(record.spec)
    spec.data.root = root or spec.data.root
    source = source_of(spec.data)
    splits = [s for s in spec.task.submission if source.has(spec.task, spec.data, s)]
    if not splits:
        raise DataError(f"{folder}: data={spec.data.source} has no test split of {spec.task.name}")
    adapter = folder / EPOCHS[epoch]
    if not adapter.is_dir():
        raise UserError(
            f"{folder}: the adapter is missing; move this folder away and run again: "
            f"{record.command}"
        )
    task, tokenizer = make_task(spec.task), load_tokenizer(spec.model)
    model = build(spec, task, get_method(spec.method), Streams(spec.seed))
    load_adapter(adapter, model)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for split in splits:
        rows = load_split(task, spec.data, split).rows
        encoded = task.encode(rows, tokenizer, spec.train.max_length)
        (outputs,) = predict(Group([model]), task, encoded, spec)
        predictions = task.decode(outputs, rows, encoded)
        lines = [f"{i}\t{task.submission_value(value)}" for i, value in enumerate(predictions)]
        path = out / spec.task.submission[split]
        path.write_text("\n".join(["index\tprediction", *lines]) + "\n")
        written.append(path)
    return written


def write_zip(out: Path) -> tuple[Path, list[str]]:
    """Zip the submission files in ``out``.

    Returns:
        The zip file, and the names of the files that the server needs besides.
    """
    path = out / "submission.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(out.glob("*.tsv")):
            archive.write(file, file.name)
    return path, [name for name in EVERY_FILE if not (out / f"{name}.tsv").is_file()]


@program
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lora_bench.predict", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folders of finished runs: <out_dir>/runs/<task>/<key>"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("submission"),
        help="folder for the files (default: %(default)s)",
    )
    parser.add_argument(
        "--data-root", help="folder of the official files, if another one than for the run"
    )
    parser.add_argument(
        "--epoch",
        choices=("last", "best"),
        default="last",
        help="the adapter that predicts: after the last epoch or the best (default: %(default)s)",
    )
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    try:
        for folder in args.runs:
            for path in write_submission(folder, args.out, args.data_root, args.epoch):
                print(path)
    except UserError as error:
        sys.exit(f"error: {error}")
    path, missing = write_zip(args.out)
    needs = f" (the server needs {len(missing)} more: {', '.join(missing)})"
    print(f"{path}{needs if missing else ''}")


if __name__ == "__main__":
    main()
