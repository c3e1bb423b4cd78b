"""Each hand-written method does what its paper says, and its adapter file is complete."""

import importlib.util
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lora_bench.checkpoint import load_adapter, save_adapter
from lora_bench.compose import compose, validate
from lora_bench.errors import SpecError, UserError
from lora_bench.methods import arguments, get_method, method_class
from lora_bench.methods.adapter import Adapter
from lora_bench.methods.peft_adalora import _add_orthogonality
from lora_bench.model.bottleneck import Bottleneck
from lora_bench.model.build import build
from lora_bench.model.inject import adapter_parameters, lora_layers
from lora_bench.model.parameters import parameter_counts
from lora_bench.model.streams import Streams
from lora_bench.model.wrapper import LoraWrapperRoberta
from lora_bench.spec import MethodSpec, Spec
from lora_bench.tasks import make_task
from lora_bench.training.fit import fit
from lora_bench.training.run import run
from lora_bench.training.trainee import Trainee

from .helpers import COMMON, mostly_slow, random_batch, yes_data
from .test_peft import TINY_ARGS
from .test_spec import OURS, PEFT


def built(spec: Spec):
    """A model of the spec, and its method."""
    method = get_method(spec.method)
    return build(spec, make_task(spec.task), method, Streams(spec.seed)), method


def trainee_of(spec: Spec, examples: int = 64) -> Trainee:
    return Trainee(spec, make_task(spec.task), yes_data(examples))


def test_lora_plus_gives_b_its_own_rate_and_keeps_every_parameter_once(tiny_spec):
    spec = tiny_spec(
        "method=lora_plus", "method.args.lr_ratio=4", "train.weight_decay=0.1", "method.biases=all"
    )
    model, method = built(spec)
    groups = method.optimizer(model, spec).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    names = {id(p): name for name, p in model.named_parameters()}
    for group in groups:
        for p in group["params"]:
            is_b = names[id(p)].endswith("lora_b")
            assert group["lr"] == pytest.approx(4e-3 if is_b else 1e-3)
            assert group["weight_decay"] == (0.1 if p.ndim > 1 else 0.0)
    spec.method.args["lr_ratio"] = -1
    with pytest.raises(
        SpecError, match=r"method.args.lr_ratio=-1.0: must be a finite number above 0"
    ):
        validate(spec)


def test_lora_fa_trains_b_alone_and_its_adapter_holds_a(tiny_spec, tmp_path):
    spec = tiny_spec("method=lora_fa", "train.lr=1e-2")
    trainee = trainee_of(spec)
    model = trainee.model
    name = "encoder.encoder.layer.0.attention.self.query.lora_"
    before = {x: model.get_parameter(name + x).clone() for x in "ab"}
    fit([trainee])
    assert torch.equal(model.get_parameter(name + "a"), before["a"])
    assert not torch.equal(model.get_parameter(name + "b"), before["b"])
    assert parameter_counts(model)["adapter"] == 2 * 2 * 8 * 32
    save_adapter(tmp_path, model, spec)
    other, _ = built(spec)
    next(lora_layers(other)).reset_lora()  # another A on the same base
    assert not torch.equal(other.get_parameter(name + "a"), before["a"])
    load_adapter(tmp_path, other)
    assert torch.equal(other.get_parameter(name + "a"), before["a"])


def test_a_relora_without_a_restart_is_refused(tiny_spec):
    spec = tiny_spec("method=relora", "method.args.every=6", "train.epochs=2")  # 2 x 3 steps
    with pytest.raises(SpecError, match="method.args.every=6: has no effect in 6 steps; must be"):
        run(spec)
    spec.method.args["every"] = 5
    assert run(spec).status == "ok"


