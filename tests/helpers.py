"""Small builders that several tests share."""

import contextlib
import importlib
import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    RobertaModel,
)

from lora_bench import checkpoint
from lora_bench.checkpoint.restore import load_model
from lora_bench.methods import get_method
from lora_bench.model.build import build
from lora_bench.model.encoder import load_tokenizer, tiny_config
from lora_bench.model.inject import lora_layers
from lora_bench.model.packing import Batch
from lora_bench.model.streams import Streams
from lora_bench.presets import task_presets
from lora_bench.spec import ModelSpec, Spec, TaskSpec
from lora_bench.tasks import make_task
from lora_bench.tasks.encoding import Encoded

ROW_LENGTHS = [5, 9, 3]  # tokens of the rows that adapters are compared on
TASKS = task_presets()
GLUE = sorted(name for name, task in TASKS.items() if task.kind == "text")
COMMON = {"full", "lora", "peft_lora"}  # methods that stand for all in the fast suite
SQUAD = sorted(name for name, task in TASKS.items() if task.kind == "span")


def seeds_of_fuzz(count: int) -> range:
    """Seeds of generated inputs: ``count`` in CI, FUZZ_TIMES as many if that is set."""
    return range(count * int(os.environ.get("FUZZ_TIMES", "1")))


def mostly_slow(values: Iterable[Any], fast: Container[Any]) -> list[Any]:
    """Parameters of a generated test; the fast suite has only ``fast``."""
    return [v if v in fast else pytest.param(v, marks=pytest.mark.slow) for v in values]


def every(step: int, values: Iterable[Any]) -> list[Any]:
    """Parameters of a generated test; the fast suite has only every ``step``-th one."""
    values = list(values)
    return mostly_slow(values, values[::step])


def random_batch(
    lengths: Sequence[int], *, first_position: int = 2, vocabulary: int = 200, labels=None, seed=0
) -> Batch:
    """Packed random tokens for the tiny encoder."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(5, vocabulary, n) for n in lengths]
    types = [np.zeros(n, dtype=np.int64) for n in lengths]
    return Batch.pack(
        ids, types, first_position=first_position, labels=labels, index=np.arange(len(ids))
    )


def encode(encoder, batch: Batch) -> torch.Tensor:
    """Last hidden states (T, D) of a packed batch."""
    return encoder(
        input_ids=batch.input_ids[None],
        position_ids=batch.position_ids[None],
        token_type_ids=batch.token_type_ids[None],
        layout=batch.layout,
    ).last_hidden_state[0]


def official_rows(task: TaskSpec, split: str, count: int = 30) -> list[list[str]]:
    """Made-up rows in the layout of the task's official file, with its header if it has one."""
    local = task.local
    names = local.other_names.get(split, {})
    texts = {names.get(c, c): c for c in local.columns.values()}
    label = names.get(local.label, local.label)

    def cell(column: str, i: int) -> str:
        if column in texts:
            return f'{texts[column]} of {split} {i} "quoted'
        if column == label:
            return local.label_values[i % len(local.label_values)] if task.labels else f"{i % 6}.0"
        if column in ("source", "mark"):
            return {"source": "xy01", "mark": "*" if i % 2 else ""}[column]
        return str(i)

    header = local.headers[split]
    rows = [[cell(column, i) for column in header] for i in range(count)]
    return rows if split in local.headerless else [header, *rows]


def write_official(root: Path, task: TaskSpec, splits: Sequence[str] = (), count: int = 30) -> None:
    """Write made-up official files of a task below ``root``."""
    for split in splits or ("train", *task.validation):
        path = root / task.local.folder / task.local.files[split]
        (root / task.local.folder).mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "\n".join("\t".join(row) for row in official_rows(task, split, count)) + "\n"
        )


