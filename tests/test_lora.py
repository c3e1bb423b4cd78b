import math

import peft
import pytest
import torch
from torch import nn
from transformers import RobertaModel

from lora_bench.checks import TARGETS
from lora_bench.model.encoder import tiny_config
from lora_bench.model.inject import adapter_parameters, adapters_off, inject_lora, lora_layers
from lora_bench.model.lora import LoraLinear, LoraRobertaSelfAttention

from .helpers import encode, random_batch, randomize_b


@pytest.mark.parametrize("rank", [1, 4, 8])
@pytest.mark.parametrize("stabilized", [False, True])
def test_agrees_with_the_dense_formula(rank, stabilized):
    layer = LoraLinear.from_linear(
        nn.Linear(6, 5), rank=rank, alpha=3.0, rank_stabilized=stabilized
    )
    nn.init.normal_(layer.lora_b)  # B = 0 would hide every mistake in A and alpha
    x = torch.randn(2, 7, 6)
    scaling = 3.0 / (math.sqrt(rank) if stabilized else rank)
    dense = layer.weight + scaling * layer.lora_b @ layer.lora_a
    torch.testing.assert_close(layer(x), x @ dense.T + layer.bias)


def test_from_linear_shares_the_base_and_adds_only_lora_keys():
    base = nn.Linear(6, 5)
    layer = LoraLinear.from_linear(base, rank=2, alpha=2.0)
    assert layer.weight is base.weight and layer.bias is base.bias
    assert set(layer.state_dict()) == {"weight", "bias", "lora_a", "lora_b"}
    assert not any(p.is_meta for p in layer.parameters())


@pytest.mark.parametrize(
    ("init", "std"),
    [("kaiming", 1 / math.sqrt(3 * 400)), ("gaussian", 1.0), ("gaussian_rank", 0.25)],
)
def test_init_has_the_stated_spread_and_b_is_zero(init, std):
    layer = LoraLinear(400, 10, rank=16, alpha=1.0, init=init)
    assert layer.lora_a.std().item() == pytest.approx(std, rel=0.05)
    assert layer.lora_b.count_nonzero() == 0


def test_merge_keeps_the_output_and_unmerge_the_weight():
    layer = LoraLinear.from_linear(nn.Linear(6, 5), rank=2, alpha=4.0)
    nn.init.normal_(layer.lora_b)
    x, weight, expected = torch.randn(3, 6), layer.weight.clone(), None
    expected = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(RuntimeError, match="already merged"):
        layer.merge()
    layer.unmerge()
    torch.testing.assert_close(layer.weight, weight, atol=1e-6, rtol=1e-5)
    with pytest.raises(RuntimeError, match="not merged"):
        layer.unmerge()


def test_dropout_acts_on_the_low_rank_branch_only():
    layer = LoraLinear.from_linear(nn.Linear(6, 5), rank=2, alpha=4.0, dropout=0.5).train()
    x = torch.randn(50, 6)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))  # B = 0
    nn.init.normal_(layer.lora_b)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("targets", [["query", "value"], list(TARGETS)])
def test_injection_changes_no_bit_yet_and_leaves_the_softmax_scale(tiny_encoder, targets):
    batch = random_batch([5, 9, 2])
    before = encode(tiny_encoder, batch)
    scales = [layer.attention.self.scaling for layer in tiny_encoder.encoder.layer]
    names = inject_lora(tiny_encoder, targets=targets, rank=4, alpha=8.0)
    assert len(names) == 2 * len(targets)
    assert torch.equal(encode(tiny_encoder, batch), before)
    assert scales == [layer.attention.self.scaling for layer in tiny_encoder.encoder.layer]
    assert all(
        isinstance(layer.attention.self, LoraRobertaSelfAttention)
        for layer in tiny_encoder.encoder.layer
    )
    randomize_b(tiny_encoder)
    after = encode(tiny_encoder, batch)
    assert (after - before).abs().max() > 1e-3
    with adapters_off(tiny_encoder):
        assert torch.equal(encode(tiny_encoder, batch), before)
    assert torch.equal(encode(tiny_encoder, batch), after)


def test_merged_equals_unmerged_through_the_encoder(tiny_encoder):
    batch = random_batch([5, 9, 2])
    inject_lora(tiny_encoder, targets=TARGETS, rank=4, alpha=8.0)
    randomize_b(tiny_encoder)
    before = encode(tiny_encoder, batch)
    for layer in lora_layers(tiny_encoder):
        layer.merge()
    torch.testing.assert_close(encode(tiny_encoder, batch), before, atol=1e-5, rtol=1e-5)
    with pytest.raises(RuntimeError, match="merged"), adapters_off(tiny_encoder):
        pass


