"""Spec: everything that decides one run, typed, validated, and hashed into the run's key.

A default lives here or nowhere; the presets under ``conf/`` hold choices. This room imports no other one and no torch,
so that a wrong value is refused in a second.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from omegaconf import MISSING, OmegaConf

from .checks import TARGETS as TARGETS  # with the errors: the rooms of a run import them from here
from .checks import SpecError as SpecError
from .checks import UserError as UserError
from .checks import check


@dataclass
class LocalLayout:
    """Where an official download keeps a task, and in which columns (``data=local``)."""

    folder: str = ""  # below data.root
    files: dict[str, str] = field(default_factory=dict)  # split -> file name
    headers: dict[str, list[str]] = field(
        default_factory=dict
    )  # split -> the file's columns in order
    headerless: list[str] = field(
        default_factory=list
    )  # splits whose file has no header line (CoLA)
    columns: dict[str, str] = field(default_factory=dict)  # our column -> the file's
    label: str = ""  # the file's label column
    other_names: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # split -> column -> its name in that file
    label_values: list[str] = field(
        default_factory=list
    )  # as the file writes them, in the order of TaskSpec.labels
    patterns: dict[str, str] = field(
        default_factory=dict
    )  # file column -> regular expression of its whole content


@dataclass
class HubLayout:
    """Where the Hugging Face hub keeps a task (``data=hub``)."""

    path: str = ""  # data set repository
    name: str | None = None  # configuration
    revision: str = ""  # commit of the repository, pinned
    other: dict[str, str] = field(
        default_factory=dict
    )  # split of ours -> configuration that holds it as `test`


@dataclass
class TaskSpec:
    """The facts of one task. A preset under ``conf/task/`` sets them; a user rarely does."""

    name: str = MISSING
    version: int = 1  # raise it when the same predictions would score differently
    kind: str = "text"  # text: one label for an example (tasks/text.py) | span: an answer in a passage (tasks/span.py)
    columns: list[str] = field(default_factory=list)  # one or two text columns
    labels: list[str] = field(default_factory=list)  # class names in index order; empty: regression
    value_range: list[float] = field(default_factory=list)  # regression: lowest and highest target
    metrics: list[str] = field(default_factory=list)  # the first one selects the best epoch
    validation: list[str] = field(
        default_factory=lambda: ["validation"]
    )  # splits scored after each epoch
    optional: dict[str, list[str]] = field(
        default_factory=dict
    )  # split -> metrics; scored where the data has it
    submission: dict[str, str] = field(
        default_factory=dict
    )  # test split -> file that the GLUE server takes
    unanswerable: bool = False  # span: a question may have no answer (SQuAD v2)
    held_out: float = 0.0  # span: share of the training articles that choose the no-answer threshold, not trained on
    stride: int = 128  # span: tokens that neighbouring windows of one passage share
    max_question: int = 64  # span: tokens of a question, longer ones are cut
    max_answer: int = 30  # span: tokens of a predicted answer
    official_rows: dict[str, int] = field(
        default_factory=dict
    )  # split -> rows of the official split
    local: LocalLayout = field(default_factory=LocalLayout)
    hub: HubLayout = field(default_factory=HubLayout)


@dataclass
class ModelSpec:
    """The pretrained encoder."""

    name: str = MISSING
    source: str = MISSING  # hub id, a folder, package:<python package> or random:tiny
    revision: str | None = None  # hub only: branch, tag or commit


@dataclass
class MethodSpec:
    """How the encoder is made trainable. Empty ``targets`` means that no low-rank update is added."""

    name: str = MISSING  # as tables show it
    file: str | None = (
        None  # the file under lora_bench/methods/ that does it; null: that of the name
    )
    rank: int | None = None  # r of the LoRA paper, section 4.1
    alpha: float | None = None  # numerator of the scaling alpha / rank
    rank_stabilized: bool = False  # alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732)
    dropout: float = 0.0  # on the input of the low-rank branch
    init: str = "kaiming"  # of A: kaiming | gaussian | gaussian_rank
    targets: list[str] = field(default_factory=list)  # subset of TARGETS
    layers: list[int] | None = None  # encoder layers that get an update; null: all
    biases: str = "none"  # none | adapted (of the target layers) | all
    layer_norms: bool = False  # train the LayerNorms' weights and biases
    embeddings: bool = False  # train word, position and token-type embeddings
    peft_type: str | None = None  # methods/peft.py: LORA, IA3 ... as peft.PeftType names it
    args: dict[str, Any] = field(
        default_factory=dict
    )  # what only this method has; its file says what it takes


@dataclass
class DataSpec:
    """Where examples come from."""

    source: str = MISSING  # a file under lora_bench/data/
    root: str | None = None  # local: the folder that holds CoLA/, MNLI/ ...
    skip_bad: bool = (
        False  # leave malformed rows out, counted in the record, instead of stopping at the first
    )
    train_rows: int | None = None  # use that many random training rows; null: all
    validation_rows: int | None = (
        None  # score that many random rows of each validation split; null: all
    )
    seed: int = 0  # of the generated data, and of every draw of rows or articles
    toy_train: int = 1000  # toy: generated training examples
    toy_validation: int = 300  # toy: generated validation examples


@dataclass
class TrainSpec:
    """The recipe."""

    epochs: int = MISSING
    batch_size: int = MISSING  # examples for each step
    lr: float = MISSING  # peak learning rate of AdamW
    warmup: float = 0.06  # share of all steps with linear warm-up; linear decay to 0 follows
    optimizer: str = "adamw"  # adamw | adamw8bit (bitsandbytes: states of 8 bits)
    weight_decay: float = 0.0  # on matrices only: not on biases and LayerNorms
    max_grad_norm: float = 1.0  # clip the global gradient norm to this
    max_length: int = (
        128  # tokens, special ones included; longer examples are cut, the longest part first
    )
    dropout: float = 0.1  # hidden, attention and head dropout


@dataclass
class Spec:
    """One run."""

    task: TaskSpec = field(default_factory=TaskSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    method: MethodSpec = field(default_factory=MethodSpec)
    data: DataSpec = field(default_factory=DataSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    head: str = "standard"  # standard: transformers' own | article: LayerNorm, dropout, linear
    init_from: str | None = (
        None  # another run's key or folder: start from its adapter, head left out; null: plain start
    )
    seed: int = 0  # weights of head and adapter, order of examples, dropout
    precision: str = "fp32"  # fp32 | bf16 (autocast)
    device: str = "cpu"  # cpu | cuda | cuda:N
    eval_batch_size: int = 64  # examples for each forward pass while scoring
    out_dir: str = "outputs"  # runs go to <out_dir>/runs/<task>/<key>/
    cache_dir: str = ".cache"  # encoded data
    progress: bool = True  # progress bars
    logger: str = "none"  # none | tensorboard | wandb: training curves, beside the record

    @classmethod
    def from_config(cls, config) -> "Spec":
        """Make a Spec from a composed configuration (OmegaConf, any nesting of its dataclasses)."""
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), config))

    def validate(self) -> "Spec":
        """Check every value. Raises: SpecError: names the setting, its value and what is allowed."""
        check(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def key(self) -> str:
        """Name of this run: a readable stem and a hash of exactly the settings that can change the score.

        Settings at their default are left out of the hash, so that a new setting does not rename every old run. Should a
        default ever change, ``differences`` tells an old run from a new one of the same name.
        """
        default, settings = Spec().relevant(), self.relevant()
        chosen = {path: value for path, value in settings.items() if value != default[path]}
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:10]
        rank = "" if self.method.rank is None else f"-r{self.method.rank}"
        return f"{self.task.name}-{self.model.name}-{self.method.name}{rank}-s{self.seed}-{digest}"

    def relevant(self) -> dict[str, Any]:
        """Every setting that can change the score, by its dotted path."""
        settings = {path: value for path, value in _flat(self) if path not in NOT_IN_KEY}
        if self.init_from is not None:  # which run it was, not where it lies
            place = PurePath(self.init_from)
            settings["init_from"] = place.parent.name if place.name == "adapter" else place.name
        return settings

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """Relevant settings whose value differs from that of a record's spec, one line each; those that the record does
        not know yet do not count."""
        before = Spec.from_config(recorded).relevant()
        return [
            f"{path} was {before[path]}, is {value}"
            for path, value in self.relevant().items()
            if _holds(recorded, path) and before[path] != value
        ]


def _holds(nested: dict, path: str) -> bool:
    """Does a nested dict have a value at a dotted path?"""
    for name in path.split("."):
        if name not in nested:
            return False
        nested = nested[name]
    return True


def _flat(node: Any, prefix: str = ""):
    """(dotted path, value) of every leaf of nested dataclasses."""
    for entry in dataclasses.fields(node):
        value = getattr(node, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", value


# Where a run writes: no part of its record, which would then name folders of one machine.
PLACES = ("out_dir", "cache_dir")

# What the key leaves out: no change of these moves a score beyond float noise. data.root is where the files lie, not
# what they say; the record carries a fingerprint of their content, and resuming on other content is an error.
NOT_IN_KEY = (
    "task.official_rows",
    "task.submission",
    "data.root",
    "device",
    "eval_batch_size",
    "out_dir",
    "cache_dir",
    "progress",
    "logger",
)
