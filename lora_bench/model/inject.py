"""Puts low-rank updates into an encoder, finds them, and switches them off."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import BertModel, PreTrainedModel, RobertaModel

from ..checks import TARGETS
from .lora import LoraLinear, LoraRobertaSelfAttention

ATTENTION_TARGETS = ("query", "key", "value")
MODULES = {  # target -> module within its layer
    **{name: f"attention.self.{name}" for name in ATTENTION_TARGETS},
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


def inject_lora(
    model: PreTrainedModel,
    *,
    targets: Sequence[str] = ("query", "value"),
    layers: Sequence[int] | None = None,
    **lora: Any,
) -> list[str]:
    """Give the encoder's linear layers a low-rank update, in place.

    The caller decides what is trained: freeze the model, then set ``requires_grad`` of
    :func:`adapter_parameters` and of the head.

    Args:
        model: an encoder, or any model of transformers with one RoBERTa or BERT inside.
        targets: among query, key, value, attention_output, intermediate, output.
        layers: indices; None: all of them.
        lora: rank, alpha, dropout, init, rank_stabilized of :class:`LoraLinear`.

    Returns:
        Names of the adapted modules.

    Raises:
        ValueError: no encoder or several, an unknown target, a layer that does not exist, or one
            that is not a plain linear layer, such as one with an update already.
    """
    encoder = encoder_in(model)
    attention = [name for name in targets if name in ATTENTION_TARGETS]
    paths = target_modules(encoder, targets, layers)
    for path in paths:
        layer = encoder.get_submodule(path)
        if isinstance(layer, LoraLinear):
            raise ValueError(f"{path}: has a low-rank update already")
        if type(layer) is not nn.Linear:  # the parts of another layer would be lost
            raise ValueError(f"{path}: is a {type(layer).__name__}; must be a plain linear layer")
    for path in paths:
        parent, _, name = path.rpartition(".")
        if name == "dense":
            module: Any = encoder.get_submodule(parent)
            module.dense = LoraLinear.from_linear(module.dense, **lora)
        elif isinstance(encoder, BertModel):
            own: Any = encoder.get_submodule(parent)
            setattr(own, name, LoraLinear.from_linear(getattr(own, name), **lora))
        elif name == attention[0]:  # one attention module takes all its projections at once
            block: Any = encoder.get_submodule(parent.removesuffix(".self"))
            block.self = LoraRobertaSelfAttention.from_attention(block.self, attention, **lora)
    return [name for name, module in model.named_modules() if isinstance(module, LoraLinear)]


def encoder_in(model: nn.Module) -> RobertaModel | BertModel:
    """The RoBERTa or BERT encoder inside a model; the model itself where it is one.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = [part for part in model.modules() if isinstance(part, RobertaModel | BertModel)]
    if len(found) != 1:
        name = type(model).__name__
        raise ValueError(f"{name}: must have one RobertaModel or BertModel, has {len(found)}")
    return found[0]


def target_modules(
    encoder: RobertaModel | BertModel, targets: Iterable[str], layers: Iterable[int] | None = None
) -> list[str]:
    """Full names of the linear layers behind ``targets``, layer by layer.

    Args:
        encoder: the encoder to look in.
        targets: among query, key, value, attention_output, intermediate, output.
        layers: indices; None: all of them.

    Raises:
        ValueError: an unknown target, or a layer that the encoder does not have.
    """
    targets = list(targets)
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown:
        raise ValueError(f"targets={unknown}: must be among {', '.join(TARGETS)}")
    count = len(encoder.encoder.layer)
    chosen = list(range(count)) if layers is None else list(layers)
    outside = [index for index in chosen if not 0 <= index < count]
    if outside:
        raise ValueError(f"layers={outside}: this encoder has layers 0 to {count - 1}")
    return [f"encoder.layer.{index}.{MODULES[target]}" for index in chosen for target in targets]


def lora_layers(model: nn.Module) -> Iterator[LoraLinear]:
    """Every LoraLinear of the model."""
    return (module for module in model.modules() if isinstance(module, LoraLinear))


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that modules declare in ``adapter_names``, by their full name."""
    return {
        f"{path}.{name}".lstrip("."): module.get_parameter(name)
        for path, module in model.named_modules()
        for name in getattr(module, "adapter_names", ())
    }


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Inside the block, every LoraLinear computes its base layer only.

    Raises:
        RuntimeError: a layer is merged.
    """
    layers = list(lora_layers(model))
    if any(layer.merged for layer in layers):
        raise RuntimeError("a merged adapter cannot be switched off: unmerge first")
    before = [layer.enabled for layer in layers]
    try:
        for layer in layers:
            layer.enabled = False
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.enabled = enabled
