"""Any method of Hugging Face's PEFT that injects into linear layers or LayerNorms, in our loop, on our packed batches.

A preset names the ``PeftConfig`` by ``method.peft_type`` and gives its arguments in ``method.args``; targets are ours.
"""

import dataclasses
import warnings

from ..model.lora import target_modules
from ..model.wrapper import FreezePolicy, LoraWrapperRoberta
from ..spec import Spec, SpecError
from . import Method, require

ADAPTER = "default"  # PEFT's name for the one adapter
# Not what they report on, and nothing a user can act on: LN tuning's LayerNorms are no linear layers; BOFT tries a CUDA
# kernel and does without.
NOISE = (
    "Unsupported layer type",
    "Failed to load the CUDA extension",
    "Setting boft_n_butterfly_factor",
)


class Peft(Method):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Raises: UserError: PEFT is not installed; SpecError: an unknown type or argument."""
        require("peft", "peft", f"method={spec.method.name}")
        config = _config(spec, model, self.config_arguments(spec))
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message=message)
            from peft import PEFT_TYPE_TO_TUNER_MAPPING

            # PeftModel would wrap the encoder; its tuner injects in place. It is kept because VeRA's and VB-LoRA's layers
            # share what it holds.
            try:
                self.tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](
                    model.encoder, config, ADAPTER
                )
            except (TypeError, ValueError) as error:  # sizes that do not fit this encoder
                reason = " ".join(str(error).split())
                raise SpecError(
                    "method.peft_type",
                    spec.method.peft_type,
                    f"cannot go into {spec.model.name}: {reason}",
                ) from None
        added = {
            name
            for name, p in model.encoder.named_parameters(remove_duplicate=False)
            if p.requires_grad
        }
        for path, module in model.encoder.named_modules():
            names = tuple(
                n for n, _ in module.named_parameters(recurse=False) if f"{path}.{n}" in added
            )
            if names:
                module.adapter_names = names
        FreezePolicy(spec.method.biases, spec.method.layer_norms, spec.method.embeddings).apply(
            model
        )

    def config_arguments(self, spec: Spec) -> dict:
        """What the PeftConfig is made with."""
        return spec.method.args


def _config(spec: Spec, model: LoraWrapperRoberta, given: dict):
    """The PeftConfig of the spec. Raises: SpecError."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    kind = spec.method.peft_type
    usable = {name.value: name for name in PEFT_TYPE_TO_TUNER_MAPPING}
    if kind not in usable:
        raise SpecError("method.peft_type", kind, f"must be one of {', '.join(sorted(usable))}")
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[usable[kind]]
    known = {entry.name for entry in dataclasses.fields(config_class)}
    if "target_modules" not in known:
        raise SpecError(
            "method.peft_type",
            kind,
            "adds to a model's input and not to its layers; a packed batch has no place for it",
        )
    for name in given:
        if name not in known:
            raise SpecError(
                f"method.args.{name}", given[name], f"{kind} takes {', '.join(sorted(known))}"
            )
    targets = target_modules(model.encoder, spec.method.targets, spec.method.layers)
    try:
        return config_class(**{"target_modules": targets or None, **given})
    except (TypeError, ValueError) as error:
        raise SpecError("method.args", given, " ".join(str(error).split())) from None


METHOD = Peft
