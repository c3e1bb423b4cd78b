"""Describes the machine of a measurement in one line."""

import platform
from importlib.metadata import version
from pathlib import Path


def describe(device: str = "cpu") -> str:
    """Processor with vector instructions, threads and versions; and the GPU on ``cuda``."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    # Processors with one name differ: without AVX-512, bf16 saves no time, with AMX the most.
    vectors = torch.backends.cpu.get_cpu_capability()
    if any(line.startswith("flags") and "amx_bf16" in line.split() for line in lines):
        vectors += ", AMX"
    gpu = "" if device == "cpu" else f"{torch.cuda.get_device_name(device)}, "
    return f"{gpu}{processor} ({vectors}), {torch.get_num_threads()} threads, {versions}"
