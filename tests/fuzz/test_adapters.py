"""Malformed adapter files are either read correctly or refused in one line."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, RobertaModel

from lora_bench import checkpoint
from lora_bench.checkpoint.peft_config import CONFIG
from lora_bench.methods import get_method
from lora_bench.model.build import build
from lora_bench.model.encoder import load_tokenizer, tiny_config
from lora_bench.model.streams import Streams
from lora_bench.tasks import make_task

from ..conftest import TINY, compose_in
from ..helpers import our_outputs, stock_outputs
from ..test_checkpoint import article_state, loralib_state
from .harness import (
    ODD_VALUES,
    VALUE_FAULTS,
    Evil,
    ask,
    cases,
    check,
    damaged,
    mutated,
    random_of,
    write_json,
)

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PEFT's own, about the malformed folders that it loads
]

FORMATS = ("ours", "peft", "loralib", "article")
FILES = {
    "ours": ("ours/adapter.json", "ours/adapter.safetensors"),
    "peft": (f"peft/{CONFIG}", "peft/adapter_model.safetensors"),
    "loralib": ("lora.bin",),
    "article": ("article.pth",),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A good adapter in each format, all of one model."""
    root = tmp_path_factory.mktemp("originals")
    torch.manual_seed(5)
    RobertaModel(tiny_config(), add_pooling_layer=False).save_pretrained(root / "base")
    load_tokenizer(TINY).save_pretrained(root / "base")
    for name, more in (("ours", []), ("for_article", ["head=article", "method.biases=all"])):
        words = ["model=tiny", "task=cola", "method.alpha=8", f"model.source={root / 'base'}"]
        spec = compose_in(root, *words, *more)
        model = build(spec, make_task(spec.task), get_method(spec.method), Streams(spec.seed))
        with torch.no_grad():
            for parameter in model.trained_state().values():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        checkpoint.save_adapter(root / name, model, spec)
    torch.save(loralib_state(root / "ours"), root / "lora.bin")
    torch.save(article_state(root / "for_article", root / "base", 2), root / "article.pth")
    checkpoint_module("convert", str(root / "ours"), "--to", "peft", "--out", str(root / "peft"))
    return root


def checkpoint_module(*words: str) -> None:
    answer = ask("lora_bench.checkpoint", *words, named=[Path("/")])
    assert answer.code == 0, answer.err


def commands(kind: str, root: Path, out: Path) -> list[list[str]]:
    """The commands that read a format."""
    source = str(root / FILES[kind][0].partition("/")[0])
    if kind == "ours":
        return [
            ["inspect", source],
            ["merge", source, "--out", str(out)],
            ["convert", source, "--to", "peft", "--out", str(out)],
        ]
    more = ["--base", str(root / "base"), "--alpha", "8"] if kind == "loralib" else []
    return [["convert", source, "--from", kind, "--task", "cola", *more, "--out", str(out)]]


