"""Import adapters of other projects: PEFT, loralib and the article's ``.pth`` files.

Each reader translates names and adds what the file does not state; ``write_checked`` then loads the
result into a model, which accounts for every parameter. Files that could hold code are opened
weights-only: nothing in them is executed.
"""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checks import TARGETS
from ..files import expanded
from ..model.encoder import layer_count
from ..model.inject import MODULES
from ..model.source import source_name
from ..model.wrapper import TASK_TYPES
from ..spec import MethodSpec, ModelSpec, Spec, TaskSpec
from ..tasks import make_task
from . import fit, load_adapter, write
from .base_model import base_fingerprint
from .facts import AdapterError, partial_spec
from .peft_config import BIASES, CONFIG, LoraFacts, check_modules, read_config
from .restore import build_model, from_stock, stock_of, to_stock
from .tensors import check_numbers, read_safetensors, read_torch

PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
ORIGINAL = ".original_module."  # modules_to_save, as they were before training
ARTICLE_FACTS = ("model_id", "task_type", "lora_rank", "num_classes")
# trained by the article with all biases, although its heads do not use the pooler
ARTICLE_UNUSED = "model.pooler.dense.bias"

LeftOut = list[str]  # names of tensors that were not imported: no output depends on them


def import_peft(folder: Path, out: Path, task: TaskSpec, base: ModelSpec | None = None) -> LeftOut:
    """Convert a PEFT LoRA folder to our format.

    Args:
        folder: folder that PEFT wrote.
        out: folder to write to.
        task: task of the head.
        base: the base model; None: the one that the folder states.

    Raises:
        AdapterError: the folder is damaged, contradicts itself, or holds something that our layer
            does not have.
    """
    config, path = read_config(folder), folder / CONFIG
    weights = next((p for name in PEFT_FILES if (p := folder / name).is_file()), None)
    if weights is None:
        raise AdapterError(f"{folder}: no {' or '.join(PEFT_FILES)} there")
    found = (read_safetensors if weights.suffix == ".safetensors" else read_torch)(weights)
    check_numbers(weights, found)
    model = base or _base_of(path, config)
    stock = _unwrapped({n: t for n, t in found.items() if ORIGINAL not in n}, weights)
    state = _ours(stock, task, weights)
    method = _method(state, config.lora_alpha, weights)
    _check_peft(path, config, task, stock, method)
    modules = [to_stock(name, stock_of(task)) for name in _adapted(state)]
    check_modules(path, config, modules, _linear_modules(model))
    method = replace(
        method,
        biases=BIASES[config.bias],
        rank_stabilized=config.use_rslora,
        dropout=config.lora_dropout,
    )
    write_checked(weights, out, state, partial_spec(task, model, method))
    return sorted(name for name in found if ORIGINAL in name)


def _base_of(path: Path, config: LoraFacts) -> ModelSpec:
    source = config.base_model_name_or_path
    if not source:
        raise AdapterError(f"{path}: base_model_name_or_path={source!r}: give --base")
    if expanded(source).is_dir():  # relative to this folder, but not to that of a later command
        source = str(expanded(source).absolute())
    return ModelSpec(name=source_name(source), source=source, revision=config.revision)


def _check_peft(
    path: Path, config: LoraFacts, task: TaskSpec, stock: dict[str, Tensor], method: MethodSpec
) -> None:
    """Compare a configuration with the task and with the tensors, named as in transformers.

    Raises:
        AdapterError: names the key, its value and what contradicts it.
    """
    if method.rank != config.r:
        raise AdapterError(f"{path}: r={config.r}: the matrices have rank {method.rank}")
    kind = stock_of(task).peft
    if config.task_type not in (None, kind):
        raise AdapterError(f"{path}: task_type={config.task_type}: task={task.name} is {kind}")
    plain = [name for name in stock if not name.endswith((".lora_A", ".lora_B"))]
    for name in config.modules_to_save or []:
        saved = any(f".{name}." in f".{parameter}" for parameter in plain)
        if not saved and any(f".{name}." in f".{parameter}" for parameter in stock):
            raise AdapterError(f"{path}: modules_to_save: the file has no weights of {name!r}")
    if strange := [name for name in plain if not config.explains(name)]:
        raise AdapterError(
            f"{path}: bias={config.bias} and modules_to_save={config.modules_to_save} do not "
            f"explain {', '.join(strange[:3])} of the tensors"
        )