def test_relora_merges_restarts_and_warms_up_again(tiny_spec, tmp_path):
    spec = tiny_spec(
        "method=relora",
        "method.args.every=2",
        "method.args.warmup=1",
        "train.warmup=0",
        "train.epochs=2",
    )
    trainee = trainee_of(spec, 48)  # 3 steps an epoch
    model, method = trainee.model, trainee.method
    start = {name: p.clone() for name, p in model.named_parameters()}
    layer = next(lora_layers(model))
    rates, restarts, weights = [], [], []
    after_step = method.after_step

    def watch(model, step):
        rates.append(method.adamw.param_groups[0]["lr"] / spec.train.lr)
        batch = random_batch([5, 9])
        before = model.eval()(batch)
        after_step(model, step)
        torch.testing.assert_close(
            model(batch), before, atol=1e-5, rtol=1e-4
        )  # a restart changes no output
        model.train()
        if not layer.lora_b.any():
            restarts.append(step)
            assert layer.lora_a not in method.adamw.state and layer.lora_b not in method.adamw.state
        weights.append(layer.weight.clone())

    method.after_step = watch
    fit([trainee])
    assert restarts == [2, 4]  # not after the last step
    assert rates == pytest.approx(
        [1, 5 / 6, 4 / 6 / 2, 3 / 6, 2 / 6 / 2, 1 / 6]
    )  # half after each restart
    assert (
        torch.linalg.matrix_rank(
            weights[-1] - start["encoder.encoder.layer.0.attention.self.query.weight"]
        )
        == 16
    )
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, start[n])}
    assert moved == model.trained_state().keys()
    save_adapter(tmp_path, model, spec)
    other, _ = built(spec)
    load_adapter(tmp_path, other)
    batch = random_batch([5, 9])
    assert torch.equal(model.eval()(batch), other.eval()(batch))


