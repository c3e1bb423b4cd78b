"""Methods of Hugging Face's PEFT that are injected into linear layers or LayerNorms.

They are trained in our loop on our packed batches. A preset selects the ``PeftConfig`` with
``method.peft_type``. Settings of ``MethodSpec`` that PEFT has too are translated (``TRANSLATED``),
targets, layers and the freezing policy are ours, and ``method.args`` gives the rest.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import SpecError, one_line
from ..spec import MethodSpec, Spec
from . import POLICY, Method, adapted_modules, one_of, require
from ._peft_modules import check_modules
from ._peft_source import config_fields, peft_types

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

    from ..model.wrapper import LoraWrapperRoberta

ADAPTER = "default"  # PEFT's name for the one adapter

# PEFT's name for a setting of MethodSpec, by type. ``init`` has no equivalent: PEFT's "gaussian"
# is N(0, 1 / rank^2).
_LOW_RANK = {"rank": "r", "alpha": "alpha"}
TRANSLATED: dict[str, dict[str, str]] = {
    "LORA": {
        "rank": "r",
        "alpha": "lora_alpha",
        "rank_stabilized": "use_rslora",
        "dropout": "lora_dropout",
    },
    "ADALORA": {"alpha": "lora_alpha", "dropout": "lora_dropout"},
    "BOFT": {"dropout": "boft_dropout"},
    "DELORA": {"rank": "r"},
    "HIRA": {"rank": "r", "dropout": "hira_dropout"},
    "HRA": {"rank": "r"},
    "LOHA": _LOW_RANK,
    "LOKR": _LOW_RANK,
    "MISS": {"rank": "r", "dropout": "miss_dropout"},
    "RANDLORA": {"rank": "r", "alpha": "randlora_alpha", "dropout": "randlora_dropout"},
    "VBLORA": {"rank": "r", "dropout": "vblora_dropout"},
    "VERA": {"rank": "r", "dropout": "vera_dropout"},
}
# PEFT's fields that our freezing policy and layer selection replace.
REPLACED = {"bias": "biases", "layers_to_transform": "layers"}
# Fields that seed a random projection or mask. Their defaults are constants, so all seeds of a
# system would share one; here they come from the run's own stream unless args sets them.
SEEDS = (
    "generator_seed",
    "proj_seed",
    "projection_prng_key",
    "projection_seed",
    "random_loc_seed",
    "random_seed",
)
# Types that cannot compute a packed batch: they change a model's input, need a task's number, mix
# the tokens of all rows (LILY), or hook into whole layers, which are not called (SHADOW).
UNSUITED = frozenset({"ADAPTION_PROMPT", "LILY", "POLY", "SHADOW", "TRAINABLE_TOKENS"})
# Types that need a method class of their own, which acts after each step.
DRIVEN = {"ADALORA": "peft_adalora"}
# PEFT's annotations that are checked, with the types of values that fit.
PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
}
# Arguments that have their effect here, of types whose configuration holds others: those need a
# pass over the data, a loss or a PeftModel of their own, or only apply with another setting.
_MODULES = frozenset({"target_modules", "exclude_modules"})
UNDERSTOOD: dict[str, frozenset[str]] = {
    "LORA": _MODULES
    | {"alpha_pattern", "init_lora_weights", "lora_bias", "rank_pattern", "use_dora"},
    "ADALORA": _MODULES
    | {"beta1", "beta2", "deltaT", "init_r", "orth_reg_weight", "target_r", "tfinal", "tinit"},
}
# Initializations of LoRA that need only the weights.
INITS = re.compile("gaussian|orthogonal|olora|pissa(_niter_[1-9][0-9]*)?")
# Arguments that choose initial values or act in training only.
OF_TRAINING = frozenset(
    {"beta1", "beta2", "deltaT", "init_logits_std", "init_vector_bank_bound", "init_weights"}
    | {"orth_reg_weight", "tfinal", "tinit"}
)
RANDOM_BASE = "pissa_niter_"  # subtracts a randomized SVD from the base weights
# What PEFT raises, or warns about and ignores, if a value does not fit.
REFUSALS = (AssertionError, AttributeError, KeyError, TypeError, ValueError, Warning, re.error)

# Warnings that a user cannot act on: LN tuning's LayerNorms are not linear layers, and
# BOFT falls back from a CUDA kernel.
NOISE = (
    "Unsupported layer type",
    "Failed to load the CUDA extension",
    "Setting boft_n_butterfly_factor",
)


class Peft(Method):
    """The method behind ``method.peft_type``."""

    packages: ClassVar[dict[str, str]] = {"peft": "peft"}
    types: ClassVar[tuple[str, ...]] = ()  # types of this class; empty: all but DRIVEN
    own: ClassVar[tuple[str, ...]] = ()  # args whose type differs from PEFT's, checked by the class

    @classmethod
    def reads_in(cls, spec: Spec) -> frozenset[str]:
        """The settings that the type has an equivalent for, and our policy.

        Raises:
            SpecError: PEFT has no such type, or it does not belong to this class.
        """
        kind = spec.method.peft_type
        cls._check_type(kind)
        reads = POLICY | {"peft_type", "targets", *TRANSLATED.get(str(kind), {})}
        if spec.method.targets:
            reads |= {"layers"}
        if kind == "LN_TUNING":  # trains copies of the LayerNorms in their place
            reads -= {"layer_norms"}
        return reads

    @classmethod
    def needs_in(cls, spec: Spec) -> frozenset[str]:
        """Rank and alpha if the type has them: PEFT's defaults would hide a setting."""
        return cls.reads_in(spec) & {"rank", "alpha"}

    @classmethod
    def adapts(cls, spec: Spec) -> bool:
        """See ``Method.adapts``: PEFT's argument names linear layers too, but not LayerNorms."""
        named = spec.method.peft_type != "LN_TUNING" and "target_modules" in spec.method.args
        return bool(spec.method.targets) or named

    @classmethod
    def check(cls, spec: Spec) -> None:
        """See ``Method.check``."""
        super().check(spec)
        targets, by_name = spec.method.targets, spec.method.args.get("target_modules")
        if bool(targets) == ("target_modules" in spec.method.args) or not (targets or by_name):
            reason = "either this or method.args.target_modules must name modules"
            raise SpecError("method.targets", targets, reason)
        seeds = [name for name in cls._seeds(spec) if name not in spec.method.args]
        if spec.init_from is not None and seeds:
            reason = f"the start has its own random projection; set method.args.{seeds[0]} for both"
            raise SpecError("init_from", spec.init_from, reason)
        init = str(spec.method.args.get("init_lora_weights"))
        if spec.init_from is not None and init.startswith(RANDOM_BASE):
            reason = f"init_lora_weights={init} draws base weights that the start does not fit"
            raise SpecError("init_from", spec.init_from, f"{reason}; use pissa for both")

    @classmethod
    def check_args(cls, spec: Spec) -> None:
        """See ``Method.check_args``: names and plain types, by PEFT's own configuration."""
        kind, fields = spec.method.peft_type, config_fields(str(spec.method.peft_type))
        ours = {theirs: name for name, theirs in TRANSLATED.get(str(kind), {}).items()} | REPLACED
        for name, value in spec.method.args.items():
            path = f"method.args.{name}"
            if name == "boft_n_butterfly_factor" and value != 1:
                # PEFT compiles the extension at run time and warns where it cannot.
                raise SpecError(path, value, "PEFT uses 1 without its CUDA extension; must be 1")
            targets = spec.method.args.get("target_modules")
            if name == "feedforward_modules" and isinstance(targets, list):  # no pattern
                for module in value if isinstance(value, list) else [value]:
                    one_of(path, module, tuple(targets))
            if name in ours:
                raise SpecError(path, value, f"use method.{ours[name]}")
            takes = UNDERSTOOD.get(str(kind), fields.keys() - ours.keys())
            if name not in takes:
                allowed = ", ".join(sorted(takes))
                raise SpecError(path, value, f"peft_type={kind} takes {allowed}")
            if name not in cls.own and type(value) not in PLAIN.get(fields[name], (type(value),)):
                raise SpecError(path, value, f"must be of type {fields[name]}")
            known_init = isinstance(value, bool) or INITS.fullmatch(str(value))
            if name == "init_lora_weights" and not known_init:
                reason = "true, false, gaussian, orthogonal, olora, pissa or pissa_niter_<n>"
                raise SpecError(path, value, f"must be {reason}")

    @classmethod
    def _check_type(cls, kind: str | None) -> None:
        known = peft_types()
        if kind not in (cls.types or known):
            one_of("method.peft_type", kind, cls.types or tuple(suited_types()))
        if kind not in suited_types():
            reason = "does not adapt each token by itself, so it cannot compute packed batches"
            raise SpecError("method.peft_type", kind, reason)
        if not cls.types and kind in DRIVEN:
            raise SpecError("method.peft_type", kind, f"needs method.file={DRIVEN[kind]}")

    @staticmethod
    def _seeds(spec: Spec) -> list[str]:
        fields = config_fields(str(spec.method.peft_type))
        return [name for name in SEEDS if name in fields]

    @classmethod
    def function_settings(cls, method: MethodSpec) -> dict[str, Any]:
        """See ``Method.function_settings``: every argument except those of the training."""
        found = super().function_settings(method) | {"peft_type": method.peft_type}
        for name, value in method.args.items():
            if name not in OF_TRAINING and (name != "init_lora_weights" or changes_base(method)):
                found[f"args.{name}"] = value
        return found

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Let PEFT's tuner inject its layers and declare their parameters as the adapter.

        Raises:
            UserError: PEFT is not installed.
            SpecError: PEFT refuses a value, or a size that does not fit this encoder; or an
                argument names a module without effect.
        """
        from ._peft_draws import StreamedForward

        require("peft", "peft", f"method={spec.method.name}")
        with warnings.catch_warnings():
            ignore_noise()
            from peft import PEFT_TYPE_TO_TUNER_MAPPING

            # PEFT warns and continues if a setting has no effect
            for category in (UserWarning, RuntimeWarning):
                warnings.filterwarnings("error", category=category, module="peft")
            ignore_noise()
            config: Any = self.config(model, spec)
            paths = [path for path, _ in model.encoder.named_modules()]
            # PeftModel would wrap the encoder; its tuner injects in place. It is kept because the
            # layers of VeRA and VB-LoRA share what it holds.
            try:
                tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
                self.tuner = tuner(model.encoder, config, ADAPTER)
            except REFUSALS as error:
                allowed = f"cannot go into {spec.model.name}: {one_line(error)}"
                raise SpecError("method.peft_type", spec.method.peft_type, allowed) from None
        check_modules(spec.method.args, config, paths)
        _declare_adapter(model.encoder)
        super().prepare(model, spec)
        if spec.method.biases == "adapted":
            for module in model.encoder.modules():
                bias = getattr(getattr(module, "base_layer", None), "bias", None)
                if bias is not None:
                    bias.requires_grad_(True)
        self.forward = StreamedForward(model, self.streams)

    def state(self) -> dict[str, Any] | None:
        """See ``Method.state``."""
        return {"forward": self.forward.state}

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Method.restore``."""
        self.forward.state = state["forward"]

    def config(self, model: LoraWrapperRoberta, spec: Spec) -> PeftConfig:
        """The PeftConfig of a spec.

        Raises:
            SpecError: PEFT refuses a value, or this encoder does not have a layer.
        """
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

        m = spec.method
        chosen: dict[str, Any] = {}
        if m.targets:
            chosen["target_modules"] = adapted_modules(model, spec)
        for name, theirs in TRANSLATED.get(str(m.peft_type), {}).items():
            chosen[theirs] = getattr(m, name)
        for name in self._seeds(spec):
            chosen[name] = self.streams.torch_seed("init") % 2**31
        config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(m.peft_type)]
        try:
            return config_class(**{**chosen, **self.config_arguments(spec)})
        except REFUSALS as error:
            raise SpecError("method.args", m.args, one_line(error)) from None

    def config_arguments(self, spec: Spec) -> dict[str, Any]:
        """The arguments of the PeftConfig that ``method.args`` gives."""
        return spec.method.args


def changes_base(method: MethodSpec) -> bool:
    """Whether the method's initialization subtracts something from the base weights."""
    return str(method.args.get("init_lora_weights")).startswith(("pissa", "olora"))


def suited_types() -> list[str]:
    """PEFT's types that adapt modules and can compute packed batches."""
    known = [kind for kind in peft_types() if kind not in UNSUITED]
    return [kind for kind in known if "target_modules" in config_fields(kind)]


def ignore_noise() -> None:
    """Ignore what PEFT warns about these methods; inside a block that restores the filters."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def _declare_adapter(encoder: nn.Module) -> None:
    """List what PEFT left trainable in ``adapter_names`` of the modules that hold it."""
    added = {
        name for name, p in encoder.named_parameters(remove_duplicate=False) if p.requires_grad
    }
    for path, module in encoder.named_modules():
        own = [name for name, _ in module.named_parameters(recurse=False)]
        names = tuple(name for name in own if f"{path}.{name}" in added)
        if names:
            module.adapter_names = names  # type: ignore[assignment]


METHOD = Peft
