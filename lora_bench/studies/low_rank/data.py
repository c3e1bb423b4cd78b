"""Images: scikit-learn's digits, and (Fashion-)MNIST from IDX files or the Hugging Face hub."""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, counted, first_line
from ...network import use_cache_if_offline
from ...record_formats import fingerprint_of
from .settings import CLASSES, Settings

HELD_OUT = 0.2  # share of the images to score if the data has no split of its own
HUB = {"mnist": "ylecun/mnist", "fashion_mnist": "zalando-datasets/fashion_mnist"}
OFFICIAL = {"train": "train", "validation": "t10k"}  # split -> what its IDX files start with
UNSIGNED_BYTE = 0x08  # type code of an IDX file


class DataError(UserError):
    """Images cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Images:
    """One split.

    Attributes:
        pixels: (N, height * width), float32 in [0, 1].
        labels: (N,), int64, from 0.
        source: where the images come from.
    """

    pixels: np.ndarray
    labels: np.ndarray
    source: str

    def take(self, rows: np.ndarray) -> "Images":
        """The images at these positions, in this order."""
        return Images(self.pixels[rows], self.labels[rows], self.source)

    def fingerprint(self) -> str:
        """A hash of all pixels and labels."""
        content = hashlib.sha256(repr(self.pixels.shape).encode())
        content.update(np.ascontiguousarray(self.pixels).data)
        content.update(np.ascontiguousarray(self.labels).data)
        return content.hexdigest()[:16]


@dataclass(frozen=True)
class Splits:
    """What a run trains on and what it scores.

    Attributes:
        train: training images.
        scored: the images of ``settings.split``.
        facts: facts of both splits, as a record states them, by the name of the split.
        fingerprint: fingerprint of both splits.
    """

    train: Images
    scored: Images
    facts: dict[str, dict[str, Any]]
    fingerprint: str


def load(settings: Settings) -> Splits:
    """The images of a run.

    Raises:
        DataError: a file is missing or malformed, or the hub cannot be reached.
    """
    if settings.data == "digits":
        train, scored = _digits(settings.data_seed)
    elif settings.root is not None:
        train, scored = (_idx_split(Path(settings.root), name) for name in OFFICIAL.values())
    else:
        train, scored = (_hub_split(HUB[settings.data], name) for name in ("train", "test"))
    if train.pixels.shape[1] != scored.pixels.shape[1]:
        sizes = f"{train.pixels.shape[1]} and {counted(scored.pixels.shape[1], 'pixel')}"
        place = f"{settings.root or HUB[settings.data]}: {train.source} and {scored.source}"
        raise DataError(f"{place} have images of {sizes}")
    if settings.split == "held_out":
        train, scored = _split(train, settings.data_seed)
    train = _limited(train, settings.train_rows, "train_rows", settings.data_seed)
    scored = _limited(scored, settings.validation_rows, "validation_rows", settings.data_seed)
    facts = {"train": _facts(train), settings.split: _facts(scored)}
    most_common = np.bincount(train.labels).argmax()
    facts[settings.split]["chance"] = {"accuracy": float((scored.labels == most_common).mean())}
    prints = {name: found["fingerprint"] for name, found in facts.items()}
    return Splits(train, scored, facts, fingerprint_of(prints))


def _facts(images: Images) -> dict[str, Any]:
    rows = len(images.labels)
    return {"source": images.source, "fingerprint": images.fingerprint(), "rows": rows,
            "skipped": 0}  # fmt: skip


def _digits(seed: int) -> tuple[Images, Images]:
    """Optical recognition of handwritten digits, 8x8, pixels 0 to 16, in two parts.

    The same writers are in both: scikit-learn has only the test file of the UCI data, without
    writers.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels, labels = (found.data / 16).astype(np.float32), found.target.astype(np.int64)
    return _split(Images(pixels, labels, "sklearn.datasets.load_digits"), seed)


