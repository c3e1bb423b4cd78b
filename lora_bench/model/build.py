"""From a Spec to a model that is ready to train, every random number from the run's streams."""

from typing import TYPE_CHECKING

import torch

from ..spec import Spec, SpecError
from .dropout import DropoutStream
from .encoder import load_encoder, max_tokens
from .streams import Streams
from .wrapper import LoraWrapperRoberta

if TYPE_CHECKING:
    from ..methods import Method
    from ..tasks import Task


def build(spec: Spec, task: "Task", method: "Method", streams: Streams) -> LoraWrapperRoberta:
    """A model with the task's head, made trainable by ``method``, on the spec's device.

    Args:
        spec: of the run.
        task: names the head.
        method: gets the streams, and prepares the model.
        streams: of the run.

    Raises:
        SpecError: the device is missing, or a setting does not fit this encoder.
        UserError: the encoder cannot be loaded.
    """
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise SpecError("device", spec.device, "no CUDA device is available; must be cpu here")
    encoder = load_encoder(spec.model, dropout=spec.train.dropout)
    if spec.train.max_length > max_tokens(encoder):
        limit = f"{spec.model.name} takes at most {max_tokens(encoder)} tokens"
        raise SpecError("train.max_length", spec.train.max_length, limit)
    with streams.drawing("head"):
        head = task.make_head(spec.head, encoder.config.hidden_size, spec.train.dropout)
    dtype = torch.bfloat16 if spec.precision == "bf16" else None
    model = LoraWrapperRoberta.from_parts(encoder, head, per_token=task.per_token, dtype=dtype)
    method.streams = streams
    with streams.drawing("init"):
        method.prepare(model, spec)
    model.to(spec.device)
    model.use_stream(DropoutStream(streams, spec.device))
    return model
