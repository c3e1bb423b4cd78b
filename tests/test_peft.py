"""PEFT's methods in our loop, and our LoRA against PEFT's."""

import dataclasses

import numpy as np
import peft
import pytest
import torch

from lora_bench.checks import TARGETS
from lora_bench.compose import compose
from lora_bench.errors import SpecError, UserError
from lora_bench.methods._peft_source import config_fields, peft_types
from lora_bench.methods.peft import PLAIN, SEEDS, TRANSLATED
from lora_bench.model.dropout import Dropout
from lora_bench.model.lora import LoraLinear
from lora_bench.model.parameters import parameter_counts
from lora_bench.tasks import make_task
from lora_bench.training.fit import Loop
from lora_bench.training.run import run
from lora_bench.training.trainee import Trainee

from .helpers import every, mostly_slow, random_batch, yes_data
from .test_spec import PEFT

TINY_ARGS = {"peft_vblora": ["method.args.num_vectors=16", "method.args.vector_length=8"]}


@pytest.mark.parametrize("task", mostly_slow(["rte", "squad_v1"], ["rte"]))
@pytest.mark.parametrize("method", every(3, PEFT))
def test_every_preset_trains_moves_its_adapter_and_reloads(tiny_spec, method, task):
    """run() itself fails if the saved adapter scores differently in a fresh model."""
    spec = tiny_spec(
        f"task={task}", f"method={method}", "train.epochs=1", *TINY_ARGS.get(method, [])
    )
    done = run(spec)
    assert done.parameters["adapter"] > 0
    trained = done.parameters["adapter"] + done.parameters["head"]
    assert done.parameters["trained"] == trained  # nothing else of the encoder


def test_ia3_rescales_keys_values_and_the_hidden_layer_of_the_feed_forward_block(tiny_spec):
    """Section 3.3 of the paper: l_k * K, l_v * V and (l_ff * gelu(W_1 x)) W_2."""
    trainee = Trainee(tiny_spec("method=peft_ia3"), make_task(tiny_spec().task), yes_data())
    layer = trainee.model.encoder.encoder.layer[0]
    adapted = [name for name, _ in layer.named_parameters() if "ia3_l" in name]
    assert [name.rsplit(".ia3_l")[0] for name in adapted] == [
        "attention.self.key", "attention.self.value", "output.dense"]  # fmt: skip
    for module in (layer.attention.self.key, layer.attention.self.value, layer.output.dense):
        vector = module.ia3_l["default"].data.uniform_(0.5, 2)
        x, plain = torch.randn(3, module.in_features), module.base_layer
        expected = plain(x * vector) if module is layer.output.dense else plain(x) * vector.T
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("targets", [["query", "value"], list(TARGETS)], ids=["q+v", "all linear"])
@pytest.mark.parametrize("task_name", mostly_slow(["rte", "squad_v1"], ["rte"]))
def test_50_steps_lose_what_pefts_lora_loses(tiny_spec, task_name, targets):
    """Same base, same A, dropout 0, float64, same batches: losses agree at every step."""
    common = [
        f"task={task_name}",
        "train.dropout=0",
        "train.lr=5e-3",
        f"method.targets=[{','.join(targets)}]",
    ]
    specs = [tiny_spec(*common, "method=lora"), tiny_spec(*common, "method=peft_lora")]
    task = make_task(specs[0].task)
    pair = [Trainee(spec, task, yes_data()) for spec in specs]
    ours, theirs = (trainee.model.double() for trainee in pair)
    theirs.head.load_state_dict(ours.head.state_dict())
    with torch.no_grad():
        for name, layer in ours.encoder.named_modules():
            if isinstance(layer, LoraLinear):
                theirs.encoder.get_submodule(name).lora_A["default"].weight.copy_(layer.lora_a)
    assert parameter_counts(ours) == parameter_counts(theirs)
    for trainee in pair:
        trainee.schedule.step = lambda: None  # more steps than the data give: a constant rate
    rng = np.random.default_rng(0)
    losses, loops = [], [Loop([trainee]) for trainee in pair]
    for step in range(1, 51):
        lengths = rng.integers(3, 20, 4)
        labels = (
            rng.integers(0, 2, 4) if task_name == "rte" else np.sort(rng.integers(0, 3, (4, 2)))
        )
        batch = random_batch(lengths, labels=labels, seed=step)
        for trainee in pair:
            trainee.next_batch = lambda batch=batch: [batch]
        losses.append([loop.step() for loop in loops])
        for trainee in pair:
            trainee.optimizer.zero_grad()
    first, second = np.array(losses).T
    np.testing.assert_allclose(first, second, rtol=1e-9)
    assert first[-10:].mean() < first[:10].mean()  # it did train
    batch = random_batch([5, 9])
    torch.testing.assert_close(ours.eval()(batch), theirs.eval()(batch), atol=1e-8, rtol=1e-8)


