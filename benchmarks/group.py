"""Training speed and memory by number of runs in one pass: ``python -m benchmarks.group``.

Each measurement runs in its own process; sizes take turns within a round.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from lora_bench.program import program
from lora_bench.training.memory import PeakMemory

from .machine import describe
from .measurements import Measurements, in_own_process, markdown, positive, spread
from .speed import facts
from .systems import grouped
from .workload import DECILES, Workload

SIZES = (1, 2, 4, 8, 16)


@program
def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write table and picture."""
    options = _options(words)
    log = Measurements(options.out / "group.jsonl")
    works, machine = workloads(options), describe(options.device)
    for work in works:
        work.check()
    for round_ in range(options.rounds):
        for work in works:
            for size in options.sizes:
                identity = {"workload": shared_facts(work), "size": size, "round": round_}
                identity |= {"machine": machine}
                if not log.has(identity):
                    order = {"workload": dataclasses.asdict(work), "size": size}
                    log.add(identity | in_own_process("benchmarks.group", order))
    chosen = [shared_facts(work) for work in works]
    shown = [one for one in log.of(machine) if one["workload"] in chosen]
    (options.out / "group.md").write_text(report(shown))
    picture(shown, options.out / "group.svg")
    print(report(shown))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.group", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(DECILES), default=["sst2", "mrpc"])
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--rank", type=positive, default=8)
    parser.add_argument("--sizes", type=positive, nargs="+", default=SIZES, help="runs in one pass")
    parser.add_argument("--batch-size", type=positive, default=16, help="of each run")
    parser.add_argument("--model", default="minilm", help="preset or folder of the encoder")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--rows", type=positive, default=256, help="timed rows of each run")
    parser.add_argument("--glue", help="folder of the official GLUE files; default: generated rows")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed"))
    return parser.parse_args(words)


def workloads(options: argparse.Namespace) -> list[Workload]:
    """One for each task."""
    return [
        Workload(
            task,
            options.precision,
            rows=options.rows,
            batch_size=options.batch_size,
            folder=options.glue,
            model=options.model,
            rank=options.rank,
            device=options.device,
        )
        for task in options.tasks
    ]


def shared_facts(work: Workload) -> dict[str, Any]:
    """What the measurements of all sizes share."""
    return {name: fact for name, fact in facts(work).items() if name != "group"}


def worker(order: str) -> None:
    """Measure what ``order`` says and print it as JSON."""
    given = json.loads(order)
    work = Workload(**given["workload"])
    tokens = int(work.encoded.lengths.sum())
    with PeakMemory(work.device) as peak:
        seconds = grouped(dataclasses.replace(work, group=given["size"]))
    print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_memory_bytes": peak.bytes}))


def table(measured: list[dict[str, Any]]) -> pd.DataFrame:
    """A row for each task and size: rates, their ratio to that of one run, memory in bytes."""
    frame = pd.DataFrame([one | one["workload"] for one in measured])
    frame["rate"] = frame.tokens / frame.seconds
    alone = frame[frame["size"] == 1].set_index(["task", "round"]).rate
    frame["gain"] = [
        rate / alone.get((task, round_), math.nan)
        for rate, task, round_ in zip(frame.rate, frame.task, frame["round"], strict=True)
    ]
    return frame


def report(measured: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    frame = table(measured)
    rows = [
        {
            "task": str(task),
            "runs in one pass": str(size),
            "tokens/s": spread(part.rate, ",.0f"),
            "gain": "not measured" if part.gain.isna().any() else spread(part.gain, ".2f"),
            "memory of the process": f"{part.peak_memory_bytes.median() / 2**30:.2f} GiB",
            "n": str(len(part)),
        }
        for (task, size), part in frame.groupby(["task", "size"], sort=False)
    ]
    first = measured[0]["workload"]
    head = (
        f"Measured by `python -m benchmarks.group` on: {measured[0]['machine']}.\n\n"
        f"LoRA r = {first['rank']} on {first['model']}, {first['precision']}, batch size "
        f"{first['batch_size']} of each run, {first['rows']} rows. Real tokens per second of all "
        "runs together; *gain* is their rate over that of one run in the same round; median and "
        "range of the rounds."
    )
    return f"{head}\n\n{markdown(rows)}\n"


def picture(measured: list[dict[str, Any]], path: Path) -> None:
    """Tokens per second over the number of runs, with the range of the rounds."""
    figure, axes = plt.subplots(figsize=(4, 2.8), layout="constrained")
    for task, part in table(measured).groupby("task", sort=False):
        rates = part.groupby("size").rate
        middle = rates.median()
        axes.fill_between(middle.index, rates.min(), rates.max(), alpha=0.2, linewidth=0)
        axes.plot(middle.index, middle, marker="o", label=str(task))
    axes.set(xscale="log", xlabel="runs in one pass", ylabel="tokens per second", ylim=(0, None))
    sizes = sorted({one["size"] for one in measured})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
    else:
        main()
