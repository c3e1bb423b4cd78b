"""run(spec) -> Record: wires data, model, method, training and the record of it."""

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from .. import record as records
from ..data import HELD_OUT, DataError, Rows, load
from ..record import Record, suffix_of
from ..spec import PLACES, Spec, SpecError, UserError

# torch and transformers are imported inside the functions below, after the spec and the data are known to be good: a
# wrong path or a broken line is then reported in a second, and a finished run is skipped as fast.

TOLERANCE = 1e-6  # between the scores before saving an adapter and after loading it


def folder_of(spec: Spec) -> Path:
    """The folder that holds a run's record, adapter and predictions."""
    return Path(spec.out_dir) / "runs" / spec.task.name / spec.key()


def run(spec: Spec, command: str = "") -> Record:
    """Do one run, or return its record where it was done before.

    A failure leaves a record with status ``failed`` and ``traceback.txt`` beside it, and is raised again. An interrupt
    leaves nothing. Raises: UserError and whatever the run raises.
    """
    spec.validate()
    folder = folder_of(spec)
    done = records.read(folder)
    settings = {name: value for name, value in spec.to_dict().items() if name not in PLACES}
    record = Record(spec.key(), "failed", settings, command, records.now(), {})
    try:
        splits = load(spec.task, spec.data)
        if done is not None and done.status == "ok":
            _check_same(done, spec, splits, folder)
            return done
        record.data = {name: {"source": s.source, "fingerprint": s.fingerprint(), "rows": len(s.rows),
                              "skipped": s.skipped} for name, s in splits.items()}  # fmt: skip
        _train(spec, splits, record, folder)
    except Exception as error:
        record.error = " ".join(str(error).split()) or type(error).__name__
        if done is None or done.status != "ok":
            records.write(folder, record)
            (folder / "traceback.txt").write_text(traceback.format_exc())
        raise
    record.status = "ok"
    records.write(folder, record)
    (folder / "traceback.txt").unlink(missing_ok=True)
    return record


def _start_of(spec: Spec) -> Path:
    """The adapter folder behind ``init_from``: as given, or of the run below ``out_dir`` with this key.

    Raises: SpecError: there is neither.
    """
    from ..checkpoint import adapter_of

    given = Path(spec.init_from)
    if given.is_dir():
        return adapter_of(given)
    for found in (Path(spec.out_dir) / "runs").glob(f"*/{given.name}"):
        return adapter_of(found)
    raise SpecError(
        "init_from",
        spec.init_from,
        f"must be the key of a run below {spec.out_dir}, or a folder with an adapter",
    )


def _check_same(done: Record, spec: Spec, splits: dict[str, Rows], folder: Path) -> None:
    """Raises: UserError: the record of this key was made with another default, or on other data."""
    if changed := spec.differences(done.spec):
        raise UserError(
            f"{folder}: was run with other settings ({'; '.join(changed)}); choose another out_dir"
        )
    for name, rows in splits.items():
        before, now = done.data[name]["fingerprint"], rows.fingerprint()
        if before != now:
            raise DataError(
                f"{folder}: was run on other data (split {name} had fingerprint {before}, now {now}); "
                "choose another out_dir or move that folder away"
            )


def _train(spec: Spec, splits: dict[str, Rows], record: Record, folder: Path) -> None:
    import torch

    from ..checkpoint import load_adapter, save_adapter, start_from
    from ..methods import get_method
    from ..model.encoder import load_tokenizer
    from ..tasks import make_task
    from .fit import fit
    from .loggers import make_logger
    from .memory import PeakMemory, keep_freed_memory

    keep_freed_memory()

    record.provenance = records.provenance(spec.device, torch.get_num_threads())
    task = make_task(spec.task)
    for name in scored(splits):
        record.data[name] |= task.reference_points(splits["train"].rows, splits[name].rows, name)
    tokenizer = load_tokenizer(spec.model)
    encoded = {name: encode(spec, task, tokenizer, s.rows) for name, s in splits.items()}

    def score(model, folder: Path | None = None) -> dict[str, float]:
        return _score(model, task, encoded, splits, spec, folder)

    with PeakMemory(spec.device) as peak:
        model, method = build(spec, task, get_method(spec.method))
        if spec.init_from is not None:
            start_from(_start_of(spec), model)
        logger = make_logger(spec, folder)
        try:
            result = fit(model, method, task, encoded["train"], spec, lambda: score(model), logger)
        finally:
            logger.close()
    record.peak_memory_bytes = peak.bytes
    record.adapter_bytes = save_adapter(folder / "adapter", model, spec)
    record.parameters = model.parameter_counts()
    (folder / "parameters.md").write_text(model.parameter_text())
    _note(record, result)
    fresh, _ = build(spec, task, get_method(spec.method))
    load_adapter(folder / "adapter", fresh)
    record.reloaded = score(fresh, folder / "predictions")
    for name, value in record.reloaded.items():
        if abs(value - record.last["scores"][name]) > TOLERANCE:
            raise RuntimeError(
                f"{name} was {record.last['scores'][name]} and is {value} after saving and loading"
            )


