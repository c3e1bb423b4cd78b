"""Adapter files: the trained parameters as safetensors, and a small JSON that describes them.

Formats of other projects, merging and the command line are the modules beside this one. torch is
imported by the functions that need it: what an adapter is can be read without it.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..record import provenance
from ..spec import MethodSpec, ModelSpec, Spec, TaskSpec, UserError
from .formats import FORMAT, upgrade

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.wrapper import LoraWrapperRoberta

WEIGHTS = "adapter.safetensors"
FACTS = "adapter.json"
# Settings of the task that decide what its head is and what its outputs mean.
TASK_FACTS = ("name", "kind", "labels", "value_range", "args")


class AdapterError(UserError):
    """An adapter that cannot be used: names the file and what is missing, unknown or different."""


def adapter_of(folder: Path) -> Path:
    """The adapter folder of a run's folder; an adapter folder is returned as it is."""
    return folder / "adapter" if (folder / "adapter").is_dir() else folder


def save_adapter(
    folder: Path, model: "LoraWrapperRoberta", spec: Spec, cell: str | None = None
) -> int:
    """Write every trained parameter, those of the head too.

    Args:
        folder: to write to.
        model: whose parameters are written.
        spec: of the run.
        cell: of the run.

    Returns:
        Size of the weights file in bytes.
    """
    return write(folder, model.trained_state(), spec, base_fingerprint(model), cell)


def write(
    folder: Path,
    state: "dict[str, Tensor]",
    spec: Spec,
    fingerprint: str | None = None,
    cell: str | None = None,
) -> int:
    """Write an adapter folder.

    Args:
        folder: to write to.
        state: parameters by name.
        spec: of the run; its recipe is not written.
        fingerprint: of the base model, see ``base_fingerprint``.
        cell: of the run that trained it; None for an adapter of another project.

    Returns:
        Size of the weights file in bytes.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS)
    facts = {
        "format": FORMAT,
        "cell": cell,
        "base_model": dataclasses.asdict(spec.model),
        "base_fingerprint": fingerprint,
        "task": {name: getattr(spec.task, name) for name in TASK_FACTS},
        "head": spec.head,
        "method": dataclasses.asdict(spec.method),
        "seed": spec.seed,  # of random numbers that a method draws and does not save
        "versions": provenance(spec.device, 0)["versions"],
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return (folder / WEIGHTS).stat().st_size


def base_fingerprint(model: "LoraWrapperRoberta") -> str | None:
    """Hash of the word embeddings, to tell base models apart; None where they are trained."""
    words = model.encoder.embeddings.word_embeddings.weight
    if words.requires_grad:
        return None
    return hashlib.sha256(words.detach().cpu().numpy().tobytes()).hexdigest()[:16]


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of ``adapter.json`` in the current format.

    Raises:
        AdapterError: it does not exist, is damaged or has a newer format.
    """
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text())
        found = int(facts["format"])
    except FileNotFoundError:
        raise AdapterError(
            f"{folder}: no {FACTS} there; must be the folder of a finished run or its adapter/"
        ) from None
    except (OSError, ValueError, TypeError, KeyError):
        raise AdapterError(f"{path}: is damaged; run again or convert again") from None
    if found > FORMAT:
        raise AdapterError(f"{path}: has format {found}; this version reads up to {FORMAT}")
    try:
        return upgrade(facts)
    except (KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(f"{path}: format {found} lacks or garbles {reason}") from None


def spec_of(folder: Path) -> Spec:
    """The part of a Spec that an adapter folder states: model, method, head and task, no recipe.

    Raises:
        AdapterError: ``adapter.json`` cannot be read or has unknown settings.
    """
    facts = read_facts(folder)
    try:
        spec = Spec(
            task=TaskSpec(**facts["task"]),
            model=ModelSpec(**facts["base_model"]),
            method=MethodSpec(**facts["method"]),
            head=facts["head"],
            seed=facts["seed"],
        )
    except (KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(f"{folder / FACTS}: lacks or garbles {reason}") from None
    spec.train.dropout = 0.0
    return spec


def start_of(folder: Path) -> dict[str, str]:
    """What a run that starts from an adapter records of it.

    Returns:
        ``task``, ``cell`` and ``fingerprint``, a hash of the weights file. An adapter without a
        cell, as of another project, is a cell of its own.

    Raises:
        AdapterError: the folder holds no adapter.
    """
    facts, weights = read_facts(folder), folder / WEIGHTS
    if not weights.is_file():
        raise AdapterError(f"{folder}: no {WEIGHTS} there; must be the folder of a finished run")
    fingerprint = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    return {
        "task": facts["task"]["name"],
        "cell": facts["cell"] or f"{_stem(facts)}-{fingerprint}",
        "fingerprint": fingerprint,
    }


def _stem(facts: dict[str, Any]) -> str:
    """Readable start of a cell's name, as that of a run."""
    method = facts["method"]
    names = (facts["task"]["name"], facts["base_model"]["name"], method["name"])
    return "-".join(names) + ("" if method["rank"] is None else f"-r{method['rank']}")


def read_weights(path: Path) -> "dict[str, Tensor]":
    """Tensors of a safetensors file.

    Raises:
        AdapterError: it does not exist or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise AdapterError(
            f"{path.parent}: no {path.name} there; must be the folder of a finished run or its "
            "adapter/"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise AdapterError(f"{path}: is damaged ({error})") from None


def load_adapter(folder: Path, model: "LoraWrapperRoberta") -> None:
    """Load an adapter into a model that its method has prepared.

    Raises:
        AdapterError: a parameter is missing, unknown or of another shape, or the adapter was
            trained on another base model.
    """
    _load(folder, read_weights(folder / WEIGHTS), model.trained_state(), model)


def start_from(folder: Path, model: "LoraWrapperRoberta") -> None:
    """Load another task's adapter without its head; the model's own head stays as it is.

    Raises:
        AdapterError: see ``load_adapter``.
    """

    def without_head(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}

    state = without_head(read_weights(folder / WEIGHTS))
    _load(folder, state, without_head(model.trained_state()), model)


def _load(
    folder: Path,
    state: "dict[str, Tensor]",
    expected: "dict[str, Tensor]",
    model: "LoraWrapperRoberta",
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
