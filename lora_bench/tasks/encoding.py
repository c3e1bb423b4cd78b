"""Tokenised examples as flat arrays, cached on disk under a hash of everything they depend on."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VERSION = 1  # raise it when encoding the same rows would give other arrays


@dataclass
class Encoded:
    """n examples, ragged arrays stored flat.

    input_ids, token_type_ids (sum of lengths,) int32; starts (n + 1,): example i is starts[i] to starts[i + 1] - 1;
    labels: (n,) int64 classes, (n,) float32 values or (n, 2) int64 first and last token; None where unlabelled.
    Of windows of passages also row (n,): which question; offsets (sum of lengths, 2) int32: each token's characters in the
    passage, -1 outside of it.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    starts: np.ndarray
    labels: np.ndarray | None = None
    row: np.ndarray | None = None
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, (n,)."""
        return np.diff(self.starts)

    def pieces(self, flat: np.ndarray, examples: np.ndarray) -> list[np.ndarray]:
        """The parts of a flat array that belong to ``examples``."""
        return [flat[self.starts[i] : self.starts[i + 1]] for i in examples]

    @classmethod
    def from_lists(
        cls, input_ids: list[list[int]], token_type_ids: list[list[int]], labels=None
    ) -> "Encoded":
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids in input_ids])]).astype(np.int64)
        flat = [
            np.concatenate([np.asarray(x, dtype=np.int32) for x in lists])
            for lists in (input_ids, token_type_ids)
        ]
        return cls(*flat, starts, labels)


def cached(folder: Path, dependencies: object, build: Callable[[], Encoded]) -> Encoded:
    """``build()``, or what an earlier call with equal dependencies wrote; a damaged file is built anew.

    Args: dependencies: JSON-serialisable; everything that the arrays depend on.
    """
    digest = hashlib.sha256(
        json.dumps([VERSION, dependencies], sort_keys=True).encode()
    ).hexdigest()[:24]
    path = folder / f"{digest}.npz"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Encoded(**arrays)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile):
        pass
    encoded = build()
    folder.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed: runs of a parallel sweep that build the same file never read half of it.
    handle, part = tempfile.mkstemp(dir=folder, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, **{k: v for k, v in vars(encoded).items() if v is not None})
    os.replace(part, path)
    return encoded
