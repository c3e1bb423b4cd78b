"""The functions of the encoder pass on a GPU, each as one or two Triton kernels.

They compute what :mod:`lora_bench.model.attention` and :mod:`lora_bench.model.functions` compute,
without padding and without stored dropout masks. Triton comes with PyTorch's CUDA builds; without
it, and in float64, the pass uses PyTorch's operators.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import first_line
from .dropout import DropoutStream, rescale, threshold
from .tables import ROWS, Tables, on_gpu, to_device

SPAN = 2048  # tokens of the longest example: positions of a mask's row
TYPES = (torch.bfloat16, torch.float32)
CAPABILITY = (8, 0)  # of the oldest GPUs with products in bf16
COLUMNS = 128  # of the output in one tile of a low-rank product
FLAT = 1024  # elements of a mask that one program of a kernel computes


def usable(x: Tensor) -> bool:
    """Whether the kernels can compute with a tensor of this type on its device."""
    return on_gpu(x.device) and x.dtype in TYPES and can_launch(x.device)


@cache
def can_launch(device: torch.device) -> bool:
    """Whether Triton is installed and compiles kernels for a device; warns once if it fails.

    Triton compiles its driver with the machine's C compiler, which may be missing.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    try:
        fill_mask(torch.empty(1, device=device), np.zeros(2, dtype=np.int32), 0.5)
    except Exception as error:  # whatever compilers and drivers may raise
        warnings.warn(
            f"device={device}: Triton cannot compile a kernel ({first_line(error)}); PyTorch's "
            "operators are used, which are slower",
            stacklevel=2,
        )
        return False
    return True


@dataclass(frozen=True)
class Mask:
    """What the kernels compute a dropout mask from.

    Attributes:
        keys: (runs, 2) int32, the key of each run in this pass.
        site: number of the mask in the pass.
        p: probability of 0.
    """

    keys: Tensor | None
    site: int
    p: float

    @property
    def drops(self) -> bool:
        """Whether anything is dropped."""
        return self.p > 0

    @property
    def numbers(self) -> tuple[int, int, float]:
        """Site, threshold of the 16-bit draws, and factor of the kept elements."""
        return self.site, threshold(self.p), rescale(self.p)


def draw_keys(streams: Sequence[DropoutStream | None], device: torch.device) -> Tensor:
    """A key for each run's masks in a pass, (runs, 2) int32; None: torch's global generator."""
    drawn = [
        torch.randint(-(1 << 31), 1 << 31, (2,)).numpy() if stream is None else stream.key()
        for stream in streams
    ]
    (keys,) = to_device([np.stack(drawn).astype(np.int32)], device)
    return keys


class FusedAttention(torch.autograd.Function):
    """Self-attention within each example; see ``attention.attend``."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys_values: Tensor | None,
        tables: Tables,
        heads: int,
        scaling: float,
        mask: Mask,
    ) -> Tensor:
        """queries (R, 3 D), or (B, D) with keys_values (R, 2 D) -> (R, D) or (B, D)."""
        from . import kernels

        q, k, v = _split(queries, keys_values)
        out = q.new_zeros(tables.height, q.shape[1])  # rows without a token stay 0
        lse = q.new_empty(heads, tables.height, dtype=torch.float32)
        ctx.settings = _settings(tables, heads, scaling, mask, q.shape[1] // heads)
        ctx.tables, ctx.heads = tables, heads
        numbers, options = ctx.settings
        keys = _keys(mask, tables.examples)
        with torch.cuda.device_of(q):  # Triton launches on the current GPU
            kernels.attention_forward[len(tables.query_tiles), heads](
                q, k, v, out, lse, tables.query_tiles, tables.examples, keys,
                q.stride(0), k.stride(0), *numbers, **options,
            )  # fmt: skip
        ctx.save_for_backward(queries, keys_values, out, lse, keys)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of queries and keys_values."""
        from . import kernels

        queries, keys_values, out, lse, keys = ctx.saved_tensors
        grad_queries = torch.zeros_like(queries)
        grad_rest = None if keys_values is None else torch.zeros_like(keys_values)
        q, k, v = _split(queries, keys_values)
        grad_q, grad_k, grad_v = _split(grad_queries, grad_rest)
        tables, heads, (numbers, options) = ctx.tables, ctx.heads, ctx.settings
        strides = (q.stride(0), k.stride(0))
        grad, deltas = grad.contiguous(), torch.empty_like(lse)
        with torch.cuda.device_of(grad):  # Triton launches on the current GPU
            kernels.attention_backward_q[len(tables.query_tiles), heads](
                q, k, v, out, grad, grad_q, lse, deltas, tables.query_tiles, tables.examples, keys,
                *strides, *numbers, **options,
            )  # fmt: skip
            kernels.attention_backward_kv[len(tables.key_tiles), heads](
                q, k, v, grad, grad_k, grad_v, lse, deltas, tables.key_tiles, tables.examples, keys,
                *strides, *numbers, **options,
            )  # fmt: skip
        return grad_queries, grad_rest, None, None, None, None


def _split(queries: Tensor, keys_values: Tensor | None) -> Sequence[Tensor]:
    """Queries, keys and values, as views."""
    if keys_values is None:
        return queries.chunk(3, 1)
    return queries, *keys_values.chunk(2, 1)


