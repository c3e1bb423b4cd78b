"""Adapter files: the trained parameters as safetensors, and a small JSON that describes them.

Formats of other projects, merging and the command line are in the modules of this package. torch is
imported by the functions that need it, so the facts of an adapter can be read without it.
"""

import dataclasses
import glob
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from ..files import whole_folder
from ..methods import get_method
from ..provenance import provenance
from ..spec import MethodSpec, Spec
from .base_model import base_fingerprint, check_base
from .facts import FACTS as FACTS
from .facts import TASK_FACTS, WEIGHTS, file_hash, read_facts
from .facts import AdapterError as AdapterError
from .facts import spec_of as spec_of
from .facts import start_of as start_of
from .formats import FORMAT

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.wrapper import LoraWrapperRoberta

ADAPTER = "adapter"  # folder of the last epoch's adapter, in the folder of its run
BEST_ADAPTER = "adapter_best"
EPOCHS = {"last": ADAPTER, "best": BEST_ADAPTER}


def adapter_of(folder: Path, epoch: str | None = None) -> Path:
    """The adapter folder in a run's folder; an adapter folder is returned unchanged.

    Args:
        folder: folder of a run or of an adapter.
        epoch: epoch of a run, ``last`` or ``best``; None: the last one.

    Raises:
        AdapterError: the run has no adapter of that epoch, or ``epoch`` was given for an adapter.
    """
    found = [name for name in EPOCHS.values() if os.path.isdir(folder / name)]
    if not found and epoch is None:
        return folder
    chosen = folder / EPOCHS[epoch or "last"]
    if not os.path.isdir(chosen):
        needs = "must be the folder of a run" if not found else f"it has {', '.join(found)}"
        raise AdapterError(f"{folder}: no {chosen.name} in it for epoch {epoch or 'last'}; {needs}")
    return chosen


def init_adapter(spec: Spec) -> Path:
    """The adapter folder that ``init_from`` names, as a folder or as the key of a run.

    Raises:
        AdapterError: the run has no adapter of its last epoch.
        SpecError: neither exists.
    """
    assert spec.init_from is not None
    given = Path(spec.init_from)
    if os.path.isdir(given):
        return adapter_of(given)
    if given.name == spec.init_from:
        for found in (Path(spec.out_dir) / "runs").glob(f"*/{glob.escape(given.name)}"):
            return adapter_of(found)
    allowed = f"must be the key of a run below {spec.out_dir}, or a folder with an adapter"
    raise SpecError("init_from", spec.init_from, allowed)


def init_start(spec: Spec) -> dict[str, str] | None:
    """What the record of a run says about the adapter behind ``init_from``; None without one.

    Raises:
        AdapterError: the folder holds no adapter.
        SpecError: there is no such run or folder.
    """
    return None if spec.init_from is None else start_of(init_adapter(spec))


def init_cell(spec: Spec) -> str | None:
    """The cell of the run behind ``init_from``, the same for all of its seeds; None without one.

    Raises:
        AdapterError: the folder holds no adapter.
        SpecError: there is no such run or folder.
    """
    start = init_start(spec)
    return start["cell"] if start else None


def save_adapter(
    folder: Path, model: "LoraWrapperRoberta", spec: Spec, cell: str | None = None
) -> int:
    """Write every trained parameter, including those of the head.

    Args:
        folder: folder to write to; an adapter there is replaced.
        model: model whose parameters are written.
        spec: settings of the run.
        cell: cell of the run.

    Returns:
        Size of the weights file in bytes.

    Raises:
        AdapterError: the folder holds anything but an adapter.
    """
    return write(folder, model.trained_state(), spec, base_fingerprint(model, spec.method), cell)


