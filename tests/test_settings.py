"""Every setting of every method changes what is trained, or is refused before torch is imported.

The cases are derived from the dataclasses and the presets: a new method, field or argument is
covered without a change here.
"""

import copy
import dataclasses
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import RobertaModel

import lora_bench.model.build as build_module
from lora_bench.compose import compose, validate
from lora_bench.errors import SpecError
from lora_bench.methods import get_method
from lora_bench.methods.peft import TRANSLATED
from lora_bench.model.build import build
from lora_bench.model.encoder import load_encoder, tiny_config
from lora_bench.model.streams import Streams
from lora_bench.spec import MethodSpec, ModelSpec, Spec
from lora_bench.tasks import make_task
from lora_bench.training.fit import fit
from lora_bench.training.trainee import Trainee

from .helpers import COMMON, every, mostly_slow, random_batch, yes_data

ROOT = Path(__file__).parent.parent
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
NOT_TRAINED = ("name", "file", "args")  # a label, the choice of the class, and the arguments
# What a preset needs on two layers, 32 wide, for a run of four steps in which every argument acts.
SMALL = {
    "peft_adalora": [
        "train.epochs=8",
        "method.args={init_r: 6, target_r: 2, tinit: 0.2, tfinal: 0.3, deltaT: 1}",
    ],
    "peft_fourierft": ["method.args.n_frequency=100"],
    "peft_vblora": ["method.args.num_vectors=16", "method.args.vector_length=8"],
    "peft_vera": ["method.rank=16"],
    "galore": ["method.args.update_gap=1"],
    "qlora": ["model.name=wide"],  # its blocks of 64 do not fit 32
    "relora": ["method.args.every=1", "method.args.warmup=1"],
}
# Methods whose start has nothing random: a new one is expected to draw.
DETERMINISTIC = {
    "bitfit", "full", "galore", "head_only",
    "peft_boft", "peft_ia3", "peft_ln_tuning", "peft_olora", "peft_pissa",
}  # fmt: skip
# Values to try for a setting, in place of the rules of ``changed``.
VALUES: dict[str, list[Any]] = {
    "alpha": [3.0],
    "biases": ["none", "adapted", "all"],
    "dropout": [0.3],
    "init": ["gaussian", "gaussian_rank"],
    "layers": [[0], []],
    "rank": [6],
    "targets": [["query"], []],
}


@pytest.fixture(autouse=True)
def _encoders_loaded_once(monkeypatch):
    monkeypatch.setattr(build_module, "load_encoder", cached_encoder)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads cost more than they gain at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


loaded: dict[str, RobertaModel] = {}


def cached_encoder(model: ModelSpec, *, dropout: float) -> RobertaModel:
    """The tiny encoder, or one that is 64 wide."""
    if model.name not in loaded:
        loaded[model.name] = encoder = load_encoder(model, dropout=dropout)
        if model.name == "wide":
            config = tiny_config(attn_implementation=encoder.config._attn_implementation)
            config.hidden_size, config.intermediate_size = 64, 128
            loaded[model.name] = RobertaModel(config, add_pooling_layer=False)
    return copy.deepcopy(loaded[model.name])


@functools.cache
def composed(method: str) -> Spec:
    recipe = ["train.epochs=2", "train.batch_size=8", "train.lr=1e-2", "train.max_length=32"]
    return compose(["task=cola", "model=tiny", f"method={method}", *recipe, *SMALL.get(method, [])])


def small(method: str) -> Spec:
    return copy.deepcopy(composed(method))


def trained(spec: Spec) -> torch.Tensor:
    """Logits after a few steps."""
    trainee = Trainee(spec, make_task(spec.task), yes_data(16))
    fit([trainee])
    with torch.no_grad():
        return trainee.model.eval()(random_batch([5, 9, 3]))


def outcome(spec: Spec) -> torch.Tensor | str:
    """Logits after a few steps, or why the settings were refused."""
    try:
        validate(spec)
    except SpecError as error:
        assert "\n" not in str(error)
        return str(error)
    try:
        return trained(spec)
    except SpecError as error:  # only what depends on the encoder's sizes is found this late
        assert "cannot go into tiny" in str(error)
        return str(error)


def changed(name: str, value: Any, of_presets: list[Any]) -> list[Any]:
    """Other values of a setting, by its type, or those of other presets."""
    if name in VALUES:
        found = VALUES[name]
    elif isinstance(value, bool):
        found = [not value]
    elif isinstance(value, int | float):
        found = [value * 2]
    elif isinstance(value, list):
        found = [value[:-1]]
    else:
        found = of_presets
    return [other for other in found if other != value]