def _settings(
    tables: Tables, heads: int, scaling: float, mask: Mask, size: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that all attention kernels share: by position, and by name."""
    wide = max(16, _power_of_two(size))  # a tile's product needs 16 columns
    options = {"SIZE": size, "D": wide, "BLOCK": tables.block, "SPAN": SPAN}
    warps = 4 if tables.block == 64 else 2
    numbers = (tables.height, heads, scaling, *mask.numbers)
    return numbers, {**options, "DROPOUT": mask.drops, "num_warps": warps}


def _keys(mask: Mask, other: Tensor) -> Tensor:
    """The keys; any tensor of the device if nothing is dropped and nothing reads them."""
    assert mask.keys is not None or not mask.drops
    return other if mask.keys is None else mask.keys


class FusedResidualNorm(torch.autograd.Function):
    """``LayerNorm(residual + c h * keep)``; see ``functions.ResidualNorm``."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        residual: Tensor,
        owners: Tensor,
        mask: Mask,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        """h, residual (R, D); owners (R, 2) int32; weight, bias (D,) -> (R, D)."""
        from . import kernels

        h, residual = h.contiguous(), residual.contiguous()
        out, total = torch.empty_like(h), torch.empty_like(h)
        mean, rstd = (h.new_empty(len(h), dtype=torch.float32) for _ in range(2))
        block = _power_of_two(h.shape[1])
        keys = _keys(mask, owners)
        with torch.cuda.device_of(h):  # Triton launches on the current GPU
            kernels.residual_norm_forward[(len(h),)](
                h, residual, out, total, mean, rstd, weight, bias, owners, keys,
                h.shape[1], eps, *mask.numbers, BLOCK=block, DROPOUT=mask.drops,
            )  # fmt: skip
        ctx.save_for_backward(total, mean, rstd, weight, bias, owners, keys)
        ctx.mask, ctx.block = mask, block
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of h, residual, weight and bias."""
        from . import kernels

        total, mean, rstd, weight, bias, owners, keys = ctx.saved_tensors
        grad = grad.contiguous()
        grad_total = torch.empty_like(total)
        grad_h = torch.empty_like(total) if ctx.mask.drops else grad_total
        with torch.cuda.device_of(grad):  # Triton launches on the current GPU
            kernels.residual_norm_backward[(len(total),)](
                grad, grad_h, grad_total, total, mean, rstd, weight, owners, keys,
                total.shape[1], *ctx.mask.numbers, BLOCK=ctx.block, DROPOUT=ctx.mask.drops,
            )  # fmt: skip
        wanted = list(ctx.needs_input_grad[4:6])
        of_norm: Sequence[Tensor | None] = (None, None)
        if any(wanted):
            weight, bias = weight.to(total.dtype), bias.to(total.dtype)
            shape, statistics = weight.shape, (mean[:, None], rstd[:, None])
            _, *of_norm = torch.ops.aten.native_layer_norm_backward(
                grad, total, shape, *statistics, weight, bias, [False, *wanted]
            )
        return grad_h, grad_total, None, None, *of_norm, None


def residual_norm(
    norm: nn.LayerNorm, h: Tensor, residual: Tensor, owners: Tensor, mask: Mask
) -> Tensor:
    """``norm(residual + dropout of h)``; all (R, D)."""
    return FusedResidualNorm.apply(h, residual, owners, mask, norm.weight, norm.bias, norm.eps)


def add_low_rank(out: Tensor, low: Tensor, b: Tensor, owners: Tensor) -> None:
    """Add to each run's rows the product of its inner activations and its own B.

    Args:
        out: (T, N), of which the columns are adjacent.
        low: (T, r), of which the columns are adjacent.
        b: (runs, N, r).
        owners: (T, 2) int32; each run starts at a multiple of ``ROWS``.
    """
    from . import kernels

    width, rank = b.shape[1:]
    ranks = min(64, max(16, _power_of_two(rank)))  # a tile's product needs 16
    with torch.cuda.device_of(out):  # Triton launches on the current GPU
        kernels.add_low_rank[len(out) // ROWS, -(-width // COLUMNS)](
            out, low, b, owners, out.stride(0), low.stride(0), *b.stride(), width, rank,
            ROWS=ROWS, COLUMNS=COLUMNS, RANKS=ranks,
        )  # fmt: skip


def fill_mask(out: Tensor, key: np.ndarray, p: float) -> Tensor:
    """Fill a contiguous tensor of any shape with a mask of 0 and 1; returns it.

    PyTorch's generator would draw other numbers for the first rows of a tensor if there are more
    rows after them.

    Args:
        out: the tensor.
        key: key of this mask, (2,) int32.
        p: probability of 0.
    """
    from . import kernels

    low, high = key.tolist()
    size = out.numel()
    with torch.cuda.device_of(out):  # Triton launches on the current GPU
        kernels.mask_flat[(-(-size // FLAT),)](out, low, high, size, threshold(p), BLOCK=FLAT)
    return out


def keep_mask(owners: Tensor, width: int, mask: Mask, dtype: torch.dtype) -> Tensor | None:
    """The mask of 0 and 1 that the kernels compute for rows of a width, (R, width).

    Args:
        owners: (R, 2) int32, the run of each row, and its place among the rows of its run.
        width: number of columns.
        mask: what to compute it from; None is returned if it drops nothing.
        dtype: type of the mask.
    """
    from . import kernels

    if not mask.drops:
        return None
    assert mask.keys is not None
    out = torch.empty(len(owners), width, device=owners.device, dtype=dtype)
    site, lowest, _ = mask.numbers
    block = _power_of_two(width)
    with torch.cuda.device_of(out):  # Triton launches on the current GPU
        kernels.mask_rows[(len(owners),)](out, owners, mask.keys, width, site, lowest, BLOCK=block)
    return out


def _power_of_two(count: int) -> int:
    """The lowest power of two that is not below ``count``."""
    return 1 << (count - 1).bit_length()
