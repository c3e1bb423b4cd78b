"""From an adapter folder to a model, and from a model to a class of transformers."""

from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, RobertaModel

from ..methods import Method, get_method
from ..model.build import build
from ..model.lora import LoraLinear
from ..model.streams import Streams
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, TaskSpec
from ..tasks import Stock, make_task
from . import AdapterError, load_adapter, spec_of


def load_model(folder: Path) -> tuple[LoraWrapperRoberta, Spec, Method]:
    """The model of an adapter folder, in evaluation mode, with its spec and its method.

    Raises:
        UserError: the adapter does not fit, or its base model cannot be loaded.
    """
    spec = spec_of(folder)
    method = get_method(spec.method)
    model = build(spec, make_task(spec.task), method, Streams(spec.seed))
    load_adapter(folder, model)
    return model.eval(), spec, method


def stock_of(task: TaskSpec) -> Stock:
    """transformers' counterpart of a task's model.

    Raises:
        AdapterError: transformers has none.
    """
    stock = make_task(task).stock
    if stock is None:
        raise AdapterError(f"task.kind={task.kind}: transformers has no model for such a task")
    return stock


def to_stock(name: str, stock: Stock) -> str:
    """Name of one of our parameters in a class of transformers."""
    if name.startswith("encoder."):
        return f"roberta.{name.removeprefix('encoder.')}"
    return f"{stock.head}.{name.removeprefix('head.')}"


def from_stock(name: str, stock: Stock) -> str | None:
    """The inverse of ``to_stock``; None for a name that belongs to neither encoder nor head."""
    if name.startswith("roberta."):
        return f"encoder.{name.removeprefix('roberta.')}"
    prefix = f"{stock.head}."
    return f"head.{name.removeprefix(prefix)}" if name.startswith(prefix) else None


def stock_model(encoder: RobertaModel, head: nn.Module, spec: Spec) -> PreTrainedModel:
    """Encoder and head as a model of transformers.

    Raises:
        AdapterError: they have parameters that transformers' class lacks.
    """
    if spec.head != "standard":
        raise AdapterError(f"head={spec.head}: transformers has no such head; must be standard")
    stock = stock_of(spec.task)
    settings = {k: v for k, v in encoder.config.to_dict().items() if k != "architectures"}
    config = type(encoder.config)(**settings)
    for name, value in stock.config.items():
        setattr(config, name, value)
    model = getattr(transformers, stock.model)(config)
    state: dict[str, Tensor] = {}
    for part, module in (("encoder", encoder), ("head", head)):
        for name, tensor in module.state_dict().items():
            state[to_stock(f"{part}.{name}", stock)] = tensor
    if extra := sorted(state.keys() - model.state_dict().keys()):
        raise AdapterError(
            f"method={spec.method.name}: a stock RoBERTa has no {', '.join(extra[:3])} ..."
        )
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def plain_encoder(model: LoraWrapperRoberta) -> RobertaModel:
    """The encoder with every LoraLinear replaced by a linear layer with the same base weights.

    An update that is not merged into the weights is lost.

    Raises:
        AdapterError: the base model is quantized.
    """
    if not all(parameter.is_floating_point() for parameter in model.encoder.parameters()):
        raise AdapterError(
            "a 4-bit base is no plain model; the adapter fits the unquantized one too: "
            "method.file=lora"
        )
    for name, layer in list(model.encoder.named_modules()):
        if isinstance(layer, LoraLinear):
            linear = nn.Linear(
                layer.in_features, layer.out_features, layer.bias is not None, device="meta"
            )
            linear.weight, linear.bias = layer.weight, layer.bias
            model.encoder.set_submodule(name, linear)
    return model.encoder
