"""Provenance: the versions, machine and commit behind a number."""

import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

PACKAGES = (
    "lora-bench", "torch", "transformers", "tokenizers", "datasets", "numpy", "scikit-learn",
    "scipy", "peft", "bitsandbytes",
)  # fmt: skip


def provenance(device: str, threads: int) -> dict[str, Any]:
    """Versions, machine and commit behind a number."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": _dirty(),
        "machine": platform.machine(),
        "system": platform.system(),
        "device": device,
        "threads": threads,
        "host": socket.gethostname(),
        "launcher": _launcher(),
    }


def _launcher() -> str | None:
    """Hydra's launcher of the run; None if Hydra did not start it."""
    if not HydraConfig.initialized():
        return None
    return HydraConfig.get().runtime.choices["hydra/launcher"]


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _dirty() -> bool | None:
    # A rate in conf/tuned/ is in the record of each run that uses it.
    changes = _git("status", "--porcelain", "--", "lora_bench", "conf", ":!conf/tuned")
    return None if changes is None else bool(changes)


@cache
def _git(*arguments: str) -> str | None:
    """Output of git in the project's folder; None without git, or if it is not a checkout."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    except OSError:  # it is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
