"""Packed and padded batches must agree: values and gradients, BERT and byte-level BPE."""

import numpy as np
import pytest
import torch
from transformers import BertModel

from lora_bench.model.attention import ATTENTION, packed_attention
from lora_bench.model.dropout import DropoutStream
from lora_bench.model.encoder import (
    first_position,
    load_encoder,
    load_tokenizer,
    max_tokens,
)
from lora_bench.model.grids import CELLS, LENGTHS, SPLIT
from lora_bench.model.layout import ROWS, Layout
from lora_bench.model.packing import Batch
from lora_bench.model.source import locate
from lora_bench.model.streams import Streams

from .conftest import MINILM, TINY
from .helpers import encode

LONG = "the quick brown fox jumps over the lazy dog and " * 90


@pytest.mark.parametrize("model", [MINILM, TINY], ids=["bert", "byte-level"])
def test_packed_equals_padded(model):
    encoder, tokenizer = load_encoder(model, dropout=0.0), load_tokenizer(model)
    longest = 512 if model is TINY else 128  # MiniLM at full length has a test of its own
    ids = [tokenizer(LONG, truncation=True, max_length=longest)["input_ids"]]
    ids += [
        tokenizer(t)["input_ids"]
        for t in ("", "a", "a short text", "another, somewhat longer text")
    ]
    ids.append([7])  # one token, no special ones
    assert max(map(len, ids)) == longest
    packed, padded = outputs_both_ways(encoder, tokenizer, ids)
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_packed_minilm_equals_the_stock_bert_at_full_length():
    tokenizer = load_tokenizer(MINILM)
    encoder = load_encoder(MINILM, dropout=0.0)
    bert = BertModel.from_pretrained(locate(MINILM), add_pooling_layer=False).eval()
    assert max_tokens(encoder) == 512
    texts = [(LONG, "and a second text"), ("one", "two"), ("a b c", LONG)]
    tokens = [tokenizer(*pair, truncation="longest_first", max_length=512) for pair in texts]
    batch = pack(encoder, [t["input_ids"] for t in tokens], [t["token_type_ids"] for t in tokens])
    packed = forward(encoder, batch).split(batch.cu_seqlens.diff().tolist())
    for t, ours in zip(tokens, packed, strict=True):
        row = {name: torch.tensor([values]) for name, values in t.items()}
        torch.testing.assert_close(ours, bert(**row).last_hidden_state[0], atol=2e-5, rtol=1e-4)


def test_gradients_of_packed_equal_those_of_padded(tiny_encoder, monkeypatch):
    monkeypatch.setattr("lora_bench.model.grids.DRAWN", 100)
    tokenizer = load_tokenizer(TINY)
    texts = ("a", "longer text", "the longest text of all, much longer than the others are")
    ids = [tokenizer(t)["input_ids"] for t in texts]
    assert len(Layout.from_lengths(np.array([len(x) for x in ids])).grids) > 1
    weight = tiny_encoder.encoder.layer[0].attention.self.key.weight
    found = []
    for outputs in outputs_both_ways(tiny_encoder, tokenizer, ids):
        sum(o.square().sum() for o in outputs).backward()
        found.append(weight.grad.clone())
        tiny_encoder.zero_grad()
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_training_attention_with_dropout_has_the_mean_of_the_one_without():
    """The path for dropout is the same attention: its mean over masks is SDPA's output."""
    stream = DropoutStream(Streams(0))

    layout = Layout.from_lengths(np.array([3, 6, 1]))
    q, k, v = torch.randn(3, 1, 2, 10, 4).unbind(0)
    exact, _ = packed_attention(None, q, k, v, None, layout=layout, scaling=0.5)
    draws = [
        packed_attention(
            None, q, k, v, None, layout=layout, scaling=0.5, dropout=0.2, stream=stream
        )[0]
        for _ in range(4000)
    ]
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(torch.stack(draws).mean(0), exact, atol=0.05, rtol=0)


def test_layout_of_equal_lengths_needs_no_mask(monkeypatch):
    monkeypatch.setattr("lora_bench.model.layout.ROWS", 1)
    monkeypatch.setattr("lora_bench.model.grids.LENGTHS", 1)
    (grid,) = Layout.from_lengths(np.array([4, 4])).grids
    assert grid.bias is None
    layout = Layout.from_lengths(np.array([3, 1]))
    (grid,) = layout.grids
    assert grid.bias.shape == (2, 1, 1, 3)
    assert grid.rows.tolist() == [[0, 1, 2], [3, 4, 4]]  # 4: a padding cell
    assert grid.bias.flatten().tolist() == [0, 0, 0, 0, float("-inf"), float("-inf")]


