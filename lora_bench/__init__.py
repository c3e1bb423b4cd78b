"""LoRA written by hand on RoBERTa, benchmarked on GLUE and SQuAD.

The public names load on first use, so that ``import lora_bench`` takes no time and
``lora_bench.report`` builds tables without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as in _HOME, for type checkers
    from .api import make_spec as make_spec
    from .api import run_spec as run_spec
    from .model.inject import adapter_parameters as adapter_parameters
    from .model.inject import adapters_off as adapters_off
    from .model.inject import inject_lora as inject_lora
    from .model.lora import LoraLinear as LoraLinear
    from .model.lora import LoraRobertaSelfAttention as LoraRobertaSelfAttention
    from .model.wrapper import FreezePolicy as FreezePolicy
    from .model.wrapper import LoraWrapperRoberta as LoraWrapperRoberta
    from .record import Record as Record
    from .report import load_records as load_records
    from .spec import Spec as Spec

_HOME = {
    "FreezePolicy": "model.wrapper",
    "LoraLinear": "model.lora",
    "LoraRobertaSelfAttention": "model.lora",
    "LoraWrapperRoberta": "model.wrapper",
    "Record": "record",
    "Spec": "spec",
    "adapter_parameters": "model.inject",
    "adapters_off": "model.inject",
    "inject_lora": "model.inject",
    "load_records": "report",
    "make_spec": "api",
    "run_spec": "api",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("lora-bench")
    if name not in _HOME:
        raise AttributeError(f"module 'lora_bench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lora_bench.{_HOME[name]}"), name)
