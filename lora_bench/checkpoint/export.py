"""Export our adapters: to a PEFT folder, or to a plain transformers model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from ..files import expanded, whole_folder
from ..methods import require
from ..methods.peft import Peft
from ..model.encoder import load_encoder, load_tokenizer, quiet, stock_architecture
from ..model.inject import adapter_parameters, lora_layers
from ..model.lora import LoraLinear
from ..model.source import locate
from ..model.wrapper import LoraWrapperRoberta
from ..spec import MethodSpec, Spec
from ..tasks import Stock
from .facts import AdapterError
from .peft_config import BIASES
from .probe import check_same, probe
from .restore import load_model, plain_encoder, stock_model, stock_of, to_stock

PEFT_BIASES = {ours: theirs for theirs, ours in BIASES.items()}
BASE_FOLDER = "base_model"
EMBEDDINGS = ["word_embeddings", "position_embeddings", "token_type_embeddings"]


def merge(folder: Path, out: Path) -> str:
    """Write an equivalent plain transformers folder, including the tokenizer.

    The result is loaded again and must give the same outputs before the folder appears.

    Args:
        folder: folder of the adapter.
        out: folder to write to.

    Returns:
        Name of the transformers class that loads it.

    Raises:
        AdapterError: the method's modules cannot be merged into weights, transformers has no such
            head, or the written model gives different outputs.
    """
    model, spec, method = load_model(folder)
    expected = probe(model)
    try:
        if isinstance(method, Peft):
            method.tuner.merge_and_unload()
        for layer in lora_layers(model):
            layer.merge()
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise AdapterError(f"method={spec.method.name}: cannot be merged: {error}") from None
    plain = stock_model(plain_encoder(model), model.head, spec)
    with whole_folder(out) as part:
        plain.save_pretrained(part)
        load_tokenizer(spec.model).save_pretrained(part)
        check_same(out, expected, _loaded(spec, str(part)))
    return stock_of(spec.task).model


def export_peft(folder: Path, out: Path) -> None:
    """Write a LoRA adapter as a PEFT folder for ``PeftModel.from_pretrained``.

    A base model that transformers does not load as a RoBERTa (a BERT, a random one) is written to
    ``out/base_model``. The result is loaded by PEFT and must give the same outputs before the
    folder appears.

    Args:
        folder: folder of the adapter.
        out: folder to write to.

    Raises:
        AdapterError: the method has no LoRA layers of this project, the head is the article's, or
            the written adapter gives different outputs.
        UserError: PEFT is not installed.
    """
    peft = require("peft", "peft", "a PEFT folder")
    model, spec, _ = load_model(folder)
    adapters = adapter_parameters(model).keys()
    if not adapters or any(not name.endswith((".lora_a", ".lora_b")) for name in adapters):
        raise AdapterError(
            f"method={spec.method.name}: a PEFT LoRA folder is written from this project's LoRA "
            "layers alone, not from those of PEFT and not with other trained modules"
        )
    expected = probe(model)
    with whole_folder(out) as part:
        base = _base(spec, part)
        inside = base == str(part / BASE_FOLDER)
        stated = str((out / BASE_FOLDER).absolute()) if inside else base
        # PEFT would look at the base model to find out whether its embeddings were resized
        _as_peft(peft, model, spec, stated).save_pretrained(part, save_embedding_layers=False)
        with _peft_quiet():
            again = peft.PeftModel.from_pretrained(_loaded(spec, base), part)
        check_same(out, expected, again)


def _as_peft(peft: Any, model: LoraWrapperRoberta, spec: Spec, base: str) -> Any:
    """The model as a PEFT model with the adapter's values; removes LoraLinear from ``model``."""
    stock = stock_of(spec.task)
    state = {to_stock(name, stock): tensor for name, tensor in model.trained_state().items()}
    config = _lora_config(peft, spec.method, model, stock)
    target = stock_model(plain_encoder(model), model.head, spec)
    target.name_or_path = base  # PEFT takes the base model's name from here
    with _peft_quiet():
        wrapped = peft.get_peft_model(target, config)
    with torch.no_grad():
        for name, parameter in wrapped.base_model.model.named_parameters():
            ours = name.replace(".lora_A.default.weight", ".lora_a").replace(
                ".lora_B.default.weight", ".lora_b"
            )
            if ours != name:
                parameter.copy_(state[ours])
    return wrapped


def _loaded(spec: Spec, source: str) -> PreTrainedModel:
    """A saved model or a base model, as the transformers class for the task."""
    stock = stock_of(spec.task)
    with quiet():
        return getattr(transformers, stock.model).from_pretrained(
            source, trust_remote_code=False, dtype=torch.float32, **stock.config
        )


def _lora_config(peft: Any, method: MethodSpec, model: LoraWrapperRoberta, stock: Stock) -> Any:
    """The LoraConfig of an adapter; ``model`` still has its LoraLinear layers."""
    layers = model.encoder.named_modules()
    return peft.LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        use_rslora=method.rank_stabilized,
        lora_dropout=method.dropout,
        target_modules=[name for name, layer in layers if isinstance(layer, LoraLinear)],
        bias=PEFT_BIASES[method.biases],
        task_type=stock.peft,
        modules_to_save=[
            stock.head,
            *["LayerNorm"] * method.layer_norms,
            *EMBEDDINGS * method.embeddings,
        ],
    )


@contextmanager
def _peft_quiet() -> Iterator[None]:
    """Inside the block, transformers does not warn about its own functions that PEFT calls."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def _base(spec: Spec, out: Path) -> str:
    """The base model of a PEFT folder: its source, or a copy next to it in RoBERTa's layout."""
    source = spec.model.source
    if stock_architecture(spec.model):
        of_hub = not source.startswith("package:") and not expanded(source).is_dir()
        return source if of_hub else str(locate(spec.model).absolute())
    base = load_encoder(spec.model, dropout=0.0)
    base.config.architectures = None
    base.save_pretrained(out / BASE_FOLDER)
    load_tokenizer(spec.model).save_pretrained(out / BASE_FOLDER)
    return str(out / BASE_FOLDER)
