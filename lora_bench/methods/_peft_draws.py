"""Makes PEFT's layers draw their random numbers from the run's own stream in a forward pass.

Imported only inside hooks: it needs torch.
"""

import torch
from torch import Tensor, nn

from ..model.streams import Streams


class StreamedForward:
    """Replaces torch's global generators during a module's forward pass in training.

    BOFT's and LoHa's dropout, for example, draw from them. The pass sees generators that start at
    the run's stream ``forward`` and continue from pass to pass; afterwards the global ones are as
    they were before.

    Args:
        module: the module whose forward pass draws numbers.
        streams: random streams of the run.

    Attributes:
        state: state of each generator after the last pass; None: there was none.
    """

    def __init__(self, module: nn.Module, streams: Streams):
        self._seed = streams.torch_seed("forward")
        self.state: list[Tensor] | None = None
        self._outer: list[Tensor] = []
        module.register_forward_pre_hook(self._enter)
        module.register_forward_hook(self._leave, always_call=True)

    def _enter(self, module: nn.Module, args: object) -> None:
        if not module.training:
            return
        generators = _generators(module)
        self._outer = [generator.get_state() for generator in generators]
        for index, generator in enumerate(generators):
            if self.state is None:
                generator.manual_seed(self._seed)
            else:
                generator.set_state(self.state[index])

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        if not module.training:
            return
        generators = _generators(module)
        self.state = [generator.get_state() for generator in generators]
        for generator, state in zip(generators, self._outer, strict=True):
            generator.set_state(state)


def _generators(module: nn.Module) -> list[torch.Generator]:
    """The global generators that a module on its device can draw from."""
    device = next(module.parameters()).device
    if device.type == "cuda":
        return [torch.default_generator, torch.cuda.default_generators[device.index]]
    return [torch.default_generator]
