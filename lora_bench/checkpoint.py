"""Adapter files: the trained parameters as safetensors, and a small JSON that says what they belong to."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from .record import provenance
from .spec import Spec, UserError
from .wrapper import LoraWrapperRoberta

WEIGHTS = "adapter.safetensors"
FACTS = "adapter.json"


class AdapterError(UserError):
    """An adapter that does not fit its model: says which parameters are missing, unknown or of another shape."""


def save_adapter(folder: Path, model: LoraWrapperRoberta, spec: Spec) -> int:
    """Write every trained parameter, head included; returns the size of the weights file in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.cpu().contiguous() for name, tensor in model.trained_state().items()}
    save_file(state, folder / WEIGHTS)
    settings = spec.to_dict()
    facts = {
        "base_model": settings["model"],
        "task": spec.task.name,
        "labels": spec.task.labels,
        "head": spec.head,
        "method": settings["method"],
        "versions": provenance(spec.device, 0)["versions"],
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return (folder / WEIGHTS).stat().st_size


def load_adapter(folder: Path, model: LoraWrapperRoberta) -> None:
    """Load an adapter into a model that its method has prepared. Raises: AdapterError: any parameter is unaccounted for."""
    _load(folder, load_file(folder / WEIGHTS), model.trained_state(), model)


def start_from(folder: Path, model: LoraWrapperRoberta) -> None:
    """Start from another task's adapter: everything but the head, which stays as drawn. Raises: AdapterError."""
    if not (folder / WEIGHTS).is_file():
        raise AdapterError(
            f"init_from={folder}: no {WEIGHTS} there; must be the folder of a finished run or its adapter/"
        )

    def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}

    _load(folder, without_head(load_file(folder / WEIGHTS)), without_head(model.trained_state()), model)


def _load(folder: Path, state: dict[str, Tensor], expected: dict[str, Tensor], model: LoraWrapperRoberta) -> None:
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)}, must be {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        raise AdapterError(f"{folder}: does not fit; missing {missing}, unknown {unknown}, wrong shape {shapes}")
    model.load_state_dict(state, strict=False)
