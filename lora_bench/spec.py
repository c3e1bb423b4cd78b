"""Spec: every setting of one run, typed, and the identity that follows from them.

A default value is written here or nowhere; the presets under ``conf/`` hold choices. This module
imports neither torch nor another part of the project except ``checks``, so that a wrong value is
refused within a second.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING
from pydantic import TypeAdapter, ValidationError

from .checks import check
from .errors import SpecError, first_problem

# Raise it when the same settings would give different results.
PROCEDURE = 2
DIGITS = 10  # of the hash that ends a key
FINGERPRINT = 16  # digits of the hash of data


@dataclass
class LocalLayout:
    """Where an official download keeps a task, and in which columns (``data=local``)."""

    folder: str = ""  # below data.root
    files: dict[str, str] = field(default_factory=dict)  # split -> file name
    headers: dict[str, list[str]] = field(default_factory=dict)  # split -> columns in order
    headerless: list[str] = field(default_factory=list)  # splits without a header line (CoLA)
    columns: dict[str, str] = field(default_factory=dict)  # our column -> the file's
    label: str = ""  # the file's label column
    # split -> column -> its name in that file
    other_names: dict[str, dict[str, str]] = field(default_factory=dict)
    # as the file writes them, in the order of TaskSpec.labels
    label_values: list[str] = field(default_factory=list)
    # file column -> regular expression of its whole content
    patterns: dict[str, str] = field(default_factory=dict)


@dataclass
class HubLayout:
    """Where the Hugging Face hub keeps a task (``data=hub``)."""

    path: str = ""  # dataset repository
    name: str | None = None  # configuration
    revision: str = ""  # commit of the repository, pinned
    # our split -> configuration that has it as `test`
    other: dict[str, str] = field(default_factory=dict)


@dataclass
class TaskSpec:
    """The facts of one task. A preset under ``conf/task/`` sets them; users rarely do."""

    name: str = MISSING  # part of keys; tables show its published name, if it has one
    version: int = 1  # raise it when the same predictions would score differently
    kind: str = "text"  # the file under lora_bench/tasks/ that implements it
    columns: list[str] = field(default_factory=list)  # text columns
    labels: list[str] = field(default_factory=list)  # class names in index order
    value_range: list[float] = field(default_factory=list)  # regression: lowest, highest target
    metrics: list[str] = field(default_factory=list)  # the first one selects the best epoch
    # splits scored after each epoch
    validation: list[str] = field(default_factory=lambda: ["validation"])
    # split -> metrics; scored where the data has it
    optional: dict[str, list[str]] = field(default_factory=dict)
    # test split -> file that the GLUE server takes
    submission: dict[str, str] = field(default_factory=dict)
    official_rows: dict[str, int] = field(default_factory=dict)  # split -> its official row count
    args: dict[str, Any] = field(default_factory=dict)  # settings that only this kind has
    local: LocalLayout = field(default_factory=LocalLayout)
    hub: HubLayout = field(default_factory=HubLayout)


@dataclass
class ModelSpec:
    """The pretrained encoder."""

    name: str = MISSING  # part of keys and tables
    source: str = MISSING  # hub id, a folder, package:<python package> or random:tiny
    revision: str | None = None  # hub only: branch, tag or commit


@dataclass
class MethodSpec:
    """How the encoder is made trainable. Each method declares which of these settings it reads."""

    name: str = MISSING  # part of keys; tables show its published name, if it has one
    file: str | None = None  # the file under lora_bench/methods/; null: the same as name
    rank: int | None = None  # r of the LoRA paper, section 4.1
    alpha: float | None = None  # numerator of the scaling alpha / rank
    rank_stabilized: bool = False  # alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732)
    dropout: float = 0.0  # on the input of the low-rank branch
    init: str = "kaiming"  # of A: kaiming | gaussian | gaussian_rank
    targets: list[str] = field(default_factory=list)  # subset of TARGETS
    layers: list[int] | None = None  # encoder layers that get an update; null: all
    biases: str = "none"  # trained biases: none | adapted (of the target layers) | all
    layer_norms: bool = False  # train the LayerNorms' weights and biases
    embeddings: bool = False  # train word, position and token-type embeddings
    peft_type: str | None = None  # methods/peft.py: LORA, IA3 ... as peft.PeftType names it
    args: dict[str, Any] = field(default_factory=dict)  # settings that only this method has


@dataclass
class DataSpec:
    """Where examples come from. Each source declares which of these settings it reads."""

    source: str = MISSING  # a file under lora_bench/data/
    # local: the folder of the files, such as the official one that holds CoLA/, MNLI/ ...
    root: str | None = None
    skip_bad: bool = False  # skip malformed rows and count them in the record, instead of stopping
    train_rows: int | None = None  # number of random training rows to use; null: all
    validation_rows: int | None = None  # number of random rows of each split to score; null: all
    # number of random training rows to score instead of the validation splits; they are not trained
    # on, and tuning selects by them; null: score the validation splits
    tuning_rows: int | None = None
    seed: int = 0  # seed of generated data and of every random choice of rows or articles
    toy_train: int = 1000  # toy: generated training examples
    toy_validation: int = 300  # toy: generated validation examples


@dataclass
class TrainSpec:
    """The recipe."""

    epochs: int = MISSING  # passes over the training rows
    batch_size: int = MISSING  # examples per step
    # parts in which the gradient of a step is computed, one after the other, to limit memory
    accumulate: int = 1
    lr: float = MISSING  # peak learning rate of AdamW
    warmup: float = 0.06  # share of all steps with linear warm-up; linear decay to 0 follows
    optimizer: str = "adamw"  # adamw | adamw8bit (bitsandbytes: 8-bit states)
    # on parameters with two or more dimensions: not on biases and LayerNorms
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # clip the global gradient norm to this
    # tokens, special ones included; longer texts are truncated, longer passages divided (SQuAD)
    max_length: int = 128
    dropout: float = 0.1  # hidden, attention and head dropout
    # stop after this many epochs without a better first metric; null: never
    patience: int | None = None
    # compute | cache (the layers below the lowest trained one run once, without dropout)
    frozen_prefix: str = "compute"
    # keep only each layer's input, and recompute the layer for its gradient, to save memory
    gradient_checkpointing: bool = False
    checkpoint_minutes: float = 10.0  # time between two checkpoints of a run


@dataclass
class Spec:
    """One run."""

    task: TaskSpec = field(default_factory=TaskSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    method: MethodSpec = field(default_factory=MethodSpec)
    data: DataSpec = field(default_factory=DataSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    head: str = "standard"  # standard: transformers' own | article: LayerNorm, dropout, linear
    # key of a run, or folder of a run or adapter, from which this one starts, head excluded; null:
    # none
    init_from: str | None = None
    seed: int = 0  # seed of the weights of head and adapter, order of examples, dropout
    precision: str = "fp32"  # fp32 | bf16: of matrix products and attention
    device: str = "cpu"  # cpu | cuda | cuda:N
    eval_batch_size: int = 64  # examples per forward pass while scoring, over all runs of a group
    out_dir: str = "outputs"  # runs go to <out_dir>/runs/<task>/<key>/
    cache_dir: str = ".cache"  # encoded data
    # maximum number of a sweep's runs that are trained in one pass; null: chosen automatically
    group: int | None = None
    progress: bool = True  # progress bars
    logger: str = "none"  # none | tensorboard | wandb: where training curves go, besides the record

    @classmethod
    def from_dict(cls, nested: dict[str, Any]) -> "Spec":
        """The Spec whose ``to_dict`` gave ``nested``; missing settings have their default.

        Raises:
            TypeError: a setting does not exist.
        """
        return _from_dict(cls, nested)

    def check(self) -> "Spec":
        """Check every value that needs no knowledge of a task, method or source.

        Raises:
            SpecError: names the setting, its value and what is allowed.
        """
        check(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """All settings as nested dicts."""
        return dataclasses.asdict(self)

    def where(self) -> dict[str, Any]:
        """What is solved: the settings of task, model and data that can change a score."""
        return {p: v for p, v in settings(self).items() if part_of(p) == "where"}

    def system(self) -> dict[str, Any]:
        """How it is solved: the settings of method and recipe that can change a score."""
        chosen = {p: v for p, v in settings(self).items() if part_of(p) == "system"}
        return {**chosen, "procedure": PROCEDURE}

    def identity(self, *, data: str, model: str, start: "Start | None" = None) -> "Identity":
        """The identity of this run.

        Args:
            data: fingerprint of the rows of every split.
            model: fingerprint of the encoder's files.
            start: the adapter behind ``init_from``; None without one.
        """
        where = {**self.where(), "data.fingerprint": data, "model.fingerprint": model}
        cell, weights = (None, None) if start is None else (start.cell, start.fingerprint)
        return Identity(where, {**self.system(), "init_from": cell}, self.seed, weights)


@dataclass(frozen=True)
class Start:
    """The adapter that a run starts from."""

    cell: str  # cell of the run that trained it: the same for all of its seeds
    fingerprint: str  # hash of its weights


@dataclass(frozen=True, eq=False)
class Identity:
    """What a run is: ``where`` (task, model, data), ``system`` (method, recipe) and ``seed``.

    Both dicts map a setting's dotted path to its value. Runs with equal ``where`` and ``system``
    are seeds of one cell. ``start`` is the fingerprint of the adapter that the run started from.
    """

    where: dict[str, Any]
    system: dict[str, Any]
    seed: int
    start: str | None = None

    def __eq__(self, other: object) -> bool:
        """Whether both are the same run; a setting missing in one of them has its default."""
        return isinstance(other, Identity) and self._content() == other._content()

    @property
    def cell(self) -> str:
        """Name of the cell: a readable stem and a hash of where and system."""
        return f"{self._stem()}-{digest(self._content()[:2])}"

    @property
    def key(self) -> str:
        """Name of the run: a readable stem, the seed, and a hash of the whole identity.

        Settings at their default stay out of the hash, so that a new setting renames no old run.
        """
        return f"{self._stem()}-s{self.seed}-{digest(self._content())}"

    def _content(self) -> list[Any]:
        return [non_default(self.where), non_default(self.system), self.seed, self.start]

    def _stem(self) -> str:
        where, system = self.where, self.system
        method, rank = system["method.name"], system.get("method.rank")
        return stem_of(where["task.name"], where["model.name"], method, rank)


def stem_of(task: str, model: str, method: str, rank: int | None) -> str:
    """The readable start of a name, as in ``cola-minilm-lora-r8``."""
    return f"{task}-{model}-{method}" + ("" if rank is None else f"-r{rank}")


def _from_dict(kind: Any, nested: dict[str, Any]) -> Any:
    sections: dict[str, Any] = {
        entry.name: entry.default_factory
        for entry in dataclasses.fields(kind)
        if dataclasses.is_dataclass(entry.default_factory)
    }
    values = {
        name: _from_dict(sections[name], value) if name in sections else value
        for name, value in nested.items()
    }
    return kind(**values)


_schema = TypeAdapter(Spec)


def typed(nested: dict[str, Any]) -> Spec:
    """The Spec of the nested dicts of ``Spec.to_dict``, whose values must have the right types.

    Raises:
        SpecError: names the first setting of another type.
    """
    try:
        return _schema.validate_json(json.dumps(nested), strict=True)
    except TypeError as error:  # of json, such as for a Path or a number of NumPy
        raise SpecError("spec", nested, f"must have plain values: {error}") from None
    except ValidationError as error:
        path, reason = first_problem(error)
        raise SpecError(path, error.errors()[0]["input"], reason) from None


def settings(spec: Spec | TaskSpec) -> dict[str, Any]:
    """Every leaf setting by its dotted path; the entries of ``args`` are leaves too."""
    return dict(_leaves(spec, ""))


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in dataclasses.fields(node):
        value, path = getattr(node, entry.name), f"{prefix}{entry.name}"
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{path}.")
        elif entry.name == "args":
            yield from ((f"{path}.{name}", item) for name, item in value.items())
        else:
            yield path, value


def device_kind(device: str) -> str:
    """``cpu`` or ``cuda``, without the number of the device."""
    return device.partition(":")[0]


# Settings that cannot change a score beyond float noise: where files are, how they are checked,
# what is printed or logged, and how the work is divided and stored. The content of the files enters
# the identity through fingerprints. The device is the exception: a GPU draws other dropout masks,
# so its scores differ as those of two seeds do.
NOT_IN_IDENTITY = (
    "task.official_rows",
    "task.submission",
    "task.local",
    "task.hub",
    "model.source",
    "model.revision",
    "data.root",
    "data.skip_bad",
    "train.checkpoint_minutes",
    "train.gradient_checkpointing",
    "device",
    "eval_batch_size",
    "out_dir",
    "cache_dir",
    "group",
    "progress",
    "logger",
)
WHERE = ("task", "model", "data")

# Not in the record of a run: where its files are, and how a sweep is executed.
NOT_RECORDED = ("out_dir", "cache_dir", "group")


def is_within(path: str, section: str) -> bool:
    """Whether a dotted path is a section or below it."""
    return path == section or path.startswith(f"{section}.")


def part_of(path: str) -> str | None:
    """Part of the identity that a setting belongs to: ``where``, ``system``, ``seed`` or None."""
    if any(is_within(path, name) for name in NOT_IN_IDENTITY):
        return None
    if path == "seed":
        return "seed"
    return "where" if path.partition(".")[0] in WHERE else "system"


def non_default(part: dict[str, Any]) -> dict[str, Any]:
    """The entries of a part of the identity that differ from the setting's default."""
    default = settings(Spec())
    return {path: v for path, v in part.items() if path not in default or v != default[path]}


def digest(content: Any, digits: int = DIGITS) -> str:
    """A short hash of JSON-serializable content; settings may have any order."""
    text = json.dumps(_in_order(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _in_order(content: Any) -> Any:
    """Content with the arguments of a method that are dicts as lists of pairs.

    PEFT takes the first of several patterns that match, so their order is part of a setting.
    """
    if isinstance(content, list):
        return [_in_order(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    ordered = {}
    for path, value in content.items():
        is_argument = path.startswith("method.args.") and isinstance(value, dict)
        ordered[path] = list(value.items()) if is_argument else _in_order(value)
    return ordered
