"""Memory: what a step needs, what is free, the peak of a run, and keeping freed blocks."""

import contextlib
import ctypes
import gc
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import RobertaConfig

from ..spec import TrainSpec

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
MAX_MMAP_THRESHOLD = 32 << 20  # bytes; glibc's maximum
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
# controllers in /proc/self/cgroup -> folder below CGROUP, and the files and the field of
# memory.stat with the limit, the use, and the page cache in it that can be dropped
CONTROL_GROUPS = {
    "": (".", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed blocks instead of returning them to the system.

    Every training step frees and allocates the same tensors of a few megabytes. By default each of
    them is mapped again, and the page faults can cost more than the arithmetic. Memory that an
    earlier run left is returned first, so that all runs of a sweep start under the same conditions.

    Returns:
        False without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, malloc_trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):  # another C library
        return False
    gc.collect()
    malloc_trim(0)
    return bool(
        mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the machine or the GPU ran out of memory."""
    words = ("can't allocate memory", "not enough memory")  # torch's allocator on a CPU
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(word in str(error) for word in words)


def step_bytes(
    config: RobertaConfig, lengths: np.ndarray, train: TrainSpec, precision: str
) -> float:
    """Estimated bytes that a training step of one run keeps for its backward pass.

    Args:
        config: configuration of the encoder.
        lengths: tokens of each training example, (n,).
        train: settings for the size of a step and how it is computed.
        precision: ``fp32`` or ``bf16``.
    """
    tokens = math.ceil(train.batch_size / train.accumulate) * float(lengths.mean())
    scores = float((lengths.astype(np.float64) ** 2).sum() / lengths.sum())  # per token and head
    # Hidden states: input, query, key, value, attention output, and the sum and the mask of both
    # LayerNorms; twice the intermediate ones; and the attention weights with their mask.
    elements: float = 9 * config.hidden_size + 2 * config.intermediate_size
    elements += 2 * config.num_attention_heads * scores
    layers = config.num_hidden_layers
    if train.gradient_checkpointing:  # the input of each layer, and one complete layer
        elements = layers * config.hidden_size + elements
    else:
        elements *= layers
    return tokens * elements * (2 if precision == "bf16" else 4)


def free_bytes(device: str) -> int | None:
    """Free memory on a device; None if the system does not report it.

    On a CPU, the limits of a container or of a scheduler's job count too.
    """
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        kilobytes = _fields(PROC / "meminfo")["MemAvailable:"]
    except (OSError, KeyError):
        return None
    return min([kilobytes * 1024, *_left_in_control_groups()])


def _left_in_control_groups() -> Iterator[int]:
    """Memory left in each control group of this process that has a limit (Linux, cgroup v1, v2)."""
    own = PROC / "self" / "cgroup"
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for _, kinds, name in (line.split(":", 2) for line in lines):
        if kinds in CONTROL_GROUPS:
            mount, *names = CONTROL_GROUPS[kinds]
            group = CGROUP / mount / name.lstrip("/")
            for folder in (group, *group.parents):
                # no limit, or not visible from a container
                with contextlib.suppress(OSError, ValueError, KeyError):
                    yield _left_in(folder, *names)


def _left_in(group: Path, limit: str, used: str, cached: str) -> int:
    """Memory left in one control group; page cache that can be dropped counts as free."""
    in_use = int((group / used).read_text(encoding="utf-8"))
    in_use -= _fields(group / "memory.stat")[cached]
    return int((group / limit).read_text(encoding="utf-8")) - in_use


def _fields(path: Path) -> dict[str, int]:
    """The first number of each line of a system file by its name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {words[0]: int(words[1]) for line in lines if len(words := line.split()) > 1}


class PeakMemory:
    """Peak memory of a block: of the GPU's allocator on CUDA, of the process on Linux.

    Use it as ``with PeakMemory("cpu") as peak: ...``; then ``peak.bytes`` is the peak in bytes, or
    None if the system cannot reset its high-water mark, which may come from an earlier run.

    Args:
        device: device of the run.
    """

    def __init__(self, device: str):
        self.cuda = device if device.startswith("cuda") else None
        self.bytes: int | None = None
        self.valid = True

    def __enter__(self) -> "PeakMemory":
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.cuda)
            return self
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        except OSError:
            self.valid = False
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated(self.cuda)
        elif self.valid:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            self.bytes = int(status.split("VmHWM:")[1].split()[0]) * 1024
