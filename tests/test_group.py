"""Runs trained in one pass: each gives the result of its single run, whatever the others do."""

import copy

import pytest
import torch
from torch import nn

from lora_bench.model.build import SharedEncoder
from lora_bench.model.group import Group
from lora_bench.spec import Spec
from lora_bench.tasks import make_task
from lora_bench.training.compatible import shared_settings
from lora_bench.training.evaluation import Evaluation, outputs_of, score
from lora_bench.training.fit import Loop, Scoring, fit
from lora_bench.training.prepared import Prepared
from lora_bench.training.trainee import Diverged, Trainee

from .helpers import every, mostly_slow, random_batch, yes_data

# Members that differ in everything that may differ. Where a gradient is near zero, Adam turns
# rounding into a part of the learning rate, so rates are moderate.
MEMBERS = {
    "rank 2": ["method.rank=2", "seed=3", "train.lr=2e-3"],
    "rank 8": ["method.rank=8", "train.weight_decay=0.1", "train.warmup=0.5"],
    "all targets": ["method=lora_linear", "method.rank=1", "seed=1", "method.dropout=0.2"],
    "one layer": ["method.layers=[1]", "method.layer_norms=true", "method.targets=[key]"],
    "biases": ["method.biases=all", "method.layer_norms=true", "train.max_grad_norm=0.1"],
    "LoRA-FA": ["method=lora_fa", "seed=4"],
    "LoRA+": ["method=lora_plus", "seed=5", "head=article", "train.lr=2e-4"],
    "BitFit": ["method=bitfit", "train.lr=2e-3"],
    "head": ["method=head_only", "seed=6"],
    "Houlsby": ["method=adapter_houlsby", "seed=7"],
    "Pfeiffer": ["method=adapter_pfeiffer", "seed=8", "train.lr=2e-4"],
}
RECIPE = ["train.epochs=3", "train.batch_size=6", "train.dropout=0.1"]  # 30 steps and more
EXAMPLES = 64


class DoubleEncoder(SharedEncoder):
    """The shared encoder in float64."""

    def __init__(self, spec: Spec):
        super().__init__(spec)
        self.encoder.double()
        self._on_device = {p.data_ptr(): p.data.to(spec.device) for p in self.encoder.parameters()}


def trainees(specs: list[Spec]) -> list[Trainee]:
    """In float64, on one shared encoder."""
    shared = DoubleEncoder(specs[0])
    made = []
    for spec in specs:
        trainee = Trainee(spec, make_task(spec.task), yes_data(EXAMPLES), None, shared)
        trainee.model.double()
        made.append(trainee)
    return made


def assert_equal(one: Trainee, other: Trainee, tolerance: float = 1e-9) -> None:
    """Parameters, losses and predictions are those of the other."""
    for name, parameter in one.model.trained_state().items():
        found = other.model.trained_state()[name]
        torch.testing.assert_close(parameter, found, atol=tolerance, rtol=tolerance, msg=name)
    for first, second in zip(one.epochs, other.epochs, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], abs=tolerance)
    batch = random_batch([5, 9, 3])
    with torch.no_grad():
        logits = [trainee.model.eval()(batch) for trainee in (one, other)]
    torch.testing.assert_close(*logits, atol=tolerance, rtol=tolerance)


def specs_of(tiny_spec, *names: str) -> list[Spec]:
    return [tiny_spec(*RECIPE, *MEMBERS[name]) for name in names or MEMBERS]


def test_members_of_every_kind_equal_their_single_runs(tiny_spec):
    """In float64, with dropout: unequal ranks, rates, seeds, targets and freezing policies."""
    specs = specs_of(tiny_spec)
    group = trainees(specs)
    fit(group)
    assert group[0].step_count >= 30
    for spec, member in zip(specs, group, strict=True):
        (alone,) = trainees([spec])
        before = {n: p.clone() for n, p in alone.model.trained_state().items()}
        fit([alone])
        assert any(not torch.equal(p, before[n]) for n, p in alone.model.trained_state().items())
        assert_equal(member, alone)


def test_members_in_bf16_are_near_their_single_runs(tiny_spec):
    """By the norm of what training changed; Adam also follows gradients of pure rounding noise."""
    names = ("rank 2", "biases", "BitFit")
    specs = [tiny_spec(*RECIPE, *MEMBERS[name], "precision=bf16") for name in names]

    def made(chosen: list[Spec]) -> list[Trainee]:
        shared = SharedEncoder(chosen[0])
        task = make_task(chosen[0].task)
        return [Trainee(spec, task, yes_data(EXAMPLES), None, shared) for spec in chosen]

    def flat(trainee: Trainee) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in trainee.model.trained_state().values()])

    group = made(specs)
    fit(group)
    for spec, member in zip(specs, group, strict=True):
        (alone,) = made([spec])
        before = flat(alone).clone()
        fit([alone])
        change = flat(alone) - before
        assert (flat(member) - flat(alone)).norm() < 0.3 * change.norm()