def changed_tensors(state: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One tensor is replaced or renamed."""
    state = dict(state)
    name = rng.choice([name for name, value in state.items() if torch.is_tensor(value)])
    tensor = state[name]
    change = rng.choice([*CHANGES])
    if change == "remove":
        del state[name]
    elif change == "rename":
        state[rng.choice([name + "x", name.replace("0", "7"), "", "x", name[4:]])] = state.pop(name)
    elif change == "copy":
        state[name.replace(".0.", ".1.").replace("query", "key")] = tensor.clone()
    else:
        found = CHANGES[change](tensor, rng)
        state[name] = found if found.layout == torch.sparse_coo else found.clone().contiguous()
    return state


def _with_number(tensor: torch.Tensor, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = value
    return changed


CHANGES: dict[str, Callable[[torch.Tensor, random.Random], torch.Tensor]] = {
    "remove": lambda t, rng: t,
    "rename": lambda t, rng: t,
    "copy": lambda t, rng: t,
    "nan": lambda t, rng: _with_number(t, rng.choice([float("nan"), float("inf")])),
    "large": lambda t, rng: _with_number(t, 1e30),
    "type": lambda t, rng: t.to(
        rng.choice([torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool])
    ),
    "complex": lambda t, rng: t.to(torch.complex64),
    "transpose": lambda t, rng: t.T if t.ndim == 2 else t[None],
    "cut": lambda t, rng: t[: len(t) // 2],
    "empty": lambda t, rng: t[:0],
    "scalar": lambda t, rng: t.sum(),
    "more": lambda t, rng: torch.cat([t, t]),
}


def pickled(path: Path, rng: random.Random) -> None:
    """Replace a file with a torch.save file that holds something other than tensors."""
    state = torch.load(path, weights_only=True) if path.suffix != ".safetensors" else {}
    names = [*state] or ["x"]
    odd = rng.choice([*ODD_VALUES, Evil(Path.cwd()), torch.nn.Linear(2, 2), print])
    found = rng.choice([odd, [state], {**state, rng.choice(names): odd}, {**state, 3: odd}])
    legacy = rng.random() < 0.3
    torch.save(found, path, _use_new_zipfile_serialization=not legacy)


def break_file(path: Path, fault: str, rng: random.Random) -> None:
    if fault == "bytes":
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif fault == "pickle":
        pickled(path, rng)
    elif fault == "tensors" and path.suffix == ".safetensors":
        state = changed_tensors(load_file(path), rng)
        save_file({n: t for n, t in state.items()}, path, {"format": "pt"})
    elif fault == "tensors":
        torch.save(changed_tensors(torch.load(path, weights_only=True), rng), path)
    elif fault == "place":
        path.unlink()
        rng.choice(
            [
                lambda: None,
                path.mkdir,
                lambda: path.symlink_to(path),
                lambda: path.symlink_to("/etc/passwd"),
            ]
        )()
    else:
        write_json(path, mutated(json.loads(path.read_text()), fault, rng))


def copied(originals: Path, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    shutil.copytree(originals, root, ignore=shutil.ignore_patterns("out", "cache"))
    for path in (root / "peft" / CONFIG, root / "ours" / "adapter.json"):
        path.write_text(path.read_text().replace(str(originals), str(root)))
    article = torch.load(root / "article.pth", weights_only=True)
    torch.save(article | {"model_id": str(root / "base")}, root / "article.pth")
    return root


def run(originals: Path, kind: str, path: str, fault: str, rng: random.Random, where) -> None:
    tmp_path, monkeypatch = where
    root, out = copied(originals, tmp_path), tmp_path / "out"
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    break_file(root / path, fault, rng)
    for words in commands(kind, root, out):
        answer = ask("lora_bench.checkpoint", *words, named=[tmp_path / "out", tmp_path / ".out"])
        check(answer, tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert left <= {"root", "cwd", "out"} and ("out" in left) == (
            answer.code == 0 and words[0] != "inspect"
        )
        if "out" in left:
            check_outputs(kind, root, out)
            shutil.rmtree(out)


def check_outputs(kind: str, root: Path, out: Path) -> None:
    """What was read from a PEFT folder computes what PEFT computes with it."""
    if kind == "peft":
        bare = AutoModelForSequenceClassification.from_pretrained(root / "base", num_labels=2)
        try:
            theirs = peft.PeftModel.from_pretrained(bare, root / "peft")
        except (TypeError, ValueError):  # PEFT refuses values that switch nothing on
            return
        expected = stock_outputs(theirs, torch.zeros(3))
        torch.testing.assert_close(our_outputs(out), expected, atol=1e-5, rtol=1e-4)


@cases(["ours", "peft"], [*VALUE_FAULTS], 8)
def test_values_of_a_configuration(originals, kind, fault, seed, tmp_path, monkeypatch):
    rng = random_of(kind, fault, seed)
    run(originals, kind, FILES[kind][0], fault, rng, (tmp_path, monkeypatch))


@cases(FORMATS, ["tensors", "bytes", "place"], 8)
def test_tensors_and_bytes(originals, kind, fault, seed, tmp_path, monkeypatch):
    rng = random_of(kind, fault, seed)
    path = FILES[kind][-1] if fault == "tensors" else rng.choice(FILES[kind])
    run(originals, kind, path, fault, rng, (tmp_path, monkeypatch))


@cases(["loralib", "article", "peft", "ours"], ["pickle"], 8)
def test_pickles(originals, kind, fault, seed, tmp_path, monkeypatch):
    rng = random_of(kind, fault, seed)
    run(originals, kind, FILES[kind][-1], fault, rng, (tmp_path, monkeypatch))
