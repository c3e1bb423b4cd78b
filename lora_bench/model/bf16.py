"""Matrix products of bf16 tensors, also on CPUs without instructions for them."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..spec import Spec


def has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices without converting them to fp32."""
    available = torch.backends.mkldnn.is_available()
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bf16_products(spec: Spec) -> AbstractContextManager[Any]:
    """The context in which a model runs forward and backward.

    Without bf16 instructions, PyTorch multiplies bf16 matrices many times more slowly than fp32
    ones. Within this context, matrix products are computed in fp32 and rounded, which is what the
    instructions do: they add in fp32 as well. The order of the additions differs, as it does
    between CPUs. Attention while scoring is left to PyTorch, whose kernel for it is not slow.

    Args:
        spec: settings; nothing changes unless they say bf16 on a CPU without instructions for it.
    """
    return _ProductsInFp32() if lacks_bf16(spec) else nullcontext()


def lacks_bf16(spec: Spec) -> bool:
    """Whether the settings ask for bf16 on a CPU without instructions for it."""
    return spec.precision == "bf16" and spec.device == "cpu" and not has_bf16()


PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")


class _ProductsInFp32(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name not in PRODUCTS or args[-1].dtype is not torch.bfloat16:
            return func(*args, **kwargs)
        in_place = args[0] if name.endswith("_") else None
        out = kwargs.pop("out", in_place)
        exact = getattr(torch, name.removesuffix("_"))(*map(_in_fp32, args), **kwargs)
        return exact.to(torch.bfloat16) if out is None else out.copy_(exact)


def _in_fp32(argument: Any) -> Any:
    return argument.float() if isinstance(argument, Tensor) else argument
