"""The script that a user of PEFT and the Trainer would write: read, tokenize, train, score.

``python -m benchmarks.peft_script '{...}'`` prints the score. The benchmark of a sweep starts it
once for each run.
"""

import json
import sys
from typing import Any

import numpy as np


def main(order: str) -> None:
    """Execute one run.

    Args:
        order: JSON with train (TSV file), validation (TSV file), rows, validation_rows, epochs,
            batch_size, model, rank, seed, best, folder (for output).
    """
    import pandas as pd
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    given: dict[str, Any] = json.loads(order)
    set_seed(given["seed"])
    tokenizer = AutoTokenizer.from_pretrained(given["model"], trust_remote_code=False)
    splits = {}
    for name, rows in (("train", given["rows"]), ("validation", given["validation_rows"])):
        table = pd.read_csv(given[name], sep="\t", quoting=3)[:rows]
        split = Dataset.from_pandas(table.rename(columns={"label": "labels"}))
        splits[name] = split.map(
            lambda batch: tokenizer(batch["sentence"], truncation=True, max_length=128),
            batched=True,
            remove_columns=["sentence"],
        )
    model = AutoModelForSequenceClassification.from_pretrained(
        given["model"], trust_remote_code=False, num_labels=2
    )
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=given["rank"],
        lora_alpha=2 * given["rank"],
        target_modules=["query", "value"],
    )
    best: dict[str, Any] = {}
    if given["best"]:
        best = {"bf16": True, "train_sampling_strategy": "group_by_length"}
    arguments = TrainingArguments(
        output_dir=given["folder"],
        num_train_epochs=given["epochs"],
        per_device_train_batch_size=given["batch_size"],
        per_device_eval_batch_size=64,
        learning_rate=5e-4,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=given["seed"],
        **best,
    )
    trainer = Trainer(
        get_peft_model(model, config),
        arguments,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda out: {
            "accuracy": float((np.argmax(out.predictions, 1) == out.label_ids).mean())
        },
    )
    trainer.train()
    print(json.dumps(trainer.evaluate()["eval_accuracy"]))
    trainer.save_model()


if __name__ == "__main__":
    main(sys.argv[1])
