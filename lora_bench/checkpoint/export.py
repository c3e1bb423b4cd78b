"""Our adapters for other projects: a PEFT folder, or a plain model of transformers."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..methods import require
from ..methods.peft import Peft
from ..model.encoder import load_encoder, load_tokenizer, stock_architecture
from ..model.lora import LoraLinear, adapter_parameters, lora_layers
from ..model.source import locate
from ..model.wrapper import LoraWrapperRoberta
from ..spec import MethodSpec, Spec
from ..tasks import Stock
from . import AdapterError
from .restore import load_model, plain_encoder, stock_model, stock_of, to_stock

PEFT_BIASES = {"none": "none", "adapted": "lora_only", "all": "all"}


def merge(folder: Path, out: Path) -> str:
    """Write a plain transformers folder that computes the same, tokenizer included.

    Args:
        folder: of the adapter.
        out: to write to.

    Returns:
        Name of the class of transformers that loads it.

    Raises:
        AdapterError: the method's modules cannot be merged into weights, or transformers has no
            such head.
    """
    model, spec, method = load_model(folder)
    try:
        if isinstance(method, Peft):
            method.tuner.merge_and_unload()
        for layer in lora_layers(model):
            layer.merge()
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise AdapterError(f"method={spec.method.name}: cannot be merged: {error}") from None
    stock_model(plain_encoder(model), model.head, spec).save_pretrained(out)
    load_tokenizer(spec.model).save_pretrained(out)
    return stock_of(spec.task).model


def export_peft(folder: Path, out: Path) -> None:
    """Write a LoRA adapter as a PEFT folder for ``PeftModel.from_pretrained``.

    A base model that transformers does not load as a RoBERTa (a BERT, a random one) is written to
    ``out/base_model``.

    Args:
        folder: of the adapter.
        out: to write to.

    Raises:
        AdapterError: another method than LoRA, trained embeddings, or the article's head.
        UserError: PEFT is not installed.
    """
    peft = require("peft", "peft", "a PEFT folder")
    model, spec, _ = load_model(folder)
    adapters = adapter_parameters(model).keys()
    if not adapters or any(not name.endswith((".lora_a", ".lora_b")) for name in adapters):
        raise AdapterError(
            f"method={spec.method.name}: only an adapter of plain LoRA layers can be a PEFT LoRA "
            "folder"
        )
    if spec.method.embeddings:
        raise AdapterError(
            "method.embeddings=True: a PEFT LoRA folder cannot hold trained embeddings"
        )
    stock = stock_of(spec.task)
    state = {to_stock(name, stock): tensor for name, tensor in model.trained_state().items()}
    config = _lora_config(peft, spec.method, model, stock)
    target = stock_model(plain_encoder(model), model.head, spec)
    target.name_or_path = _base(spec, out)  # from where PEFT takes the base model's name
    wrapped = _wrapped(peft, target, config)
    with torch.no_grad():
        for name, parameter in wrapped.base_model.model.named_parameters():
            ours = name.replace(".lora_A.default.weight", ".lora_a").replace(
                ".lora_B.default.weight", ".lora_b"
            )
            if ours != name:
                parameter.copy_(state[ours])
    wrapped.save_pretrained(out)


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
        modules_to_save=[stock.head, *["LayerNorm"] * method.layer_norms],
    )


def _wrapped(peft: Any, target: PreTrainedModel, config: Any) -> Any:
    with warnings.catch_warnings():
        # transformers warns about functions that PEFT calls
        warnings.filterwarnings("ignore", category=FutureWarning)
        return peft.get_peft_model(target, config)


def _base(spec: Spec, out: Path) -> str:
    """The base model of a PEFT folder: its source, or a copy beside it in RoBERTa's layout."""
    source = spec.model.source
    if stock_architecture(spec.model):
        of_hub = not source.startswith("package:") and not Path(source).expanduser().is_dir()
        return source if of_hub else str(locate(spec.model))
    base = load_encoder(spec.model, dropout=0.0)
    base.config.architectures = None
    base.save_pretrained(out / "base_model")
    load_tokenizer(spec.model).save_pretrained(out / "base_model")
    return str(out / "base_model")
