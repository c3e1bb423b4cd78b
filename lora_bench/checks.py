"""Which values a Spec may hold."""

import dataclasses
import json
import math
import re
from typing import Any, TypeVar

from omegaconf import MISSING
from pydantic import TypeAdapter, ValidationError

from .errors import SpecError, counted, first_problem

T = TypeVar("T")

MAX_COUNT = 2**31 - 1  # the largest count that the arrays and seeds of every library accept
MIN_DROPOUT = 2**-16  # of a mask whose elements are drawn with 16 bits, see model/dropout.py
MIN_LENGTH = 8  # tokens of an example
# A name becomes part of a folder name.
MAX_NAME = 64
NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.+-]{{0,{MAX_NAME - 1}}}")
TARGETS = ("query", "key", "value", "attention_output", "intermediate", "output")


def typed_args(path: str, given: dict[str, Any], schema: type[T]) -> T:
    """A dict of settings as a dataclass, without converting texts to numbers.

    Args:
        path: dotted name of the dict.
        given: the settings; those with a default may be missing.
        schema: the dataclass.

    Raises:
        SpecError: an entry is unknown, missing or of the wrong type.
    """
    try:
        # As JSON: for Python objects, strict validation accepts only instances of the schema.
        return TypeAdapter(schema).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        name, reason = first_problem(error)
        value = given.get(name.partition(".")[0])
        if isinstance(value, str):  # "8" and 8 look the same in the message
            reason += ", not text"
        raise SpecError(f"{path}.{name}", value, reason) from None


def check(spec: Any) -> None:
    """Check every value of a Spec that needs no knowledge of a task, method or source.

    Args:
        spec: a ``Spec``, which imports this module.

    Raises:
        SpecError: names the setting, its value and what is allowed.
    """
    _check_names(spec)
    _check_sizes(spec)
    _check_choices(spec)
    _check_method(spec.method)
    _check_numbers(spec, "")


def _check_numbers(value: Any, path: str) -> None:
    """Refuse numbers that a record cannot hold, in any setting."""
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(path, value, "must be a finite number")
    if isinstance(value, int) and abs(value) > MAX_COUNT:
        bound = f"at most {MAX_COUNT}" if value > 0 else f"at least -{MAX_COUNT}"
        raise SpecError(path, value, f"must be {bound}")
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, list):
        value = dict(enumerate(value))
    for name, inner in value.items() if isinstance(value, dict) else ():
        _check_numbers(inner, f"{path}.{name}".lstrip("."))


def _check_sizes(spec: Any) -> None:
    train, data = spec.train, spec.data
    for path, value, low in (
        ("train.epochs", train.epochs, 1),
        ("train.batch_size", train.batch_size, 1),
        ("train.accumulate", train.accumulate, 1),
        ("train.patience", train.patience, 1),
        ("train.max_length", train.max_length, MIN_LENGTH),
        ("eval_batch_size", spec.eval_batch_size, 1),
        ("group", spec.group, 1),
        ("data.toy_train", data.toy_train, 1),
        ("data.toy_validation", data.toy_validation, 1),
        ("data.train_rows", data.train_rows, 1),
        ("data.validation_rows", data.validation_rows, 1),
        ("data.tuning_rows", data.tuning_rows, 1),
        ("seed", spec.seed, 0),
        ("data.seed", data.seed, 0),
    ):
        if value is not None:
            check_count(path, value, low)
    check_positive("train.lr", train.lr)
    check_positive("train.max_grad_norm", train.max_grad_norm)
    if train.accumulate > train.batch_size:
        raise SpecError(
            "train.accumulate",
            train.accumulate,
            f"must be at most train.batch_size={train.batch_size}",
        )
    if train.patience is not None and train.patience >= train.epochs:
        raise SpecError(
            "train.patience",
            train.patience,
            f"has no effect in {counted(train.epochs, 'epoch')} (train.epochs)",
        )
    if not (train.checkpoint_minutes >= 0):
        raise SpecError("train.checkpoint_minutes", train.checkpoint_minutes, "must be 0 or more")
    for path, value in (("train.dropout", train.dropout), ("method.dropout", spec.method.dropout)):
        if not 0 <= value < 1:
            raise SpecError(path, value, "must be at least 0 and below 1")
        if value and not MIN_DROPOUT <= value <= 1 - MIN_DROPOUT:
            allowed = f"must be 0, or between {MIN_DROPOUT:.2g} and 1 - {MIN_DROPOUT:.2g}"
            raise SpecError(path, value, f"{allowed}: masks are drawn with 16 bits")
    if not 0 <= train.warmup <= 1:
        raise SpecError(
            "train.warmup", train.warmup, "must be a share of all steps between 0 and 1"
        )
    if not (train.weight_decay >= 0 and math.isfinite(train.weight_decay)):
        raise SpecError(
            "train.weight_decay", train.weight_decay, "must be a finite number, 0 or more"
        )


