"""Where the time of a training step goes, by kind of operator.

Usage: ``python -m benchmarks.profile --help``. Times are the operators' own, on the thread that
calls them; the rest of a step's wall time is Python and the calls between operators.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile

from lora_bench.program import program
from lora_bench.training.fit import Loop
from lora_bench.training.memory import keep_freed_memory
from lora_bench.training.trainee import Trainee

from .measurements import markdown, positive
from .workload import DECILES, Workload

# An operator has the first kind whose words occur in its name; the last kind takes all others.
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::linear", "mkldnn"),
    "attention's products": ("bmm", "scaled_dot_product", "flash"),
    "softmax": ("softmax",),
    "LayerNorm": ("layer_norm",),
    "activation": ("gelu", "tanh"),
    "dropout masks": ("aten::ge", "bernoulli"),
    "casts and copies": ("copy_", "_to_copy", "clone", "aten::cat", "contiguous"),
    "gathers": ("index", "embedding", "gather"),
    "element by element": ("add", "mul", "sub", "div", "sum", "neg", "fill_", "zero_"),
    "optimizer and clipping": ("foreach", "norm", "lerp", "sqrt", "Optimizer"),
    "other operators": ("",),
}


@program
def main(words: Sequence[str] | None = None) -> None:
    """Profile a few steps and print a table of kinds, and one of the slowest operators."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--task", choices=list(DECILES), default="mrpc")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--batch-size", type=positive, default=16)
    parser.add_argument("--steps", type=positive, default=12)
    parser.add_argument("--folder", help="of the official files; default: generated rows")
    options = parser.parse_args(words)
    work = Workload(
        task=options.task,
        precision=options.precision,
        method=options.method,
        rows=(2 * _half(options.steps) + options.steps) * options.batch_size,
        batch_size=options.batch_size,
        folder=options.folder,
    )
    work.check()
    wall, events = measure(work, options.steps)
    print(table(wall, events))


def measure(work: Workload, steps: int) -> tuple[float, Any]:
    """Milliseconds per step without the profiler, and the profiler's averages over the steps."""
    keep_freed_memory()
    loop = Loop([Trainee(work.spec, work.task_object, work.encoded)])
    loop.start_epoch()
    half = _half(steps)
    for _ in range(half):
        loop.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(half):
            loop.step()
    started = time.perf_counter()
    for _ in range(steps):
        loop.step()
    wall = 1000 * (time.perf_counter() - started) / steps
    return wall, [
        (event.key, event.self_cpu_time_total / 1000 / half, event.count // half)
        for event in profiler.key_averages()
    ]


def _half(steps: int) -> int:
    """Steps of the warm-up, and steps with the profiler."""
    return -(-steps // 2)


def table(wall: float, events: list[tuple[str, float, int]]) -> str:
    """Milliseconds per step by kind, and the slowest operators."""
    kinds: dict[str, float] = defaultdict(float)
    for name, milliseconds, _ in events:
        kind = next(k for k, words in KINDS.items() if any(word in name for word in words))
        kinds[kind] += milliseconds
    kinds = {kind: kinds[kind] for kind in KINDS if kind in kinds}
    shown = {**kinds, "a step": wall}
    rows = [
        {"kind": kind, "ms": f"{ms:.1f}", "share": f"{100 * ms / wall:.0f} %"}
        for kind, ms in shown.items()
    ]
    slowest = sorted(events, key=lambda event: -event[1])[:25]
    operators = [
        {"operator": name, "ms": f"{ms:.2f}", "calls a step": str(count)}
        for name, ms, count in slowest
    ]
    return f"{markdown(rows)}\n\n{markdown(operators)}"


if __name__ == "__main__":
    main()
