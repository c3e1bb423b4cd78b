"""From a Spec to a model that is ready to train, with random numbers from the run's streams."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import RobertaModel

from ..errors import SpecError, counted
from ..spec import Spec
from .dropout import DropoutStream
from .encoder import load_encoder, max_tokens
from .streams import Streams
from .wrapper import LoraWrapperRoberta

if TYPE_CHECKING:
    from ..methods import Method
    from ..tasks import Task


def build(
    spec: Spec,
    task: "Task",
    method: "Method",
    streams: Streams,
    shared: "SharedEncoder | None" = None,
) -> LoraWrapperRoberta:
    """A model with the task's head, made trainable by ``method``, on the spec's device.

    Args:
        spec: settings of the run.
        task: names the head.
        method: prepares the model, with random numbers from the streams.
        streams: random streams of the run.
        shared: the encoder of a group of runs; None: the model has an encoder of its own.

    Raises:
        SpecError: the device is missing, or a setting does not fit this encoder.
        UserError: the encoder cannot be loaded.
    """
    check_device(spec.device)
    encoder = _encoder_of(spec) if shared is None else shared.copy()
    if spec.train.max_length > max_tokens(encoder):
        limit = f"{spec.model.name} takes at most {counted(max_tokens(encoder), 'token')}"
        raise SpecError("train.max_length", spec.train.max_length, limit)
    with streams.drawing("head"):
        head = task.make_head(spec.head, encoder.config.hidden_size, spec.train.dropout)
    dtype = torch.bfloat16 if spec.precision == "bf16" else None
    model = LoraWrapperRoberta.from_parts(encoder, head, per_token=task.per_token, dtype=dtype)
    model.encode.checkpointing = spec.train.gradient_checkpointing
    method.streams = streams
    with streams.drawing("init"):
        method.prepare(model, spec)
    if shared is not None:
        shared.lend(model.encoder)
    model.to(spec.device)
    model.use_stream(DropoutStream(streams, spec.device))
    return model


def check_device(device: str) -> None:
    """Refuse a GPU that does not exist.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:<number>``.

    Raises:
        SpecError: it is missing.
    """
    count = torch.cuda.device_count()
    if device == "cpu" or int(device.partition(":")[2] or 0) < count:
        return
    known = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
    raise SpecError("device", device, f"there is no such CUDA device here; must be {known}")


def _encoder_of(spec: Spec) -> RobertaModel:
    return load_encoder(spec.model, dropout=spec.train.dropout)


class SharedEncoder:
    """An encoder whose memory holds the frozen parameters of all models of a group.

    Args:
        spec: settings of any of the runs, which have the same encoder, dropout and device.

    Raises:
        SpecError: the device is missing.
        UserError: the encoder cannot be loaded.
    """

    def __init__(self, spec: Spec):
        check_device(spec.device)
        self.encoder = _encoder_of(spec)
        # Methods draw initial values on the CPU; a model moves to its device afterwards.
        self._on_device = {p.data_ptr(): p.data.to(spec.device) for p in self.encoder.parameters()}

    def copy(self) -> RobertaModel:
        """An encoder with parameters of its own that share their storage with this encoder."""
        memo: dict[int, Any] = {id(p): nn.Parameter(p.data) for p in self.encoder.parameters()}
        return copy.deepcopy(self.encoder, memo)

    def lend(self, encoder: RobertaModel) -> None:
        """Give a copy its own values for trained parameters, and shared ones for frozen ones.

        Args:
            encoder: as ``copy`` returned it, made trainable by a method.
        """
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.clone()
            else:
                parameter.data = self._on_device.get(parameter.data_ptr(), parameter.data)
