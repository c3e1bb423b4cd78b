"""Adapter files: the trained parameters as safetensors, and a small JSON that says what they belong to.

Other people's formats, merging and the command line are the files beside this one.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..model.wrapper import LoraWrapperRoberta
from ..record import provenance
from ..spec import MethodSpec, ModelSpec, Spec, TaskSpec, UserError

WEIGHTS = "adapter.safetensors"
FACTS = "adapter.json"
FORMAT = 1
TASK_FACTS = (
    "name",
    "kind",
    "labels",
    "value_range",
    "unanswerable",
)  # what a head's shape and meaning hang on


class AdapterError(UserError):
    """An adapter that cannot be used: says which file, and what is missing, unknown or of another shape."""


def adapter_of(folder: Path) -> Path:
    """The adapter folder of a run folder; an adapter folder is taken as it is."""
    return folder / "adapter" if (folder / "adapter").is_dir() else folder


def save_adapter(folder: Path, model: LoraWrapperRoberta, spec: Spec) -> int:
    """Write every trained parameter, head included; returns the size of the weights file in bytes."""
    return write(folder, model.trained_state(), spec, base_fingerprint(model))


def write(
    folder: Path, state: dict[str, Tensor], spec: Spec, fingerprint: str | None = None
) -> int:
    """Write an adapter folder; returns the size of its weights in bytes. The spec's recipe is no part of it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()},
        folder / WEIGHTS,
    )
    facts = {
        "format": FORMAT,
        "base_model": dataclasses.asdict(spec.model),
        "base_fingerprint": fingerprint,
        "task": {name: getattr(spec.task, name) for name in TASK_FACTS},
        "head": spec.head,
        "method": dataclasses.asdict(spec.method),
        "seed": spec.seed,  # a random base model is another one for each seed
        "versions": provenance(spec.device, 0)["versions"],
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return (folder / WEIGHTS).stat().st_size


def base_fingerprint(model: LoraWrapperRoberta) -> str | None:
    """Hash of the word embeddings, which tells base models of one shape apart; None where they are trained."""
    words = model.encoder.embeddings.word_embeddings.weight
    return (
        None
        if words.requires_grad
        else hashlib.sha256(words.detach().cpu().numpy().tobytes()).hexdigest()[:16]
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``adapter.json`` says. Raises: AdapterError: it is not there or cannot be read."""
    try:
        facts = json.loads((folder / FACTS).read_text())
        known = facts["format"]
    except FileNotFoundError:
        raise AdapterError(
            f"{folder}: no {FACTS} there; must be the folder of a finished run or its adapter/"
        ) from None
    except (OSError, ValueError, TypeError, KeyError):
        raise AdapterError(f"{folder / FACTS}: is damaged; run again or convert again") from None
    if known != FORMAT:
        raise AdapterError(f"{folder / FACTS}: has format {known}; this version reads {FORMAT}")
    return facts


def spec_of(folder: Path) -> Spec:
    """As much of a Spec as an adapter folder knows: model, method, head and the task's labels; no recipe, no data."""
    facts = read_facts(folder)
    spec = Spec(
        task=TaskSpec(**facts["task"]),
        model=ModelSpec(**facts["base_model"]),
        method=MethodSpec(**facts["method"]),
        head=facts["head"],
        seed=facts["seed"],
    )
    spec.train.dropout = 0.0
    return spec


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises: AdapterError: it is not there, or cut off."""
    if not path.is_file():
        raise AdapterError(
            f"{path.parent}: no {path.name} there; must be the folder of a finished run or its adapter/"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise AdapterError(f"{path}: is damaged ({error})") from None


def load_adapter(folder: Path, model: LoraWrapperRoberta) -> None:
    """Load an adapter into a model that its method has prepared. Raises: AdapterError: any parameter is unaccounted for,
    or it was trained on another base model."""
    _load(folder, read_weights(folder / WEIGHTS), model.trained_state(), model)


def start_from(folder: Path, model: LoraWrapperRoberta) -> None:
    """Start from another task's adapter: everything but the head, which stays as drawn. Raises: AdapterError."""

    def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}

    _load(
        folder,
        without_head(read_weights(folder / WEIGHTS)),
        without_head(model.trained_state()),
        model,
    )


def _load(
    folder: Path, state: dict[str, Tensor], expected: dict[str, Tensor], model: LoraWrapperRoberta
) -> None:
    before, now = read_facts(folder)["base_fingerprint"], base_fingerprint(model)
    if None not in (before, now) and before != now:
        raise AdapterError(
            f"{folder}: was trained on another base model (embeddings {before}, here {now})"
        )
    missing, unknown = (
        sorted(expected.keys() - state.keys()),
        sorted(state.keys() - expected.keys()),
    )
    shapes = [
        f"{name} is {tuple(state[name].shape)}, must be {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        raise AdapterError(
            f"{folder}: does not fit; missing {missing}, unknown {unknown}, wrong shape {shapes}"
        )
    model.load_state_dict(state, strict=False)
