"""Whether two models are equivalent: compares their outputs on a few fixed rows."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.wrapper import LoraWrapperRoberta
from .facts import AdapterError

ROWS, LENGTH = 3, 11
TOLERANCE = 1e-4  # relative to the largest output; merging alone causes rounding


def _ids(vocabulary: int) -> Tensor:
    """(ROWS, LENGTH) token ids, the same in every call, without special tokens."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(min(5, vocabulary - 1), vocabulary, (ROWS, LENGTH), generator=draw)


def _inputs(config: Any) -> dict[str, Tensor]:
    """The rows; the second half of each has another token type where the encoder has one."""
    ids = _ids(config.vocab_size)
    types = torch.zeros_like(ids)
    if config.type_vocab_size > 1:
        types[:, LENGTH // 2 :] = 1
    return {"input_ids": ids, "token_type_ids": types}


@torch.no_grad()
def probe(model: LoraWrapperRoberta) -> Tensor:
    """Outputs of our model, (ROWS, outputs) or, with a token head, (ROWS, LENGTH, outputs)."""
    return model.eval()(**_inputs(model.encoder.config))


@torch.no_grad()
def check_same(out: Path, expected: Tensor, theirs: Any) -> None:
    """Compare a model of transformers or PEFT with ``probe``.

    Raises:
        AdapterError: its outputs differ.
    """
    inputs = _inputs(theirs.config)
    found = theirs.eval()(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))
    logits = (
        found.logits
        if "logits" in found
        else torch.stack([found.start_logits, found.end_logits], dim=-1)
    )
    largest = float((logits - expected).abs().max())
    if not largest <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise AdapterError(
            f"{out}: not written: loaded again it computes something else (outputs differ by "
            f"{largest:.2g})"
        )