@pytest.mark.parametrize(
    "lengths", [[1], [5, 2], [40, 3, 200, 41, 2], [384] * 9, list(range(1, 130))]
)
def test_grids_hold_each_token_once_and_waste_little(lengths):
    layout, tokens = Layout.from_lengths(np.array(lengths)), sum(lengths)
    assert tokens <= layout.height < tokens + ROWS
    rows = np.concatenate([grid.rows.ravel() for grid in layout.grids])
    assert sorted(rows[rows < layout.height]) == list(range(tokens))  # the others are padding
    examples = np.concatenate([grid.examples for grid in layout.grids])
    assert sorted(examples.tolist()) == list(range(len(lengths)))
    check_waste(layout)


def check_waste(layout: Layout) -> None:
    """Grids are not too large, and hold parts of draws that are not worth another halving."""
    for grid in layout.grids:
        cells = len(grid.examples) * grid.longest
        assert len(grid.examples) == 1 or cells * grid.longest <= CELLS
        parts = [layout.draws[number].examples[own] for number, own in grid.cuts]
        assert np.concatenate(parts).tolist() == grid.examples.tolist()
        for part in parts:
            inside = sorted(layout.lengths[part].tolist(), reverse=True)
            assert inside[0] <= grid.longest < inside[0] + LENGTHS
            half = len(inside) // 2
            assert (inside[0] ** 2 - inside[half] ** 2) * (len(inside) - half) <= SPLIT


def test_several_runs_draw_what_each_draws_alone_and_share_grids():
    """Each run draws masks of the same shapes in the same order; no grid mixes lengths."""
    rng = np.random.default_rng(0)
    runs = [rng.integers(1, 130, size) for size in (16, 3, 16, 9)]
    together = Layout.from_lengths(np.concatenate(runs), sizes=[len(run) for run in runs])
    for run, lengths in enumerate(runs):
        alone, part = Layout.from_lengths(lengths), together.parts[run]
        assert part.tokens == lengths.sum() and part.rows.stop - part.rows.start == alone.height
        own = [draw for draw in together.draws if draw.run == run]
        assert [draw.longest for draw in own] == [draw.longest for draw in alone.draws]
        for draw, same in zip(own, alone.draws, strict=True):
            assert (draw.examples - part.examples.start).tolist() == same.examples.tolist()
        first = together.first_rows[part.examples] - part.rows.start
        assert first.tolist() == alone.first_rows.tolist()
    rows = np.concatenate([grid.rows.ravel() for grid in together.grids])
    tokens = [row for p in together.parts for row in range(together.height)[p.rows][: p.tokens]]
    assert sorted(rows[rows < together.height]) == tokens
    check_waste(together)
    assert any(
        len({together.draws[number].run for number, _ in g.cuts}) > 1 for g in together.grids
    )


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("first_only", [False, True])
def test_heads_return_from_the_grids_to_their_rows(first_only, zeros):
    """With zeros in rows without a token, and nothing of another example in padding cells."""
    whole = Layout.from_lengths(np.array([40, 3, 1, 38]), sizes=[1, 3])
    layout, parts, heads, size = whole.first if first_only else whole, 3, 2, 5
    x = torch.randn(layout.height, parts * heads * size)
    pieces = layout.pieces(parts, heads, zeros=zeros)
    grids = pieces.to_grids(x)
    for grid, found in zip(layout.grids, grids, strict=True):
        own = torch.cat([x, torch.zeros(1, x.shape[1])])[torch.from_numpy(grid.rows).long()]
        if not zeros:
            padding = torch.from_numpy(grid.rows == layout.height)[..., None]
            own = torch.where(padding, own[:, :1], own)
        by_part = own.unflatten(2, (parts, heads, size)).permute(2, 0, 3, 1, 4)
        assert torch.equal(found, by_part.flatten(1, 2))  # (parts, b * h, L, d)
    flat, views = pieces.empty(grids[0])
    for view, found in zip(views, grids, strict=True):
        view.copy_(found)
    for part in layout.parts:
        x[part.spare] = 0
    assert torch.equal(pieces.to_rows(flat), x)


def pack(encoder, ids, types) -> Batch:
    arrays = [[np.asarray(x) for x in lists] for lists in (ids, types)]
    return Batch.pack(*arrays, first_position=first_position(encoder))


def forward(encoder, batch: Batch) -> torch.Tensor:
    return encode(encoder.eval(), batch)


def outputs_both_ways(encoder, tokenizer, ids):
    """Hidden states of each example: packed, and from transformers' own padded SDPA path."""
    encoder.eval()
    batch = pack(encoder, ids, [[0] * len(x) for x in ids])
    yield forward(encoder, batch).split([len(x) for x in ids])
    padded = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    encoder.set_attn_implementation("sdpa")
    out = encoder(
        input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]
    ).last_hidden_state
    encoder.set_attn_implementation(ATTENTION)
    yield [row[: len(x)] for row, x in zip(out, ids, strict=True)]
