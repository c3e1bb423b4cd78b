"""ReLoRA (Lialin et al. 2023, arXiv 2307.05695): merge the update, start a new one, warm up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..checks import check_count
from ..errors import SpecError, counted
from ..spec import Spec
from . import arguments
from .lora import Lora

if TYPE_CHECKING:
    import torch

    from ..model.wrapper import LoraWrapperRoberta


@dataclass
class ReloraArgs:
    """Settings that only ReLoRA has."""

    every: int  # optimizer steps between two restarts
    warmup: int  # steps over which the learning rate rises again after a restart


class Relora(Lora):
    """LoRA that merges its update into the weight and restarts every few steps."""

    Args = ReloraArgs
    redraws = True

    @classmethod
    def check(cls, spec: Spec) -> None:
        """See ``Method.check``."""
        super().check(spec)
        args = arguments(spec, ReloraArgs)
        check_count("method.args.every", args.every, 1)
        check_count("method.args.warmup", args.warmup, 0)

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Inject LoRA whose base weights belong to the adapter."""
        from ..model.inject import lora_layers

        super().prepare(model, spec)
        self.args = arguments(spec, ReloraArgs)
        self.restarted: int | None = None
        for layer in lora_layers(model):
            # The sum of several updates has a higher rank than one update: an adapter file must
            # hold the weight that the earlier ones were merged into.
            layer.adapter_names = (*layer.adapter_names, "weight")  # type: ignore[assignment]

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """AdamW with a warm-up after each restart.

        Raises:
            SpecError: the run is too short for a restart, so it would be LoRA.
        """
        import torch

        if self.args.every >= self.steps:
            reason = f"has no effect in {counted(self.steps, 'step')}; must be below"
            raise SpecError("method.args.every", self.args.every, reason)
        device = next(model.parameters()).device
        self.generator = torch.Generator(device)
        self.generator.manual_seed(self.streams.torch_seed("restart"))
        self.adamw, self.step = super().optimizer(model, spec), 0
        self.adamw.register_step_pre_hook(self._warm_up)
        return self.adamw

    def _warm_up(self, *_: object) -> None:
        """Lower the rate of steps soon after a restart; the schedule resets it for the next."""
        self.step += 1
        if self.restarted is not None and self.step <= self.restarted + self.args.warmup:
            for group in self.adamw.param_groups:
                group["lr"] *= (self.step - self.restarted) / (self.args.warmup + 1)

    def after_step(self, model: LoraWrapperRoberta, step: int) -> None:
        """Merge, draw a new A, set B to zero and reset their moments.

        Not after the last step, which would leave an untrained update.
        """
        import torch

        from ..model.inject import lora_layers

        if step % self.args.every or step == self.steps:
            return
        with torch.no_grad():
            for layer in lora_layers(model):
                layer.weight += layer.delta()
                layer.reset_lora(self.generator)
                for name in ("lora_a", "lora_b"):
                    self.adamw.state.pop(layer.get_parameter(name), None)
        self.restarted = step

    def state(self) -> dict[str, Any]:
        """See ``Method.state``."""
        generator = self.generator.get_state()
        return {"restarted": self.restarted, "step": self.step, "generator": generator}

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Method.restore``."""
        self.restarted, self.step = state["restarted"], state["step"]
        self.generator.set_state(state["generator"])


METHOD = Relora