def write(
    folder: Path,
    state: "dict[str, Tensor]",
    spec: Spec,
    fingerprint: str | None = None,
    cell: str | None = None,
) -> int:
    """Write an adapter folder; it appears complete or not at all.

    Args:
        folder: folder to write to; an adapter there is replaced.
        state: parameters by name.
        spec: settings of the run; its recipe is not written.
        fingerprint: fingerprint of the base model, see ``base_fingerprint``.
        cell: cell of the run that trained it; None for an adapter of another project.

    Returns:
        Size of the weights file in bytes.

    Raises:
        AdapterError: the folder holds anything but an adapter.
    """
    from safetensors.torch import save

    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if other := sorted(there - {WEIGHTS, FACTS}):
        raise AdapterError(f"{folder}: holds {', '.join(other[:3])}; must be empty or an adapter")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_folder(folder) as part:
        (part / WEIGHTS).write_bytes(save(tensors))
        facts = {
            "format": FORMAT,
            "cell": cell,
            "base_model": dataclasses.asdict(spec.model),
            "base_fingerprint": fingerprint,
            "task": {name: getattr(spec.task, name) for name in TASK_FACTS},
            "head": spec.head,
            "method": dataclasses.asdict(spec.method),
            "seed": spec.seed,  # for random numbers that a method draws and does not save
            "versions": provenance(spec.device, 0)["versions"],
            "weights_sha256": file_hash(part / WEIGHTS),
        }
        (part / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return (folder / WEIGHTS).stat().st_size


def load_adapter(folder: Path, model: "LoraWrapperRoberta") -> None:
    """Load an adapter into a model that its method has prepared.

    Raises:
        AdapterError: a parameter is missing, unknown or of another shape, a number is not finite,
            the file is damaged, or the adapter was trained on another base model.
    """
    _load(folder, model, lambda name: True)


def start_from(folder: Path, model: "LoraWrapperRoberta", method: MethodSpec) -> None:
    """Load another task's adapter without its head; the model's own head stays as it is.

    Args:
        folder: folder of the adapter.
        model: model that gets it.
        method: how the model was made; with another scaling, for example, the same tensors would
            compute another function.

    Raises:
        AdapterError: see ``load_adapter``; or the adapter computes another function.
    """
    facts = _load(folder, model, lambda name: not name.startswith("head."))
    check_function(folder, facts, method)


def check_function(folder: Path, facts: dict[str, Any], method: MethodSpec) -> None:
    """Refuse an adapter whose tensors compute another function with a run's method.

    Args:
        folder: folder of the adapter, for the message.
        facts: what it states.
        method: method of the run.

    Raises:
        AdapterError: names the setting that differs.
    """
    there = MethodSpec(**facts["method"])
    before, now = (get_method(m).function_settings(m) for m in (there, method))
    for name in {**before, **now}:
        if json.dumps(before.get(name)) != json.dumps(now.get(name)):  # patterns have an order
            run = f"the run has method.{name}={now.get(name)}"
            raise AdapterError(f"{folder}: the adapter has {name}={before.get(name)}, but {run}")


def _load(
    folder: Path, model: "LoraWrapperRoberta", wanted: Callable[[str], bool]
) -> dict[str, Any]:
    """Load the wanted tensors; return the adapter's facts."""
    from .tensors import read_safetensors

    facts, path = read_facts(folder), folder / WEIGHTS
    state = {name: t for name, t in read_safetensors(path).items() if wanted(name)}
    fit(folder, state, model, wanted)
    # last, so that a difference of names or shapes is reported first
    check_base(folder, facts["base_fingerprint"], model)
    check_hash(folder, facts["weights_sha256"])
    return facts


def check_hash(folder: Path, expected: str | None) -> None:
    """Refuse a weights file that does not match its ``adapter.json``.

    Args:
        folder: folder of the adapter.
        expected: SHA-256 of the weights file; None: not known.

    Raises:
        AdapterError: the file differs.
    """
    if expected is not None and file_hash(folder / WEIGHTS) != expected:
        raise AdapterError(
            f"{folder / WEIGHTS}: is damaged or was changed: its SHA-256 is not that in {FACTS}"
        )


def fit(
    origin: Path,
    state: "dict[str, Tensor]",
    model: "LoraWrapperRoberta",
    wanted: Callable[[str], bool] = lambda name: True,
) -> None:
    """Replace the values of the trained parameters; each one must have a tensor.

    Args:
        origin: origin of the tensors, for messages.
        state: tensors by our parameter names.
        model: model that its method has prepared.
        wanted: names of the parameters to replace.

    Raises:
        AdapterError: a parameter is missing, unknown or of another shape, or a number is not
            finite.
    """
    from .tensors import check_numbers

    expected = {name: t for name, t in model.trained_state().items() if wanted(name)}
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)}, must be {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        parts = zip(("missing", "unknown", "wrong shape"), (missing, unknown, shapes), strict=True)
        listed = ", ".join(f"{what} {_few(names)}" for what, names in parts if names)
        raise AdapterError(f"{origin}: does not fit; {listed}")
    check_numbers(origin, state)
    model.load_state_dict(state, strict=False)


def _few(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{names[:most]}{rest}"
