"""Our LoRA from the very A that ``peft_lora`` draws for a seed: does it end where PEFT's run ended?

``python -m tests.same_start task=cola data=local data.root=/path/to/glue_data seed=0 ...`` prints the scores of each epoch; the
same arguments with ``method=peft_lora`` as a run give PEFT's. What still differs is the implementation alone.
"""

import sys

import torch

from lora_bench.__main__ import compose
from lora_bench.data import load
from lora_bench.methods import get_method
from lora_bench.model.encoder import load_tokenizer
from lora_bench.model.lora import LoraLinear
from lora_bench.tasks import make_task
from lora_bench.training.fit import fit
from lora_bench.training.run import _score, build, encode


def main(overrides: list[str]) -> None:
    theirs, ours = (compose([*overrides, f"method={name}"]) for name in ("peft_lora", "lora"))
    task, splits, tokenizer = (
        make_task(ours.task),
        load(ours.task, ours.data),
        load_tokenizer(ours.model),
    )
    encoded = {name: encode(ours, task, tokenizer, split.rows) for name, split in splits.items()}
    drawn, _ = build(theirs, task, get_method(theirs.method))
    model, method = build(ours, task, get_method(ours.method))
    with torch.no_grad():
        for name, layer in model.encoder.named_modules():
            if isinstance(layer, LoraLinear):
                layer.lora_a.copy_(drawn.encoder.get_submodule(name).lora_A["default"].weight)
    result = fit(
        model,
        method,
        task,
        encoded["train"],
        ours,
        lambda: _score(model, task, encoded, splits, ours),
    )
    for epoch in result.epochs:
        print(epoch["epoch"], epoch["scores"])


if __name__ == "__main__":
    main(sys.argv[1:])
