"""Files of tensors, read without executing anything in them."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import first_line
from .facts import HERE, AdapterError

# Types of floating-point numbers that torch can turn into float32; float4 has no conversion.
FLOATS = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        AdapterError: it does not exist, is damaged or holds numbers that cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise AdapterError(f"{path.parent}: no {path.name} there; {HERE}")
    try:
        state = load_file(path)
    # KeyError: a data type that torch does not have
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise AdapterError(f"{path}: is damaged ({first_line(error)})") from None
    for name, tensor in state.items():
        if tensor.dtype.is_floating_point and tensor.dtype not in FLOATS:
            raise _not_numbers(path, name, tensor)
    return state


def read_torch(path: Path, other: tuple[str, ...] = ()) -> dict[str, Any]:
    """Load a ``torch.save`` file as a dict of float32 tensors; pickled code is refused.

    Args:
        path: path of the file.
        other: names of entries that are plain values.

    Raises:
        AdapterError: the file does not exist, is damaged or holds anything else.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; only errors matter here
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise AdapterError(f"{path}: is damaged ({first_line(error)})") from None
        raise AdapterError(
            f"{path}: holds more than tensors and plain values; refused, nothing in it was run"
        ) from None
    # undocumented which errors a damaged file raises: any byte can be an unpickler instruction
    except Exception as error:
        raise AdapterError(f"{path}: is damaged ({first_line(error)})") from None
    if not isinstance(loaded, dict) or not loaded:
        raise AdapterError(f"{path}: must be a dict of tensors")
    for name, value in loaded.items():
        if not isinstance(name, str) or (name not in other and not torch.is_tensor(value)):
            raise AdapterError(f"{path}: must be a dict of tensors; {name!r} is not one")
    check_numbers(path, {n: t for n, t in loaded.items() if torch.is_tensor(t)})
    # copies, because tensors of such a file may share memory, which safetensors does not write
    return {name: t.float().clone() if torch.is_tensor(t) else t for name, t in loaded.items()}


def _is_pickle(path: Path) -> bool:
    """Whether a file has the form of a pickle or of torch's archive, damaged or not."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def check_numbers(path: Path, state: dict[str, Tensor]) -> None:
    """Refuse tensors that cannot be parameters: integers, sparse, empty, NaN or infinite.

    Args:
        path: path of the file, for messages.
        state: tensors by name.

    Raises:
        AdapterError: names the tensor.
    """
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS or tensor.layout != torch.strided or not _is_held(tensor):
            raise _not_numbers(path, name, tensor)
        if not tensor.numel():
            raise AdapterError(f"{path}: {name} has the shape {tuple(tensor.shape)}; is empty")
    if bad := [name for name, tensor in state.items() if not finite(tensor)]:
        raise AdapterError(f"{path}: NaN or infinite numbers in {', '.join(bad[:3])}")


def _is_held(tensor: Tensor) -> bool:
    """Whether a tensor has a number in memory for each of its elements."""
    if tensor.is_meta or tensor.is_nested:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _not_numbers(path: Path, name: str, tensor: Tensor) -> AdapterError:
    kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
    return AdapterError(
        f"{path}: {name} is {kind}; must be dense floating-point numbers of 8 to 64 bits"
    )


def finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor has no NaN or infinite value."""
    return bool(torch.isfinite(tensor.float()).all())
