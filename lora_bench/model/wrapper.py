"""LoraWrapperRoberta: an encoder, a task head and a freezing policy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import RobertaModel

from ..spec import ModelSpec
from .dropout import DropoutStream, use_stream
from .encoder import check_plain, first_position, load_encoder
from .forward import EncoderPass
from .heads import HEADS
from .inject import adapter_parameters, inject_lora
from .lora import LoraLinear
from .packing import Batch

# task_type of the article -> level of the head, and its number of outputs if fixed
TASK_TYPES = {"glue": ("sequence", None), "squad_v1": ("token", 2), "squad_v2": ("token", 3)}


@dataclass(frozen=True)
class FreezePolicy:
    """Which of the encoder's own parameters are trained; adapter and head always are.

    Attributes:
        biases: ``none``, ``adapted`` (of linear layers with a low-rank update) or ``all``
            (LayerNorms' too, as BitFit).
        layer_norms: LayerNorm weights and biases.
        embeddings: word, position and token-type tables.
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
            wanted = self.biases == "all" or (
                self.biases == "adapted" and isinstance(module, LoraLinear)
            )
            if isinstance(bias, nn.Parameter) and wanted:
                bias.requires_grad_(True)
            if isinstance(module, nn.LayerNorm) and self.layer_norms:
                module.requires_grad_(True)
            if isinstance(module, nn.Embedding) and self.embeddings:
                module.requires_grad_(True)


class LoraWrapperRoberta(nn.Module):
    """A RoBERTa encoder with a head on top. The call in the article works as printed.

    It is an ordinary PyTorch module: call it with padded ``input_ids`` and ``attention_mask``,
    train it in a loop of your own, also under ``torch.autocast`` to bf16, and save its
    ``state_dict``. This project calls it with packed batches, which computes the same without
    padding. Forward hooks on the encoder as a whole, its layers, attention blocks, LayerNorms and
    dropouts are not called, because their work is done in fewer steps.

    Args:
        task_type: ``glue`` (one output row per example), ``squad_v1`` or ``squad_v2`` (one row per
            token).
        num_classes: number of classes for ``glue``, 1 for regression. Not needed for SQuAD,
            which has 2 outputs, or 3 with the article's head for v2.
        dropout_rate: dropout of hidden states, attention and head; of the head only if
            ``model_id`` is an encoder that is already loaded.
        model_id: hub id or folder, or an encoder that is already loaded.
        lora_rank: rank of the update on query and value, with alpha = rank and A ~ N(0, 1) as in
            the article. None: no update and every parameter trainable.
        train_biases: whether biases are trained, used when ``lora_rank`` is given.
        train_embedding: whether embeddings are trained, used when ``lora_rank`` is given.
        train_layer_norms: whether LayerNorms are trained, used when ``lora_rank`` is given.
        head: ``article`` or ``standard`` (transformers' own).

    Raises:
        ValueError: an unknown task_type or head, ``glue`` without num_classes, a num_classes that
            SQuAD does not have, a dropout_rate outside of [0, 1), or a loaded encoder that is not
            computed as a RoBERTa.
        UserError: the encoder cannot be loaded, or is not supported.
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
    ):
        if task_type not in TASK_TYPES:
            raise ValueError(f"task_type={task_type}: must be one of {', '.join(TASK_TYPES)}")
        level, fixed = TASK_TYPES[task_type]
        outputs = 2 if level == "token" and head == "standard" else fixed or num_classes
        if not outputs or outputs < 0:
            raise ValueError(f"num_classes={outputs}: task_type={task_type} needs their number")
        if not 0 <= dropout_rate < 1:
            raise ValueError(f"dropout_rate={dropout_rate}: must be at least 0 and below 1")
        if num_classes not in (None, outputs):
            allowed = f"task_type={task_type} with head={head} has {outputs} outputs; leave it out"
            raise ValueError(f"num_classes={num_classes}: {allowed}")
        if (level, head) not in HEADS:
            raise ValueError(f"head={head}: must be article or standard")
        if isinstance(model_id, RobertaModel):
            check_plain("model_id", model_id.config, ValueError)
            encoder = model_id
        else:
            source = ModelSpec(name=str(model_id), source=str(model_id))
            encoder = load_encoder(source, dropout=dropout_rate)
        made = HEADS[level, head](encoder.config.hidden_size, outputs, dropout_rate)
        self._assemble(encoder, made, level == "token", None)
        if lora_rank is not None:
            inject_lora(self.encoder, rank=lora_rank, alpha=float(lora_rank), init="gaussian")
            policy = FreezePolicy(
                "all" if train_biases else "none", train_layer_norms, train_embedding
            )
            policy.apply(self)

    @classmethod
    def from_parts(
        cls,
        encoder: RobertaModel,
        head: nn.Module,
        *,
        per_token: bool,
        dtype: torch.dtype | None = None,
    ) -> "LoraWrapperRoberta":
        """A wrapper around an encoder and any head, every parameter trainable.

        Args:
            encoder: an encoder for packed batches, as ``load_encoder`` returns it.
            head: takes the first token of each example (B, D), or every token (T, D).
            per_token: whether it takes every token.
            dtype: type of the encoder's matrix products; None: the type of the parameters.
        """
        model = cls.__new__(cls)
        model._assemble(encoder, head, per_token, dtype)
        return model

    def _assemble(
        self, encoder: RobertaModel, head: nn.Module, per_token: bool, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.per_token = encoder, head, per_token
        self.stream: DropoutStream | None = None
        self.encode = EncoderPass([encoder], dtype)
        self._autocast: EncoderPass | None = None  # in bf16; made when first needed

    def use_stream(self, stream: DropoutStream) -> None:
        """Take every dropout mask from ``stream`` instead of torch's global generator."""
        self.stream = stream
        use_stream(self, stream)

    def forward(
        self,
        batch: Batch | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of a packed or of a padded batch.

        Args:
            batch: packed examples; the other arguments are then left out.
            input_ids: (B, L) token ids, padded on either side.
            attention_mask: (B, L), 1 on real tokens; None: all are real.
            token_type_ids: (B, L); None: all 0.

        Returns:
            (B, outputs) for a sequence head. For a token head, (T, outputs) for a packed batch and
            (B, L, outputs) for a padded one, 0 on padding.

        Raises:
            ValueError: neither a batch nor input_ids, no row, a row that is too long, has no real
                token or has padding between real tokens, or ``torch.autocast`` to another type
                than bf16.
        """
        if batch is not None:
            return self._packed(batch)
        if input_ids is None:
            raise ValueError("input_ids=None: give a packed batch or input_ids")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        real = mask.bool()  # (B, L)
        self._check_padding(real)
        logits = self._packed(self._pack(input_ids, types, real))
        if not self.per_token:
            return logits
        padded = logits.new_zeros(*input_ids.shape, logits.shape[1])
        padded[real] = logits  # (B, L, outputs)
        return padded

    def _check_padding(self, real: Tensor) -> None:
        """Refuse a mask (B, L) that no padded batch has."""
        if not len(real):
            raise ValueError("input_ids: must have a row")
        if not bool(real.any(1).all()):
            raise ValueError("attention_mask: every row must have a real token")
        starts = real & ~torch.cat([torch.zeros_like(real[:, :1]), real[:, :-1]], 1)
        if bool((starts.sum(1) > 1).any()):
            raise ValueError("attention_mask: padding must be before or after the real tokens")
        most = self.encoder.config.max_position_embeddings - first_position(self.encoder)
        if int(real.sum(1).max()) > most:
            raise ValueError(f"input_ids: a row has more real tokens than the {most} positions")

    def _pack(self, input_ids: Tensor, types: Tensor, real: Tensor) -> Batch:
        """The real tokens of a padded batch; all three (B, L)."""

        def pieces(padded: Tensor) -> list[np.ndarray]:
            return [row[keep].cpu().numpy() for row, keep in zip(padded, real, strict=True)]

        return Batch.pack(
            pieces(input_ids),
            pieces(types),
            first_position=first_position(self.encoder),
            device=input_ids.device,
        )

    def _packed(self, batch: Batch) -> Tensor:
        """(B, outputs), or (T, outputs) for a token head."""
        device = batch.input_ids.device.type
        encode = self._encode_in_autocast(device) or self.encode
        encode.encoders = [self.encoder]  # it may have been replaced
        with torch.autocast(device, enabled=False):  # the pass chooses its types itself
            # (T, D), or (B, D) for a sequence head, which reads first tokens only
            (hidden,) = encode(batch, [self.stream], first_only=not self.per_token)
        return self.logits(hidden)

    def _encode_in_autocast(self, device: str) -> EncoderPass | None:
        """The pass in the type of the caller's ``torch.autocast``; None without one."""
        if not torch.is_autocast_enabled(device):
            return None
        dtype = torch.get_autocast_dtype(device)
        if dtype is not torch.bfloat16:
            raise ValueError(f"torch.autocast to {dtype}: must be to torch.bfloat16")
        if self._autocast is None:
            checkpointing = self.encode.checkpointing
            self._autocast = EncoderPass([self.encoder], dtype, checkpointing=checkpointing)
        return self._autocast

    def logits(self, hidden: Tensor) -> Tensor:
        """The head's output for the encoder's: (B, D) or (T, D) -> (B, outputs) or (T, outputs)."""
        return self.head(hidden.to(next(self.head.parameters()).dtype))

    def trained_state(self) -> dict[str, Tensor]:
        """Every trained and every adapter parameter by name: what an adapter file holds."""
        adapters = {id(p) for p in adapter_parameters(self).values()}
        return {
            name: p.detach()
            for name, p in self.named_parameters()
            if p.requires_grad or id(p) in adapters
        }