def test_only_the_chosen_layers_are_adapted(tiny_encoder):
    names = inject_lora(tiny_encoder, targets=["key", "output"], layers=[1], rank=2, alpha=2.0)
    assert names == ["encoder.layer.1.attention.self.key", "encoder.layer.1.output.dense"]
    assert set(adapter_parameters(tiny_encoder)) == {f"{n}.lora_{x}" for n in names for x in "ab"}
    with pytest.raises(ValueError, match="layers 0 to 1"):
        inject_lora(tiny_encoder, layers=[2], rank=2, alpha=2.0)
    with pytest.raises(ValueError, match=r"targets=\['querry'\]"):
        inject_lora(tiny_encoder, targets=["querry"], rank=2, alpha=2.0)


def test_a_second_injection_adds_to_the_first_and_replaces_no_update(tiny_encoder):
    batch = random_batch([5, 9, 2])
    inject_lora(tiny_encoder, targets=["query", "output"], rank=2, alpha=4.0)
    randomize_b(tiny_encoder)
    before = encode(tiny_encoder, batch)
    inject_lora(tiny_encoder, targets=["value"], rank=4, alpha=4.0)
    assert sorted(layer.rank for layer in lora_layers(tiny_encoder)) == [2] * 4 + [4] * 2
    assert torch.equal(encode(tiny_encoder, batch), before)
    for target in ("query", "output"):
        with pytest.raises(ValueError, match=f"{target}.*: has a low-rank update already"):
            inject_lora(tiny_encoder, targets=["key", target], rank=4, alpha=4.0)
    assert torch.equal(encode(tiny_encoder, batch), before)


def test_attentions_are_still_recorded(tiny_encoder):
    """A class that is not a RobertaSelfAttention would silently lose output_attentions."""
    tiny_encoder.set_attn_implementation("eager")
    inject_lora(tiny_encoder, rank=2, alpha=2.0)
    found = tiny_encoder(torch.randint(5, 200, (1, 7)), output_attentions=True).attentions
    assert [tuple(a.shape) for a in found] == [(1, 4, 7, 7)] * 2


def test_logits_and_gradients_agree_with_peft(tiny_encoder):
    import copy

    theirs = copy.deepcopy(tiny_encoder)
    batch = random_batch([4, 8])
    inject_lora(tiny_encoder, rank=4, alpha=6.0)
    randomize_b(tiny_encoder)
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=4, lora_alpha=6.0, target_modules=["query", "value"]), theirs
    )
    for name, layer in tiny_encoder.named_modules():
        if isinstance(layer, LoraLinear):
            other = theirs.get_submodule(name)
            other.lora_A["default"].weight.data.copy_(layer.lora_a)
            other.lora_B["default"].weight.data.copy_(layer.lora_b)
    ours_out, their_out = encode(tiny_encoder, batch), encode(theirs, batch)
    torch.testing.assert_close(ours_out, their_out, atol=1e-6, rtol=1e-6)
    ours_out.square().sum().backward()
    their_out.square().sum().backward()
    name = "encoder.layer.0.attention.self.value"
    ours, other = tiny_encoder.get_submodule(name), theirs.get_submodule(name)
    torch.testing.assert_close(
        ours.lora_a.grad, other.lora_A["default"].weight.grad, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        ours.lora_b.grad, other.lora_B["default"].weight.grad, atol=1e-5, rtol=1e-4
    )


def test_numbers_that_are_no_rank_or_alpha_are_refused():
    for wrong in ({"rank": 2.5}, {"rank": True}, {"alpha": float("nan")}, {"alpha": float("inf")}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            LoraLinear(4, 4, **{"rank": 2, "alpha": 2.0, **wrong})


def test_an_update_that_is_switched_off_is_not_merged():
    layer = LoraLinear(4, 4, rank=2, alpha=2.0)
    layer.enabled = False
    with pytest.raises(RuntimeError, match="switched off"):
        layer.merge()


def test_a_layer_with_parts_of_its_own_is_not_replaced():
    model = RobertaModel(tiny_config(), add_pooling_layer=False)
    attention = model.encoder.layer[0].attention.self
    attention.query = nn.Sequential(attention.query)
    with pytest.raises(ValueError, match="query: is a Sequential; must be a plain linear layer"):
        inject_lora(model, rank=2, alpha=2.0)
    assert isinstance(model.encoder.layer[1].attention.self.query, nn.Linear)