@pytest.mark.parametrize(("placement", "width", "millions"), [
    ("pfeiffer", 16, 0.8), ("pfeiffer", 64, 3.2), ("houlsby", 8, 0.8), ("houlsby", 64, 6.3),
])  # fmt: skip
def test_adapters_have_the_lora_papers_sizes_on_roberta_large(
    placement, width, millions, tiny_spec
):
    """LoRA paper, section 5.1: layers x (2 D m + m + D). Its table has 3.0M and 6.0M for m = 64."""
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    spec = tiny_spec(
        f"method=adapter_{placement}", f"method.args.bottleneck={width}", "method.layer_norms=false"
    )
    with torch.device("meta"):
        encoder = RobertaModel(config, add_pooling_layer=False)
        model = LoraWrapperRoberta.from_parts(encoder, nn.Linear(1024, 2), per_token=False)
        Adapter().prepare(model, spec)
    layers = 24 * (2 if placement == "houlsby" else 1)
    count = parameter_counts(model)["adapter"]
    assert count == layers * (2 * 1024 * width + width + 1024)
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_an_adapter_is_its_formula(placement, tiny_spec):
    """Layer 0's output, computed from its parts; with ``up`` at zero it is the plain encoder's."""
    model, _ = built(tiny_spec(f"method=adapter_{placement}", "method.args.bottleneck=4"))
    layer = model.eval().encoder.encoder.layer[0]
    bottlenecks = [m for m in layer.modules() if isinstance(m, Bottleneck)]
    assert len(bottlenecks) == (2 if placement == "houlsby" else 1)
    hidden, total_in = torch.randn(3, 64), torch.randn(3, 32)
    dense, norm, last = layer.output.dense(hidden), layer.output.LayerNorm, bottlenecks[-1]
    plain = norm(dense + total_in)
    for p in last.up.parameters():
        nn.init.zeros_(p)
    assert torch.equal(layer.output(hidden, total_in), plain)
    nn.init.normal_(last.up.weight)

    def update(x):
        return nn.functional.gelu(x @ last.down.weight.T + last.down.bias) @ last.up.weight.T

    expected = dense + total_in + update(dense if placement == "houlsby" else plain)
    torch.testing.assert_close(layer.output(hidden, total_in), norm(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted({*OURS, *PEFT}))
def test_a_layer_that_the_encoder_lacks_is_named(name, tiny_spec):
    more = TINY_ARGS.get(name, ())
    if "layers" not in method_class(tiny_spec(f"method={name}", *more).method).reads:
        return
    spec = tiny_spec(f"method={name}", *more, "method.layers=[99]")
    if spec.method.file == "peft" and not spec.method.targets:
        return  # PEFT finds its layers by name
    with pytest.raises(SpecError, match=r"^method.layers=\[99\]: layers=\[99\]: this encoder has "):
        model, method = built(spec)
        method.optimizer(model, spec)


def test_galores_first_step_is_adams_in_the_projection(tiny_spec):
    """Paper, algorithm 2: W - lr * alpha * P adam(P^T G), P the leading singular vectors of G."""
    pytest.importorskip("galore_torch")
    spec = tiny_spec("method=galore", "method.rank=3", "method.alpha=2")
    model, method = built(spec)
    optimizer = method.optimizer(model, spec)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    weight = model.encoder.encoder.layer[
        0
    ].intermediate.dense.weight  # (64, 32): projected on the right
    before, weight.grad = weight.detach().clone(), torch.randn(64, 32)
    p = torch.linalg.svd(weight.grad)[2][:3]  # (3, 32)
    optimizer.step()
    low = weight.grad @ p.T
    adam = low / (
        low.abs() + 1e-6 / (1 - 0.999) ** 0.5
    )  # a first step is bias-corrected to g / (|g| + eps)
    torch.testing.assert_close(
        weight.detach(), before - spec.train.lr * 2 * adam @ p, atol=1e-6, rtol=1e-4
    )
    assert optimizer.state[weight]["exp_avg"].shape == (64, 3)


def test_qlora_is_lora_over_the_dequantized_base(tiny_spec):
    functional = pytest.importorskip("bitsandbytes").functional
    model, _ = built(tiny_spec("method=qlora", "model=minilm"))
    plain, _ = built(tiny_spec("method=lora_linear", "model=minilm"))
    plain.load_state_dict(model.trained_state(), strict=False)
    linear = [(n, m) for n, m in model.encoder.encoder.named_modules() if isinstance(m, nn.Linear)]
    assert len(linear) == 36 and all(m.weight.dtype == torch.uint8 for _, m in linear)
    with torch.no_grad():
        for name, layer in linear:
            other = plain.encoder.encoder.get_submodule(name)
            error = (
                functional.dequantize_4bit(layer.weight, layer.weight.quant_state) - other.weight
            )
            assert (
                0.05 < error.norm() / other.weight.norm() < 0.12
            )  # what 16 levels in blocks of 64 cost
            other.weight += error
        for one, two in zip(lora_layers(model), lora_layers(plain), strict=True):
            nn.init.normal_(one.lora_b, std=0.1)
            two.lora_b.copy_(one.lora_b)
    batch = random_batch([5, 9, 3])
    ours, theirs = model.eval()(batch), plain.eval()(batch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    ours.sum().backward(), theirs.sum().backward()
    for name, p in adapter_parameters(model).items():
        torch.testing.assert_close(p.grad, plain.get_parameter(name).grad, atol=1e-5, rtol=1e-4)
    assert parameter_counts(model) == parameter_counts(
        plain
    )  # two weights in a byte are still two weights
    with pytest.raises(RuntimeError, match="merge into the unquantized model"):
        next(lora_layers(model)).merge()
    with pytest.raises(UserError, match="is 32 wide; must be a multiple of 64"):
        built(tiny_spec("method=qlora"))


def test_adamw8bit_trains_with_small_states(tiny_spec):
    pytest.importorskip("bitsandbytes")
    spec = tiny_spec(
        "method=full", "train.optimizer=adamw8bit", "train.epochs=8", "train.dropout=0"
    )
    trainee = trainee_of(spec)
    fit([trainee])
    assert trainee.epochs[-1]["loss"] < trainee.epochs[0]["loss"]
    words = trainee.model.encoder.embeddings.word_embeddings.weight
    assert trainee.optimizer.state[words]["state1"].dtype == torch.uint8


@pytest.mark.parametrize("transposed", [False, True])
def test_adaloras_orthogonality_is_the_gradient_of_its_penalty(transposed):
    factor = nn.Parameter(torch.randn(6, 3) if transposed else torch.randn(3, 6))
    gram = factor.T @ factor if transposed else factor @ factor.T
    (0.7 * torch.norm(gram - torch.eye(3))).backward()
    expected, factor.grad = factor.grad, None
    zero = torch.zeros_like(factor)
    torch.testing.assert_close(_add_orthogonality(factor, transposed, 0.7, zero), expected)


def test_adalora_cuts_to_its_budget(tiny_spec):
    spec = tiny_spec(
        "method=peft_adalora", "train.epochs=4", "method.args.init_r=6", "method.args.target_r=2"
    )
    trainee = trainee_of(spec, 48)  # 12 steps
    fit([trainee])
    config = trainee.method.tuner.peft_config["default"]
    assert (config.total_step, config.tinit, config.tfinal) == (12, 1, 4)
    values = [p for name, p in trainee.model.named_parameters() if "lora_E" in name]
    assert len(values) == 4 and sum(int((v != 0).sum()) for v in values) == 4 * 2


@dataclass
class Two:
    size: int
    name: str


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"size": 3}, r"method.args=\{'size': 3\}: method=mine needs name too"),
        ({"size": 3, "name": "x", "more": 1}, "method.args.more=1: method=mine takes size, name"),
        (
            {"size": "many", "name": "x"},
            "method.args.size=many: must be a valid integer",
        ),
        ({"size": "3", "name": "x"}, "method.args.size=3: must be a valid integer, not text"),
    ],
)
def test_a_methods_own_settings_are_all_given_and_typed(tiny_spec, args, message):
    spec = tiny_spec()
    spec.method = MethodSpec(name="mine", args=args)
    with pytest.raises(SpecError, match=message) as caught:
        arguments(spec, Two)
    assert "\n" not in str(caught.value)
    spec.method.args = {"size": 3, "name": "x"}
    assert arguments(spec, Two) == Two(3, "x")


