"""Checkpoints of a run: what a stopped run needs to continue, in one file beside its record.

On a CPU, a run that continues alone, or with the same group, ends bit for bit like one that was
never stopped. Other runs beside it change the rounding.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import whole_file
from ..spec import device_kind

FILE = "checkpoint.pt"
FORMAT = 2
ENTRIES = ("group", "counts", "epochs", "best")  # read before the run continues


def write(folder: Path, key: str, group: Sequence[str], state: dict[str, Any]) -> None:
    """Write a run's checkpoint: readers see the whole new file or the previous one.

    Args:
        folder: folder of the run.
        key: key of the run.
        group: keys of the runs that are trained with it, including its own.
        state: tensors, numbers, strings, and dicts and lists of these.
    """
    with whole_file(folder / FILE) as part:
        torch.save({"format": FORMAT, "key": key, "group": list(group), **state}, part)


def read(folder: Path, key: str, device: str) -> dict[str, Any] | None:
    """The checkpoint of a run; None if there is none that this version can read.

    Args:
        folder: folder of the run.
        key: key of the run.
        device: device of the run. Each kind of device has its own random number generator, so a
            checkpoint from another kind is not read.
    """
    try:
        found = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # torch does not document what a damaged file raises
        reason = f"cannot be read ({type(error).__name__}); the run starts over"
        print(f"{folder / FILE}: {reason}", file=sys.stderr)
        return None
    reason = ""
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("key") != key:
        reason = "comes from another run or version"
    elif missing := [name for name in ENTRIES if name not in found]:
        reason = f"lacks {', '.join(missing)}"
    elif device_kind(found.get("device", device)) != device_kind(device):
        reason = f"comes from a run on {found['device']}"
    if reason:
        print(f"{folder / FILE}: {reason}; the run starts over", file=sys.stderr)
        return None
    return found


def remove(folder: Path) -> None:
    """Remove a run's checkpoint and partial files that a killed process left."""
    for path in folder.glob(f"*{FILE}*"):
        path.unlink(missing_ok=True)
