"""Which base model an adapter was trained on."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from .facts import AdapterError

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta

SAMPLED = 61  # a prime, so that no column of a matrix is sampled alone
SAMPLED_MARK = "v2:"  # begins a fingerprint of sampled numbers; older ones are of the embeddings


def base_fingerprint(model: "LoraWrapperRoberta", *, matrices: bool = True) -> str | None:
    """Hash of the base model's frozen weights, to distinguish base models; None if there are none.

    Only every SAMPLED-th number is hashed, which is enough to notice another checkpoint or a merged
    update. Weights inside of PEFT's layers are left out, because PiSSA and OLoRA change them.

    Args:
        model: the model.
        matrices: whether to include the weights of linear layers; a 4-bit base has none of them.
    """
    saved = model.trained_state().keys()
    frozen = {
        name: parameter.detach()
        for name, parameter in model.encoder.named_parameters()
        if not parameter.requires_grad
        and parameter.is_floating_point()
        and ".base_layer." not in name
        and f"encoder.{name}" not in saved
        and (matrices or ".layer." not in name or parameter.ndim == 1)
    }
    content = hashlib.sha256()
    for name, parameter in frozen.items():
        content.update(name.encode())
        content.update(parameter.flatten()[::SAMPLED].cpu().numpy().tobytes())
    return SAMPLED_MARK + content.hexdigest()[:16] if frozen else None


def is_quantized(model: "LoraWrapperRoberta") -> bool:
    """Whether the encoder has weights in 4 bits."""
    return not all(parameter.is_floating_point() for parameter in model.encoder.parameters())


def check_base(folder: Path, expected: str | None, model: "LoraWrapperRoberta") -> None:
    """Refuse a model whose base is not the one that an adapter was trained on.

    Args:
        folder: folder of the adapter, for the message.
        expected: the fingerprint that its ``adapter.json`` states; None: not known.
        model: the model that the adapter is loaded into.

    Raises:
        AdapterError: the fingerprints differ.
    """
    is_sampled = str(expected).startswith(SAMPLED_MARK)
    found = base_fingerprint(model) if is_sampled else _embeddings_fingerprint(model)
    if None in (expected, found) or expected == found:
        return
    if is_sampled and expected == base_fingerprint(model, matrices=False):
        return  # trained on the same base in 4 bits
    other = "another base model" + (", or an unquantized one" if is_quantized(model) else "")
    raise AdapterError(f"{folder}: was trained on {other} (fingerprint {expected}, here {found})")


def _embeddings_fingerprint(model: "LoraWrapperRoberta") -> str | None:
    """Hash of the word embeddings, as older adapters state it; None if they are trained."""
    words = model.encoder.embeddings.word_embeddings.weight
    if words.requires_grad:
        return None
    return hashlib.sha256(words.detach().cpu().numpy().ravel()).hexdigest()[:16]
