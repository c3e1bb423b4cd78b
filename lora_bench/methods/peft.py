"""Any method of Hugging Face's PEFT that injects into linear layers or LayerNorms, in our loop, on our packed batches.

A preset names the ``PeftConfig`` by ``method.peft_type`` and gives its arguments in ``method.args``; targets are ours.
"""

import dataclasses
import importlib.util
import warnings

from ..lora import target_modules
from ..spec import Spec, SpecError, UserError
from ..wrapper import FreezePolicy, LoraWrapperRoberta
from . import Method

# They need what the three hooks do not give: a term in the loss, or the number of steps before the first one.
UNSUPPORTED = {"ADALORA": "needs the number of steps in advance and a term of its own in the loss"}


class Peft(Method):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Raises: UserError: PEFT is not installed; SpecError: an unknown type or argument."""
        if importlib.util.find_spec("peft") is None:
            raise UserError(f"method={spec.method.name} needs PEFT: pip install 'lora-bench[peft]'")
        config = _config(spec, model)
        with warnings.catch_warnings():
            # LN tuning warns that a LayerNorm is no linear layer, for each one
            warnings.filterwarnings("ignore", message="Unsupported layer type")
            from peft import PEFT_TYPE_TO_TUNER_MAPPING

            # PeftModel would wrap the encoder; its tuner injects in place. It is kept because VeRA's and VB-LoRA's layers
            # share what it holds.
            self.tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model.encoder, config, "default")
        added = {name for name, p in model.encoder.named_parameters(remove_duplicate=False) if p.requires_grad}
        for path, module in model.encoder.named_modules():
            names = tuple(n for n, _ in module.named_parameters(recurse=False) if f"{path}.{n}" in added)
            if names:
                module.adapter_names = names
        FreezePolicy(spec.method.biases, spec.method.layer_norms, spec.method.embeddings).apply(model)


def _config(spec: Spec, model: LoraWrapperRoberta):
    """The PeftConfig of the spec. Raises: SpecError."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    kind = spec.method.peft_type
    usable = {name.value: name for name in PEFT_TYPE_TO_TUNER_MAPPING}
    if kind in UNSUPPORTED:
        raise SpecError("method.peft_type", kind, UNSUPPORTED[kind])
    if kind not in usable:
        raise SpecError("method.peft_type", kind, f"must be one of {', '.join(sorted(usable.keys() - UNSUPPORTED))}")
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[usable[kind]]
    known = {entry.name for entry in dataclasses.fields(config_class)}
    for name in spec.method.args:
        if name not in known:
            raise SpecError(f"method.args.{name}", spec.method.args[name], f"{kind} takes {', '.join(sorted(known))}")
    targets = target_modules(model.encoder, spec.method.targets, spec.method.layers)
    try:
        return config_class(**{"target_modules": targets or None, **spec.method.args})
    except (TypeError, ValueError) as error:
        raise SpecError("method.args", spec.method.args, " ".join(str(error).split())) from None


METHOD = Peft