def _split(images: Images, seed: int) -> tuple[Images, Images]:
    """A random part to train on and one to score, with equal shares of each class."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(images.labels))
    try:
        parts = train_test_split(
            rows, test_size=HELD_OUT, stratify=images.labels, random_state=seed
        )
    except ValueError as error:
        raise DataError(f"{images.source}: cannot be split in two: {error}") from None
    return images.take(parts[0]), images.take(parts[1])


def _limited(images: Images, rows: int | None, name: str, seed: int) -> Images:
    """That many random images; all if ``rows`` is None."""
    count = len(images.labels)
    if rows is None:
        return images
    if rows > count:
        raise DataError(f"{name}={rows}: {images.source} has {counted(count, 'image')} here")
    return images.take(np.random.default_rng(seed).permutation(count)[:rows])


def _idx_split(root: Path, stem: str) -> Images:
    """One split from its two IDX files.

    Source of the format: yann.lecun.org/exdb/mnist (big-endian sizes, then the bytes).
    """
    pixels_file, labels_file = (_find(root, f"{stem}-{part}") for part in
                                ("images-idx3-ubyte", "labels-idx1-ubyte"))  # fmt: skip
    pixels, labels = read_idx(pixels_file, 3), read_idx(labels_file, 1)
    if len(pixels) != len(labels):
        raise DataError(
            f"{labels_file}: has {counted(len(labels), 'label')}; {pixels_file.name} has "
            f"{counted(len(pixels), 'image')}"
        )
    if not pixels.size:
        raise DataError(f"{pixels_file}: has no pixels (sizes {pixels.shape})")
    return _images(pixels, labels, str(labels_file), f"idx {pixels_file.name}")


def _find(root: Path, name: str) -> Path:
    """The file of that name, plain or gzipped, also as ``...images.idx3-ubyte``."""
    names = [f"{base}{end}" for base in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    for candidate in names:
        if os.path.isfile(root / candidate):
            return root / candidate
    reason = "no such folder" if not os.path.isdir(root) else f"lacks {name} or {name}.gz"
    raise DataError(f"root={root}: {reason}")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file.

    Args:
        path: path of the file, gzipped if it ends in .gz.
        dimensions: number of dimensions that it must have.

    Returns:
        An array of unsigned bytes with the sizes that the file states.

    Raises:
        DataError: it cannot be read, is not an IDX file of bytes with these dimensions, or has a
            length that differs from its header.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    start = 4 + 4 * dimensions
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != magic:
        raise DataError(
            f"{path}: starts with {content[:4].hex(' ') or 'nothing'}; an IDX file of bytes with "
            f"{counted(dimensions, 'dimension')} starts with {magic.hex(' ')}"
        )
    if len(content) < start:
        size = f"{len(content)} of {counted(start, 'byte')}"
        raise DataError(f"{path}: ends within its header, after {size}")
    sizes = [int(size) for size in np.frombuffer(content[4:start], dtype=">u4")]
    expected = int(np.prod(sizes, dtype=object))
    if len(content) - start != expected:
        stated = " x ".join(map(str, sizes))
        raise DataError(
            f"{path}: has {counted(len(content) - start, 'byte')} after its header, which says "
            f"{stated} = {expected:,}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(sizes)


def _images(pixels: np.ndarray, labels: np.ndarray, labels_file: str, source: str) -> Images:
    """Bytes (N, height, width) and labels (N,) as a split."""
    if (unknown := np.flatnonzero(labels >= CLASSES)).size:
        at = int(unknown[0])
        raise DataError(
            f"{labels_file}: label {labels[at]} of image {at + 1}; must be 0 to {CLASSES - 1}"
        )
    flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    return Images(flat, labels.astype(np.int64), source)


def _hub_split(repository: str, split: str) -> Images:
    import datasets

    use_cache_if_offline()
    datasets.disable_progress_bars()
    name = f"{repository} {split}"
    try:
        found = datasets.load_dataset(repository, split=split)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise DataError(
            f"{name}: cannot be loaded from the hub ({reason}); offline choices: data=digits, or "
            "root=/path/to/the/idx/files"
        ) from None
    if missing := {"image", "label"} - set(found.column_names):
        raise DataError(f"{name}: has columns {found.column_names}; lacks {sorted(missing)}")
    pixels = np.stack([np.asarray(image, dtype=np.uint8) for image in found["image"]])
    return _images(pixels, np.asarray(found["label"]), name, f"hub {name}")