def test_dropout_of_pefts_lora_is_method_dropout(tiny_spec):
    trainee = Trainee(
        tiny_spec("method=peft_lora", "method.dropout=0.1"), make_task(tiny_spec().task), yes_data()
    )
    layers = [m for m in trainee.model.encoder.modules() if hasattr(m, "lora_dropout")]
    assert len(layers) == 4
    for layer in layers:
        dropout = layer.lora_dropout["default"]
        assert isinstance(dropout, Dropout) and dropout.p == 0.1 and dropout.stream is not None


def test_biases_of_adapted_layers_are_trained_in_both_implementations(tiny_spec):
    counts = []
    for method in ("lora", "peft_lora"):
        spec = tiny_spec(f"method={method}", "method.biases=adapted")
        trainee = Trainee(spec, make_task(spec.task), yes_data())
        counts.append(parameter_counts(trainee.model))
    assert counts[0] == counts[1] and counts[0]["bias"] == 2 * 2 * 32


def test_settings_read_from_the_source_are_those_of_pefts_dataclasses():
    configs = {kind.value: config for kind, config in peft.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    assert peft_types() == sorted(configs)
    common = {entry.name for entry in dataclasses.fields(peft.PeftConfig)}
    for kind, config in configs.items():
        fields = {entry.name for entry in dataclasses.fields(config)}
        found = config_fields(kind)
        assert found.keys() - common == fields - common, kind
        for name, annotation in found.items():
            if annotation in PLAIN:  # the ones whose values are checked
                default = config.__dataclass_fields__[name].default
                known = default is None or default is dataclasses.MISSING
                assert known or isinstance(default, PLAIN[annotation]), (kind, name)
        if "target_modules" in found:
            seeds = {name for name in found if "seed" in name or "prng" in name}
            assert seeds <= {*SEEDS}, kind
    for kind, names in TRANSLATED.items():
        assert set(names.values()) <= config_fields(kind).keys(), kind


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.peft_type=NOSUCH"], "method.peft_type=NOSUCH: must be one of .*IA3"),
        (["method.peft_type=null"], "method.peft_type=None: must be one of .*IA3"),
        (["method.peft_type=ADALORA"], "ADALORA: needs method.file=peft_adalora"),
        (["method.peft_type=PROMPT_TUNING"], "cannot compute packed"),
        (["method.peft_type=SHADOW"], "peft_type=SHADOW: does not adapt each token by itself"),
        (
            ["+method.args.ranke=3"],
            r"method.args.ranke=3: peft_type=LORA takes alpha_pattern, exclude_modules, init_lora",
        ),
        (["+method.args.r=4"], "method.args.r=4: use method.rank"),
        (["+method.args.lora_alpha=4"], "method.args.lora_alpha=4: use method.alpha"),
        (["+method.args.use_rslora=true"], "use_rslora=True: use method.rank_stabilized"),
        (["+method.args.bias=all"], "method.args.bias=all: use method.biases"),
        (["+method.args.inference_mode=true"], "inference_mode=True: peft_type=LORA takes"),
        (["+method.args.use_dora=maybe"], "method.args.use_dora=maybe: must be of type bool"),
        *[
            ([f"+method.args.{name}"], f"method.args.{name.split('=')[0]}=.*: peft_type=LORA takes")
            for name in (
                "use_qalora=true",
                "qalora_group_size=3",
                "ensure_weight_tying=true",
                "target_parameters=[x]",
                "runtime_config={a:1}",
                "arrow_config={a:1}",
                "loftq_config={x:1}",
            )
        ],
        *[
            ([f"+method.args.init_lora_weights={init}"], "init_lora_weights=.*: must be true, fal")
            for init in ("eva", "corda", "lora_ga", "loftq", "[1]", "1", "null", "pissa_niter_x")
        ],
        (["method=peft_adalora", "+method.args.init_lora_weights=eva"], "ADALORA takes beta1"),
        (["method.init=gaussian"], "method.init=gaussian: method=peft_lora does not read it"),
        (["method.rank=null"], "method.rank=None: method=peft_lora needs it"),
        (["method.targets=[]"], "either this or method.args.target_modules must name modules"),
        (["+method.args.target_modules=[query]"], "either this or method.args.target_modules"),
        (
            ["method=peft_vera", "init_from=another"],
            "the start has its own random projection; set method.args.projection_prng_key for both",
        ),
        (
            ["+method.args.init_lora_weights=pissa_niter_4", "init_from=another"],
            "init_from=another: init_lora_weights=pissa_niter_4 draws base weights that the start",
        ),
        (
            ["method=peft_adalora", "method.args.init_r=8"],
            "method.args.init_r=8: must be 9 or more",
        ),
        (
            ["method=peft_ia3", "method.args.feedforward_modules=[query]"],
            "method.args.feedforward_modules=query: must be one of key, value, output.dense",
        ),
        (["method=peft_boft", "method.args.boft_n_butterfly_factor=2"], "must be 1"),
        (["method=peft_ln_tuning", "method.layer_norms=true"], "does not read it"),
    ],
)
def test_a_wrong_peft_setting_gives_a_one_line_error(tiny_spec, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        tiny_spec("method=peft_lora", *overrides)
    assert "\n" not in str(caught.value)


def test_a_size_that_does_not_fit_the_encoder_gives_a_one_line_error(tiny_spec):
    spec = tiny_spec("method=peft_fourierft", "method.peft_type=C3A", "~method.args.n_frequency",
                     "~method.args.scaling")  # fmt: skip
    with pytest.raises(SpecError, match="C3A: cannot go into tiny: The block size should be"):
        Trainee(spec, make_task(spec.task), yes_data())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("exclude_modules=[nosuch]", "exclude_modules={'nosuch'} but no modules were excluded"),
        ("exclude_modules='('", "missing \\), unterminated subpattern"),
        ("exclude_modules=[query,nosuch]", "exclude_modules=nosuch: excludes none of the modules"),
        ("exclude_modules=[query,key]", "exclude_modules=key: excludes none of the modules that"),
        ("exclude_modules=[query,layer.0]", "exclude_modules=layer.0: excludes none of the modu"),
        ("exclude_modules='.*key'", r"exclude_modules=\.\*key: excludes none of the modules that"),
        ("rank_pattern={nosuch:4}", "rank_pattern keys did not match any targeted module"),
        ("rank_pattern={query:[4]}", "method.peft_type=LORA: cannot go into tiny: '<=' not supp"),
        ("rank_pattern=[1]", "method.peft_type=LORA: cannot go into tiny: 'list' object has no"),
    ],
)
def test_an_argument_without_effect_gives_a_one_line_error(tiny_spec, argument, message):
    spec = tiny_spec("method=peft_lora", f"+method.args.{argument}")
    with pytest.raises(SpecError, match=message) as caught:
        Trainee(spec, make_task(spec.task), yes_data())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ("[query,nosuch]", "nosuch"),
        ("'.*query'", None),
        ("all-linear", None),
        ("[layer.0.attention.self.query,key]", None),
    ],
)
def test_a_target_that_names_no_module_gives_a_one_line_error(tiny_spec, given, refused):
    words = ["method.targets=[]", f"+method.args.target_modules={given}"]
    spec = tiny_spec("method=peft_lora", *words)
    try:
        Trainee(spec, make_task(spec.task), yes_data())
    except SpecError as error:
        assert (
            str(error) == f"method.args.target_modules={refused}: names no module of this encoder"
        )
    else:
        assert refused is None


def test_ranks_of_single_modules_are_used(tiny_spec):
    spec = tiny_spec("method=peft_lora", "+method.args.rank_pattern={value:2}",
                     "+method.args.exclude_modules=[layer.0.attention.self.query]")  # fmt: skip
    encoder = Trainee(spec, make_task(spec.task), yes_data()).model.encoder
    ranks = {name: m.r["default"] for name, m in encoder.named_modules() if hasattr(m, "lora_A")}
    assert sorted(ranks.values()) == [2, 2, 8]


def test_peft_settings_belong_together():
    with pytest.raises(UserError, match="method.peft_type=None: must be one of"):
        compose(["method=lora", "method.file=peft"])
    with pytest.raises(UserError, match="method.peft_type=IA3: method=lora does not read it"):
        compose(["method=lora", "method.peft_type=IA3"])
