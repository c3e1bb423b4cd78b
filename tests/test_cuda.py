"""Training on a GPU: the same results as on a CPU, in groups as alone, without waiting."""

import warnings

import numpy as np
import pytest
import torch

from lora_bench.model.build import SharedEncoder
from lora_bench.spec import Spec
from lora_bench.tasks import make_task
from lora_bench.training.fit import Loop, fit
from lora_bench.training.trainee import Trainee

from .helpers import yes_data
from .test_group import MEMBERS, RECIPE, DoubleEncoder, assert_equal

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def trainees(specs: list[Spec], double: bool = False) -> list[Trainee]:
    """On one shared encoder."""
    shared = (DoubleEncoder if double else SharedEncoder)(specs[0])
    made = [Trainee(s, make_task(s.task), yes_data(64), None, shared) for s in specs]
    for trainee in made if double else []:
        trainee.model.double()
    return made


def change(trainee: Trainee, before: torch.Tensor) -> torch.Tensor:
    """What training changed, all parameters in one vector."""
    return flat(trainee) - before


def flat(trainee: Trainee) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainee.model.trained_state().values()])


def test_in_float64_a_gpu_gives_the_results_of_a_cpu(tiny_spec):
    words = ["train.epochs=1", "train.batch_size=6", "train.dropout=0"]
    pair = []
    for device in ("cpu", "cuda"):
        (trainee,) = trainees([tiny_spec(*words, f"device={device}")], double=True)
        fit([trainee])
        trainee.model.to("cpu")
        pair.append(trainee)
    assert_equal(*pair)


def test_members_in_float64_equal_their_single_runs(tiny_spec):
    specs = [tiny_spec(*RECIPE, *words, "device=cuda") for words in MEMBERS.values()]
    group = trainees(specs, double=True)
    fit(group)
    for spec, member in zip(specs, group, strict=True):
        (alone,) = trainees([spec], double=True)
        fit([alone])
        for trainee in (member, alone):
            trainee.model.to("cpu")
        assert_equal(member, alone, tolerance=1e-7)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.05), ("bf16", 0.3)])
def test_members_are_near_their_single_runs(tiny_spec, precision, tolerance):
    """With dropout, through the kernels: other masks would give an unrelated change."""
    names = ("rank 2", "rank 8", "biases", "one layer", "LoRA-FA", "Pfeiffer")
    words = [*RECIPE, "train.epochs=1", f"precision={precision}", "device=cuda"]
    specs = [tiny_spec(*words, *MEMBERS[name]) for name in names]
    group = trainees(specs)
    fit(group)
    for name, spec, member in zip(names, specs, group, strict=True):
        (alone,) = trainees([spec])
        before = flat(alone).clone()
        fit([alone])
        expected = change(alone, before)
        assert (change(member, before) - expected).norm() < tolerance * expected.norm(), name


def test_a_step_in_fp32_is_that_of_float64(tiny_spec):
    """The kernels' gradients against those of PyTorch's operators, without dropout."""
    spec = tiny_spec("train.epochs=1", "train.batch_size=64", "train.dropout=0", "device=cuda")
    pair = [trainees([spec], double)[0] for double in (False, True)]
    pair[1].model.load_state_dict(pair[0].model.state_dict())
    for trainee in pair:
        loop = Loop([trainee])
        loop.start_epoch()
        loop.step()
    grads = [torch.cat([p.grad.flatten().double() for p in t.trained]) for t in pair]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_checkpointing_changes_nothing(tiny_spec, precision):
    words = [*RECIPE, "train.epochs=1", f"precision={precision}", "device=cuda"]
    results = []
    for flag in ("true", "false"):
        (trainee,) = trainees([tiny_spec(*words, f"train.gradient_checkpointing={flag}")])
        fit([trainee])
        results.append(flat(trainee))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", ["sst2", "squad_v1"])
def test_a_step_waits_once_for_the_gpu(tiny_spec, task):
    words = [*RECIPE, f"task={task}", "precision=bf16", "device=cuda"]
    specs = [tiny_spec(*words, f"seed={seed}") for seed in range(3)]
    group = trainees(specs)
    for trainee in group if task == "squad_v1" else []:
        trainee.data.labels = np.tile([1, 2], (len(trainee.data), 1))
    loop = Loop(group)
    loop.start_epoch()
    loop.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            loop.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(w.message) for w in caught if str(w.message).startswith("called a sync")]
    assert len(waits) == 1, waits