def check_positive(path: str, value: float) -> None:
    """Refuse a value that is not a finite number above 0.

    Args:
        path: dotted name of the setting.
        value: value of the setting.

    Raises:
        SpecError: names the setting.
    """
    if not (value > 0 and math.isfinite(value)):
        raise SpecError(path, value, "must be a finite number above 0")


def check_count(path: str, value: int, low: int) -> None:
    """Refuse a number below ``low``, or above what every library accepts.

    Args:
        path: dotted name of the setting.
        value: value of the setting.
        low: the lowest value that is allowed.

    Raises:
        SpecError: names the setting and the bound.
    """
    if value < low:
        raise SpecError(path, value, f"must be {low} or more")
    if value > MAX_COUNT:
        raise SpecError(path, value, f"must be at most {MAX_COUNT}")


def _check_names(spec: Any) -> None:
    for section in ("task", "model", "method"):
        name = getattr(spec, section).name
        if name != MISSING and not NAME.fullmatch(name):
            raise SpecError(
                f"{section}.name",
                name,
                f"must be 1 to {MAX_NAME} letters, digits, _ . + -, "
                "the first a letter, a digit or _",
            )
    for path in ("out_dir", "cache_dir"):
        value = getattr(spec, path)
        if not value.strip() or "\0" in value:
            raise SpecError(path, value, "must name a folder")
    if spec.init_from is not None and not spec.init_from.strip():
        raise SpecError("init_from", spec.init_from, "must name a run or folder, or be null")


def _check_choices(spec: Any) -> None:
    for path, value, allowed in (
        ("head", spec.head, ("standard", "article")),
        ("precision", spec.precision, ("fp32", "bf16")),
        ("logger", spec.logger, ("none", "tensorboard", "wandb")),
        ("train.optimizer", spec.train.optimizer, ("adamw", "adamw8bit")),
        ("train.frozen_prefix", spec.train.frozen_prefix, ("compute", "cache")),
        ("method.init", spec.method.init, ("kaiming", "gaussian", "gaussian_rank")),
        ("method.biases", spec.method.biases, ("none", "adapted", "all")),
    ):
        if value not in allowed:
            raise SpecError(path, value, f"must be one of {', '.join(allowed)}")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", spec.device, re.ASCII):
        raise SpecError("device", spec.device, "must be cpu, cuda or cuda:<number>")
    if spec.init_from == "required":
        raise SpecError(
            "init_from",
            spec.init_from,
            "this recipe starts the task from another run; give its key or folder, "
            "or init_from=null for a plain start",
        )
    if spec.data.tuning_rows is not None and spec.data.validation_rows is not None:
        raise SpecError(
            "data.validation_rows",
            spec.data.validation_rows,
            "has no effect with data.tuning_rows, which scores no validation split",
        )
    if spec.data.source == "local" and not spec.data.root:
        raise SpecError(
            "data.root", spec.data.root, "data=local needs the folder of the data files"
        )


def _check_method(method: Any) -> None:
    """Check what holds for every method; lora_bench/methods/ checks what each reads and needs."""
    if unknown := [target for target in method.targets if target not in TARGETS]:
        raise SpecError("method.targets", unknown, f"must be among {', '.join(TARGETS)}")
    if method.rank is not None:
        check_count("method.rank", method.rank, 1)
    if method.alpha is not None:
        check_positive("method.alpha", method.alpha)
    if method.layers == []:
        raise SpecError("method.layers", [], "must name a layer; null stands for all")
    for layer in method.layers or ():
        if layer < 0:
            raise SpecError("method.layers", layer, "must be layer indices from 0")
    for name in ("targets", "layers"):
        chosen = getattr(method, name) or []
        if len(set(chosen)) < len(chosen):
            raise SpecError(f"method.{name}", chosen, "must not contain duplicates")
