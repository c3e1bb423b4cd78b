"""Triton kernels for GPUs: attention over packed examples, dropout with the residual and LayerNorm,
low-rank products of several runs, and dropout masks.

A dropout mask is not stored: each kernel computes it from a key of the run, the number of the mask
in the pass, and the position in the run's own rows. A run that is trained in a group therefore
draws the same masks as alone, and the backward pass draws those of the forward pass again.

Attention is FlashAttention-2 (Dao 2023, arXiv 2307.08691) for short examples. Only
:mod:`lora_bench.model.fused` calls these kernels; ``TRITON_INTERPRET=1`` runs them without a GPU.
"""

import triton
import triton.language as tl

# Triton would compile a kernel again for some values of a number; not of these, which vary.
VARYING = ("site", "threshold", "height")


@triton.jit
def _mixed(x):
    """A bijection of 32-bit words in which every input bit affects every output bit.

    The constants are those of ``lowbias32`` (Wellons 2018, "Prospecting for Hash Functions").
    """
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _kept(index, low, high, site, threshold):
    """Whether elements are kept: the upper 16 bits of two keyed rounds are not below a threshold.

    index: positions in the run's mask; low, high: the run's key; site: number of the mask.
    """
    x = _mixed(index.to(tl.uint32) ^ low.to(tl.uint32))
    x = _mixed(x ^ _mixed(high.to(tl.uint32) + site))
    return (x >> 16) >= threshold


@triton.jit(do_not_specialize=VARYING)
def residual_norm_forward(
    h, residual, out, total, mean, rstd, weight, bias, owners, keys,
    width, eps, site, threshold, rescale, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One row: ``total = residual + c h * keep``, ``out = LayerNorm(total)``; all (R, width)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    at = row * width + columns
    x = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    if DROPOUT:
        run, local = tl.load(owners + 2 * row), tl.load(owners + 2 * row + 1)
        low, high = tl.load(keys + 2 * run), tl.load(keys + 2 * run + 1)
        x = tl.where(_kept(local * width + columns, low, high, site, threshold), x * rescale, 0.0)
    x += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    rounded = x.to(total.dtype.element_ty)  # the backward pass sees the rounded sum
    tl.store(total + at, rounded, mask=inside)
    x = rounded.to(tl.float32)
    center = tl.sum(x, 0) / width
    shifted = tl.where(inside, x - center, 0.0)
    scale = tl.rsqrt(tl.sum(shifted * shifted, 0) / width + eps)
    w = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (shifted * scale * w + b).to(out.dtype.element_ty), mask=inside)
    tl.store(mean + row, center)
    tl.store(rstd + row, scale)


