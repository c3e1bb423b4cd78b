"""Adapters of other projects into ours: PEFT, loralib and the article's ``.pth`` files.

Each reader translates names and adds what the file does not state; ``write_checked`` then loads the
result into a model, which accounts for every parameter. Files that could hold code are opened
weights-only: nothing in them is executed.
"""

import json
import pickle
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.lora import MODULES
from ..spec import TARGETS, MethodSpec, ModelSpec, Spec, TaskSpec
from . import AdapterError, base_fingerprint, read_weights, write
from .restore import from_stock, load_model, stock_of

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ORIGINAL = ".original_module."  # of modules_to_save: as they were before training
ARTICLE_FACTS = ("model_id", "task_type", "lora_rank", "num_classes")
# Settings of a LoraConfig that would change the numbers and that our layer does not have.
NOT_OURS = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "use_qalora",
)


def import_peft(folder: Path, out: Path, task: TaskSpec, base: ModelSpec | None = None) -> None:
    """A PEFT LoRA folder into ours.

    Args:
        folder: of PEFT.
        out: to write to.
        task: of the head.
        base: the base model; None: the one that the folder names.

    Raises:
        AdapterError: the folder is damaged, or holds what our layer does not have.
    """
    try:
        config = json.loads((folder / PEFT_CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise AdapterError(f"{folder / PEFT_CONFIG}: cannot be read ({error})") from None
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{folder}: peft_type={config.get('peft_type')}; must be LORA")
    if strange := [name for name in NOT_OURS if config.get(name)]:
        raise AdapterError(f"{folder}: uses {', '.join(strange)}, which LoraLinear does not have")
    stock = {
        _unwrapped(name): tensor
        for name, tensor in read_weights(folder / PEFT_WEIGHTS).items()
        if ORIGINAL not in name
    }
    state = _ours(stock, task, folder)
    method = _method(
        state, config["lora_alpha"], folder, rank_stabilized=config.get("use_rslora", False)
    )
    source = config["base_model_name_or_path"]
    model = base or ModelSpec(
        name=Path(source).name, source=source, revision=config.get("revision")
    )
    write_checked(out, state, Spec(task=task, model=model, method=method))


def _unwrapped(name: str) -> str:
    """PEFT's name of a parameter without its wrappers.

    With bias=all it saves some LayerNorms under two of them.
    """
    name = re.sub(
        r"\.(modules_to_save(\.default)?|base_layer)\.", ".", name.removeprefix("base_model.model.")
    )
    return name.replace(".lora_A.weight", ".lora_A").replace(".lora_B.weight", ".lora_B")


def import_loralib(path: Path, out: Path, task: TaskSpec, base: ModelSpec, alpha: float) -> None:
    """A state dict of ``loralib.lora_state_dict`` (microsoft/LoRA's ``.bin`` files) into ours.

    Args:
        path: of the file.
        out: to write to.
        task: of the head.
        base: the base model.
        alpha: not in the file; the released GLUE scripts use 16.

    Raises:
        AdapterError: the file is damaged or does not fit.
    """
    state = _ours(_tensors(path), task, path)
    write_checked(out, state, Spec(task=task, model=base, method=_method(state, alpha, path)))


def import_article(path: Path, out: Path, task: TaskSpec) -> None:
    """The article's ``.pth`` file into ours: its head, scaling 1, its base model.

    Args:
        path: of the file.
        out: to write to.
        task: of the head.

    Raises:
        AdapterError: the file is damaged or does not fit.
    """
    loaded = _tensors(path, ARTICLE_FACTS)
    if missing := [name for name in ARTICLE_FACTS if name not in loaded]:
        raise AdapterError(f"{path}: lacks {', '.join(missing)}, which the article's files have")
    facts = {name: loaded.pop(name) for name in ARTICLE_FACTS}
    loaded.pop("model.pooler.dense.bias", None)  # trained there, but it never reaches the loss
    state = {}
    for name, tensor in loaded.items():
        new = re.sub(r"^model\.", "encoder.", name).replace("finetune_head_", "head.")
        for projection in ("query", "key", "value"):
            for factor in "AB":
                new = new.replace(
                    f"lora_{projection}_matrix_{factor}", f"{projection}.lora_{factor.lower()}"
                )
        state[new] = tensor
    method = _method(state, facts["lora_rank"], path)
    base = ModelSpec(name=Path(facts["model_id"]).name, source=facts["model_id"])
    write_checked(out, state, Spec(task=task, model=base, method=method, head="article"))


def write_checked(out: Path, state: dict[str, Tensor], spec: Spec) -> None:
    """Write our adapter folder and load it into a fresh model.

    Args:
        out: to write to.
        state: parameters by name.
        spec: of the adapter.

    Raises:
        UserError: it does not fit; the folder is removed.
    """
    try:
        write(out, state, spec)
        model, spec, _ = load_model(out)
        write(out, state, spec, base_fingerprint(model))
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _tensors(path: Path, other: tuple[str, ...] = ()) -> dict[str, Any]:
    """A torch file as a dict of tensors.

    Args:
        path: of the file.
        other: names of entries that are plain values.

    Raises:
        AdapterError: the file does not exist, is damaged or holds anything else.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; only errors matter here
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise AdapterError(
            f"{path}: holds more than tensors and plain values; refused, nothing in it was run"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise AdapterError(f"{path}: is damaged ({str(error).splitlines()[0]})") from None
    if not isinstance(loaded, dict) or any(
        name not in other and not torch.is_tensor(t) for name, t in loaded.items()
    ):
        raise AdapterError(f"{path}: must be a dict of tensors")
    return {name: t.float() if torch.is_tensor(t) else t for name, t in loaded.items()}


def _ours(tensors: dict[str, Tensor], task: TaskSpec, path: Path) -> dict[str, Tensor]:
    """Our names for those of transformers, with ``lora_A`` and ``lora_B`` as loralib writes them.

    Raises:
        AdapterError: a name belongs to neither encoder nor head, or the head is missing.
    """
    state, stock = {}, stock_of(task)
    for name, tensor in tensors.items():
        new = from_stock(name, stock)
        if new is None:
            raise AdapterError(
                f"{path}: {name} is no parameter of a RoBERTa encoder or of a {task.kind} head"
            )
        state[new.replace(".lora_A", ".lora_a").replace(".lora_B", ".lora_b")] = tensor
    if not any(name.startswith("head.") for name in state):
        raise AdapterError(f"{path}: has no head ({stock.head}.*)")
    return state


def _method(
    state: dict[str, Tensor], alpha: float, path: Path, *, rank_stabilized: bool = False
) -> MethodSpec:
    """The method that has exactly these parameters, as far as their names tell.

    Raises:
        AdapterError: the matrices have no rank or several ranks.
    """
    adapted = {
        name.removesuffix(".lora_a"): tensor
        for name, tensor in state.items()
        if name.endswith(".lora_a")
    }
    ranks = sorted({tensor.shape[0] for tensor in adapted.values()})
    if len(ranks) != 1:
        raise AdapterError(f"{path}: has LoRA matrices of ranks {ranks}; must be one rank")
    # (layer, ".", module in the layer)
    paths = [name.partition(".layer.")[2].partition(".") for name in adapted]
    inside = {module for _, _, module in paths}
    biases = {
        name.removesuffix(".bias")
        for name in state
        if name.startswith("encoder.") and name.endswith(".bias")
    }
    biases = {name for name in biases if not name.endswith("LayerNorm")}
    return MethodSpec(
        name="lora",
        rank=ranks[0],
        alpha=float(alpha),
        rank_stabilized=rank_stabilized,
        targets=[target for target in TARGETS if MODULES[target] in inside],
        layers=sorted({int(layer) for layer, _, _ in paths if layer.isdigit()}),
        biases="all" if biases - adapted.keys() else "adapted" if biases else "none",
        layer_norms=any(name.endswith("LayerNorm.weight") for name in state),
        embeddings=any(name.endswith("embeddings.weight") for name in state),
    )
