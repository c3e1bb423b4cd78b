"""What a benchmark trains on: real rows from a folder, or generated rows of the same lengths."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lora_bench.compose import compose
from lora_bench.model.build import check_device
from lora_bench.model.source import locate
from lora_bench.spec import Spec
from lora_bench.tasks import Task, make_task
from lora_bench.tasks.encoding import Encoded
from lora_bench.training.prepared import Prepared

# Deciles of the tokens per training example, with MiniLM's tokenizer:
# ``python -m benchmarks.workload FOLDER FOLDER`` prints this table from the official files.
DECILES = {
    "mrpc": [19, 36, 41, 45, 50, 53, 57, 61, 64, 70, 103],
    "sst2": [3, 4, 6, 7, 8, 10, 13, 16, 20, 27, 66],
    "rte": [13, 33, 40, 45, 50, 56, 62, 72, 103, 128, 128],
    "squad_v1": [39, 87, 108, 124, 138, 152, 168, 187, 212, 257, 384],
}
SPAN = ("squad_v1",)
GROUP = 8  # default number of runs that are timed in one pass


@dataclass(frozen=True)
class Workload:
    """Rows, model and recipe that every measured system shares.

    Attributes:
        task: preset of the task.
        precision: ``fp32`` or ``bf16``.
        method: ``lora`` or ``full``.
        rows: number of training rows that are timed.
        batch_size: examples per step.
        folder: folder with the official files of the task; None: generated rows.
        model: preset or folder of the encoder.
        rank: rank of LoRA; alpha is twice the rank.
        device: ``cpu`` or ``cuda``.
        group: number of runs that are timed in one pass.
    """

    task: str
    precision: str = "bf16"
    method: str = "lora"
    rows: int = 512
    batch_size: int = 16
    folder: str | None = None
    model: str = "minilm"
    rank: int = 8
    device: str = "cpu"
    group: int = GROUP

    @cached_property
    def spec(self) -> Spec:
        """The settings of our run."""
        data = ["data=toy"]
        if self.folder is not None:
            data = ["data=local", f"data.root={self.folder}", f"data.train_rows={self.rows}"]
        method = [f"method={self.method}"]
        if self.method == "lora":
            method += [f"method.rank={self.rank}", f"method.alpha={2 * self.rank}"]
        recipe = ["train.epochs=1", f"train.batch_size={self.batch_size}"]
        model = f"model.source={self.model}" if "/" in self.model else f"model={self.model}"
        names = [f"task={self.task}", model, f"precision={self.precision}"]
        where = [f"device={self.device}", "progress=false"]
        return compose([*names, *data, *method, *recipe, *where])

    @property
    def grouped(self) -> str:
        """Name of the system that trains ``group`` runs in one pass."""
        return grouped_name(self.group)

    @cached_property
    def task_object(self) -> Task:
        """The task of the spec."""
        return make_task(self.spec.task)

    @cached_property
    def encoded(self) -> Encoded:
        """The training rows as token ids, at most ``rows`` examples."""
        if self.folder is None:
            return generated(self.task, self.rows)
        return first_examples(Prepared(self.spec).encoded["train"], self.rows)

    def check(self) -> None:
        """Refuse settings, a folder or a model before anything is measured.

        Raises:
            UserError: names the setting.
        """
        check_device(self.device)
        locate(self.spec.model)
        if self.folder is not None:
            Prepared(self.spec)

    @property
    def model_folder(self) -> Path:
        """The checkpoint that every system loads."""
        return locate(self.spec.model)


def grouped_name(count: int) -> str:
    """Name of the system that trains ``count`` runs in one pass."""
    return f"lora-bench, {count} runs in one pass (time of one)"


def first_examples(data: Encoded, count: int) -> Encoded:
    """The first ``count`` examples, or all if there are fewer."""
    count = min(count, len(data))
    tokens = data.starts[count]
    labels = None if data.labels is None else data.labels[:count]
    return Encoded(
        data.input_ids[:tokens], data.token_type_ids[:tokens], data.starts[: count + 1], labels
    )


def generated(task: str, rows: int) -> Encoded:
    """Random tokens with the length distribution of the real task."""
    rng = np.random.default_rng(0)
    deciles = DECILES[task]
    lengths = np.interp(rng.uniform(0, 10, rows), range(len(deciles)), deciles).astype(int)
    ids = [rng.integers(1000, 25_000, length).tolist() for length in lengths]
    labels = rng.integers(0, 2, rows)
    if task in SPAN:
        labels = np.sort(rng.integers(1, lengths[:, None] - 1, (rows, 2)))
    return Encoded.from_lists(ids, None, labels)


def _print_deciles(glue: str, squad: str) -> None:
    for task in DECILES:
        folder = squad if task in SPAN else glue
        lengths = Workload(task, rows=10_000, folder=folder).encoded.lengths
        print(f'    "{task}": {np.percentile(lengths, range(0, 101, 10)).astype(int).tolist()},')


if __name__ == "__main__":
    import sys

    _print_deciles(*sys.argv[1:])