def _note(record: Record, result) -> None:
    """Put what ``fit`` returned into the record: both protocols and what training cost."""
    record.epochs, record.last = result.epochs, result.epochs[-1]
    first = next(iter(record.last["scores"]))
    record.best = max(
        result.epochs, key=lambda epoch: epoch["scores"][first]
    )  # the earliest of equals
    record.train_seconds, record.eval_seconds = result.train_seconds, result.eval_seconds
    record.examples_per_second = result.examples / result.train_seconds
    record.tokens_per_second = result.tokens / result.train_seconds


def build(spec: Spec, task, method):
    """A seeded model that ``method`` has prepared, on its device. Returns: (LoraWrapperRoberta, method)."""
    import torch

    from ..model.dropout import DropoutStream
    from ..model.encoder import load_encoder, max_tokens
    from ..model.streams import Streams
    from ..model.wrapper import LoraWrapperRoberta

    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise SpecError("device", spec.device, "no CUDA device is available; must be cpu here")
    torch.manual_seed(spec.seed)
    encoder = load_encoder(spec.model, dropout=spec.train.dropout)
    if spec.train.max_length > max_tokens(encoder):
        limit = f"{spec.model.name} takes at most {max_tokens(encoder)} tokens"
        raise SpecError("train.max_length", spec.train.max_length, limit)
    model = LoraWrapperRoberta(
        task.task_type,
        task.outputs,
        spec.train.dropout,
        encoder,
        lora_rank=None,
        head=spec.head,
        dtype=torch.bfloat16 if spec.precision == "bf16" else None,
    )
    method.prepare(model, spec)
    model.use_stream(DropoutStream(Streams(spec.seed), spec.device))
    return model.to(spec.device), method


def encode(spec: Spec, task, tokenizer, rows: list[dict]):
    from ..tasks.encoding import cached

    dependencies = [
        task.encoding_settings,
        rows,
        spec.train.max_length,
        tokenizer.backend_tokenizer.to_str(),
    ]
    return cached(
        Path(spec.cache_dir),
        dependencies,
        lambda: task.encode(rows, tokenizer, spec.train.max_length),
    )


def _score(
    model, task, encoded, splits: dict[str, Rows], spec: Spec, folder: Path | None = None
) -> dict[str, float]:
    """Scores of every reported split; names get the split's suffix: ``accuracy_mismatched``.

    Args: folder: also write the prediction files of tasks that have an official format (SQuAD) there.
    """
    from .fit import predict

    def decoded(split: str):
        return task.decode(
            predict(model, task, encoded[split], spec), splits[split].rows, encoded[split]
        )

    tuned = (
        {"threshold": task.tune(decoded(HELD_OUT), splits[HELD_OUT].rows)}
        if HELD_OUT in splits
        else {}
    )
    scores = {}
    for split in scored(splits):
        predictions, rows = decoded(split), splits[split].rows
        for name, value in task.score(predictions, rows, split, **tuned).items():
            scores[name + suffix_of(split)] = value
        if folder is not None and spec.task.kind == "span":
            task.write_predictions(folder, predictions, rows, **{"threshold": None, **tuned})
    return scores


def scored(splits: Iterable[str]) -> list[str]:
    """The splits that a run reports on: all but training data."""
    return [split for split in splits if split not in ("train", HELD_OUT)]


def announce(record: Record, folder: Path, *, skipped: bool) -> None:
    """One line for people: the run, its score, where it lies."""
    scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in record.last["scores"].items())
    verb = "already done" if skipped else f"trained in {record.train_seconds:.0f} s"
    print(f"{record.key}: {scores} ({verb}; {folder})", file=sys.stderr if skipped else sys.stdout)
