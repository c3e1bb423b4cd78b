"""Low-rank updates of linear layers that share an input, for one or more runs.

On a CPU, each run's updates are computed on its own rows, one run after the other. A loop over the
runs launches a few small kernels for each of them, and a GPU would wait for the host. There,
``torch.nn.functional.grouped_mm``, or a kernel of this project where a product is added in place,
multiplies the rows of each run with the run's own matrix in one launch; no run's rows meet another
run's matrix.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused import add_low_rank, usable
from .layers import Affine, Layers, Parts, Place
from .product import cat

CAPABILITY = (9, 0)  # of the oldest GPUs that have grouped products

# Gradients of A and B by run and place of the layer; None: not trained.
Gradients = dict[tuple[int, int], tuple[Tensor | None, Tensor | None]]


def updates_of(layers: Layers, parts: Parts, x: Tensor) -> "Updates | None":
    """The updates of all runs for x (T, in); None: no layer has one."""
    if not layers.updated:
        return None
    together = parts.ends is not None and len(parts.rows) > 1 and layers.aligned and supported(x)
    return (GroupedUpdates if together else SeparateUpdates)(layers, parts, x)


def supported(x: Tensor) -> bool:
    """Whether there is a grouped product for a tensor of this type and device."""
    return (
        x.dtype is torch.bfloat16
        and x.device.type == "cuda"
        and hasattr(F, "grouped_mm")  # torch 2.10
        and torch.cuda.get_device_capability(x.device) >= CAPABILITY
    )


class SeparateUpdates:
    """The updates of each run by products of its own; R is the sum of the run's ranks.

    Args:
        layers: the layers of the runs.
        parts: their rows.
        x: the input (T, in).
    """

    def __init__(self, layers: Layers, parts: Parts, x: Tensor):
        self.layers, self.parts = layers, parts
        self.stacks = [
            _stacked_updates(layers.runs[run], layers.widths, x) for run in layers.updated
        ]

    def add_to(self, out: Tensor, x: Tensor) -> list[Tensor]:
        """Add the updates for x (T, in) to ``out`` (T, N); returns the inner activations."""
        lows = []
        for run, (a, b) in zip(self.layers.updated, self.stacks, strict=True):
            rows = self.parts.rows[run]
            lows.append(_reduced(x[rows], self.layers.runs[run], a))  # (T, R)
            out[rows].addmm_(lows[-1], b)
        return lows

    def gradients(
        self, grad: Tensor, x: Tensor | None, lows: Sequence[Tensor], grad_x: Tensor | None
    ) -> Gradients:
        """The gradients of A and B.

        Args:
            grad: gradient of the output, (T, N).
            x: the input, (T, in); None: no A is trained.
            lows: what ``add_to`` returned.
            grad_x: (T, in), to which the gradient of the input is added; None: not needed.
        """
        found: Gradients = {}
        for run, low, (a, b) in zip(self.layers.updated, lows, self.stacks, strict=True):
            layers, rows = self.layers.runs[run], self.parts.rows[run]
            grad_low = grad[rows] @ b.t()  # (T, R)
            if grad_x is not None:
                _add_reduced_gradient(grad_x[rows], grad_low, layers, a)
            of_a = of_b = None
            if any(layer.trains_a for layer in layers):
                assert x is not None
                of_a = _grad_of_a(x[rows], grad_low, layers)  # (R, in)
            if any(layer.trains_b for layer in layers):
                of_b = low.t() @ grad[rows]  # (R, N); of low rank first: the faster product
            rank = column = 0
            for place, (layer, width) in enumerate(zip(layers, self.layers.widths, strict=True)):
                ranks, columns = slice(rank, rank + layer.rank), slice(column, column + width)
                found[run, place] = (
                    of_a[ranks] if layer.trains_a and of_a is not None else None,
                    (of_b[ranks, columns] * layer.scaling).t()
                    if layer.trains_b and of_b is not None
                    else None,
                )
                rank, column = ranks.stop, columns.stop
        return found


class GroupedUpdates:
    """``scaling x A^T B^T`` of each run on its own rows; M runs, and R is the width of all places.

    Args:
        layers: the layers of the runs, without dropout of their own.
        parts: their rows.
        x: the input (T, in).
    """

    def __init__(self, layers: Layers, parts: Parts, x: Tensor):
        self.places, self.ends = layers.places, parts.ends
        self.owners = parts.owners if usable(x) else None
        self.a = self._stacked_a(len(layers.runs), x)  # (M, R, in)
        self.b = [_stacked_b(place, x) for place in self.places]  # (M, out, r) each

    def add_to(self, out: Tensor, x: Tensor) -> list[Tensor]:
        """Add the updates for x (T, in) to ``out`` (T, N); returns the inner activations (T, R)."""
        low = F.grouped_mm(x, self.a.transpose(1, 2), offs=self.ends)
        for place, b in zip(self.places, self.b, strict=True):
            self._add(out[:, place.columns], low[:, place.ranks], b)
        return [low]

    def gradients(
        self, grad: Tensor, x: Tensor | None, lows: Sequence[Tensor], grad_x: Tensor | None
    ) -> Gradients:
        """The gradients of A and B; arguments as in ``SeparateUpdates``."""
        (low,) = lows
        outs = [grad[:, place.columns] for place in self.places]
        pairs = zip(outs, self.b, strict=True)
        grad_low = torch.cat([F.grouped_mm(g, b, offs=self.ends) for g, b in pairs], 1)  # (T, R)
        if grad_x is not None:
            self._add(grad_x, grad_low, self.a.transpose(1, 2))
        all_a = None
        if x is not None:
            all_a = F.grouped_mm(grad_low.t(), x, offs=self.ends).float()  # (M, R, in)
        found: Gradients = {}
        for place, g in zip(self.places, outs, strict=True):
            own = low[:, place.ranks]
            of_b = F.grouped_mm(g.t(), own, offs=self.ends).float()  # (M, out, r)
            scaled = torch._foreach_mul(of_b.unbind(0), place.scalings)
            of_a = () if all_a is None else all_a[:, place.ranks].unbind(0)
            for run, layer in enumerate(place.layers):
                found[run, place.number] = (
                    _first_rows(of_a[run], layer.rank) if layer.trains_a else None,
                    _first_rows(scaled[run].t(), layer.rank).t() if layer.trains_b else None,
                )
        return found

    def _add(self, out: Tensor, low: Tensor, b: Tensor) -> None:
        """Add to each run's rows of ``out`` (T, n) its product of low (T, r) and b (M, n, r)."""
        if self.owners is not None:
            add_low_rank(out, low, b, self.owners)  # in place: one pass over ``out`` less
        else:
            out += F.grouped_mm(low, b.transpose(1, 2), offs=self.ends)

    def _stacked_a(self, runs: int, x: Tensor) -> Tensor:
        pieces = []
        for run in range(runs):
            for place in self.places:
                layer = place.layers[run]
                if layer.a is not None:
                    pieces.append(layer.a)
                if missing := place.rank - layer.rank:
                    pieces.append(x.new_zeros(missing, x.shape[1], dtype=torch.float32))
        return torch.cat(pieces).to(x.dtype).view(runs, -1, x.shape[1])


