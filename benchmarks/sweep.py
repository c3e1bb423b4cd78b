"""Wall time from a sweep's command to its table: ``python -m benchmarks.sweep --help``.

Two ranks times a number of seeds on SST-2, by this project's command line (groups in two processes,
groups in one, one run at a time), and by a loop over PEFT scripts with the Trainer, at its defaults
and at its best setting. Every system reads, tokenizes, trains, scores after each epoch and saves.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lora_bench.compose import compose
from lora_bench.errors import counted
from lora_bench.model.source import locate
from lora_bench.program import program

from .machine import describe
from .measurements import Measurements, markdown, positive, spread

RANKS = (4, 8)
BATCH_SIZE = 16
SIZE = ("rows", "validation_rows", "seeds", "epochs")  # what the systems of one table share
OURS = "lora-bench, groups in two processes"


@program
def main(words: Sequence[str] | None = None) -> None:
    """Time each system once a round, in turn, and write the table."""
    options = _options(words)
    log = Measurements(options.out / "sweep.jsonl")
    size = {name: getattr(options, name) for name in SIZE} | {"machine": describe()}
    for round_ in range(options.rounds):
        for name, system in SYSTEMS.items():
            identity = {"system": name, "round": round_, **size}
            if log.has(identity):
                continue
            scratch = options.out / "scratch"
            shutil.rmtree(scratch, ignore_errors=True)
            started = time.perf_counter()
            system(options, scratch)
            log.add(identity | {"seconds": time.perf_counter() - started})
            shutil.rmtree(scratch, ignore_errors=True)
    text = report([one for one in log.all if size.items() <= one.items()])
    (options.out / "sweep.md").write_text(text)
    print(text)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--glue", type=Path, required=True, help="folder of the official files")
    parser.add_argument("--rows", type=positive, default=1000, help="training rows")
    parser.add_argument("--validation-rows", type=positive, default=200)
    parser.add_argument("--seeds", type=positive, default=8)
    parser.add_argument("--epochs", type=positive, default=1)
    parser.add_argument("--rounds", type=positive, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/speed"))
    return parser.parse_args(words)


def ours(*launching: str) -> Callable[[argparse.Namespace, Path], None]:
    """One command for the sweep, one for the table.

    Args:
        launching: words that say how the runs are launched.
    """

    def system(options: argparse.Namespace, scratch: Path) -> None:
        settings = [
            "task=sst2",
            "precision=bf16",
            "data=local",
            f"data.root={options.glue}",
            f"data.train_rows={options.rows}",
            f"data.validation_rows={options.validation_rows}",
            f"train.epochs={options.epochs}",
            f"train.batch_size={BATCH_SIZE}",
            "method.rank=" + ",".join(map(str, RANKS)),
            "seed=" + ",".join(map(str, range(options.seeds))),
            f"out_dir={scratch}/out",
            f"cache_dir={scratch}/cache",
        ]
        _call("-m", "lora_bench", "-m", *settings, *launching)
        _call("-m", "lora_bench.report", "--runs", f"{scratch}/out")

    return system


def scripts(best: bool) -> Callable[[argparse.Namespace, Path], None]:
    """A loop over scripts with PEFT and the Trainer, in a process each."""

    def system(options: argparse.Namespace, scratch: Path) -> None:
        spec = compose(["task=sst2"])
        folder = options.glue / "SST-2"
        fixed = {
            "train": str(folder / "train.tsv"),
            "validation": str(folder / "dev.tsv"),
            "rows": options.rows,
            "validation_rows": options.validation_rows,
            "epochs": options.epochs,
            "model": str(locate(spec.model)),
            "best": best,
            "batch_size": BATCH_SIZE,
        }
        for rank in RANKS:
            for seed in range(options.seeds):
                own = {"rank": rank, "seed": seed, "folder": f"{scratch}/{rank}-{seed}"}
                _call("-m", "benchmarks.peft_script", json.dumps(fixed | own))

    return system


SYSTEMS = {
    OURS: ours("hydra/launcher=processes", "group=8"),
    "lora-bench, groups in one process": ours(),
    "lora-bench, one run at a time": ours("group=1"),
    "PEFT + Trainer, best setting": scripts(best=True),
    "PEFT + Trainer, defaults": scripts(best=False),
}


def _call(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")


def report(done: list[dict[str, float]]) -> str:
    """The table in Markdown."""
    frame = pd.DataFrame(done)
    ours_seconds = frame[frame.system == OURS].set_index("round").seconds
    rows = []
    for name, part in frame.groupby("system", sort=False):
        seconds = part.set_index("round").seconds
        rows.append(
            {
                "system": name,
                "seconds": spread(seconds, ".0f"),
                "speed-up": spread(seconds / ours_seconds, ".2f"),
                "n": str(len(part)),
            }
        )
    first = done[0]
    runs, epochs = len(RANKS) * int(first["seeds"]), counted(int(first["epochs"]), "epoch")
    head = (
        f"Measured by `python -m benchmarks.sweep` on: {first['machine']}.\n\n"
        f"{runs} runs on SST-2 ({first['rows']} rows, {epochs}, batch size {BATCH_SIZE}, MiniLM), "
        "from the command to the table.\n*Speed-up* is the time of the "
        "system over ours in the same round; range in brackets."
    )
    return f"{head}\n\n{markdown(rows)}\n"


if __name__ == "__main__":
    main()
