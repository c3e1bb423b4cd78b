"""Our LoRA starting from the A that ``peft_lora`` draws: does it end where PEFT's run ended?

``python -m tests.same_start task=cola data=local data.root=/path/to/glue_data seed=0 ...`` prints
the scores of each epoch; the same arguments with ``method=peft_lora`` as a run give PEFT's. What
still differs is the implementation alone.
"""

import sys

import torch

from lora_bench.compose import compose
from lora_bench.model.lora import LoraLinear
from lora_bench.training.evaluation import outputs_of, score
from lora_bench.training.fit import Scoring, fit
from lora_bench.training.prepared import Prepared
from lora_bench.training.trainee import Trainee


class Evaluated(Scoring):
    """Scores after each epoch."""

    def __init__(self, prepared: Prepared):
        self.prepared = prepared

    def outputs(self, group, trainees):
        """See Scoring."""
        return outputs_of(group, self.prepared, trainees[0].spec)

    def score(self, trainee, outputs):
        """See Scoring."""
        return score(outputs, self.prepared).scores


def main(overrides: list[str]) -> None:
    theirs, ours = (compose([*overrides, f"method={name}"]) for name in ("peft_lora", "lora"))
    prepared = Prepared(ours)
    drawn, trainee = (Trainee(s, prepared.task, prepared.encoded["train"]) for s in (theirs, ours))
    with torch.no_grad():
        for name, layer in trainee.model.encoder.named_modules():
            if isinstance(layer, LoraLinear):
                peft_layer = drawn.model.encoder.get_submodule(name)
                layer.lora_a.copy_(peft_layer.lora_A["default"].weight)
    fit([trainee], Evaluated(prepared))
    for epoch in trainee.epochs:
        print(epoch["epoch"], epoch["scores"])


if __name__ == "__main__":
    main(sys.argv[1:])
