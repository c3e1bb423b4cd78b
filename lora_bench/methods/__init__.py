"""Methods: how an encoder is made trainable. One file each; the training loop knows none by name.

A method is a class with three hooks, and its file names it ``METHOD``::

    class Mine(Method):
        def prepare(self, model, spec): ...

    METHOD = Mine

Its preset ``conf/method/<file name>.yaml`` sets the fields of ``MethodSpec`` that it reads. Another distribution adds one
through the entry-point group ``lora_bench.methods``.
"""

import importlib
import pkgutil
from importlib.metadata import entry_points

import torch

from ..spec import MethodSpec, Spec, SpecError
from ..wrapper import FreezePolicy, LoraWrapperRoberta

ENTRY_POINTS = "lora_bench.methods"


class Method:
    """The defaults: nothing added, the spec's freezing policy, AdamW, no work after a step."""

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Add what is trained and freeze the rest; called once, before the first step."""
        FreezePolicy(spec.method.biases, spec.method.layer_norms, spec.method.embeddings).apply(model)

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """The optimizer over the trained parameters; its groups' ``lr`` are peak values, the schedule scales them."""
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.train.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and LayerNorms
        ]
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.train.lr, fused=True)

    def after_step(self, model: LoraWrapperRoberta, step: int) -> None:
        """Called after each optimizer step, from 1."""


def get_method(spec: MethodSpec) -> Method:
    """A fresh method by the name of its file or entry point. Raises: SpecError: there is none of that name."""
    name = spec.file or spec.name
    built_in = {module.name for module in pkgutil.iter_modules(__path__)}
    if name in built_in:
        return importlib.import_module(f"{__name__}.{name}").METHOD()
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in plugins:
        return plugins[name].load()()
    path = "method.file" if spec.file else "method.name"
    raise SpecError(path, name, f"must be one of {', '.join(sorted(built_in | set(plugins)))}")