def write_roberta(folder: Path, model: ModelSpec) -> Path:
    """Write a random RoBERTa with the tokenizer of ``model``; returns the folder."""
    torch.manual_seed(5)  # other weights than model=tiny, of the same shape
    RobertaModel(tiny_config(), add_pooling_layer=False).save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    return folder


@torch.no_grad()
def write_random_adapter(folder: Path, spec: Spec) -> Path:
    """Write an adapter of random numbers; returns the folder."""
    instance = build(spec, make_task(spec.task), get_method(spec.method), Streams(spec.seed))
    for parameter in instance.trained_state().values():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    checkpoint.save_adapter(folder, instance, spec)
    return folder


@torch.no_grad()
def randomize_b(model: nn.Module) -> None:
    """Give every B a value, as after training."""
    for layer in lora_layers(model):
        nn.init.normal_(layer.lora_b, std=0.1)


def yes_data(n=64) -> Encoded:
    """Label: does the text contain token 7? A two-layer encoder must be able to fit it."""
    rng = np.random.default_rng(0)
    ids = [[0, *rng.integers(10, 40, rng.integers(3, 9)), 2] for _ in range(n)]
    labels = np.arange(n) % 2
    for row, label in zip(ids, labels, strict=True):
        if label:
            row[rng.integers(1, len(row) - 1)] = 7
    return Encoded.from_lists(ids, [[0] * len(x) for x in ids], labels.astype(np.int64))


def command_line(
    *words: str, module: str = "lora_bench", out: TextIO | None = None
) -> subprocess.CompletedProcess:
    """Run ``python -m <module> <words>`` in this process, which saves seconds of imports.

    Tests of killed processes, and one test of each command, start a real process.

    Args:
        words: words of the command line.
        module: the program.
        out: what it prints to; None: it is in the result.
    """
    read, err, code = io.StringIO(), io.StringIO(), 0
    before, sys.argv = sys.argv, ["-m", *words]
    try:
        with contextlib.redirect_stdout(out or read), contextlib.redirect_stderr(err):
            loaded = importlib.import_module(module)
            if hasattr(loaded, "__path__"):  # a package
                loaded = importlib.import_module(f"{module}.__main__")
            loaded.main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        if isinstance(exit_.code, str):
            err.write(exit_.code + "\n")
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(words, code, read.getvalue(), err.getvalue())


# Imports are most of the time of a process that is killed soon: this server has done them.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.helpers", "lora_bench.__main__"])


def forked_command(
    *words: str, out: str | Path = os.devnull
) -> multiprocessing.process.BaseProcess:
    """Run ``python -m lora_bench <words>`` in its own process, to be killed.

    Args:
        words: words of the command line.
        out: file for what the command prints, written at its end.
    """
    process = FORKSERVER.Process(target=_exit_as_the_command, args=(words, out))
    process.start()
    return process


def _exit_as_the_command(words: Sequence[str], out: str | Path) -> None:
    done = command_line(*words)
    Path(out).write_text(done.stdout)
    sys.exit(done.returncode)


def our_outputs(folder: Path) -> torch.Tensor:
    model, _, _ = load_model(folder)
    with torch.no_grad():
        return model(random_batch(ROW_LENGTHS))


def stock_outputs(model, like: torch.Tensor) -> torch.Tensor:
    """Logits of a transformers model, padded, one row for each row of ``like``."""
    batch = random_batch(ROW_LENGTHS)
    pieces = batch.input_ids.split(ROW_LENGTHS)
    ids = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=1)
    with torch.no_grad():
        out = model.eval()(input_ids=ids, attention_mask=(ids != 1).long())
    if "logits" in out:
        return out.logits
    both = torch.stack([out.start_logits, out.end_logits], dim=-1)
    return torch.cat([row[:n] for row, n in zip(both, ROW_LENGTHS, strict=True)])


def stock_class(like: torch.Tensor):
    return (
        AutoModelForQuestionAnswering
        if like.shape[0] == sum(ROW_LENGTHS)
        else AutoModelForSequenceClassification
    )
