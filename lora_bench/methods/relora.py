"""ReLoRA (Lialin et al. 2023, arXiv 2307.05695): merge the update into the weight, start a new one, warm up again."""

from dataclasses import dataclass

import torch

from ..model.lora import lora_layers
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, SpecError
from . import arguments
from .lora import Lora


@dataclass
class Args:
    every: int  # optimizer steps between two restarts
    warmup: int  # steps over which the learning rate rises again after a restart


class Relora(Lora):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Raises: SpecError."""
        self.args, self.restarted = arguments(spec, Args), None
        for name, value, low in (("every", self.args.every, 1), ("warmup", self.args.warmup, 0)):
            if value < low:
                raise SpecError(f"method.args.{name}", value, f"must be {low} or more")
        super().prepare(model, spec)
        for layer in lora_layers(model):
            # The sum of several updates has a higher rank than one: an adapter file must carry the weight it went into.
            layer.adapter_names = (*layer.adapter_names, "weight")

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        self.adamw, self.step = super().optimizer(model, spec), 0
        self.adamw.register_step_pre_hook(self._warm_up_again)
        return self.adamw

    def _warm_up_again(self, *_) -> None:
        """Lower the learning rate of a step soon after a restart; the loop's schedule sets it anew for the next one."""
        self.step += 1
        if self.restarted is not None and self.step <= self.restarted + self.args.warmup:
            for group in self.adamw.param_groups:
                group["lr"] *= (self.step - self.restarted) / (self.args.warmup + 1)

    @torch.no_grad()
    def after_step(self, model: LoraWrapperRoberta, step: int) -> None:
        """Merge, draw A anew, B = 0, forget their moments. Not after the last step, which would leave nothing to train."""
        if step % self.args.every or step == self.steps:
            return
        for layer in lora_layers(model):
            layer.weight += layer.delta()
            layer.reset_lora()
            for name in ("lora_a", "lora_b"):
                self.adamw.state.pop(layer.get_parameter(name), None)
        self.restarted = step


METHOD = Relora
