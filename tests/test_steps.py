"""How a step is computed, in parts or twice, and when a run stops early."""

import numpy as np
import pytest
import torch

import lora_bench.model.build as build_module
from lora_bench.errors import UserError
from lora_bench.model.group import Group
from lora_bench.record import read
from lora_bench.tasks import make_task
from lora_bench.tasks.text import TextTask
from lora_bench.training.compatible import shared_settings
from lora_bench.training.fit import Scoring, fit
from lora_bench.training.prepared import DataCache, prepare
from lora_bench.training.run import execute
from lora_bench.training.trainee import Trainee

from .helpers import every, mostly_slow, random_batch, yes_data
from .test_group import MEMBERS, RECIPE, assert_equal, specs_of, trainees
from .test_settings import METHODS, SMALL, cached_encoder, small

IN_FP32 = {"qlora", "peft_fourierft"}  # whose packages compute in fp32
ODD = 45  # examples: the last batch is smaller, and its parts are unequal


class PerToken(TextTask):
    """A loss that is a mean over tokens, of which examples have different numbers."""

    head = "token"

    def loss(self, logits, batch):
        return (logits.double() ** 2).sum(1).mean()

    def terms(self, batch):
        return len(batch.input_ids)


def trained(spec, task=None):
    """In float64 and without dropout, whose masks depend on the parts."""
    trainee = Trainee(spec, task or make_task(spec.task), yes_data(ODD))
    if spec.task.kind == "span":
        trainee.data.labels = np.tile([1, 2], (ODD, 1))
    trainee.model.double()
    fit([trainee])
    return trainee


@pytest.mark.parametrize("kind", every(2, ["text", "span", "token"]))
def test_parts_of_a_step_have_the_gradient_of_the_whole(tiny_spec, kind):
    words = ["train.dropout=0", "train.batch_size=16", "train.lr=1e-3", "train.epochs=2"]
    words += ["task=squad_v1"] if kind == "span" else []
    whole = tiny_spec(*words)
    task = PerToken(whole.task) if kind == "token" else None
    one = trained(whole, task)
    for parts in (2, 3, 16):
        other = trained(tiny_spec(*words, f"train.accumulate={parts}"), task)
        assert (other.step_count, other.tokens, other.examples) == (
            one.step_count,
            one.tokens,
            one.examples,
        )
        for name, parameter in one.model.trained_state().items():
            found = other.model.trained_state()[name]
            torch.testing.assert_close(parameter, found, atol=1e-9, rtol=1e-9, msg=name)
        losses = [[epoch["loss"] for epoch in t.epochs] for t in (one, other)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-9)


@pytest.mark.parametrize("method", every(6, sorted({*METHODS} - IN_FP32)))
def test_parts_of_a_step_have_the_gradient_of_the_whole_in_every_method(tiny_spec, method):
    """A method may add to the gradient, as AdaLoRA does: once in a step, not once in a part."""
    words = [f"method={method}", *SMALL.get(method, []), "train.dropout=0"]
    words += ["train.batch_size=16", "train.lr=1e-3", "train.epochs=1"]
    one, other = (trained(tiny_spec(*words, f"train.accumulate={n}")) for n in (1, 3))
    found = other.model.trained_state()
    for name, parameter in one.model.trained_state().items():
        torch.testing.assert_close(parameter, found[name], atol=1e-9, rtol=1e-9, msg=name)


@pytest.mark.parametrize("count", mostly_slow([2, 4], [2]))
def test_members_that_accumulate_equal_their_single_runs(tiny_spec, count):
    few = list(MEMBERS)[:count]
    specs = [tiny_spec(*RECIPE, *MEMBERS[name], "train.accumulate=3") for name in few]
    group = trainees(specs)
    fit(group)
    for spec, member in zip(specs, group, strict=True):
        (alone,) = trainees([spec])
        fit([alone])
        assert_equal(member, alone)


@pytest.mark.parametrize("method", every(4, METHODS))
def test_layers_computed_twice_train_to_the_same_bits(method, monkeypatch):
    """With dropout, so that the second pass must draw the masks of the first."""
    monkeypatch.setattr(build_module, "load_encoder", cached_encoder)
    states = []
    for again in (False, True):
        spec = small(method)
        spec.train.gradient_checkpointing = again
        trainee = Trainee(spec, make_task(spec.task), yes_data(16))
        fit([trainee])
        states.append({**trainee.model.trained_state(), "loss": trainee.epochs[-1]["loss"]})
    first, second = states
    assert first.pop("loss") == second.pop("loss")
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name]), name