def _linear_modules(model: ModelSpec) -> list[str]:
    """Names of the linear modules that an update can go into, as transformers has them."""
    layers = range(layer_count(model))
    return [f"roberta.encoder.layer.{i}.{module}" for i in layers for module in MODULES.values()]


def _unwrapped(found: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Tensors by their names in PEFT, without its wrappers.

    With bias=all, PEFT saves some LayerNorms under two names.

    Raises:
        AdapterError: two names of one parameter have different values.
    """
    stock: dict[str, Tensor] = {}
    for name, tensor in found.items():
        new = re.sub(
            r"\.(modules_to_save(\.default)?|base_layer)\.",
            ".",
            name.removeprefix("base_model.model."),
        )
        new = new.replace(".lora_A.weight", ".lora_A").replace(".lora_B.weight", ".lora_B")
        if new in stock and not stock[new].equal(tensor):
            nested = "; modules_to_save may name a module inside another saved one"
            reason = nested if "modules_to_save" in name else ""
            raise AdapterError(f"{path}: has two different tensors for {new}{reason}")
        stock[new] = tensor
    return stock


def import_loralib(path: Path, out: Path, task: TaskSpec, base: ModelSpec, alpha: float) -> LeftOut:
    """Convert a ``loralib.lora_state_dict`` (microsoft/LoRA's ``.bin`` files) to our format.

    Args:
        path: path of the file.
        out: folder to write to.
        task: task of the head.
        base: the base model.
        alpha: LoRA's alpha, which the file lacks; the released GLUE scripts use 16.

    Raises:
        AdapterError: the file is damaged or does not fit.
    """
    state = _ours(read_torch(path), task, path)
    write_checked(path, out, state, partial_spec(task, base, _method(state, alpha, path)))
    return []


def import_article(path: Path, out: Path, task: TaskSpec, base: ModelSpec | None = None) -> LeftOut:
    """Convert the article's ``.pth`` file to our format: its head, scaling 1, its base model.

    Args:
        path: path of the file.
        out: folder to write to.
        task: task of the head.
        base: the base model; None: the one that the file states.

    Raises:
        AdapterError: the file is damaged, contradicts itself or does not fit.
    """
    loaded = read_torch(path, ARTICLE_FACTS)
    if missing := [name for name in ARTICLE_FACTS if name not in loaded]:
        raise AdapterError(f"{path}: lacks {', '.join(missing)}, which the article's files have")
    facts = _ArticleFacts(**{name: loaded.pop(name) for name in ARTICLE_FACTS})
    facts.check(path, task)
    left_out = [name for name in loaded if name == ARTICLE_UNUSED]
    state = {_from_article(n): t for n, t in loaded.items() if n not in left_out}
    # the article scales its update by 1: alpha equals the rank of the matrices
    method = _method(state, None, path)
    if method.rank != facts.lora_rank:
        raise AdapterError(
            f"{path}: lora_rank={facts.lora_rank}: the matrices have rank {method.rank}"
        )
    base = base or ModelSpec(name=source_name(facts.model_id), source=facts.model_id)
    write_checked(path, out, state, partial_spec(task, base, method, head="article"))
    return left_out


@dataclass
class _ArticleFacts:
    """What a file of the article states besides its tensors."""

    model_id: Any
    task_type: Any
    lora_rank: Any
    num_classes: Any

    def check(self, path: Path, task: TaskSpec) -> None:
        """Compare them with the task.

        Raises:
            AdapterError: names the fact, its value and what it must be.
        """
        if not isinstance(self.model_id, str) or not self.model_id:
            raise AdapterError(f"{path}: model_id={self.model_id!r}: must name the base model")
        if type(self.lora_rank) is not int or self.lora_rank < 1:
            raise AdapterError(f"{path}: lora_rank={self.lora_rank!r}: must be 1 or more")
        made, outputs = make_task(task), make_task(task).outputs("article")
        fitting = [
            name
            for name, (level, fixed) in TASK_TYPES.items()
            if level == made.head and fixed in (None, outputs)
        ]
        if self.task_type not in fitting:
            allowed = " or ".join(fitting) or "none of the article's"
            raise AdapterError(
                f"{path}: task_type={self.task_type!r}: must be {allowed} for task={task.name}"
            )
        # the article does not set it for SQuAD
        allowed_numbers = (outputs,) if TASK_TYPES[self.task_type][1] is None else (None, outputs)
        plain = self.num_classes is None or type(self.num_classes) is int
        if not plain or self.num_classes not in allowed_numbers:
            raise AdapterError(
                f"{path}: num_classes={self.num_classes!r}: must be {outputs} for task={task.name}"
            )


def _from_article(name: str) -> str:
    """Our name of one of the article's parameters."""
    new = re.sub(r"^model\.", "encoder.", name).replace("finetune_head_", "head.")
    for projection in ("query", "key", "value"):
        for factor in "AB":
            new = new.replace(
                f"lora_{projection}_matrix_{factor}", f"{projection}.lora_{factor.lower()}"
            )
    return new


def write_checked(origin: Path, out: Path, state: dict[str, Tensor], spec: Spec) -> None:
    """Load parameters into a fresh model, write our adapter folder, and load the result again.

    Args:
        origin: file that the parameters come from, for messages.
        out: folder to write to.
        state: parameters by our names.
        spec: settings of the adapter.

    Raises:
        UserError: it does not fit; nothing is written.
    """
    model, _ = build_model(spec, origin)
    fit(origin, state, model)
    write(out, state, spec, base_fingerprint(model, spec.method))
    try:
        load_adapter(out, model)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _ours(tensors: dict[str, Tensor], task: TaskSpec, path: Path) -> dict[str, Tensor]:
    """Rename tensors from transformers' names (with loralib's ``lora_A``, ``lora_B``) to ours.

    Raises:
        AdapterError: a name belongs to neither encoder nor head, or the head is missing.
    """
    state, stock = {}, stock_of(task)
    for name, tensor in tensors.items():
        new = from_stock(name, stock)
        if new is None:
            raise AdapterError(
                f"{path}: {name} is not a parameter of a RoBERTa encoder or of a {task.kind} head"
            )
        state[new.replace(".lora_A", ".lora_a").replace(".lora_B", ".lora_b")] = tensor
    if not any(name.startswith("head.") for name in state):
        raise AdapterError(f"{path}: has no head ({stock.head}.*)")
    return state


def _adapted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The matrix A of each adapted module, by the module's name."""
    return {n.removesuffix(".lora_a"): t for n, t in state.items() if n.endswith(".lora_a")}


def _method(state: dict[str, Tensor], alpha: float | None, path: Path) -> MethodSpec:
    """The method that has exactly these parameters, judging by their names.

    Args:
        state: parameters by our names.
        alpha: numerator of the scaling; None: the rank.
        path: path of the file, for messages.

    Raises:
        AdapterError: the matrices have no rank or several ranks.
    """
    adapted = _adapted(state)
    ranks = sorted({tensor.shape[0] for tensor in adapted.values() if tensor.ndim})
    if len(ranks) != 1:
        raise AdapterError(f"{path}: has LoRA matrices of ranks {ranks}; must be one rank")
    # (layer, ".", module in the layer)
    paths = [name.partition(".layer.")[2].partition(".") for name in adapted]
    inside = {module for _, _, module in paths}
    layers = {int(layer) for layer, _, _ in paths if re.fullmatch("[0-9]{1,6}", layer)}
    known = [module for _, _, module in paths if module in MODULES.values()]
    if len(known) < len(layers) * len(set(known)):
        raise AdapterError(f"{path}: adapts other modules in some layers; must be the same in each")
    biases = {
        name.removesuffix(".bias")
        for name in state
        if name.startswith("encoder.") and name.endswith(".bias")
    }
    layer_norms = any(name.endswith("LayerNorm.weight") for name in state)
    if layer_norms:  # whose biases are trained with them
        biases = {name for name in biases if not name.endswith("LayerNorm")}
    return MethodSpec(
        name="lora",
        rank=ranks[0],
        alpha=float(ranks[0] if alpha is None else alpha),
        targets=[target for target in TARGETS if MODULES[target] in inside],
        layers=sorted(layers),
        biases="all" if biases - adapted.keys() else "adapted" if biases else "none",
        layer_norms=layer_norms,
        embeddings=any(name.endswith("embeddings.weight") for name in state),
    )
