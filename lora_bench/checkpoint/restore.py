"""From an adapter folder to a model, and from a model to a transformers class."""

from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, RobertaModel

from ..errors import SpecError, first_line
from ..methods import Method, check_method, get_method
from ..model.build import build
from ..model.lora import LoraLinear
from ..model.streams import Streams
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, TaskSpec
from ..tasks import Stock, make_task
from . import load_adapter
from .base_model import is_quantized
from .facts import FACTS, WEIGHTS, AdapterError, spec_of
from .tensors import read_safetensors

# Settings of an encoder that change how a model is called, not what it computes.
PLAIN_CONFIG = {"chunk_size_feed_forward": 0, "output_attentions": False, "return_dict": True}


def load_model(folder: Path) -> tuple[LoraWrapperRoberta, Spec, Method]:
    """The model of an adapter folder, in evaluation mode, with its spec and its method.

    Raises:
        UserError: the adapter does not fit, or its base model cannot be loaded.
    """
    spec = spec_of(folder)
    largest = max((max(t.shape, default=0) for t in _tensors_of(folder)), default=0)
    if (spec.method.rank or 0) > largest:  # before memory is allocated for it
        raise AdapterError(
            f"{folder / FACTS}: method.rank={spec.method.rank}: {WEIGHTS} has no such dimension"
        )
    model, method = build_model(spec, folder / FACTS)
    load_adapter(folder, model)
    return model.eval(), spec, method


def _tensors_of(folder: Path) -> Iterable[Tensor]:
    return read_safetensors(folder / WEIGHTS).values()


def build_model(spec: Spec, origin: Path) -> tuple[LoraWrapperRoberta, Method]:
    """The model that a file describes, before its adapter is loaded, and its method.

    Args:
        spec: as the file states it.
        origin: the file, for messages.

    Raises:
        UserError: a setting is wrong, or the base model cannot be loaded.
    """
    try:
        spec.check()
        check_method(spec)
        method = get_method(spec.method)
        return build(spec, make_task(spec.task), method, Streams(spec.seed)), method
    except SpecError as error:
        raise AdapterError(f"{origin}: {error}") from None
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise AdapterError(
            f"{origin}: no model can be built from it: {first_line(error)}"
        ) from None


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
    """Name of one of our parameters in a transformers class."""
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
    """Encoder and head as a transformers model.

    Raises:
        AdapterError: they have parameters that the transformers class lacks.
    """
    if spec.head != "standard":
        raise AdapterError(f"head={spec.head}: transformers has no such head; must be standard")
    stock = stock_of(spec.task)
    settings = {k: v for k, v in encoder.config.to_dict().items() if k != "architectures"}
    config = type(encoder.config)(**settings)
    for name, value in {**PLAIN_CONFIG, **stock.config}.items():
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
    if is_quantized(model):
        raise AdapterError(
            "a 4-bit base is not a plain model; the adapter fits the unquantized one too: write "
            f'"file": "lora" below "method" in a copy of its {FACTS}'
        )
    for name, layer in list(model.encoder.named_modules()):
        if isinstance(layer, LoraLinear):
            linear = nn.Linear(
                layer.in_features, layer.out_features, layer.bias is not None, device="meta"
            )
            linear.weight, linear.bias = layer.weight, layer.bias
            model.encoder.set_submodule(name, linear)
    return model.encoder
