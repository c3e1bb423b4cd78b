"""Methods: how an encoder is made trainable.

Each family of methods is one file, and training knows none of them by name. A method is a class
that declares the settings it reads and implements hooks; its file names it ``METHOD``:

    class Mine(Method):
        reads = POLICY | {"rank"}

        def prepare(self, model, spec): ...

    METHOD = Mine

Its presets ``conf/method/<name>.yaml`` set fields of ``MethodSpec``, of which ``file`` names the
file where it is not the name of the preset. Settings that only this method has are under ``args``
and are declared in its ``Args`` dataclass. Other distributions can add methods through the
entry-point group ``lora_bench.methods``.

No file of this package imports torch, transformers or a method's own library at module level: a
command line is validated by importing the method's class, so a wrong setting is refused within a
second. Hooks import what they need; imports for annotations are under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import SpecError
from ..spec import MethodSpec, Spec
from ._checks import adapted_modules as adapted_modules
from ._checks import arguments as arguments
from ._checks import check_installed, check_read, in_one_form
from ._checks import one_of as one_of
from ._checks import require as require

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ..model.streams import Streams
    from ..model.wrapper import LoraWrapperRoberta

ENTRY_POINTS = "lora_bench.methods"

# The freezing policy in model/wrapper.py, which most methods apply to the encoder's own parameters.
POLICY = frozenset({"biases", "layer_norms", "embeddings"})

# bitsandbytes, which PEFT imports if it is installed, reports at every start that the package
# ``kernels`` is missing; it computes the same numbers without it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class Method:
    """A method that adds nothing: the freezing policy, AdamW, no work after a step.

    Attributes:
        reads: fields of ``MethodSpec`` that the method uses; all others must keep their defaults.
        needs: fields of ``MethodSpec`` that must be set.
        ignores: paths of settings outside of ``method`` that have no effect on this method.
        grouped: whether runs of this method can be trained in one pass with others: it trains only
            updates of linear layers, biases, LayerNorms, adapters or the head; every other
            parameter keeps its pretrained value; the optimizer sees only this run; and after
            ``prepare`` it replaces no module, adds no hook, and neither merges nor unfreezes
            anything. A subclass does not inherit it.
        stateless: whether parameters and optimizer are all that a stopped run needs to continue. A
            subclass does not inherit it.
        packages: optional packages that it needs, with the extra that installs each.
        Args: dataclass of the settings under ``method.args``; None if there are none.
        streams: random numbers of the run; set before ``prepare``.
        steps: optimizer steps of the whole run; set before ``optimizer``.
    """

    reads: ClassVar[frozenset[str]] = POLICY
    needs: ClassVar[frozenset[str]] = frozenset()
    ignores: ClassVar[frozenset[str]] = frozenset()
    grouped: ClassVar[bool] = False
    stateless: ClassVar[bool] = False
    packages: ClassVar[Mapping[str, str]] = {}
    Args: ClassVar[type | None] = None

    streams: Streams
    steps: int

    @classmethod
    def reads_in(cls, spec: Spec) -> frozenset[str]:
        """``reads``, for a method where it depends on other settings."""
        return cls.reads

    @classmethod
    def needs_in(cls, spec: Spec) -> frozenset[str]:
        """``needs``, for a method where it depends on other settings."""
        return cls.needs

    @classmethod
    def check(cls, spec: Spec) -> None:
        """Check the settings of this method, without torch.

        An override calls this one first and then checks its own values.

        Raises:
            SpecError: a setting has no effect, is missing or has a wrong value.
            UserError: a package that the method needs is not installed.
        """
        for package, extra in cls.packages.items():
            check_installed(package, extra, f"method={spec.method.name}")
        check_read(spec, cls.reads_in(spec), cls.ignores)
        for name in sorted(cls.needs_in(spec)):
            value = getattr(spec.method, name)
            if value is None or value == []:
                raise SpecError(f"method.{name}", value, f"method={spec.method.name} needs it")
        if spec.method.biases == "adapted" and not cls.adapts(spec):
            reason = f"method={spec.method.name} adapts no linear layer; must be none or all"
            raise SpecError("method.biases", "adapted", reason)
        if spec.train.frozen_prefix == "cache" and cls.lowest_trained(spec) == 0:
            policy = cls.policy_trains(spec)
            cause = " or ".join(policy) or f"method={spec.method.name}"
            reason = f"{cause} trains in the lowest layer; must be compute"
            raise SpecError("train.frozen_prefix", "cache", reason)
        cls.check_args(spec)
        spec.method.args.update(in_one_form(spec.method.args))

    @classmethod
    def function_settings(cls, method: MethodSpec) -> dict[str, Any]:
        """The settings, besides the adapter's tensors, that determine what it computes.

        A run starts from an adapter of another only if they agree (``init_from``).
        """
        return {name: getattr(method, name) for name in ("rank", "alpha", "rank_stabilized")}

    @classmethod
    def lowest_trained(cls, spec: Spec) -> int | None:
        """Index of the lowest layer that may have a trained parameter; None: only the head has."""
        layers = spec.method.layers if "layers" in cls.reads_in(spec) else None
        return 0 if cls.policy_trains(spec) or not layers else min(layers)

    @classmethod
    def grouped_in(cls, spec: Spec) -> bool:
        """Whether this run can be trained in one pass with others."""
        return vars(cls).get("grouped", False) and not spec.method.embeddings

    @classmethod
    def adapts(cls, spec: Spec) -> bool:
        """Whether the method adapts linear layers, whose biases can be trained with them."""
        return bool(spec.method.targets)

    @staticmethod
    def policy_trains(spec: Spec) -> list[str]:
        """The settings by which the freezing policy trains more than the adapted layers."""
        m = spec.method
        trains = {
            "method.biases=all": m.biases == "all",
            "method.layer_norms=true": m.layer_norms,
            "method.embeddings=true": m.embeddings,
        }
        return [setting for setting, is_on in trains.items() if is_on]

    @classmethod
    def check_args(cls, spec: Spec) -> None:
        """Check names and types of ``method.args``.

        Raises:
            SpecError: an entry is missing, unknown or of the wrong type.
        """
        if cls.Args is not None:
            arguments(spec, cls.Args)
        for name, value in spec.method.args.items() if cls.Args is None else ():
            raise SpecError(
                f"method.args.{name}", value, f"method={spec.method.name} takes no args"
            )

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Add trained parameters and freeze the rest; called once, before the first step.

        Everything drawn here from torch's global generator comes from the run's stream ``init``.

        Args:
            model: a plain encoder with a task head.
            spec: settings of the run.
        """
        from ..model.wrapper import FreezePolicy

        m = spec.method
        FreezePolicy(m.biases, m.layer_norms, m.embeddings).apply(model)

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """The optimizer over the trained parameters.

        Args:
            model: a model after ``prepare``, on its device.
            spec: settings of the run.

        Returns:
            An optimizer whose groups have peak learning rates; the schedule scales them.
        """
        import torch

        decay, lr = spec.train.weight_decay, spec.train.lr
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim > 1]
        vectors = [p for p in trained if p.ndim <= 1]  # biases, LayerNorms
        groups = [
            {"params": parameters, "weight_decay": rate}
            for parameters, rate in ((matrices, decay), (vectors, 0.0))
            if parameters
        ]
        if spec.train.optimizer == "adamw8bit":  # Dettmers et al. 2021, arXiv 2110.02861
            package = require("bitsandbytes", "qlora", "train.optimizer=adamw8bit")
            return package.optim.AdamW8bit(groups, lr=lr)
        return torch.optim.AdamW(groups, lr=lr, fused=True)

    def after_step(self, model: LoraWrapperRoberta, step: int) -> None:
        """Called after each optimizer step.

        Args:
            model: the model after the step.
            step: number of the step, from 1.
        """

    def state(self) -> dict[str, Any] | None:
        """What a stopped run needs to continue, besides parameters and optimizer.

        Returns:
            Tensors, numbers, and dicts and lists of these; None: a stopped run starts over.
        """
        return {} if vars(type(self)).get("stateless", False) else None

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned; called after ``optimizer``.

        Args:
            state: state of the stopped run.
        """


def method_class(spec: MethodSpec) -> type[Method]:
    """The class of a method, by the name of its file or entry point.

    Raises:
        SpecError: there is none of that name.
    """
    name = spec.file or spec.name
    files = {module.name for module in pkgutil.iter_modules(__path__)}
    built_in = {file for file in files if not file.startswith("_")}
    if name in built_in:
        return importlib.import_module(f"{__name__}.{name}").METHOD
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in plugins:
        return plugins[name].load()
    path = "method.file" if spec.file else "method.name"
    raise SpecError(path, name, f"must be one of {', '.join(sorted(built_in | set(plugins)))}")


def get_method(spec: MethodSpec) -> Method:
    """A new instance of the method of a spec.

    Raises:
        SpecError: there is none of that name.
    """
    return method_class(spec)()


def check_method(spec: Spec) -> None:
    """Check the settings of the method, and that every package of the run is installed.

    Raises:
        SpecError: there is no such method, it does not read a setting that was changed, a setting
            that it needs is missing, or a value is wrong.
        UserError: a package that the run needs is not installed.
    """
    method_class(spec.method).check(spec)
    if spec.train.optimizer == "adamw8bit":
        check_installed("bitsandbytes", "qlora", "train.optimizer=adamw8bit")
    if spec.logger != "none":
        check_installed(spec.logger, spec.logger, f"logger={spec.logger}")
