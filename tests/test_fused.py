"""The GPU's kernels compute what PyTorch's operators do; without a GPU, in Triton's interpreter."""

import numpy as np
import pytest
import torch
from torch import nn

from lora_bench.model import fused, tables
from lora_bench.model.build import SharedEncoder
from lora_bench.model.dropout import LEVELS, rescale
from lora_bench.model.fused import SPAN, FusedAttention, Mask, draw_keys, keep_mask, residual_norm
from lora_bench.model.layout import Layout
from lora_bench.tasks import make_task
from lora_bench.training.fit import fit
from lora_bench.training.trainee import Trainee

from .helpers import mostly_slow, yes_data

triton = pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds")
if not (torch.cuda.is_available() or triton.knobs.runtime.interpret):
    pytest.skip("a GPU that PyTorch cannot use", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS, SIZE = 2, 8
LENGTHS, SIZES = np.array([5, 20, 1, 70, 3]), (2, 3)  # examples of two runs, in tiles of 64
P = 0.3


def kept(index: np.ndarray, key: np.ndarray, site: int, p: float) -> np.ndarray:
    """The kernels' mask, computed by NumPy."""

    def mixed(x: np.ndarray) -> np.ndarray:
        x = x ^ (x >> 16)
        x = x * np.uint32(0x7FEB352D)
        x = x ^ (x >> 15)
        x = x * np.uint32(0x846CA68B)
        return x ^ (x >> 16)

    low, high = key.astype(np.int32).view(np.uint32)
    x = mixed(index.astype(np.uint32) ^ low)
    with np.errstate(over="ignore"):
        x = mixed(x ^ mixed(np.array([high + np.uint32(site)], dtype=np.uint32)))
    return (x >> 16) >= round(p * LEVELS)


@pytest.fixture
def layout() -> Layout:
    return Layout.from_lengths(LENGTHS, DEVICE, SIZES)


@pytest.fixture
def keys() -> torch.Tensor:
    return draw_keys([None, None], torch.device(DEVICE))


def attention(queries, keys_values, layout, keys, site, p):
    """Attention with the same masks, example after example, in float64."""
    queries = queries.double()
    q, k, v = queries.chunk(3, 1) if keys_values is None else (queries, *keys_values.chunk(2, 1))
    asking = layout if keys_values is None else layout.first
    out = queries.new_zeros(asking.height, HEADS * SIZE)
    for run, (own, part) in enumerate(zip(asking.parts, layout.parts, strict=True)):
        for example in range(part.examples.start, part.examples.stop):
            place = asking.starts[example] - own.rows.start
            rows = slice(asking.starts[example], asking.starts[example] + asking.lengths[example])
            all_ = slice(layout.starts[example], layout.starts[example] + LENGTHS[example])
            for head in range(HEADS):
                columns = slice(head * SIZE, (head + 1) * SIZE)
                scores = q[rows, columns].double() @ k[all_, columns].double().t() / 2
                row = place + np.arange(rows.stop - rows.start)
                index = ((row * HEADS + head) * SPAN)[:, None] + np.arange(LENGTHS[example])
                mask = torch.from_numpy(kept(index, keys[run].cpu().numpy(), site, p))
                weights = scores.softmax(-1) * mask.to(DEVICE) * rescale(p)
                out[rows, columns] = weights @ v[all_, columns].double()
    return out


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("p", mostly_slow([0.0, P], [P]))
def test_attention_and_its_gradients_are_those_of_plain_operators(layout, keys, first, p):
    torch.manual_seed(0)
    width, height = HEADS * SIZE, layout.height
    shapes = [(len(LENGTHS), width), (height, 2 * width)] if first else [(height, 3 * width)]
    inputs = [torch.randn(*shape, device=DEVICE, requires_grad=True) for shape in shapes]
    queries, keys_values = inputs if first else (*inputs, None)
    tables = (layout.first if first else layout).tables
    found = FusedAttention.apply(queries, keys_values, tables, HEADS, 0.5, Mask(keys, 4, p))
    expected = attention(queries, keys_values, layout, keys, 4, p)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(found)
    grads = torch.autograd.grad(found, inputs, direction)
    others = torch.autograd.grad(expected, inputs, direction.double())
    for one, other in zip(grads, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("p", mostly_slow([0.0, P], [P]))
@pytest.mark.parametrize("trained", mostly_slow([False, True], [True]))
def test_residual_norm_and_its_gradients_are_those_of_plain_operators(layout, keys, p, trained):
    torch.manual_seed(0)
    width = 24
    norm = nn.LayerNorm(width, device=DEVICE)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    norm.requires_grad_(trained)
    inputs = [torch.randn(layout.height, width, device=DEVICE, requires_grad=True) for _ in "hr"]
    mask = Mask(keys, 2, p)
    found = residual_norm(norm, *inputs, layout.owners, mask)
    rows = []
    for run, part in enumerate(layout.parts):
        index = np.arange((part.rows.stop - part.rows.start) * width).reshape(-1, width)
        rows.append(kept(index, keys[run].cpu().numpy(), 2, p))
    keep = torch.from_numpy(np.concatenate(rows)).to(DEVICE)
    if p:
        assert torch.equal(keep_mask(layout.owners, width, mask, torch.bool), keep)
    h, residual = inputs
    expected = norm(residual + h * keep * rescale(p))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    wanted = inputs + [x for x in norm.parameters() if trained]
    direction = torch.randn_like(found)
    grads = torch.autograd.grad(found, wanted, direction)
    others = torch.autograd.grad(expected, wanted, direction)
    for one, other in zip(grads, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rank", mostly_slow([3, 8, 70], [70]))
def test_low_rank_products_are_added_to_each_run_s_own_rows(layout, rank):
    torch.manual_seed(0)
    width = 150
    out = torch.randn(layout.height, 2 * width, device=DEVICE)
    low = torch.randn(layout.height, rank + 5, device=DEVICE)[:, 2 : rank + 2]
    for b in (
        torch.randn(2, width, rank, device=DEVICE),
        torch.randn(2, rank, width, device=DEVICE).transpose(1, 2),
    ):
        expected = out.clone()
        for part, own in zip(layout.parts, b, strict=True):
            expected[part.rows, width:] += low[part.rows] @ own.t()
        fused.add_low_rank(out[:, width:], low, b, layout.owners)
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_a_mask_of_any_shape_starts_with_that_of_fewer_rows():
    key = draw_keys([None], torch.device("cpu"))[0].numpy()
    one, other = (torch.empty(rows, 700, device=DEVICE) for rows in (5, 3))
    fused.fill_mask(one, key, P), fused.fill_mask(other, key, P)
    assert torch.equal(one[:3], other) and abs(one.mean().item() - 1 + P) < 0.05


def test_masks_depend_on_the_run_and_the_site_and_have_the_rate(keys):
    owners = torch.tensor([[run, row] for run in range(2) for row in range(100)], device=DEVICE)
    owners = owners.to(torch.int32)
    one, other = (keep_mask(owners, 320, Mask(keys, site, P), torch.bool) for site in (0, 1))
    for mask in (one, other, one ^ other, one[:100] ^ one[100:]):
        expected = 1 - P if mask is one or mask is other else 2 * P * (1 - P)
        share = mask.double().mean().item()
        spread = (expected * (1 - expected) / mask.numel()) ** 0.5
        assert abs(share - expected) < 4 * spread
    neighbors = (one[:, 1:] ^ one[:, :-1]).double().mean().item()
    assert abs(neighbors - 2 * P * (1 - P)) < 0.01


def test_a_run_has_the_same_masks_in_a_group_as_alone(keys):
    together = Layout.from_lengths(LENGTHS, DEVICE, SIZES)
    alone = Layout.from_lengths(LENGTHS[2:], DEVICE)
    part, own = together.parts[1], alone.parts[0]  # one may have more unused rows
    found = keep_mask(together.owners, 16, Mask(keys, 0, P), torch.bool)[part.rows]
    expected = keep_mask(alone.owners, 16, Mask(keys[1:], 0, P), torch.bool)
    assert torch.equal(found[: part.tokens], expected[: own.tokens])


@pytest.mark.slow
def test_a_run_trains_through_the_kernels_in_a_group_as_alone(tiny_spec, monkeypatch):
    monkeypatch.setattr(tables, "GPU", DEVICE)
    words = ["train.epochs=1", "train.batch_size=3", f"device={DEVICE}"]
    specs = [tiny_spec(*words, f"method.rank={rank}", f"seed={rank}") for rank in (2, 8)]

    def trained(chosen):
        shared, task = SharedEncoder(specs[0]), make_task(specs[0].task)
        made = [Trainee(spec, task, yes_data(6), None, shared) for spec in chosen]
        fit(made)
        return [t.model.trained_state() for t in made]

    for spec, member in zip(specs, trained(specs), strict=True):
        (alone,) = trained([spec])
        for name, parameter in member.items():
            torch.testing.assert_close(parameter, alone[name], atol=1e-5, rtol=1e-4, msg=name)


def test_only_a_gpu_uses_the_kernels():
    assert not fused.usable(torch.zeros(1))