def settings_of(spec: MethodSpec) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Name, the dict that holds it, and value of each setting of a method."""
    for entry in dataclasses.fields(MethodSpec):
        if entry.name not in NOT_TRAINED:
            yield entry.name, spec.__dict__, getattr(spec, entry.name)
    for name, value in spec.args.items():
        yield name, spec.args, value


@pytest.fixture(scope="module")
def of_presets() -> dict[str, list[Any]]:
    """The values that presets give each setting."""
    found: dict[str, list[Any]] = {}
    for method in METHODS:
        for name, _, value in settings_of(small(method).method):
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return found


def assert_each_setting_acts(spec: Spec, of_presets: dict[str, list[Any]]) -> None:
    before = outcome(spec)
    assert isinstance(before, torch.Tensor), before
    for name, holder, value in list(settings_of(spec.method)):
        others = changed(name, value, of_presets.get(name, []))
        assert others, f"no other value of {name}={value} is known: add one to VALUES"
        for other in others:
            holder[name] = other
            after = outcome(spec)
            holder[name] = value
            if isinstance(after, torch.Tensor):
                what = f"{name}={other} trains what {name}={value} trains"
                assert (after - before).abs().max() > 1e-6, what


@pytest.mark.parametrize("method", mostly_slow(METHODS, COMMON))
def test_each_setting_changes_the_trained_result_or_is_refused(method, of_presets):
    assert_each_setting_acts(small(method), of_presets)


@pytest.mark.parametrize("kind", mostly_slow(sorted(TRANSLATED.keys() - {"ADALORA"}), {"LORA"}))
def test_each_translated_setting_acts_in_every_peft_type(kind, of_presets):
    spec = small("peft_lora")
    values = {"rank": 4, "alpha": 8.0}
    spec.method.rank, spec.method.alpha = (
        value if name in TRANSLATED[kind] else None for name, value in values.items()
    )
    spec.method.peft_type = kind
    if kind == "VBLORA":
        spec.method.args = {"num_vectors": 16, "vector_length": 8}
    assert_each_setting_acts(spec, {"peft_type": ["IA3"]})
    for name in TRANSLATED[kind]:  # none of them is refused
        (other, *_) = changed(name, getattr(spec.method, name), [])
        assert isinstance(outcome(with_setting(spec, name, other)), torch.Tensor)


def with_setting(spec: Spec, name: str, value: Any) -> Spec:
    other = copy.deepcopy(spec)
    setattr(other.method, name, value)
    return other


def start_of(spec: Spec) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a fresh encoder, and PEFT's tensors that are neither."""
    model = build(spec, make_task(spec.task), get_method(spec.method), Streams(spec.seed))
    hidden = {
        f"{path}.indices": torch.cat([*module.indices.values()])
        for path, module in model.encoder.named_modules()
        if isinstance(getattr(module, "indices", None), dict)
    }
    return {**model.encoder.state_dict(), **dict(model.encoder.named_buffers()), **hidden}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == two.keys()
    return all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("method", METHODS)
def test_the_start_follows_from_the_seed_of_the_run_alone(method):
    spec = small(method)
    torch.manual_seed(1)
    first = start_of(spec)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert equal(start_of(spec), first)
    assert torch.equal(torch.get_rng_state(), state)
    spec.seed += 1
    assert equal(start_of(spec), first) == (method in DETERMINISTIC)


@pytest.mark.parametrize("method", every(4, METHODS))
def test_training_draws_nothing_from_the_global_generator(method):
    """Dropouts, restarts and projections come from the run's own streams."""
    spec = small(method)
    dropout = with_setting(spec, "dropout", 0.3)
    if not isinstance(outcome(dropout), str):
        spec = dropout
    torch.manual_seed(1)
    first = trained(spec)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(trained(spec), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", METHODS)
def test_a_frozen_prefix_is_cached_or_refused(method):
    """What a method says about its lowest trained layer is true: the cache is never stale."""
    refused = small(method)
    refused.train.frozen_prefix = "cache"
    if method != "head_only":  # it adapts every layer, or trains in every one
        with pytest.raises(SpecError, match="train.frozen_prefix=cache: method.*the lowest layer"):
            validate(refused)
    spec = small(method)
    spec.train.frozen_prefix, spec.method.layers = "cache", [1]
    try:
        validate(spec)
    except SpecError:
        return
    trained(spec)  # raises if the method trains below


def test_a_refused_command_imports_no_torch():
    lines = [
        "method=full method.layers=[0]",
        "method=lora +method.args.lr_ratio=16",
        "method=lora method.layers=[]",
        "method=relora method.args.every=0",
        "method=lora_plus method.args.lr_ratio=-1",
        "method=adapter_houlsby method.args.placement=none",
        "method=galore train.optimizer=adamw8bit",
        "method=qlora method.targets=[]",
        "method=bitfit method.biases=adapted",
        "method.file=nosuch",
        "method=peft_lora method.peft_type=NOPE",
        "method=peft_lora method.init=gaussian",
        "method=peft_lora +method.args.r=4",
        "method=peft_adalora method.args.tinit=7",
    ]
    code = f"""
import sys
from lora_bench.compose import compose
from lora_bench.errors import UserError
for line in {lines}:
    try:
        compose(line.split())
    except UserError as error:
        assert "\\n" not in str(error), error
    else:
        raise AssertionError(line + " is not refused")
print(*sorted({{"torch", "transformers", "peft"}} & sys.modules.keys()), "end")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.returncode) == ("end", 0), done.stderr
