"""``python -m lora_bench.predict RUN ...``: GLUE submission files from finished runs, and the zip that the server takes."""

import argparse
import sys
import zipfile
from pathlib import Path

from . import record as records
from .data import DataError, load_split, source_of
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


def write_submission(folder: Path, out: Path, root: str | None = None) -> list[Path]:
    """Predict every test split of a run's task that its data has; one TSV for each.

    Args: folder: of a finished run. root: where the official files lie now (data=local). Raises: UserError.
    """
    from .checkpoint import load_adapter
    from .methods import get_method
    from .model.encoder import load_tokenizer
    from .tasks import make_task
    from .training.fit import predict
    from .training.run import build, encode

    record = records.read(folder)
    if record is None or record.status != "ok":
        raise UserError(
            f"{folder}: no finished run there; must hold {records.FILE} of a run that ended well"
        )
    spec = Spec.from_config(record.spec)
    spec.data.root = root or spec.data.root
    splits = [
        split
        for split in spec.task.submission
        if source_of(spec.data).has(spec.task, spec.data, split)
    ]
    if not splits:
        raise DataError(f"{folder}: data={spec.data.source} has no test split of {spec.task.name}")
    if not (folder / "adapter").is_dir():
        raise UserError(f"{folder}: the adapter is gone; run again: {record.command}")
    task, tokenizer = make_task(spec.task), load_tokenizer(spec.model)
    model, _ = build(spec, task, get_method(spec.method))
    load_adapter(folder / "adapter", model)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for split in splits:
        rows = load_split(spec.task, spec.data, split).rows
        encoded = encode(spec, task, tokenizer, rows)
        predictions = task.decode(predict(model, task, encoded, spec), rows, encoded)
        lines = [f"{index}\t{_shown(value, spec)}" for index, value in enumerate(predictions)]
        path = out / spec.task.submission[split]
        path.write_text("\n".join(["index\tprediction", *lines]) + "\n")
        written.append(path)
    return written


def _shown(value, spec: Spec) -> str:
    """As the server wants it: the label as the official files write it, or a number with three decimals."""
    return spec.task.local.label_values[value] if spec.task.labels else f"{value:.3f}"


def write_zip(out: Path) -> tuple[Path, list[str]]:
    """Zip the submission files in ``out``; returns the zip and the names of those that the server still misses."""
    path = out / "submission.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(out.glob("*.tsv")):
            archive.write(file, file.name)
    return path, [name for name in EVERY_FILE if not (out / f"{name}.tsv").is_file()]


def main(arguments: list[str] | None = None) -> None:
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
        "--data-root", help="where the official files lie now, if elsewhere than for the run"
    )
    args = parser.parse_args(arguments)
    try:
        for folder in args.runs:
            for path in write_submission(folder, args.out, args.data_root):
                print(path)
    except UserError as error:
        sys.exit(f"error: {error}")
    path, missing = write_zip(args.out)
    print(
        path
        if not missing
        else f"{path} (the server wants {len(missing)} more: {', '.join(missing)})"
    )


if __name__ == "__main__":
    main()
