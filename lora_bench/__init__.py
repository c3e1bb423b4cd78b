"""LoRA written by hand on RoBERTa, benchmarked over GLUE and SQuAD.

The public names load on first use, so that ``lora_bench.report`` builds tables without torch.
"""

import importlib

_HOME = {
    "Spec": "spec",
    "LoraLinear": "model.lora",
    "LoraRobertaSelfAttention": "model.lora",
    "inject_lora": "model.lora",
    "adapters_off": "model.lora",
    "FreezePolicy": "model.wrapper",
    "LoraWrapperRoberta": "model.wrapper",
    "Record": "record",
    "load_records": "report",
    "run": "training.run",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("lora-bench")
    if name not in _HOME:
        raise AttributeError(f"module 'lora_bench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lora_bench.{_HOME[name]}"), name)
