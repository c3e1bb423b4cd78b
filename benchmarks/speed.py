"""Training speed of one run, compared with PEFT: ``python -m benchmarks.speed --help``.

Each measurement runs in its own process. Systems take turns within a round, and every ratio is of
two measurements of one round, so that a slow minute of the machine affects both. Finished
measurements are kept in a file and not repeated.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lora_bench.program import program
from lora_bench.report.readme import README, with_block

from .machine import describe
from .measurements import Measurements, in_own_process, markdown, positive, spread
from .systems import needed_flop, product_rate, systems
from .workload import DECILES, GROUP, SPAN, Workload, grouped_name

RATE = "matrix products"  # the name under which the machine's own rate is measured
COMMON = ("model", "rank", "batch_size", "device", "group")  # what the workloads of a table share


@program
def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the table, with earlier measurements that fit it."""
    options = _options(words)
    log = Measurements(options.out / "speed.jsonl")
    works, machine = workloads(options), describe(options.device)
    for work in works:
        work.check()
        for round_ in range(options.rounds):
            for system in [RATE, *systems(work)]:
                identity = {"workload": facts(work), "system": system, "round": round_}
                identity |= {"machine": machine}
                if not log.has(identity):
                    order = {"system": system, "workload": dataclasses.asdict(work)}
                    log.add(identity | in_own_process("benchmarks.speed", order))
    common = {name: facts(works[0])[name] for name in COMMON}
    shown = [one for one in log.of(machine) if common.items() <= one["workload"].items()]
    (options.out / "speed.md").write_text(report(shown))
    print(report(shown))
    if options.readme:
        README.write_text(with_block(README, "speed", headline(shown)))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(DECILES), default=list(DECILES))
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp32"], default=["bf16"])
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--rows", type=positive, default=512, help="timed rows (SQuAD: a quarter)")
    parser.add_argument("--batch-size", type=positive, default=16)
    parser.add_argument("--model", default="minilm", help="preset or folder of the encoder")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--group", type=positive, default=GROUP, help="runs that share a pass")
    parser.add_argument("--glue", help="folder of the official GLUE files; default: generated rows")
    parser.add_argument("--squad", help="folder of the official SQuAD files")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed"))
    parser.add_argument("--readme", action="store_true", help="put the headline into the README")
    return parser.parse_args(words)


def workloads(options: argparse.Namespace) -> list[Workload]:
    """One for each task and precision."""
    return [
        Workload(
            task=task,
            precision=precision,
            method=options.method,
            rows=-(-options.rows // 4) if task in SPAN else options.rows,
            batch_size=options.batch_size,
            folder=options.squad if task in SPAN else options.glue,
            model=options.model,
            device=options.device,
            group=options.group,
        )
        for precision in options.precisions
        for task in options.tasks
    ]


def facts(work: Workload) -> dict[str, Any]:
    """The workload without folders of this machine."""
    named = dataclasses.asdict(work) | {"model": Path(work.model).name}
    folder = named.pop("folder")
    return named | {"data": "generated" if folder is None else "official files"}


def worker(order: str) -> None:
    """Measure what ``order`` says and print it as JSON."""
    given = json.loads(order)
    work = Workload(**given["workload"])
    if given["system"] == RATE:
        print(json.dumps({"flop_per_second": product_rate(work)}))
        return
    tokens = int(work.encoded.lengths.sum())
    seconds = systems(work)[given["system"]](work)
    facts = {"seconds": seconds, "examples": len(work.encoded), "tokens": tokens}
    print(json.dumps(facts | {"flop": needed_flop(work)}))


def report(measured: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table, with the machine's description."""
    machine = measured[0]["machine"]
    blocks = [f"Measured by `python -m benchmarks.speed` on: {machine}.", EXPLANATION]
    frame = pd.DataFrame([one | one["workload"] for one in measured])
    kinds = ["method", "rank", "precision", "model", "batch_size"]
    for (method, rank, precision, model, size), part in frame.groupby(kinds, sort=False):
        rows = [row for cell in _cells(part) for row in _rows(cell)]
        name = method if method == "full" else f"{method} r={rank}"
        blocks.append(f"## {name}, {precision}, {model}, batch size {size}")
        blocks.append(markdown(rows))
    return "\n\n".join(blocks) + "\n"


EXPLANATION = """
Median over rounds, range in brackets. Tokens are real ones, padding is not counted.
*Share* is the rate of the matrix products that training needs, over the rate that the same
products reach alone on this machine. *Speed-up* is the time of the system over ours in the same
round.
""".strip()


def _cells(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The measurements of each workload."""
    return [cell for _, cell in frame.groupby(list(frame.workload.iloc[0]), sort=False)]


def _rows(cell: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of one workload, one for each system."""
    task, data = cell[["task", "data"]].iloc[0]
    rates = cell[cell.system == RATE].set_index("round")["flop_per_second"]
    ours = cell[cell.system == "lora-bench"].set_index("round")["seconds"]
    lines = []
    for system, part in cell[cell.system != RATE].groupby("system", sort=False):
        part = part.set_index("round")
        share = part.flop / part.seconds / rates
        lines.append(
            {
                "task": f"{task} (generated rows)" if data == "generated" else task,
                "rows": str(int(part.examples.iloc[0])),
                "system": str(system),
                "examples/s": spread(part.examples / part.seconds, ".1f"),
                "tokens/s": spread(part.tokens / part.seconds, ",.0f"),
                "share": spread(100 * share, ".0f", " %"),
                "speed-up": spread(part.seconds / ours, ".2f"),
                "n": str(len(part)),
            }
        )
    return lines


def headline(measured: list[dict[str, Any]]) -> str:
    """The README's block: our rate, and the speed-up over each other system."""
    frame = pd.DataFrame([one | one["workload"] for one in measured])
    frame = frame[frame.method == "lora"]
    group = int(frame.group.iloc[0])
    grouped = grouped_name(group) in set(frame.system)
    rows = []
    for cell in _cells(frame):
        lines = {line["system"]: line for line in _rows(cell)}
        ours = lines.pop("lora-bench")
        row = {"task": ours["task"], "rows": ours["rows"], "precision": cell.precision.iloc[0]}
        row["examples/s"] = ours["examples/s"]
        if grouped:
            line = lines.pop(grouped_name(group), {"examples/s": "not measured"})
            row[f"in a group of {group}"] = line["examples/s"]
        rows.append(row | {name: f"{line['speed-up']} x" for name, line in lines.items()})
    rounds = int(frame["round"].max()) + 1
    first = measured[0]["workload"]
    caption = (
        f"LoRA r = {first['rank']} on {first['model']}, batch size {first['batch_size']}: examples "
        f"per second of one run{', of all runs of a group together,' if grouped else ''} and "
        f"PEFT's time relative to one run (median and range of {rounds} rounds). The machine, "
        "tokens per second and the rate of the matrix products alone: "
        "[results/speed](results/speed/speed.md)."
    )
    return f"{caption}\n\n{markdown(rows)}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
    else:
        main()
