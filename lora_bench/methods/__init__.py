"""Methods: how an encoder is made trainable. One file each; the training loop knows none by name.

A method is a class with three hooks, and its file names it ``METHOD``::

    class Mine(Method):
        def prepare(self, model, spec): ...

    METHOD = Mine

Its preset ``conf/method/<file name>.yaml`` sets the fields of ``MethodSpec`` that it reads; settings that only it has stand
under ``args`` and are read with ``arguments``. Another distribution adds one through the entry-point group
``lora_bench.methods``.
"""

import dataclasses
import importlib
import importlib.util
import logging
import pkgutil
from importlib.metadata import entry_points
from typing import TypeVar

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..model.wrapper import FreezePolicy, LoraWrapperRoberta
from ..spec import MethodSpec, Spec, SpecError, UserError

ENTRY_POINTS = "lora_bench.methods"
T = TypeVar("T")

# bitsandbytes, which PEFT imports too where it is installed, reports at every start that it goes without the package
# ``kernels``; its own path gives the same numbers.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class Method:
    """The defaults: nothing added, the spec's freezing policy, AdamW, no work after a step."""

    steps: (
        int  # optimizer steps of the whole run; the loop says it before it asks for the optimizer
    )

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Add what is trained and freeze the rest; called once, before the first step."""
        FreezePolicy(spec.method.biases, spec.method.layer_norms, spec.method.embeddings).apply(
            model
        )

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """The optimizer over the trained parameters; its groups' ``lr`` are peak values, the schedule scales them."""
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.train.weight_decay},
            {
                "params": [p for p in trained if p.ndim <= 1],
                "weight_decay": 0.0,
            },  # biases and LayerNorms
        ]
        groups = [group for group in groups if group["params"]]
        if (
            spec.train.optimizer == "adamw8bit"
        ):  # states of 8 bits (Dettmers et al. 2021, arXiv 2110.02861)
            return require("bitsandbytes", "qlora", "train.optimizer=adamw8bit").optim.AdamW8bit(
                groups, lr=spec.train.lr
            )
        return torch.optim.AdamW(groups, lr=spec.train.lr, fused=True)

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


def check_method(spec: Spec) -> None:
    """Check what the method reads."""


def arguments(spec: Spec, schema: type[T]) -> T:
    """``method.args`` as an instance of ``schema``, a dataclass of the settings that only this method has.

    Raises: SpecError: a setting is missing, unknown or of another type.
    """
    given = spec.method.args
    names = [field.name for field in dataclasses.fields(schema)]
    if set(given) != set(names):
        raise SpecError(
            "method.args", given, f"method={spec.method.name} takes exactly {', '.join(names)}"
        )
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
    except OmegaConfBaseException as error:
        raise SpecError(
            f"method.args.{error.full_key}", given[error.full_key], str(error).splitlines()[0]
        ) from None


def require(package: str, extra: str, wanted_by: str):
    """Import an optional package. Raises: UserError: it is not installed; names the extra that brings it."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{wanted_by} needs {package}: pip install 'lora-bench[{extra}]'")
    return importlib.import_module(package)