def test_members_whose_layers_are_computed_twice_keep_their_masks(tiny_spec):
    plain = trainees(specs_of(tiny_spec, "rank 2", "biases"))
    again = specs_of(tiny_spec, "rank 2", "biases")
    for spec in again:
        spec.train.gradient_checkpointing = True
    twice = trainees(again)
    for group in (plain, twice):
        fit(group)
    for one, other in zip(plain, twice, strict=True):
        assert_equal(one, other, 0.0)


def test_gradient_checkpointing_keeps_less(tiny_spec):
    def kept(*words):
        """Bytes that a forward pass keeps for the backward one."""
        spec = tiny_spec("method=full", *words)
        model = Trainee(spec, make_task(spec.task), yes_data(8)).model.train()
        sizes = {}

        def pack(tensor):
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(random_batch([30] * 40))
        return sum(sizes.values())

    assert kept("train.gradient_checkpointing=true") < kept() / 2


class Scripted(Scoring):
    """Gives each trainee the scores of a list, one after each epoch."""

    def __init__(self, scores):
        self.scores = scores

    def score(self, trainee, outputs):
        return {"first": self.scores[trainee][len(trainee.epochs)], "second": 0.0}


@pytest.mark.slow
def test_a_run_stops_when_its_patience_is_at_an_end(tiny_spec):
    scripts = ([1, 3, 2, 3, 9], [1, 2, 3, 4, 5], [5, 4, 3, 9, 9])
    words = ["train.epochs=5", "train.patience=2", "train.lr=1e-3"]
    specs = [tiny_spec(*RECIPE, *MEMBERS[n], *words) for n in ("rank 2", "biases", "rank 8")]
    group = trainees(specs)
    fit(group, Scripted(dict(zip(group, scripts, strict=True))))
    # An equal score is no better one: the first run stops after its fourth epoch.
    assert [len(trainee.epochs) for trainee in group] == [4, 5, 3]
    for spec, member, script in zip(specs, group, scripts, strict=True):
        (alone,) = trainees([spec])
        fit([alone], Scripted({alone: script}))
        assert len(alone.epochs) == len(member.epochs)
        assert_equal(member, alone)


def test_a_group_in_which_runs_stop_early_leaves_whole_records(tiny_spec, tmp_path, monkeypatch):
    """The saved adapter of each is scored again, in a pass of the same runs as before."""
    stops = {0: 2, 1: 4, 2: 3}  # number of epochs by seed
    monkeypatch.setattr(
        Trainee, "is_done", property(lambda self: len(self.epochs) >= stops[self.spec.seed])
    )
    cache = DataCache()
    words = ["train.epochs=4", "train.patience=2", f"out_dir={tmp_path}"]
    runs = [prepare(tiny_spec(*words, f"seed={seed}"), cache) for seed in stops]
    assert len({str(shared_settings(run.spec)) for run in runs}) == 1
    grouped = {}
    for outcome in execute(runs):
        record = grouped[outcome.run.key] = read(outcome.folder)
        assert outcome.error is None and record.status == "ok"
        assert len(record.epochs) == stops[record.seed]
        assert record.last == record.epochs[-1] and record.reloaded == record.last["scores"]
    for seed in stops:
        spec = tiny_spec(*words[:2], f"seed={seed}", f"out_dir={tmp_path}/alone")
        (alone,) = execute([prepare(spec, cache)])
        pair = (alone.record, grouped[alone.record.key])
        losses = [[epoch["loss"] for epoch in record.epochs] for record in pair]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.accumulate=0", "must be 1 or more"),
        ("train.accumulate=17", "must be at most train.batch_size=16"),
        ("train.patience=0", "must be 1 or more"),
        ("train.patience=4", r"has no effect in 4 epochs \(train.epochs\)"),
    ],
)
def test_what_has_no_effect_is_refused(tiny_spec, word, message):
    with pytest.raises(UserError, match=message):
        tiny_spec("train.batch_size=16", "train.epochs=4", word).check()


def test_one_model_gives_what_a_group_of_it_gives(tiny_spec):
    """The setting reaches the pass of a group too."""
    spec = tiny_spec("train.gradient_checkpointing=true")
    models = [Trainee(spec, make_task(spec.task), yes_data(8)).model for _ in range(2)]
    assert Group(models)._encode.checkpointing and models[0].encode.checkpointing
