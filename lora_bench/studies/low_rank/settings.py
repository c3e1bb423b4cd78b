"""Settings of one run of the study, and the identity that follows from them. Needs no torch.

A default value is written here or nowhere; the presets under ``conf/`` hold choices.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from ...checks import check_count, check_positive
from ...errors import SpecError
from ...spec import Identity, part_of

# Raise it when the same settings would give different results.
PROCEDURE = 1
STUDY = "low_rank"
KINDS = ("full", "low_rank", "autoencoder")
INITS = ("rank_aware", "default", "spectral")
OPTIMIZERS = ("adam", "sgd")
DATASETS = ("digits", "mnist", "fashion_mnist")
SPLITS = ("validation", "held_out")
CLASSES = 10  # of every dataset


@dataclass
class Settings:
    """One run: a classifier of two hidden layers of one kind, and a full-rank output layer."""

    layer: str = MISSING  # name of the layer type, as tables show it
    kind: str = MISSING  # of the hidden layers: full | low_rank | autoencoder (layers.py)
    rank: int | None = None  # inner width of low_rank and autoencoder
    init: str | None = None  # of low_rank: rank_aware | default | spectral (layers.py)
    lr_ratio: float = 1.0  # learning rate of the outer factor A over that of the inner one, B
    lr: float = MISSING  # learning rate at the start; linear decay to 0 follows
    optimizer: str = "adam"  # adam | sgd; no weight decay, and no momentum for SGD
    epochs: int = 20
    batch_size: int = 64  # images per step
    width: int = 512  # units of each hidden layer
    data: str = "digits"  # digits (scikit-learn's, 8x8) | mnist | fashion_mnist (28x28)
    root: str | None = None  # folder with the four IDX files; null: the Hugging Face hub
    # validation | held_out (a fifth of the training images, not trained on, for tuning)
    split: str = "validation"
    train_rows: int | None = None  # number of random training images to use; null: all
    validation_rows: int | None = None  # number of random images to score; null: all
    data_seed: int = 0  # seed of every random choice of images
    seed: int = 0  # seed of the weights and the order of the training images
    out_dir: str = "outputs/low_rank"  # runs go to <out_dir>/runs/<data>/<key>/

    @property
    def source(self) -> str:
        """Where the images come from: ``sklearn``, ``idx`` or ``hub``."""
        return "sklearn" if self.data == "digits" else "hub" if self.root is None else "idx"

    def check(self) -> "Settings":
        """Check every value.

        Returns:
            The same settings.

        Raises:
            SpecError: names the setting, its value and what is allowed.
        """
        _check_choices(self)
        _check_numbers(self)
        _check_effect(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Every setting, except the folders that it reads and writes."""
        chosen = dataclasses.asdict(self)
        return {"study": STUDY, **{n: v for n, v in chosen.items() if n not in FOLDERS}}

    def identity(self, fingerprint: str) -> Identity:
        """The identity of the run, in the names that the records of all studies share.

        Args:
            fingerprint: fingerprint of the images of all splits.
        """
        parts: dict[str | None, dict[str, Any]] = {"where": {}, "system": {}}
        for name, path in PATHS.items():
            if (part := part_of(path)) is not None:
                parts[part][path] = getattr(self, name)
        where = {
            "study": STUDY,
            **parts["where"],
            "task.kind": "image",
            "task.metrics": ["accuracy"],
            "task.validation": [self.split],
            "model.name": "mlp",
            "data.source": self.source,
            "data.fingerprint": fingerprint,
        }
        return Identity(where, {**parts["system"], "procedure": PROCEDURE}, self.seed)


# Setting -> its path in a record. A setting under task, model or data is part of ``where``.
PATHS = {
    "data": "task.name",
    "width": "model.width",
    "root": "data.root",
    "train_rows": "data.train_rows",
    "validation_rows": "data.validation_rows",
    "data_seed": "data.seed",
    "layer": "method.name",
    "kind": "method.file",
    "rank": "method.rank",
    "init": "method.init",
    "lr_ratio": "method.lr_ratio",
    "lr": "train.lr",
    "optimizer": "train.optimizer",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
}
FOLDERS = ("out_dir",)  # specific to one machine: not in the record


def _check_choices(settings: Settings) -> None:
    for name, allowed in (
        ("kind", KINDS),
        ("optimizer", OPTIMIZERS),
        ("data", DATASETS),
        ("split", SPLITS),
        ("init", INITS if settings.kind == "low_rank" else (None,)),
    ):
        value = getattr(settings, name)
        if value not in allowed:
            choices = ", ".join("null" if choice is None else choice for choice in allowed)
            reason = f" with kind={settings.kind}" if name == "init" else ""
            raise SpecError(name, value, f"must be one of {choices}{reason}")


def _check_numbers(settings: Settings) -> None:
    for name in ("rank", "epochs", "batch_size", "width", "train_rows", "validation_rows"):
        value = getattr(settings, name)
        if value is not None:
            check_count(name, value, 1)
    for name in ("seed", "data_seed"):
        check_count(name, getattr(settings, name), 0)
    for name in ("lr", "lr_ratio"):
        check_positive(name, getattr(settings, name))


def _check_effect(settings: Settings) -> None:
    """Refuse settings without effect, and a missing rank."""
    if settings.kind == "full":
        if settings.rank is not None:
            raise SpecError("rank", settings.rank, f"layer={settings.layer} has no rank")
        if settings.lr_ratio != 1:
            raise SpecError(
                "lr_ratio", settings.lr_ratio, f"layer={settings.layer} has one factor; must be 1"
            )
    elif settings.rank is None:
        raise SpecError("rank", "null", f"layer={settings.layer} needs one, as in rank=8")
    draws = settings.data == "digits" or settings.split == "held_out"
    if not (draws or settings.train_rows or settings.validation_rows) and settings.data_seed:
        reason = f"data={settings.data} with all rows and split={settings.split} draws nothing"
        raise SpecError("data_seed", settings.data_seed, f"{reason}; must be 0")
    if settings.data == "digits" and settings.root is not None:
        raise SpecError("root", settings.root, "data=digits comes with scikit-learn; must be null")
