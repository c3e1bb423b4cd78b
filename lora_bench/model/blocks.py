"""The modules of one encoder layer in all runs, and what the encoder pass can do with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn
from transformers import RobertaModel
from transformers.models.roberta.modeling_roberta import (
    RobertaIntermediate,
    RobertaLayer,
    RobertaOutput,
    RobertaSelfAttention,
    RobertaSelfOutput,
)

from .dropout import Dropout
from .lora import LoraRobertaSelfAttention
from .projection import hooked, shared

Output = RobertaSelfOutput | RobertaOutput


@dataclass(frozen=True)
class Blocks:
    """The modules of one layer, for every run."""

    layers: list[RobertaLayer]
    attentions: list[RobertaSelfAttention]
    attention_outputs: list[RobertaSelfOutput]
    intermediates: list[RobertaIntermediate]
    outputs: list[RobertaOutput]

    @classmethod
    def of(cls, encoders: Sequence[RobertaModel], index: int) -> "Blocks":
        """The modules of a layer."""
        layers = [encoder.encoder.layer[index] for encoder in encoders]
        return cls(
            layers,
            [layer.attention.self for layer in layers],
            [layer.attention.output for layer in layers],
            [layer.intermediate for layer in layers],
            [layer.output for layer in layers],
        )

    @cached_property
    def standard(self) -> bool:
        """Whether no method has replaced the attention."""
        known = (RobertaSelfAttention, LoraRobertaSelfAttention)
        return all(type(attention) in known for attention in self.attentions)


def linears_of(blocks: Sequence[RobertaIntermediate]) -> list[list[nn.Linear]] | None:
    """The linear layer of each run; None: a block is not transformers' own, or has hooks."""
    if any(type(block) is not RobertaIntermediate or hooked(block) for block in blocks):
        return None
    return [[block.dense] for block in blocks]


@dataclass(frozen=True)
class End:
    """What is known of one output block of all runs.

    Attributes:
        standard: whether each is transformers' own, without hooks.
        one_norm: whether their dropout and LayerNorm are, too, and the runs share the latter.
        linears: the linear layer of each run, if they are standard.
    """

    standard: bool
    one_norm: bool
    linears: list[list[nn.Linear]]


def end_of(blocks: Sequence[Output]) -> End:
    """What is known of an output block of all runs."""
    if not all(map(is_standard, blocks)):
        return End(False, False, [])
    one = all(map(is_fusible, blocks)) and _shared_norm([block.LayerNorm for block in blocks])
    return End(True, one, [[block.dense] for block in blocks])


def is_standard(block: Output) -> bool:
    """Whether an output block is transformers' own, without hooks."""
    return type(block) in (RobertaSelfOutput, RobertaOutput) and not hooked(block)


def is_fusible(block: Output) -> bool:
    """Whether the dropout and the LayerNorm of an output block are the ordinary ones."""
    return type(block.dropout) in (nn.Dropout, Dropout) and type(block.LayerNorm) is nn.LayerNorm


def _shared_norm(norms: Sequence[nn.LayerNorm]) -> bool:
    return shared([norm.weight for norm in norms]) and shared([norm.bias for norm in norms])
