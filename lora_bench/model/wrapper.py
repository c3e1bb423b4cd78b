"""LoraWrapperRoberta: an encoder, a task head and a freezing policy."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import RobertaModel

from ..spec import ModelSpec
from .dropout import DropoutStream, use_stream
from .encoder import load_encoder
from .forward import EncoderPass
from .heads import HEADS
from .lora import LoraLinear, adapter_parameters, inject_lora
from .packing import Batch

GROUPS = ("adapter", "head", "bias", "norm", "other")
TASK_TYPES = {
    "glue": ("text", None),
    "squad_v1": ("span", 2),
    "squad_v2": ("span", 3),
}  # kind, the article's outputs


@dataclass(frozen=True)
class FreezePolicy:
    """Which of the encoder's own parameters are trained; adapter and head always are.

    biases: ``none``, ``adapted`` (of linear layers with a low-rank update) or ``all`` (LayerNorms' too, as BitFit);
    layer_norms: LayerNorm weights and biases; embeddings: word, position and token-type tables.
    """

    biases: str = "none"
    layer_norms: bool = False
    embeddings: bool = False

    def apply(self, model: "LoraWrapperRoberta") -> None:
        """Set ``requires_grad`` of every parameter of the model."""
        model.requires_grad_(False)
        model.head.requires_grad_(True)
        for parameter in adapter_parameters(model).values():
            parameter.requires_grad_(True)
        for module in model.encoder.modules():
            bias = getattr(module, "bias", None)
            adapted = isinstance(module, LoraLinear)
            if isinstance(bias, nn.Parameter) and (
                self.biases == "all" or (self.biases == "adapted" and adapted)
            ):
                bias.requires_grad_(True)
            if isinstance(module, nn.LayerNorm) and self.layer_norms:
                module.requires_grad_(True)
            if isinstance(module, nn.Embedding) and self.embeddings:
                module.requires_grad_(True)


class LoraWrapperRoberta(nn.Module):
    """A RoBERTa encoder with a head on top. The article's call works as printed there.

    Args:
        task_type: ``glue`` (one output row for each example), ``squad_v1`` or ``squad_v2`` (one for each token).
        num_classes: of ``glue``: classes, 1 for regression. SQuAD's number is known: 2, the article's head for v2: 3.
        dropout_rate: of hidden states, attention and head.
        model_id: hub id or folder, or an encoder that is loaded already.
        lora_rank: rank of the update on query and value, with alpha = rank and A ~ N(0, 1) as in the article; None: no
            update, every parameter trainable, which is what a method under ``lora_bench/methods/`` starts from.
        train_biases, train_embedding, train_layer_norms: the freezing policy, used when ``lora_rank`` is given.
        head: ``article`` or ``standard`` (transformers' own).
        dtype: of the encoder's matrix products; None: the parameters' own. The head's is its own.
    """

    def __init__(
        self,
        task_type: str = "glue",
        num_classes: int | None = None,
        dropout_rate: float = 0.1,
        model_id: str | Path | RobertaModel = "FacebookAI/roberta-base",
        lora_rank: int | None = 8,
        train_biases: bool = True,
        train_embedding: bool = False,
        train_layer_norms: bool = True,
        *,
        head: str = "article",
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if task_type not in TASK_TYPES:
            raise ValueError(f"task_type={task_type}: must be one of {', '.join(TASK_TYPES)}")
        self.kind, known = TASK_TYPES[task_type]
        if known is None and num_classes is None:
            raise ValueError(f"num_classes=None: task_type={task_type} needs the number of classes")
        if isinstance(model_id, RobertaModel):
            self.encoder = model_id
        else:
            self.encoder = load_encoder(
                ModelSpec(name=str(model_id), source=str(model_id)), dropout=dropout_rate
            )
        self.head = HEADS[self.kind, head](
            self.encoder.config.hidden_size, known or num_classes, dropout_rate
        )
        if lora_rank is not None:
            inject_lora(self.encoder, rank=lora_rank, alpha=float(lora_rank), init="gaussian")
            policy = FreezePolicy(
                "all" if train_biases else "none", train_layer_norms, train_embedding
            )
            policy.apply(self)
        self.stream: DropoutStream | None = None
        self.encode = EncoderPass(self.encoder, dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a packed batch: (B, num_classes), or (T, 2 or 3) for SQuAD."""
        hidden = self.encode(batch, self.stream, first_only=self.kind == "text")  # (B or T, D)
        return self.head(hidden.to(next(self.head.parameters()).dtype))

    def use_stream(self, stream: DropoutStream) -> None:
        """Take every dropout mask of encoder and head from ``stream``."""
        self.stream = stream
        use_stream(self, stream)

    def trained_state(self) -> dict[str, Tensor]:
        """Every trained parameter and every adapter parameter, a frozen one too, by name: what an adapter file holds."""
        adapters = {id(p) for p in adapter_parameters(self).values()}
        return {
            name: p.detach()
            for name, p in self.named_parameters()
            if p.requires_grad or id(p) in adapters
        }

    def parameter_table(self) -> pd.DataFrame:
        """One row for each parameter: group, name, shape, count, trained."""
        adapters = {id(p) for p in adapter_parameters(self).values()}
        norms = {
            id(p)
            for m in self.encoder.modules()
            if isinstance(m, nn.LayerNorm)
            for p in m.parameters()
        }

        def group(name: str, parameter: nn.Parameter) -> str:
            if id(parameter) in adapters:
                return "adapter"
            if name.startswith("head."):
                return "head"
            if id(parameter) in norms:
                return "norm"
            return "bias" if name.endswith(".bias") else "other"

        def shape(parameter: nn.Parameter) -> tuple[int, ...]:
            packed = getattr(
                parameter, "quant_state", None
            )  # bitsandbytes packs two 4-bit weights into a byte
            return tuple(packed.shape if packed is not None else parameter.shape)

        rows = [
            (group(name, p), name, shape(p), math.prod(shape(p)), p.requires_grad)
            for name, p in self.named_parameters()
        ]
        return pd.DataFrame(rows, columns=["group", "name", "shape", "count", "trained"])

    def parameter_text(self) -> str:
        """The parameter table for people: a block for each group, with what is trained of it."""
        table, blocks = self.parameter_table(), []
        for group in GROUPS:
            rows = table[table.group == group].drop(columns="group")
            trained = rows.loc[rows.trained, "count"].sum()
            shown = rows.assign(trained=rows.trained.map({True: "yes", False: "no"}))
            blocks.append(f"{group}: {trained:,} of {rows['count'].sum():,} trained")
            if len(rows):
                blocks.append(shown.to_markdown(index=False, intfmt=","))
        counts = self.parameter_counts()
        return (
            "\n\n".join([*blocks, f"all: {counts['trained']:,} of {counts['total']:,} trained"])
            + "\n"
        )

    def parameter_counts(self) -> dict[str, int]:
        """Trained parameters of each group, with ``trained`` and ``total`` over all of them."""
        table = self.parameter_table()
        trained = table[table.trained]
        counts = {name: int(trained.loc[trained.group == name, "count"].sum()) for name in GROUPS}
        return {
            **counts,
            "trained": int(trained["count"].sum()),
            "total": int(table["count"].sum()),
        }
