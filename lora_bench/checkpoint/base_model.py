"""Which base model an adapter was trained on."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..methods.peft import changes_base
from ..spec import MethodSpec
from .facts import AdapterError

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta

SAMPLED = 61  # a prime, so that no column of a matrix is sampled alone
# Start of a fingerprint of sampled numbers, without and with those inside of PEFT's layers; older
# fingerprints are of the embeddings.
SAMPLED_MARK, WRAPPED_MARK = "v2:", "v3:"
WRAPPED = ".base_layer."  # in the name of a base weight inside of a layer of PEFT


def base_fingerprint(model: "LoraWrapperRoberta", method: MethodSpec) -> str | None:
    """Hash of the base model's frozen weights, to distinguish base models; None if there are none.

    Only every SAMPLED-th number is hashed, which is enough to notice another checkpoint or a merged
    update. Weights inside of PEFT's layers are left out if the method changes them (PiSSA, OLoRA).

    Args:
        model: the model.
        method: how it was prepared.
    """
    has_wrapped = any(WRAPPED in name for name, _ in model.encoder.named_parameters())
    return _sampled(
        model, WRAPPED_MARK if has_wrapped and not changes_base(method) else SAMPLED_MARK
    )


def _sampled(model: "LoraWrapperRoberta", mark: str, *, matrices: bool = True) -> str | None:
    """A fingerprint of sampled numbers; ``matrices``: also those of linear layers."""
    saved = model.trained_state().keys()
    frozen = {
        name: parameter.detach()
        for name, parameter in model.encoder.named_parameters()
        if not parameter.requires_grad
        and parameter.is_floating_point()
        and (mark == WRAPPED_MARK or WRAPPED not in name)
        and f"encoder.{name}" not in saved
        and (matrices or ".layer." not in name or parameter.ndim == 1)
    }
    content = hashlib.sha256()
    for name, parameter in frozen.items():
        content.update(name.encode())
        content.update(parameter.flatten()[::SAMPLED].cpu().numpy().tobytes())
    return mark + content.hexdigest()[:16] if frozen else None


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
    mark = str(expected)[: len(SAMPLED_MARK)]
    is_sampled = mark in (SAMPLED_MARK, WRAPPED_MARK)
    found = _sampled(model, mark) if is_sampled else _embeddings_fingerprint(model)
    if None in (expected, found) or expected == found:
        return
    if is_sampled and expected == _sampled(model, mark, matrices=False):
        return  # trained on the same base in 4 bits
    other = "another base model" + (", or an unquantized one" if is_quantized(model) else "")
    raise AdapterError(f"{folder}: was trained on {other} (fingerprint {expected}, here {found})")


def _embeddings_fingerprint(model: "LoraWrapperRoberta") -> str | None:
    """Hash of the word embeddings, as older adapters state it; None if they are trained."""
    words = model.encoder.embeddings.word_embeddings.weight
    if words.requires_grad:
        return None
    return hashlib.sha256(words.detach().cpu().numpy().ravel()).hexdigest()[:16]
