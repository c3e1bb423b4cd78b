"""The reference: PEFT's LoRA in a plain, padded PyTorch loop, without lora_bench's model or loop.

    python -m tests.reference_loop --data-root /path/to/glue_data --task stsb --seeds 0 1 2

Same base model, head shape, recipe and rows as ``python -m lora_bench``; prints one JSON line per
seed, and the mean.
"""

import argparse
import json
import math

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import AutoModel, AutoTokenizer

from lora_bench.compose import compose
from lora_bench.data import load
from lora_bench.model.source import locate
from lora_bench.tasks import make_task


class PaddedModel(nn.Module):
    """A stock encoder with PEFT's LoRA on query and value, and RobertaForX's head."""

    def __init__(self, folder: str, outputs: int, rank: int, alpha: float, dropout: float):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(
            folder, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
        ).requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["query", "value"])
        inject_adapter_in_model(config, self.encoder)
        width = self.encoder.config.hidden_size
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, outputs),
        )

    def forward(self, tokens) -> torch.Tensor:
        return self.head(self.encoder(**tokens).last_hidden_state[:, 0])


def train_and_score(spec) -> dict[str, float]:
    """Train with the spec's recipe; scores after the last epoch."""
    torch.manual_seed(spec.seed)
    task = make_task(spec.task)
    splits = load(task, spec.data)
    folder = str(locate(spec.model))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = PaddedModel(
        folder, task.outputs("standard"), spec.method.rank, spec.method.alpha, spec.train.dropout
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=spec.train.lr, weight_decay=spec.train.weight_decay)
    rows, size = splits["train"].rows, spec.train.batch_size
    total = math.ceil(len(rows) / size) * spec.train.epochs
    rise = round(total * spec.train.warmup)
    rng = np.random.default_rng(spec.seed + 1000)

    def tokens_of(part):
        texts = [[row[c] for row in part] for c in spec.task.columns]
        return tokenizer(
            *texts,
            padding=True,
            truncation=True,
            max_length=spec.train.max_length,
            return_tensors="pt",
        )

    step = 0
    for _ in range(spec.train.epochs):
        model.train()
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), size):
            part = [rows[i] for i in order[start : start + size]]
            for group in optimizer.param_groups:
                scale = (step + 1) / rise if step < rise else (total - step) / (total - rise)
                group["lr"] = spec.train.lr * scale
            logits, labels = model(tokens_of(part)), torch.from_numpy(task.references(part))
            if task.regression:
                loss = nn.functional.mse_loss(logits.squeeze(1), labels)
            else:
                loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, spec.train.max_grad_norm)
            optimizer.step()
            step += 1
    model.eval()
    scores = {}
    for split in spec.task.validation:
        rows = splits[split].rows
        with torch.no_grad():
            outputs = [
                o for i in range(0, len(rows), 64) for o in model(tokens_of(rows[i : i + 64]))
            ]
        scores |= task.score(task.decode(outputs, rows, None), rows, split)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-rows", type=int, default=3000)
    parser.add_argument(
        "overrides", nargs="*", help="any setting of python -m lora_bench, as in train.lr=5e-4"
    )
    args = parser.parse_args()
    fixed = [
        "data=local",
        f"data.root={args.data_root}",
        f"task={args.task}",
        f"data.train_rows={args.train_rows}",
    ]
    found = []
    for seed in args.seeds:
        found.append(train_and_score(compose([*fixed, f"seed={seed}", *args.overrides])))
        print(json.dumps({"task": args.task, "seed": seed, **found[-1]}), flush=True)
    for name in found[0]:
        values = [scores[name] for scores in found]
        spread = np.std(values, ddof=1) if len(values) > 1 else math.nan
        print(
            f"{args.task} {name}: mean {np.mean(values):.4f}, sd {spread:.4f}, n {len(values)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