@pytest.mark.parametrize("method", mostly_slow(sorted({*OURS, *PEFT}), ["lora_plus"]))
def test_a_whole_number_of_a_methods_own_settings_is_one_run_in_either_form(method):
    """A run's key is made from the text of its settings, in which 16 and 16.0 differ."""
    spec = compose([f"method={method}"])
    key = spec.identity(data="d", model="m").key
    for name, value in spec.method.args.items():
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                other = compose([f"method={method}", f"method.args.{name}={float(value)}"])
            except UserError:  # a method may take whole numbers only
                continue
            assert other.identity(data="d", model="m").key == key, name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.init=gaussian", "init_from=x"], "init=gaussian: has no effect with init_from"),
        (["method=relora", "method.args.every=0"], "method.args.every=0: must be 1 or more"),
        (
            ["method=adapter_houlsby", "method.args.placement=top"],
            "placement=top: must be one of houlsby, pfeiffer",
        ),
        (
            ["method=adapter_pfeiffer", "method.args.bottleneck=0"],
            "method.args.bottleneck=0: must be 1 or more",
        ),
        (
            ["method=peft_adalora", "method.args.tinit=7"],
            "method.args.tinit=7: must be a share of all steps below 1",
        ),
        (
            ["method=galore", "method.args.update_gap=0"],
            "method.args.update_gap=0: must be 1 or more",
        ),
        (["method=relora", "method.args.warmup=-1"], "method.args.warmup=-1: must be 0 or more"),
        (
            ["method=peft_adalora", "method.args.tinit=0.5", "method.args.tfinal=0.5"],
            "method.args.tfinal=0.5: must be below 1 together with method.args.tinit=0.5",
        ),
        (
            ["method=peft_adalora", "method.args.target_r=13"],
            "method.args.init_r=12: must be 14 or more",
        ),
        (["method=peft_adalora", "~method.args.tinit"], "method=peft_adalora needs tinit too"),
        (["method=peft_adalora", "+method.args.r=4"], "method.args.r=4: .* does not read it"),
        (
            ["method=peft_adalora", "method.peft_type=LORA"],
            "method.peft_type=LORA: must be one of ADALORA",
        ),
        (["method=lora", "+method.args.lr_ratio=16"], "lr_ratio=16: method=lora takes no args"),
        (
            ["method=full", "method.layers=[0]"],
            r"method.layers=\[0\]: method=full does not read it",
        ),
        (
            ["method=galore", "train.optimizer=adamw8bit"],
            "train.optimizer=adamw8bit: method=galore does not read it",
        ),
        (
            ["method=bitfit", "method.biases=adapted"],
            "method.biases=adapted: method=bitfit adapts no linear layer; must be none or all",
        ),
    ],
)
def test_a_wrong_setting_of_one_method_gives_a_one_line_error(tiny_spec, overrides, message):
    with pytest.raises(UserError, match=message):
        tiny_spec(*overrides)


