"""Our adapters for other people: a PEFT folder, or a plain transformers model with the adapter merged in."""

import warnings
from pathlib import Path

import torch

from ..methods import require
from ..methods.peft import Peft
from ..model.encoder import load_encoder, load_tokenizer, resolve, stock_architecture
from ..model.lora import LoraLinear, adapter_parameters, lora_layers
from ..spec import Spec
from . import AdapterError
from .restore import STOCK_HEADS, load_model, plain_encoder, stock_model, to_stock

PEFT_TASKS = {"text": "SEQ_CLS", "span": "QUESTION_ANS"}
PEFT_BIASES = {"none": "none", "adapted": "lora_only", "all": "all"}


def merge(folder: Path, out: Path) -> None:
    """Write a plain transformers folder that does what base model and adapter do together; tokenizer included.

    Raises: AdapterError: a method whose modules cannot be merged into weights, or the article's head.
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


def export_peft(folder: Path, out: Path) -> None:
    """Write a LoRA adapter as a PEFT folder, which ``PeftModel.from_pretrained`` loads onto the base model it names.

    A base model that transformers would not load as a RoBERTa (a BERT, a random one) is written to ``out/base_model``.
    Raises: AdapterError: another method than LoRA, trained embeddings, or the article's head; UserError: no PEFT.
    """
    peft = require("peft", "peft", "a PEFT folder")
    model, spec, _ = load_model(folder)
    adapters = adapter_parameters(model).keys()
    if not adapters or any(not name.endswith((".lora_a", ".lora_b")) for name in adapters):
        raise AdapterError(
            f"method={spec.method.name}: only an adapter of plain LoRA layers can be a PEFT LoRA folder"
        )
    if spec.method.embeddings:
        raise AdapterError(
            "method.embeddings=True: a PEFT LoRA folder has no place for trained embeddings"
        )
    state = {
        to_stock(name, spec.task.kind): tensor for name, tensor in model.trained_state().items()
    }
    config = peft.LoraConfig(
        r=spec.method.rank,
        lora_alpha=spec.method.alpha,
        use_rslora=spec.method.rank_stabilized,
        lora_dropout=spec.method.dropout,
        target_modules=[
            name for name, layer in model.encoder.named_modules() if isinstance(layer, LoraLinear)
        ],
        bias=PEFT_BIASES[spec.method.biases],
        task_type=PEFT_TASKS[spec.task.kind],
        modules_to_save=[
            STOCK_HEADS[spec.task.kind][0].rstrip("."),
            *["LayerNorm"] * spec.method.layer_norms,
        ],
    )
    stock = stock_model(plain_encoder(model), model.head, spec)
    stock.name_or_path = _base(spec, out)  # from where PEFT takes the base model's name
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=FutureWarning
        )  # of transformers, about what PEFT calls
        wrapped = peft.get_peft_model(stock, config)
    with torch.no_grad():
        for name, parameter in wrapped.base_model.model.named_parameters():
            ours = name.replace(".lora_A.default.weight", ".lora_a").replace(
                ".lora_B.default.weight", ".lora_b"
            )
            if ours != name:
                parameter.copy_(state[ours])
    wrapped.save_pretrained(out)


def _base(spec: Spec, out: Path) -> str:
    """What a PEFT folder names as its base: where ours came from, or a copy beside it in RoBERTa's own layout."""
    if stock_architecture(spec.model):
        return resolve(spec.model.source)
    torch.manual_seed(spec.seed)  # as run.build does: a random base is another one for each seed
    base = load_encoder(spec.model, dropout=0.0)
    base.config.architectures = None
    base.save_pretrained(out / "base_model")
    load_tokenizer(spec.model).save_pretrained(out / "base_model")
    return str(out / "base_model")