@triton.jit(do_not_specialize=VARYING)
def residual_norm_backward(
    grad, grad_h, grad_total, total, mean, rstd, weight, owners, keys,
    width, site, threshold, rescale, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One row: the gradients of h and of the residual, which is that of the total."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    at = row * width + columns
    scale = tl.load(rstd + row)
    x = tl.load(total + at, mask=inside, other=0.0).to(tl.float32)
    normal = tl.where(inside, (x - tl.load(mean + row)) * scale, 0.0)
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    g *= tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    of_normal, of_one = tl.sum(normal * g, 0) / width, tl.sum(g, 0) / width
    g = (g - normal * of_normal - of_one) * scale
    tl.store(grad_total + at, g.to(grad_total.dtype.element_ty), mask=inside)
    if DROPOUT:
        run, local = tl.load(owners + 2 * row), tl.load(owners + 2 * row + 1)
        low, high = tl.load(keys + 2 * run), tl.load(keys + 2 * run + 1)
        g = tl.where(_kept(local * width + columns, low, high, site, threshold), g * rescale, 0.0)
        tl.store(grad_h + at, g.to(grad_h.dtype.element_ty), mask=inside)


@triton.jit
def _tile(tiles, examples):
    """Where the tile of this program starts, and its example's entries; see ``tables.Tables``."""
    tile = tiles + 2 * tl.program_id(0)
    entry = examples + 6 * tl.load(tile)
    q_start, q_len = tl.load(entry).to(tl.int64), tl.load(entry + 1)
    k_start, k_len = tl.load(entry + 2).to(tl.int64), tl.load(entry + 3)
    return tl.load(tile + 1), q_start, q_len, k_start, k_len, tl.load(entry + 4), tl.load(entry + 5)


@triton.jit
def _at(rows, stride, columns):
    """Where the elements of a tile are in a matrix whose rows are ``stride`` apart."""
    return rows[:, None] * stride + columns[None, :]


@triton.jit
def _weights(
    q, k, q_index, k_index, head, heads, q_place, run_keys, k_len, scaling, lse, site, threshold,
    SPAN: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Attention weights (M, N) and their mask, in a backward pass.

    q (M, d), k (N, d); q_index (M,), k_index (N,): positions in the example; lse (M,).
    """
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
    weights = tl.exp(scores - lse[:, None])
    weights = tl.where((k_index < k_len)[None, :], weights, 0.0)
    keep = weights >= 0  # all
    if DROPOUT:
        index = ((q_place + q_index) * heads + head)[:, None] * SPAN + k_index[None, :]
        keep = _kept(index, tl.load(run_keys), tl.load(run_keys + 1), site, threshold)
    return weights, keep


@triton.jit(do_not_specialize=VARYING)
def attention_forward(
    q, k, v, out, lse, tiles, examples, keys, q_stride, kv_stride, height, heads,
    scaling, site, threshold, rescale, SIZE: tl.constexpr, D: tl.constexpr,
    BLOCK: tl.constexpr, SPAN: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One tile: BLOCK queries of one example, in one head."""
    head = tl.program_id(1)
    first, q_start, q_len, k_start, k_len, run, q_place = _tile(tiles, examples)
    d, n = tl.arange(0, D), tl.arange(0, BLOCK)
    q_index = first + tl.arange(0, BLOCK)
    d_real, q_real = d < SIZE, q_index < q_len
    q_at = _at(q_start + q_index, q_stride, head * SIZE + d)
    q_tile = tl.load(q + q_at, mask=q_real[:, None] & d_real[None, :], other=0.0)
    row_max = tl.full((BLOCK,), float("-inf"), tl.float32)
    row_sum = tl.zeros((BLOCK,), tl.float32)
    acc = tl.zeros((BLOCK, D), tl.float32)
    for start in range(0, k_len, BLOCK):
        k_index = start + n
        at = _at(k_start + k_index, kv_stride, head * SIZE + d)
        real = (k_index < k_len)[:, None] & d_real[None, :]
        scores = tl.dot(
            q_tile, tl.trans(tl.load(k + at, mask=real, other=0.0)), input_precision="ieee"
        )
        scores = tl.where((k_index < k_len)[None, :], scores * scaling, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        weights, alpha = tl.exp(scores - new_max[:, None]), tl.exp(row_max - new_max)
        row_sum = row_sum * alpha + tl.sum(weights, 1)
        if DROPOUT:
            index = ((q_place + q_index) * heads + head)[:, None] * SPAN + k_index[None, :]
            low, high = tl.load(keys + 2 * run), tl.load(keys + 2 * run + 1)
            weights = tl.where(_kept(index, low, high, site, threshold), weights, 0.0)
        v_tile = tl.load(v + at, mask=real, other=0.0)
        acc *= alpha[:, None]
        acc += tl.dot(weights.to(v_tile.dtype), v_tile, input_precision="ieee")
        row_max = new_max
    acc *= (rescale / row_sum)[:, None]
    out_at = _at(q_start + q_index, heads * SIZE, head * SIZE + d)
    tl.store(out + out_at, acc.to(out.dtype.element_ty), mask=q_real[:, None] & d_real[None, :])
    tl.store(lse + head * height + q_start + q_index, row_max + tl.log(row_sum), mask=q_real)


@triton.jit(do_not_specialize=VARYING)
def attention_backward_q(
    q, k, v, out, grad, grad_q, lse, deltas, tiles, examples, keys, q_stride, kv_stride, height,
    heads, scaling, site, threshold, rescale, SIZE: tl.constexpr, D: tl.constexpr,
    BLOCK: tl.constexpr, SPAN: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One tile: the gradient of BLOCK queries; deltas: the products of their grad and out."""
    head = tl.program_id(1)
    first, q_start, q_len, k_start, k_len, run, q_place = _tile(tiles, examples)
    d, n = tl.arange(0, D), tl.arange(0, BLOCK)
    q_index = first + tl.arange(0, BLOCK)
    d_real, q_real = d < SIZE, q_index < q_len
    chosen = q_real[:, None] & d_real[None, :]
    q_at = _at(q_start + q_index, q_stride, head * SIZE + d)
    out_at = _at(q_start + q_index, heads * SIZE, head * SIZE + d)
    q_tile = tl.load(q + q_at, mask=chosen, other=0.0)
    grad_tile = tl.load(grad + out_at, mask=chosen, other=0.0)
    out_tile = tl.load(out + out_at, mask=chosen, other=0.0)
    delta = tl.sum(grad_tile.to(tl.float32) * out_tile.to(tl.float32), 1)
    tl.store(deltas + head * height + q_start + q_index, delta, mask=q_real)
    lse_tile = tl.load(lse + head * height + q_start + q_index, mask=q_real, other=float("inf"))
    acc = tl.zeros((BLOCK, D), tl.float32)
    for start in range(0, k_len, BLOCK):
        k_index = start + n
        at = _at(k_start + k_index, kv_stride, head * SIZE + d)
        real = (k_index < k_len)[:, None] & d_real[None, :]
        k_tile = tl.load(k + at, mask=real, other=0.0)
        v_tile = tl.load(v + at, mask=real, other=0.0)
        weights, keep = _weights(
            q_tile, k_tile, q_index, k_index, head, heads, q_place, keys + 2 * run, k_len,
            scaling, lse_tile, site, threshold, SPAN, DROPOUT,
        )  # fmt: skip
        grad_weights = tl.dot(grad_tile, tl.trans(v_tile), input_precision="ieee") * rescale
        grad_scores = weights * (tl.where(keep, grad_weights, 0.0) - delta[:, None])
        acc += tl.dot(grad_scores.to(k_tile.dtype), k_tile, input_precision="ieee")
    tl.store(grad_q + q_at, (acc * scaling).to(grad_q.dtype.element_ty), mask=chosen)


@triton.jit(do_not_specialize=VARYING)
def attention_backward_kv(
    q, k, v, grad, grad_k, grad_v, lse, deltas, tiles, examples, keys, q_stride, kv_stride, height,
    heads, scaling, site, threshold, rescale, SIZE: tl.constexpr, D: tl.constexpr,
    BLOCK: tl.constexpr, SPAN: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One tile: the gradients of BLOCK keys and values."""
    head = tl.program_id(1)
    first, q_start, q_len, k_start, k_len, run, q_place = _tile(tiles, examples)
    d, m = tl.arange(0, D), tl.arange(0, BLOCK)
    k_index = first + tl.arange(0, BLOCK)
    d_real = d < SIZE
    real = (k_index < k_len)[:, None] & d_real[None, :]
    at = _at(k_start + k_index, kv_stride, head * SIZE + d)
    k_tile, v_tile = tl.load(k + at, mask=real, other=0.0), tl.load(v + at, mask=real, other=0.0)
    acc_k, acc_v = tl.zeros((BLOCK, D), tl.float32), tl.zeros((BLOCK, D), tl.float32)
    for start in range(0, q_len, BLOCK):
        q_index = start + m
        q_real = q_index < q_len
        chosen = q_real[:, None] & d_real[None, :]
        q_at = _at(q_start + q_index, q_stride, head * SIZE + d)
        out_at = _at(q_start + q_index, heads * SIZE, head * SIZE + d)
        q_tile = tl.load(q + q_at, mask=chosen, other=0.0)
        grad_tile = tl.load(grad + out_at, mask=chosen, other=0.0)
        delta = tl.load(deltas + head * height + q_start + q_index, mask=q_real, other=0.0)
        lse_tile = tl.load(lse + head * height + q_start + q_index, mask=q_real, other=float("inf"))
        weights, keep = _weights(
            q_tile, k_tile, q_index, k_index, head, heads, q_place, keys + 2 * run, k_len,
            scaling, lse_tile, site, threshold, SPAN, DROPOUT,
        )  # fmt: skip
        dropped = tl.where(keep, weights, 0.0) * rescale
        acc_v += tl.dot(tl.trans(dropped.to(grad_tile.dtype)), grad_tile, input_precision="ieee")
        grad_weights = tl.dot(grad_tile, tl.trans(v_tile), input_precision="ieee") * rescale
        grad_scores = weights * (tl.where(keep, grad_weights, 0.0) - delta[:, None])
        acc_k += tl.dot(tl.trans(grad_scores.to(q_tile.dtype)), q_tile, input_precision="ieee")
    tl.store(grad_k + at, (acc_k * scaling).to(grad_k.dtype.element_ty), mask=real)
    tl.store(grad_v + at, acc_v.to(grad_v.dtype.element_ty), mask=real)


@triton.jit
def add_low_rank(
    out, low, b, owners, out_stride, low_stride, run_stride, column_stride, rank_stride,
    width, rank, ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """One tile, whose rows belong to one run: add ``low b^T``; low (T, rank), b (width, rank)."""
    first = tl.program_id(0) * ROWS
    run = tl.load(owners + 2 * first).to(tl.int64)
    row = (first + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    found = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, rank, RANKS):
        r = start + tl.arange(0, RANKS)
        x = tl.load(low + row[:, None] * low_stride + r[None, :], mask=(r < rank)[None, :], other=0)
        at = column[None, :] * column_stride + r[:, None] * rank_stride
        real = (r < rank)[:, None] & (column < width)[None, :]
        w = tl.load(b + run * run_stride + at, mask=real, other=0)  # (RANKS, COLUMNS)
        found += tl.dot(x, w, input_precision="ieee")
    at = out + row[:, None] * out_stride + column[None, :]
    inside = (column < width)[None, :]
    found += tl.load(at, mask=inside, other=0).to(tl.float32)
    tl.store(at, found.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=VARYING)
def mask_rows(
    out, owners, keys, width, site, threshold, BLOCK: tl.constexpr
):  # fmt: skip
    """One row of a mask of 0 and 1 (R, width)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    run, local = tl.load(owners + 2 * row), tl.load(owners + 2 * row + 1)
    low, high = tl.load(keys + 2 * run), tl.load(keys + 2 * run + 1)
    keep = _kept(local * width + columns, low, high, site, threshold)
    tl.store(out + row * width + columns, keep.to(out.dtype.element_ty), mask=columns < width)


@triton.jit(do_not_specialize=("low", "high", "size", "threshold"))
def mask_flat(out, low, high, size, threshold, BLOCK: tl.constexpr):
    """BLOCK elements of a mask of 0 and 1, with a key of its own."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keep = _kept(index, low, high, 0, threshold)
    tl.store(out + index, keep.to(out.dtype.element_ty), mask=index < size)