def _first_rows(x: Tensor, count: int) -> Tensor:
    """The first rows of a matrix; the matrix itself if it has no others."""
    return x if x.shape[0] == count else x[:count]


def _stacked_b(place: Place, x: Tensor) -> Tensor:
    """All B of a place, scaled, (M, out, r) in the precision of x."""
    width = place.columns.stop - place.columns.start
    pieces = []
    for layer in place.layers:
        if layer.b is None:
            pieces.append(x.new_zeros(width, place.rank, dtype=torch.float32))
        else:
            missing = place.rank - layer.rank
            pieces.append(F.pad(layer.b, (0, missing)) if missing else layer.b)
    scaled = torch._foreach_mul(pieces, place.scalings)
    return torch.cat(scaled).to(x.dtype).view(len(pieces), width, place.rank)


Updates = SeparateUpdates | GroupedUpdates


def _stacked_updates(
    layers: Sequence[Affine], widths: Sequence[int], x: Tensor
) -> tuple[Tensor, Tensor]:
    """All A (R, in), and all B, scaled and transposed, as one block-diagonal matrix (R, N).

    Both are in the precision of x.
    """
    total = sum(layer.rank for layer in layers)
    b = x.new_zeros(total, sum(widths))
    rank = column = 0
    for layer, width in zip(layers, widths, strict=True):
        if layer.b is not None:
            block = b[rank : rank + layer.rank, column : column + width]
            torch.mul(layer.b.t(), layer.scaling, out=block)
        rank, column = rank + layer.rank, column + width
    rows = [layer.a.to(x.dtype) for layer in layers if layer.a is not None]
    return cat(rows), b


def _reduced(x: Tensor, layers: Sequence[Affine], a: Tensor) -> Tensor:
    """x (T, in) -> (T, R): the inner activations of all updates."""
    if all(layer.keep is None for layer in layers):
        return x @ a.t()
    return torch.cat([_dropped(x, layer) @ part.t() for layer, part in _updated(layers, a)], 1)


def _add_reduced_gradient(
    grad_x: Tensor, grad_low: Tensor, layers: Sequence[Affine], a: Tensor
) -> None:
    """Add the gradients of the inner activations (T, R) to the gradient of x (T, in)."""
    if all(layer.keep is None for layer in layers):
        grad_x.addmm_(grad_low, a)
        return
    parts = grad_low.split([layer.rank for layer in layers if layer.rank], 1)
    for (layer, part), g in zip(_updated(layers, a), parts, strict=True):
        if layer.keep is None:
            grad_x.addmm_(g, part)
        else:
            grad_x.addcmul_(g @ part, layer.keep, value=layer.rescale)


def _grad_of_a(x: Tensor, grad_low: Tensor, layers: Sequence[Affine]) -> Tensor:
    """(R, in)."""
    if all(layer.keep is None for layer in layers):
        return grad_low.t() @ x
    return torch.cat([part @ _dropped(x, layer) for layer, part in _updated(layers, grad_low.t())])


def _updated(layers: Sequence[Affine], stack: Tensor) -> Iterator[tuple[Affine, Tensor]]:
    """Each layer that has an update, with its rows of a stack (R, ...)."""
    updated = [layer for layer in layers if layer.rank]
    return zip(updated, stack.split([layer.rank for layer in updated]), strict=True)


def _dropped(x: Tensor, layer: Affine) -> Tensor:
    return x if layer.keep is None else (x * layer.keep).mul_(layer.rescale)