def test_members_of_a_span_task_equal_their_single_runs(tiny_spec):
    import numpy as np

    names = ("rank 2", "biases", "Houlsby")
    specs = [tiny_spec("task=squad_v1", *RECIPE, *MEMBERS[name]) for name in names]

    def made(chosen: list[Spec]) -> list[Trainee]:
        found = trainees(chosen)
        for trainee in found:
            trainee.data.labels = np.tile([1, 2], (EXAMPLES, 1))
        return found

    group = made(specs)
    fit(group)
    for spec, member in zip(specs, group, strict=True):
        (alone,) = made([spec])
        fit([alone])
        assert_equal(member, alone)


def test_frozen_parameters_are_in_memory_once_and_stay_as_they_were(tiny_spec):
    shared = DoubleEncoder(specs_of(tiny_spec, "rank 2")[0])
    before = {name: p.clone() for name, p in shared.encoder.named_parameters()}
    task = make_task(specs_of(tiny_spec, "rank 2")[0].task)
    group = [Trainee(s, task, yes_data(EXAMPLES), None, shared) for s in specs_of(tiny_spec)]
    for trainee in group:
        trainee.model.double()
    fit(group)
    for name, parameter in shared.encoder.named_parameters():
        assert torch.equal(parameter, before[name]), name
    places = {p.data_ptr() for p in shared.encoder.parameters()}
    for trainee in group:
        own = trainee.model.trained_state()
        for name, parameter in trainee.model.named_parameters():
            if name.startswith("encoder."):
                assert (parameter.data_ptr() in places) != (name in own), name


class Noted(Scoring):
    """Records the failures."""

    def __init__(self):
        self.failures: dict[Trainee, Exception] = {}

    def failed(self, trainee: Trainee, error: Exception) -> None:
        self.failures[trainee] = error


def test_a_member_that_diverges_fails_alone(tiny_spec):
    wild = [["train.lr=1e30", "train.max_grad_norm=1e30", "train.warmup=0"], ["seed=9"]]
    specs = [
        tiny_spec(*RECIPE, *MEMBERS["rank 8"], *wild[0]),
        *specs_of(tiny_spec, "rank 2", "biases"),
    ]
    group, scoring = trainees(specs), Noted()
    # float64 takes a while to overflow: the loss itself is made infinite
    nn.init.constant_(group[0].model.head.out_proj.bias, float("inf"))
    fit(group, scoring)
    assert list(scoring.failures) == group[:1]
    assert isinstance(scoring.failures[group[0]], Diverged)
    without = trainees(specs[1:])
    fit(without)
    for member, other in zip(group[1:], without, strict=True):
        assert_equal(member, other)


@pytest.mark.parametrize("when", every(2, [7, 0]))
def test_a_member_whose_update_raises_fails_alone(tiny_spec, when):
    specs = specs_of(tiny_spec, "rank 2", "rank 8", "BitFit")
    group, scoring = trainees(specs), Noted()

    def fail(*_):
        if group[1].step_count == when:
            raise ArithmeticError("made to fail")

    group[1].optimizer.register_step_pre_hook(fail)
    fit(group, scoring)
    assert [str(error) for error in scoring.failures.values()] == ["made to fail"]
    for i in (0, 2):
        (alone,) = trainees(specs[i : i + 1])
        fit([alone])
        assert_equal(group[i], alone)


def test_scoring_that_raises_fails_one_member(tiny_spec):
    class Broken(Noted):
        def score(self, trainee, outputs):
            if trainee is group[0] and len(trainee.epochs) == 1:
                raise KeyError("broken")
            return {"metric": float(trainee.step_count)}

    group, scoring = trainees(specs_of(tiny_spec, "rank 2", "rank 8")), Broken()
    fit(group, scoring)
    assert list(scoring.failures) == group[:1]
    assert [len(trainee.epochs) for trainee in group] == [1, 3]


@pytest.mark.parametrize("phase", mostly_slow(["training", "scoring"], ["training"]))
def test_out_of_memory_halves_the_group_and_changes_nothing(tiny_spec, phase, monkeypatch):
    """Each half continues with the same masks that it would have drawn."""
    specs, passes = specs_of(tiny_spec, "rank 2", "rank 8", "biases", "Houlsby", "LoRA+"), []
    call = Group.__call__

    def limited(self, batches):
        passes.append(len(self.models))
        result = call(self, batches)
        if len(self.models) > 2 and self.models[0].training == (phase == "training"):
            raise torch.OutOfMemoryError("out of memory")
        return result

    class Predicts(Noted):
        def outputs(self, group, trainees):
            for trainee in trainees:
                trainee.model.eval()
            with torch.no_grad():
                return group([random_batch([4, 2])] * len(trainees))

    group, scoring = trainees(specs), Predicts()
    with monkeypatch.context() as patch:
        patch.setattr(Group, "__call__", limited)
        fit(group, scoring)
    assert not scoring.failures and {5, 3, 2, 1} == set(passes) and passes[-1] <= 2
    for spec, member in zip(specs, group, strict=True):
        (alone,) = trainees([spec])
        fit([alone])
        assert_equal(member, alone)


