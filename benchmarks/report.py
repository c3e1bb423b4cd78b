"""Time of tables and page by number of records: ``python -m benchmarks.report --help``.

Records are synthetic: eight tasks, five methods, swept settings, five seeds, ten epochs.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd

from lora_bench.compose import compose
from lora_bench.provenance import provenance
from lora_bench.record import Record, now, suffix_of, write, write_whole
from lora_bench.report import load_records
from lora_bench.spec import Spec

from .machine import describe
from .measurements import markdown, positive, spread

TASKS = ("cola", "rte", "mrpc", "stsb", "sst2", "qnli", "qqp", "mnli")
METHODS = ("lora", "full", "peft_dora", "bitfit", "adapter_pfeiffer")
EPOCHS = 10
# batch sizes, ranks or warm-ups, learning rates, methods, tasks, seeds
SHAPE = (10, 5, 5, len(METHODS), len(TASKS), 5)


def main(words: Sequence[str] | None = None) -> None:
    """Time each number of records, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--records", type=positive, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--out", type=Path, default=Path("outputs/speed"))
    options = parser.parse_args(words)
    rows = []
    for n in options.records:
        with tempfile.TemporaryDirectory() as folder:
            for record in map(made_up, range(n)):
                write(Path(folder, record.key), record)
            rounds = pd.DataFrame([measure(Path(folder)) for _ in range(options.rounds)])
        columns = {name: spread(found, ".1f") for name, found in rounds.items()}
        rows.append({"records": f"{n:,}", **columns, "n": str(options.rounds)})
    head = "Median over rounds, range in brackets. *Tables* and *page* are whole commands."
    machine = f"Measured by `python -m benchmarks.report` on: {describe()}."
    text = f"{machine}\n\n{head}\n\n{markdown(rows)}"
    write_whole(options.out / "report.md", text)
    print(text)


@cache
def _composed(task: str, method: str) -> Spec:
    return compose([f"task={task}", f"method={method}", "data=local", "data.root=glue"])


def made_up(number: int) -> Record:
    """One of many records; the last dimension of SHAPE changes first."""
    extra, step, rate, method, task, seed = (int(at) for at in np.unravel_index(number, SHAPE))
    rng = Random(number)
    spec = copy.deepcopy(_composed(TASKS[task], METHODS[method]))
    spec.seed, spec.train.lr, spec.train.batch_size = seed, 1e-4 * 2**rate, 16 * 2**extra
    spec.method.rank = spec.method.rank and 2 ** (step + 1)
    spec.train.warmup = spec.train.warmup if spec.method.rank else step / 10
    identity = spec.identity(data=spec.task.name, model="made up")
    names = [n + suffix_of(split) for split in spec.task.validation for n in spec.task.metrics]
    scores = [{n: 0.8 - rng.random() / (9 * i) for n in names} for i in range(1, EPOCHS + 1)]
    epochs = [{"epoch": i, "loss": 1 / i, "scores": one} for i, one in enumerate(scores, 1)]
    rows = spec.task.official_rows.items()
    data = {split: {"source": "made up", "fingerprint": "", "rows": count} for split, count in rows}
    best = epochs[max(range(EPOCHS), key=lambda i: scores[i][names[0]])]
    return Record(
        identity.key, "ok", identity.where, identity.system, seed, spec.to_dict(), "made up",
        now(), provenance("cpu", 1), data=data, epochs=epochs, best=best, last=epochs[-1],
        parameters={"adapter": 10**5, "head": 10**4, "trained": 11 * 10**4},
        adapter_bytes=10**6, train_seconds=9.0, tokens_per_second=900.0, peak_memory_bytes=2**30,
    )  # fmt: skip


def measure(folder: Path) -> dict[str, float]:
    """Seconds of reading alone and of two whole commands, and the size of the page."""
    times = [time.perf_counter()]
    load_records(folder)
    times.append(time.perf_counter())
    for command in ("tables", "page"):
        words = [sys.executable, "-m", "lora_bench.report", command, "--runs", str(folder)]
        subprocess.run(words, capture_output=True, check=True)
        times.append(time.perf_counter())
    seconds = [end - start for start, end in pairwise(times)]
    size = (folder / "index.html").stat().st_size / 1e6
    return dict(zip(("load, s", "tables, s", "page, s", "page, MB"), [*seconds, size], strict=True))


if __name__ == "__main__":
    main()
