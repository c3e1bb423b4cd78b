"""The systems that are timed side by side: ours, and PEFT as its users run it.

All of them load the same checkpoint and train on the same token ids with the same dropout, batch
size and optimizer. Loading and tokenization are not timed.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from lora_bench.model.build import SharedEncoder
from lora_bench.training.fit import Loop
from lora_bench.training.memory import keep_freed_memory
from lora_bench.training.trainee import Trainee

from .workload import SPAN, Workload

# Batches before the clock starts, while products are compiled and memory is first touched.
WARM_UP = 16
LEARNING_RATE = 5e-4
REPEATS = 20  # of the products between two looks at the clock, which wait for a GPU


def ours(work: Workload) -> float:
    """lora-bench: seconds of training on all rows."""
    return grouped(dataclasses.replace(work, group=1))


def grouped(work: Workload) -> float:
    """lora-bench, ``work.group`` runs that differ in their seed: one run's share in seconds."""
    size = work.group
    keep_freed_memory()
    shared = SharedEncoder(work.spec) if size > 1 else None
    specs = [dataclasses.replace(work.spec, seed=seed) for seed in range(size)]
    loop = Loop([Trainee(s, work.task_object, work.encoded, None, shared) for s in specs])

    def train(rows: int) -> None:
        loop.start_epoch()
        for _ in range(math.ceil(rows / work.batch_size)):
            loop.step()

    return _timed(train, work) / size


def trainer_defaults(work: Workload) -> float:
    """PEFT in transformers' Trainer with its default settings, in fp32."""
    return _trainer(work)


def trainer_best(work: Workload) -> float:
    """PEFT in transformers' Trainer, batches grouped by length, in the workload's precision."""
    options = {"train_sampling_strategy": "group_by_length", "bf16": work.precision == "bf16"}
    return _trainer(work, **options)


def padded_loop(work: Workload) -> float:
    """PEFT in a plain PyTorch loop over padded batches, in the workload's precision."""
    model, collate = peft_model(work).to(work.device), collator(work)
    data = examples(work)
    trained = [p for p in model.parameters() if p.requires_grad]

    def train(rows: int) -> None:
        loader: Any = torch.utils.data.DataLoader(
            data[:rows],  # type: ignore[arg-type]
            work.batch_size,
            shuffle=True,
            collate_fn=collate,
        )
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0)
        model.train()
        for batch in loader:
            with torch.autocast(work.device, torch.bfloat16, enabled=work.precision == "bf16"):
                loss = model(**batch.to(work.device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return _timed(train, work)


PEFT: dict[str, Callable[[Workload], float]] = {
    "PEFT + Trainer, defaults (fp32)": trainer_defaults,
    "PEFT + Trainer, grouped by length": trainer_best,
    "PEFT, plain padded loop": padded_loop,
}


def systems(work: Workload) -> dict[str, Callable[[Workload], float]]:
    """The systems that can run a workload: a group is not one of full fine-tuning or of one run."""
    together = {work.grouped: grouped} if work.method == "lora" and work.group > 1 else {}
    return {"lora-bench": ours, **together, **PEFT}


def _trainer(work: Workload, **options: Any) -> float:
    from transformers import Trainer, TrainingArguments

    model, collate = peft_model(work), collator(work)
    data = examples(work)

    def train(rows: int) -> None:
        arguments = TrainingArguments(
            output_dir="outputs/benchmarks",
            num_train_epochs=1,
            per_device_train_batch_size=work.batch_size,
            learning_rate=LEARNING_RATE,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=work.device == "cpu",
            dataloader_pin_memory=work.device != "cpu",
            **options,
        )
        Trainer(model, arguments, train_dataset=data[:rows], data_collator=collate).train()  # type: ignore[arg-type]

    return _timed(train, work)


def peft_model(work: Workload) -> Any:
    """The checkpoint with transformers' own head, and PEFT's LoRA on query and value."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(0)
    span = work.task in SPAN
    kind = AutoModelForQuestionAnswering if span else AutoModelForSequenceClassification
    model = kind.from_pretrained(work.model_folder, trust_remote_code=False, dtype=torch.float32)
    if work.method == "full":
        return model
    config = LoraConfig(
        task_type="QUESTION_ANS" if span else "SEQ_CLS",
        r=work.rank,
        lora_alpha=2 * work.rank,
        target_modules=["query", "value"],
    )
    return get_peft_model(model, config)


def examples(work: Workload) -> list[dict[str, Any]]:
    """The rows in the format of transformers models, not yet padded."""
    data = work.encoded
    assert data.labels is not None
    everything = range(len(data))
    pieces = zip(
        data.pieces(data.input_ids, everything),  # type: ignore[arg-type]
        data.pieces(data.token_type_ids, everything),  # type: ignore[arg-type]
        data.labels.tolist(),
        strict=True,
    )
    span = work.task in SPAN
    rows = []
    for ids, types, label in pieces:
        row = {"input_ids": ids.tolist(), "token_type_ids": types.tolist()}
        positions = {"start_positions": label[0], "end_positions": label[1]} if span else {}
        rows.append(row | (positions if span else {"labels": label}))
    return rows


def collator(work: Workload) -> Any:
    """Pads a batch to its longest example, as users of the Trainer do."""
    from transformers import AutoTokenizer, DataCollatorWithPadding

    return DataCollatorWithPadding(
        AutoTokenizer.from_pretrained(work.model_folder, trust_remote_code=False)
    )


def _timed(train: Callable[[int], None], work: Workload) -> float:
    """Seconds of ``train`` on all rows, after a warm-up."""
    train(min(WARM_UP * work.batch_size, work.rows))
    started = _now(work)
    train(work.rows)
    return _now(work) - started


def _now(work: Workload) -> float:
    """The time when the device has finished its work, in seconds."""
    if work.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def product_rate(work: Workload, seconds: float = 2.0) -> float:
    """FLOP/s of only the encoder's matrix products, on the tokens of an average batch."""
    hidden, wide, _ = _sizes(work)
    dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
    tokens = int(work.encoded.lengths.mean() * work.batch_size)
    shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, wide), (wide, hidden)]
    pairs = [
        [torch.randn(size, n, device=work.device).to(dtype) for size in (tokens, m)]
        for n, m in shapes
    ]
    flop = sum(2 * tokens * n * m for n, m in shapes)
    done, started = 0, _now(work)
    while _now(work) - started < seconds:
        for _ in range(REPEATS):
            for x, weight in pairs:
                x @ weight.t()
        done += REPEATS
    return done * flop / (_now(work) - started)


def needed_flop(work: Workload) -> float:
    """FLOP of the matrix products that training on all rows needs at least.

    Not counted: outputs of the last layer for tokens that a sequence head does not use, gradients
    of the frozen embeddings, attention's products and low-rank updates.
    """
    hidden, wide, layers = _sizes(work)
    tokens, count = int(work.encoded.lengths.sum()), len(work.encoded)
    layer = 4 * hidden**2 + 2 * hidden * wide  # multiplications for one token
    forward = tokens * layers * layer
    if work.task not in SPAN:
        forward -= (tokens - count) * (2 * hidden**2 + 2 * hidden * wide)
    if work.method == "full":
        return 2.0 * 3 * forward
    return 2.0 * (2 * forward - tokens * 3 * hidden**2)


def _sizes(work: Workload) -> tuple[int, int, int]:
    """Width of the hidden states and of the intermediate ones, and number of layers."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(work.model_folder, trust_remote_code=False)
    return config.hidden_size, config.intermediate_size, config.num_hidden_layers
