"""Streams: the random numbers of one run, one independent stream for each purpose.

Each stream depends only on (seed, purpose), through NumPy's SeedSequence. Other work in the
process, the numbers drawn for other purposes, and torch's global generator do not affect it.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

PURPOSES = ("init", "head", "order", "dropout", "restart", "forward")


class Streams:
    """The streams of one run.

    ``init`` draws what a method adds (LoRA's A), ``head`` the task head, ``order`` the order of the
    training examples, ``dropout`` the masks, ``restart`` what ReLoRA reinitializes and ``forward``
    what the layers of other libraries draw in a forward pass. ``used`` lists the purposes that were
    requested.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.used: list[str] = []

    def generator(self, purpose: str) -> np.random.Generator:
        """A fresh NumPy generator (SFC64) at the start of a stream."""
        return np.random.Generator(np.random.SFC64(self._sequence(purpose)))

    def torch_seed(self, purpose: str) -> int:
        """Seed of a torch generator for a stream, below 2**63."""
        return int(self._sequence(purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))

    @contextmanager
    def drawing(self, purpose: str) -> Iterator[None]:
        """Inside the block, torch's global generator is the stream's; it is restored afterwards.

        Third-party code (torch's own layers, PEFT) draws only from the global generator.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.torch_seed(purpose))
            yield

    def _sequence(self, purpose: str) -> np.random.SeedSequence:
        if purpose not in PURPOSES:
            raise ValueError(f"purpose={purpose}: must be one of {', '.join(PURPOSES)}")
        if purpose not in self.used:
            self.used.append(purpose)
        return np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(purpose.encode()),))


def state_of(generator: np.random.Generator) -> dict[str, Any]:
    """The state of a NumPy generator, as numbers and lists, for ``restore``."""
    state = dict(generator.bit_generator.state)
    inner = state["state"]
    return {**state, "state": {name: value.tolist() for name, value in inner.items()}}


def restore(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Set a generator back to an earlier state.

    Args:
        generator: an SFC64 generator.
        state: state that ``state_of`` returned.
    """
    inner = {name: np.array(value, dtype=np.uint64) for name, value in state["state"].items()}
    generator.bit_generator.state = {**state, "state": inner}
