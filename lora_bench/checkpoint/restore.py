"""From an adapter folder back to a model, and from a model to transformers' own classes."""

from pathlib import Path

import torch
from torch import nn
from transformers import RobertaForQuestionAnswering, RobertaForSequenceClassification, RobertaModel

from ..methods import Method, get_method
from ..model.lora import LoraLinear
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec
from ..tasks import make_task
from ..training.run import build
from . import AdapterError, load_adapter, spec_of

STOCK_HEADS = {
    "text": ("classifier.", RobertaForSequenceClassification),
    "span": ("qa_outputs.", RobertaForQuestionAnswering),
}


def load_model(folder: Path) -> tuple[LoraWrapperRoberta, Spec, Method]:
    """The model behind an adapter folder, in evaluation mode, with what is known of its spec and its method.

    Raises: UserError: the adapter does not fit, or its base model cannot be had.
    """
    spec = spec_of(folder)
    model, method = build(spec, make_task(spec.task), get_method(spec.method))
    load_adapter(folder, model)
    return model.eval(), spec, method


def to_stock(name: str, kind: str) -> str:
    """Name of one of our parameters in transformers' RobertaForSequenceClassification or -QuestionAnswering."""
    prefix = STOCK_HEADS[kind][0]
    return (
        f"roberta.{name.removeprefix('encoder.')}"
        if name.startswith("encoder.")
        else prefix + name[len("head.") :]
    )


def from_stock(name: str, kind: str) -> str | None:
    """The way back; None for a name that belongs to neither encoder nor head."""
    prefix = STOCK_HEADS[kind][0]
    if name.startswith("roberta."):
        return "encoder." + name.removeprefix("roberta.")
    return "head." + name.removeprefix(prefix) if name.startswith(prefix) else None


def stock_model(encoder: RobertaModel, head: nn.Module, spec: Spec) -> nn.Module:
    """Encoder and head in transformers' own class. Raises: AdapterError: parts of ours that it has no place for."""
    if spec.head != "standard":
        raise AdapterError(f"head={spec.head}: transformers has no such head; must be standard")
    config = type(encoder.config)(
        **{k: v for k, v in encoder.config.to_dict().items() if k != "architectures"}
    )
    if spec.task.kind == "text":
        labels = spec.task.labels or [spec.task.name]
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        config.problem_type = "single_label_classification" if spec.task.labels else "regression"
    stock = STOCK_HEADS[spec.task.kind][1](config)
    state = {f"encoder.{n}": t for n, t in encoder.state_dict().items()} | {
        f"head.{n}": t for n, t in head.state_dict().items()
    }
    state = {to_stock(name, spec.task.kind): tensor for name, tensor in state.items()}
    if extra := sorted(state.keys() - stock.state_dict().keys()):
        raise AdapterError(
            f"method={spec.method.name}: a stock RoBERTa has no place for {', '.join(extra[:3])} ..."
        )
    stock.load_state_dict(state)
    return stock.eval()


@torch.no_grad()
def plain_encoder(model: LoraWrapperRoberta) -> RobertaModel:
    """The encoder with a plain linear layer, of the same weights, for each LoraLinear: what is not merged is dropped.

    Raises: AdapterError: a quantised base.
    """
    if not all(parameter.is_floating_point() for parameter in model.encoder.parameters()):
        raise AdapterError(
            "a 4-bit base is no plain model; the adapter fits the unquantised one too: method.file=lora"
        )
    for name, layer in list(model.encoder.named_modules()):
        if isinstance(layer, LoraLinear):
            linear = nn.Linear(
                layer.in_features, layer.out_features, layer.bias is not None, device="meta"
            )
            linear.weight, linear.bias = layer.weight, layer.bias
            model.encoder.set_submodule(name, linear)
    return model.encoder
