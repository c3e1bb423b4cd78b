"""The process's memory: how much a run took at most, and how freed memory is kept for the next step."""

import ctypes
import gc
import sys
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep freed blocks instead of giving them back to the system, after giving back what an earlier run
    left, so that each run of a sweep starts alike; False where there is no glibc.

    A training step frees and takes the same tensors of some megabytes again and again. By default each of them is mapped
    anew, and the page faults can cost more than the arithmetic.
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
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    )


class PeakMemory:
    """Peak memory of a block in bytes: of the GPU's allocator on CUDA, resident memory of the process on Linux.

    ``with PeakMemory("cpu") as peak: ...`` then ``peak.bytes``; None where the system cannot reset its high-water mark,
    since the mark would then be that of an earlier run.
    """

    def __init__(self, device: str):
        self.cuda = device.startswith("cuda")
        self.bytes: int | None = None
        self.valid = True

    def __enter__(self) -> "PeakMemory":
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return self
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.valid = False
        return self

    def __exit__(self, *_) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated()
        elif self.valid:
            status = Path("/proc/self/status").read_text()
            self.bytes = int(status.split("VmHWM:")[1].split()[0]) * 1024
