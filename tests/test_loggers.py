"""Training curves reach TensorBoard's event files and W&B's offline runs, on request only."""

import importlib.util

import pytest

from lora_bench.compose import compose
from lora_bench.errors import UserError
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run


def test_tensorboard_reads_back_what_the_run_recorded(tiny_spec):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    spec = tiny_spec("logger=tensorboard")
    record = run(spec)
    events = accumulator.EventAccumulator(str(prepare(spec).folder / "logs")).Reload()
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("validation/matthews")] == [
        (3 * epoch["epoch"], epoch["scores"]["matthews"]) for epoch in record.epochs
    ]
    losses = [e.value for e in events.Scalars("train/loss")]
    assert len(losses) == 6 and sum(losses[:3]) / 3 == pytest.approx(
        record.epochs[0]["loss"], rel=1e-5
    )
    rates = [e.value for e in events.Scalars("train/lr")]  # of each step: peak first, then decay
    assert rates == pytest.approx([spec.train.lr * (6 - step) / 6 for step in range(6)])


@pytest.mark.slow
def test_wandb_works_offline(tiny_spec, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    spec = tiny_spec("logger=wandb", "train.epochs=1")
    assert run(spec).status == "ok"
    (log,) = (prepare(spec).folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"validation/matthews" in content and prepare(spec).key.encode() in content


def test_a_logger_is_no_part_of_the_key_and_off_by_default(tiny_spec, monkeypatch):
    spec = tiny_spec("train.epochs=1")
    assert prepare(tiny_spec("train.epochs=1", "logger=tensorboard")).key == prepare(spec).key
    run(spec)
    assert (
        not (prepare(spec).folder / "logs").exists()
        and not (prepare(spec).folder / "wandb").exists()
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"logger=wandb needs wandb: pip install 'lora-bench\[wandb\]'"
    with pytest.raises(UserError, match=message):  # before anything is loaded
        compose(["logger=wandb"])
