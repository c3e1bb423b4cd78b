"""Training curves reach TensorBoard's event files and W&B's offline runs, and nothing is written unasked."""

import importlib.util

import pytest

from lora_bench.spec import UserError
from lora_bench.training.run import folder_of, run


def test_tensorboard_reads_back_what_the_run_recorded(tiny_spec):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    spec = tiny_spec("logger=tensorboard")
    record = run(spec)
    events = accumulator.EventAccumulator(str(folder_of(spec) / "logs")).Reload()
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("validation/matthews")] == [
        (3 * epoch["epoch"], epoch["scores"]["matthews"]) for epoch in record.epochs
    ]
    losses = [e.value for e in events.Scalars("train/loss")]
    assert len(losses) == 6 and sum(losses[:3]) / 3 == pytest.approx(
        record.epochs[0]["loss"], rel=1e-5
    )
    assert max(e.value for e in events.Scalars("train/lr")) <= spec.train.lr


def test_wandb_works_offline(tiny_spec, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    spec = tiny_spec("logger=wandb", "train.epochs=1")
    assert run(spec).status == "ok"
    (log,) = (folder_of(spec) / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"validation/matthews" in content and spec.key().encode() in content


def test_a_logger_is_no_part_of_the_key_and_off_by_default(tiny_spec, monkeypatch):
    spec = tiny_spec("train.epochs=1")
    assert tiny_spec("train.epochs=1", "logger=tensorboard").key() == spec.key()
    run(spec)
    assert not (folder_of(spec) / "logs").exists() and not (folder_of(spec) / "wandb").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"logger=wandb: needs wandb: pip install 'lora-bench\[wandb\]'"
    ):
        run(tiny_spec("train.epochs=1", "logger=wandb", "seed=1"))
