"""Made-up records for the tests of the report."""

import copy
import re

from lora_bench.record import Record, write
from lora_bench.report import load_records
from lora_bench.report.build import Choices, all_tables
from lora_bench.report.cells import make_cells
from lora_bench.report.table import Table

from .conftest import composed


def made_up(folder, *overrides, data="d", model="m", start=None, **more) -> Record:
    """Write a record as a run would; ``more`` as in :func:`made_of`."""
    spec = copy.deepcopy(composed(*overrides))
    if start:
        spec.init_from = "the run behind it"
    identity = spec.identity(data=data, model=model, start=start)
    more = {"command": f"python -m lora_bench {' '.join(overrides)}", "start": start, **more}
    return made_of(folder, spec, identity, **more)


def seeded(folder, *overrides, last: dict[int, float]) -> None:
    """A record for each seed, with its last score; composed once, which takes the time."""
    for seed, score in last.items():
        spec = copy.deepcopy(composed(*overrides))
        spec.seed = seed
        made_of(folder, spec, spec.identity(data="d", model="m"), last=score)


def made_of(
    folder, spec, identity, *, last=0.5, best=0.6, status="ok", rows=1200, start=None, **more
) -> Record:
    name = spec.task.metrics[0] + ("_matched" if spec.task.name == "mnli" else "")
    epochs = [
        {"epoch": 1, "loss": 1.0, "scores": {name: best}},
        {"epoch": 2, "loss": 0.5, "scores": {name: last}},
    ]
    facts = {
        "train": {"rows": rows},
        "validation": {"rows": 400, "chance": {name: 0.0}, "ceiling": {name: 0.9}},
    }
    fields = {
        "command": "python -m lora_bench",
        "adapter_bytes": 1 << 20,
        "train_seconds": 10.0,
        "tokens_per_second": 900.0,
        "peak_memory_bytes": 1 << 30,
        "error": None if status == "ok" else "it broke",
        "provenance": {
            "commit": "c0ffee",
            "versions": {"torch": "2.13.0"},
            "device": "cpu",
            "threads": 2,
        },
        "parameters": {"adapter": 73728, "trained": 222338},
        "epochs": epochs,
        "start": start
        and {
            "task": start.cell.partition("-")[0],
            "cell": start.cell,
            "fingerprint": start.fingerprint,
        },
        **more,
    }
    record = Record(
        identity.key, status, identity.where, identity.system, identity.seed, spec.to_dict(),
        started="now", data=facts, best=epochs[0], last=epochs[1],
        **fields,
    )  # fmt: skip
    # a key holds names as they are, which a folder cannot
    write(folder / re.sub(r"[^\w.-]", "_", identity.key)[-100:], record)
    return record


def grid(folder):
    """Runs that fill every picture."""
    for seed in (0, 1):
        for rank in (2, 4):
            for alpha in (4, 8):
                made_up(
                    folder,
                    f"seed={seed}",
                    f"method.rank={rank}",
                    f"method.alpha={alpha}",
                    last=0.4 + rank / 50 + seed / 100,
                )
        made_up(folder, f"seed={seed}", "method=full", last=0.7)
    made_up(folder, "method=bitfit", status="failed")
    return load_records(folder)


def tables_of(folder, protocol="last") -> dict[str, Table]:
    runs = load_records(folder)
    found = all_tables(make_cells(runs, protocol), runs, Choices())
    return {table.name: table for table in found}