@pytest.mark.parametrize(
    ("package", "extra", "overrides"),
    [
        ("bitsandbytes", "qlora", ["method=qlora"]),
        ("bitsandbytes", "qlora", ["method=lora", "train.optimizer=adamw8bit"]),
        ("galore_torch", "galore", ["method=galore"]),
        ("peft", "peft", ["method=peft_boft"]),
    ],
)
def test_without_its_package_a_method_names_the_extra(
    tiny_spec, monkeypatch, package, extra, overrides
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else real(name, *a)
    )
    with pytest.raises(
        UserError, match=rf"{overrides[-1]} needs {package}: pip install 'lora-bench\[{extra}\]'"
    ):
        run(tiny_spec(*overrides))
    assert run(tiny_spec("method=lora", "train.epochs=1")).status == "ok"


# These change the features of an encoder too little to find a token in those of a random one.
OF_PRETRAINED = {"adapter_pfeiffer", "bitfit", "peft_ia3", "peft_ln_tuning"}
# Of the others, all but these fit it with one rate.
RATES_OF_RANDOM = {"full": "3e-3", "galore": "3e-3", "lora_linear": "3e-3", "peft_boft": "1e-1"}


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted({*OURS, *PEFT} - OF_PRETRAINED - {"qlora"}))
def test_every_method_fits_what_a_frozen_encoder_cannot(tiny_spec, method):
    """Which texts hold a token, told from the first position of a random encoder."""
    rate = f"train.lr={RATES_OF_RANDOM.get(method, '3e-2')}"
    recipe = ["train.epochs=60", "train.dropout=0", rate, *TINY_ARGS.get(method, [])]
    trainee = trainee_of(tiny_spec(f"method={method}", *recipe))
    fit([trainee])
    loss = trainee.epochs[-1]["loss"]  # nats; a guess has log 2 = 0.69
    assert loss > 0.65 if method == "head_only" else loss < 0.35


# The quick recipe's rate is tuned for LoRA; methods that train few or small numbers need more.
RATES = {"full": "1.5e-4", "peft_ia3": "1e-2"}
# The F1 of a short run on passages is at chance for every method; its loss is not. The loss of a
# short run on STS-B is mostly the head's, which has to find the mean of the labels.
SHORT = {"squad_v1": ("data.toy_train=128", "data.toy_validation=16"), "stsb": ()}
LEARNING = [
    *[(method, "stsb") for method in sorted(OF_PRETRAINED | {"qlora"})],
    *[(method, "squad_v1") for method in sorted(COMMON)],
]
frozen: dict[tuple[str, str], float] = {}  # what head_only reaches, by task and rate


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), LEARNING)
def test_a_method_learns_more_than_a_frozen_encoder(compose_quick, method, task):
    """MiniLM on generated data, against head_only with the same learning rate and epochs."""
    rate = RATES.get(method, "1.5e-3")

    def reached(method: str) -> float:
        overrides = (f"task={task}", f"method={method}", f"train.lr={rate}", *SHORT[task])
        last = run(compose_quick(*overrides)).last
        return last["scores"]["pearson"] if task == "stsb" else -last["loss"]

    if (task, rate) not in frozen:
        frozen[task, rate] = reached("head_only")
    margin = 0.05  # of the loss; the least that a method gains is 0.16
    assert reached(method) > frozen[task, rate] + (margin if task == "squad_v1" else 0)


def test_biases_of_layers_that_an_argument_names_are_trained(tiny_spec):
    model, _ = built(tiny_spec("method=peft_ia3", "method.biases=adapted"))
    trained = {name for name, p in model.encoder.named_parameters() if p.requires_grad}
    biases = {name for name in trained if name.endswith(".bias")}
    assert biases and all(".base_layer." in name for name in biases)
