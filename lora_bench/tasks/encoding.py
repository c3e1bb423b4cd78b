"""Tokenized examples as flat arrays, cached on disk under a hash of everything they depend on."""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import whole_file

# Raise it when encoding the same rows would give different arrays, or the file layout changes.
VERSION = 3
DIGEST = hashlib.sha256().digest_size  # bytes
IGNORED = -100  # a label that F.cross_entropy leaves out


@dataclass
class Encoded:
    """n examples; arrays over tokens are stored flat, one example after the other.

    Attributes:
        input_ids: (sum of lengths,) int32.
        token_type_ids: (sum of lengths,) int32.
        starts: (n + 1,) int64; example i is tokens starts[i] to starts[i + 1] - 1.
        labels: (n, ...), one entry for each example: (n,) int64 classes, (n,) float32 values,
            (n, 2) int64 first and last token, or (n, longest) int64 labels of tokens, filled up
            with IGNORED. None where unlabeled.
        row: (n,) int64, the row that an example is a part of; None if each row is one example.
        offsets: (sum of lengths, 2) int32, the characters of each token in its row's text, -1 for
            tokens of no text; None where the kind needs none.
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
        cls,
        input_ids: list[list[int]],
        token_type_ids: list[list[int]] | None,
        labels: np.ndarray | None = None,
    ) -> "Encoded":
        """Encoded examples from what a tokenizer returns.

        Args:
            input_ids: token ids of each example.
            token_type_ids: token types of each example; None: all 0.
            labels: (n, ...), see above.
        """
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids in input_ids])]).astype(np.int64)
        ids = np.concatenate([np.asarray(x, dtype=np.int32) for x in input_ids])
        if token_type_ids is None:
            return cls(ids, np.zeros_like(ids), starts, labels)
        types = np.concatenate([np.asarray(x, dtype=np.int32) for x in token_type_ids])
        return cls(ids, types, starts, labels)


def pad_labels(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Labels of tokens as one array, (n, longest) int64, padded with IGNORED."""
    padded = np.full((len(labels), max(map(len, labels))), IGNORED, dtype=np.int64)
    for row, given in zip(padded, labels, strict=True):
        row[: len(given)] = given
    return padded


def cached(folder: Path, dependencies: object, build: Callable[[], Encoded]) -> Encoded:
    """The result of ``build()``, or of an earlier call with equal dependencies.

    Args:
        folder: folder of the cache; a damaged file in it is rebuilt, with a message on stderr.
        dependencies: JSON-serializable; everything that the arrays depend on.
        build: encodes the rows.
    """
    content = json.dumps([VERSION, dependencies], sort_keys=True)
    path = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.npz"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        print(f"{path}: is damaged ({error}); the data is encoded again", file=sys.stderr)
    encoded = build()
    with whole_file(path) as part:
        _write(part, encoded)
    return encoded


def _read(path: Path) -> Encoded:
    """What ``_write`` wrote. Raises: ValueError: the checksum does not match."""
    stored = path.read_bytes()
    checksum, content = stored[:DIGEST], stored[DIGEST:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError("its checksum does not fit")
    with np.load(io.BytesIO(content)) as arrays:
        return Encoded(**arrays)


def _write(path: Path, encoded: Encoded) -> None:
    """The SHA-256 of the arrays, and the arrays in NumPy's format."""
    content = io.BytesIO()
    np.savez(content, **{k: v for k, v in vars(encoded).items() if v is not None})
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