def test_a_single_run_out_of_memory_fails(tiny_spec, monkeypatch):
    def out(*_):
        raise MemoryError("no memory")

    group, scoring = trainees(specs_of(tiny_spec, "rank 2", "rank 8")), Noted()
    monkeypatch.setattr(Group, "__call__", out)
    fit(group, scoring)
    assert set(scoring.failures) == set(group)


def test_a_cached_prefix_is_computed_once_for_the_group(tiny_spec, monkeypatch):
    top = ["method.layers=[1]", "train.frozen_prefix=cache", *RECIPE]
    specs = [tiny_spec(*top, f"seed={seed}") for seed in (0, 1, 2)]
    group, calls = trainees(specs), []
    prefix = Trainee.frozen_prefix
    monkeypatch.setattr(Trainee, "frozen_prefix", lambda t: calls.append(t) or prefix(t))
    fit(group)
    assert calls == group[:1]
    for spec, member in zip(specs, group, strict=True):
        (alone,) = trainees([spec])
        fit([alone])
        assert_equal(member, alone)


def test_costs_are_shared_and_add_up(tiny_spec):
    group = trainees(specs_of(tiny_spec, "rank 2", "rank 8", "biases"))
    fit(group)
    total = group[0].costs.group_train
    assert all(trainee.costs.group_train == total for trainee in group)
    assert sum(trainee.costs.train for trainee in group) == pytest.approx(total)
    assert sum(t.costs.evaluate for t in group) <= group[0].costs.group_evaluate * 3


def test_runs_of_different_lengths_are_refused(tiny_spec):
    specs = [tiny_spec(*RECIPE), tiny_spec(*RECIPE, "train.epochs=2")]
    with pytest.raises(ValueError, match="equally many epochs and steps"):
        fit(trainees(specs))


@pytest.mark.slow
def test_two_loops_in_turn_do_not_disturb_each_other(tiny_spec):
    """Two groups step in turn in one process."""
    specs = specs_of(tiny_spec, "rank 2", "biases", "Houlsby", "rank 8")
    loops = [Loop(trainees(specs[:2])), Loop(trainees(specs[2:]))]
    for _ in range(3):
        for part in ("start_epoch", *["step"] * loops[0].passes[0][0].steps_per_epoch, "end_epoch"):
            for loop in loops:
                getattr(loop, part)()
    for spec, member in zip(specs, [t for loop in loops for t in loop.passes[0]], strict=True):
        (alone,) = trainees([spec])
        fit([alone])
        assert_equal(member, alone)


def test_what_may_differ_between_members(tiny_spec):
    base = shared_settings(tiny_spec())
    for words in MEMBERS.values():
        assert shared_settings(tiny_spec(*words)) is not None
    assert shared_settings(tiny_spec("method.rank=2", "train.lr=1", "seed=4")) == base
    for words in ("task=rte", "precision=bf16", "train.batch_size=3", "train.dropout=0.3"):
        assert shared_settings(tiny_spec(words)) != base
    assert shared_settings(tiny_spec("method=head_only")) != base  # needs no gradient below it
    for method in ("full", "relora", "galore", "peft_lora", "qlora"):
        assert shared_settings(tiny_spec(f"method={method}")) is None
    assert shared_settings(tiny_spec("method.embeddings=true")) is None


def test_a_subclass_says_itself_that_it_can_be_grouped(tiny_spec):
    from lora_bench.methods.lora import Lora

    class Mine(Lora):
        pass

    spec = copy.deepcopy(tiny_spec())
    assert Lora.grouped_in(spec) and not Mine.grouped_in(spec)


# Against a single run on MiniLM after 60 steps: the largest difference of a predicted similarity
# (0 to 5), and of a score. Rounding alone; a single run differs as much with another number of
# threads.
TOLERANCES = {"fp32": (0.02, 0.002), "bf16": (0.5, 0.02)}


@pytest.mark.slow
@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_members_on_minilm_equal_their_single_runs_within_a_stated_tolerance(
    compose_quick, precision
):
    words = [["seed=0"], ["seed=1", "method.rank=2"], ["seed=2", "method.biases=all"]]
    fixed = ["task=stsb", f"precision={precision}", "data.toy_train=320", "train.epochs=3"]
    specs = [compose_quick(*fixed, *own) for own in words]
    prepared = Prepared(specs[0])
    shared = SharedEncoder(specs[0])

    def trained(chosen: list[Spec], shared: SharedEncoder | None) -> list[Evaluation]:
        data = prepared.encoded["train"]
        made = [Trainee(spec, prepared.task, data, None, shared) for spec in chosen]
        fit(made)
        outputs = outputs_of(Group([trainee.model for trainee in made]), prepared, chosen[0])
        return [score(own, prepared) for own in outputs]

    together = trained(specs, shared)
    largest, of_scores = TOLERANCES[precision]
    for member, spec in zip(together, specs, strict=True):
        (alone,) = trained([spec], None)
        gap = abs(member.predictions["validation"] - alone.predictions["validation"])
        assert gap.max() < largest
        assert member.scores == pytest.approx(alone.scores, abs=of_scores)
