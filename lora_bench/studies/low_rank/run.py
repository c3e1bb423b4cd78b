"""One run of the study: from its settings to its record."""

import math
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import record as records
from ...errors import SpecError, one_line
from ...provenance import provenance
from ...record import Record
from ...spec import Identity
from .data import Images, Splits, load
from .settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch is imported inside the functions below: settings and data are checked without it.

PURPOSES = ("init", "order")  # one stream of random numbers for each
THREADS = 1  # the matrices are too small for more, and sums then do not depend on the machine


@dataclass(frozen=True)
class Run:
    """Checked settings with images and identity: everything that is known before training."""

    settings: Settings
    splits: Splits
    identity: Identity

    @property
    def key(self) -> str:
        """Name of the run."""
        return self.identity.key

    @property
    def out_dir(self) -> Path:
        """The folder of all runs."""
        return Path(self.settings.out_dir)


def prepare(many: Iterable[Settings]) -> list[Run]:
    """Check settings, read the images (each dataset once), and compute the identities.

    Raises:
        UserError: a setting is wrong, or images cannot be read.
    """
    loaded: dict[str, Splits] = {}
    runs = []
    for settings in many:
        settings.check()
        names = ("data", "root", "split", "train_rows", "validation_rows", "data_seed")
        source = repr([getattr(settings, name) for name in names])
        if source not in loaded:
            loaded[source] = load(settings)
        splits = loaded[source]
        most = min(splits.train.pixels.shape[1], settings.width)
        if settings.init == "spectral" and settings.rank is not None and settings.rank > most:
            reason = f"must be {most} or less with init=spectral: no layer here has a higher one"
            raise SpecError("rank", settings.rank, reason)
        runs.append(Run(settings, splits, settings.identity(splits.fingerprint)))
    return runs


def execute(run: Run, command: str) -> Record:
    """Train and record a run, unless it was finished before.

    Args:
        run: the run.
        command: command that reproduces the run, for the record.

    Returns:
        Its record, with status ``failed`` and the reason if it failed. An interrupt leaves no
        record.

    Raises:
        UserError: the folder holds the record of another run.
    """
    folder, done = records.find(run.out_dir, run.identity)
    if done is not None and done.status == "ok":
        return done
    record = _begun(run, command)
    try:
        with _threads(THREADS):
            _train(run, record)
        record.status = "ok"
        records.write(folder, record)
    except Exception as error:
        record.status = "failed"
        record.error = one_line(error)
        records.write(folder, record)
        (folder / "traceback.txt").write_text(
            "".join(traceback.format_exception(error)), encoding="utf-8"
        )
    else:
        (folder / "traceback.txt").unlink(missing_ok=True)
    return record


def _begun(run: Run, command: str) -> Record:
    """The record before training: what the run is."""
    return Record(
        key=run.key,
        status="failed",
        where=run.identity.where,
        system=run.identity.system,
        seed=run.identity.seed,
        spec=run.settings.to_dict(),
        command=command,
        started=records.now(),
        provenance=provenance("cpu", THREADS),
        data=run.splits.facts,
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Set torch's number of threads inside the block; restore it afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(run: Run, record: Record) -> None:
    """Train, and store curves and costs in the record. Epoch 0 is the model before training.

    Raises:
        RuntimeError: the loss is no longer a number.
    """
    import torch

    from .layers import make_classifier

    settings, (train, scored) = run.settings, (run.splits.train, run.splits.scored)
    model = make_classifier(settings, train.pixels.shape[1], generator(settings.seed, "init"))
    optimizer = make_optimizer(model, settings)
    images, labels = torch.from_numpy(train.pixels), torch.from_numpy(train.labels)
    steps = settings.epochs * math.ceil(len(labels) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    order = generator(settings.seed, "order")
    record.streams = list(PURPOSES)
    start, _ = evaluate(model, train)
    record.epochs = [{"epoch": 0, "loss": start, "scores": _scores(model, scored)}]
    train_seconds = eval_seconds = 0.0
    for epoch in range(1, settings.epochs + 1):
        begun = time.perf_counter()
        rows = torch.randperm(len(labels), generator=order)
        loss = _train_epoch(model, schedule, images, labels, rows.split(settings.batch_size))
        trained = time.perf_counter()
        if not np.isfinite(loss):
            raise RuntimeError(f"the training loss is {loss} in epoch {epoch}: lr is too high")
        scores = _scores(model, scored)
        record.epochs.append({"epoch": epoch, "loss": loss, "scores": scores})
        train_seconds += trained - begun
        eval_seconds += time.perf_counter() - trained
    record.last = record.epochs[-1]
    record.best = max(record.epochs[1:], key=lambda epoch: epoch["scores"]["accuracy"])
    trained_parameters = sum(parameter.numel() for parameter in model.parameters())
    record.parameters = {"trained": trained_parameters, "total": trained_parameters}
    record.train_seconds, record.eval_seconds = train_seconds, eval_seconds
    record.examples_per_second = settings.epochs * len(labels) / train_seconds


def _train_epoch(
    model: "nn.Module",
    schedule: "torch.optim.lr_scheduler.LRScheduler",
    images: "torch.Tensor",
    labels: "torch.Tensor",
    batches: Iterable["torch.Tensor"],
) -> float:
    """One pass over the training images (N, pixels); returns the mean loss."""
    import torch.nn.functional as F

    total = 0.0
    for rows in batches:
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        schedule.optimizer.zero_grad()
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        total += loss.item() * len(rows)
    return total / len(labels)


def make_optimizer(model: "nn.Module", settings: Settings) -> "torch.optim.Optimizer":
    """The optimizer over all parameters.

    The outer factors learn ``lr_ratio`` times as fast as the rest, as B does in LoRA+ (Hayou et
    al. 2024, arXiv 2402.12354): B of LoRA is the outer factor, called A here.
    """
    import torch

    from .layers import outer_factors

    outer = outer_factors(model) if settings.lr_ratio != 1 else []
    fast = {id(parameter) for parameter in outer}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) not in fast], "lr": settings.lr}
    ]
    if outer:
        groups.append({"params": outer, "lr": settings.lr * settings.lr_ratio})
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups)
    return torch.optim.Adam(groups, fused=True)


def evaluate(model: "nn.Module", images: Images) -> tuple[float, float]:
    """Mean loss and accuracy of a model on images."""
    import torch
    import torch.nn.functional as F

    with torch.no_grad():
        logits = model(torch.from_numpy(images.pixels))  # (N, classes)
    labels = torch.from_numpy(images.labels)
    loss = F.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).float().mean().item()


def _scores(model: "nn.Module", images: Images) -> dict[str, float]:
    return {"accuracy": evaluate(model, images)[1]}


def generator(seed: int, purpose: str) -> "torch.Generator":
    """A random generator that depends only on the run's seed and the purpose."""
    import torch

    sequence = np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),))
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
