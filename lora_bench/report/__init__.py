"""Tables from records. Nothing here imports torch: a laptop with pandas is enough."""

from pathlib import Path

import pandas as pd

from .. import record as records

PROTOCOLS = ("last", "best")


def load_records(root: str | Path) -> pd.DataFrame:
    """Every run below ``root`` as one row: settings, status, costs, and ``best``/``last`` scores as dicts."""
    return pd.DataFrame([_row(record) for record in records.read_all(Path(root))])


def _row(record: records.Record) -> dict:
    spec, method, counts = record.spec, record.spec["method"], record.parameters or {}
    return {
        "key": record.key,
        "status": record.status,
        "task": spec["task"]["name"],
        "model": spec["model"]["name"],
        "method": method["name"],
        "rank": method["rank"],
        "alpha": method["alpha"],
        "data": spec["data"]["source"],
        "train_rows": record.data.get("train", {}).get("rows"),
        "seed": spec["seed"],
        "recipe": _recipe(spec),
        "last": (record.last or {}).get("scores"),
        "best": (record.best or {}).get("scores"),
        "chance": _validation(record, "chance"),
        "ceiling": _validation(record, "ceiling"),
        "bag_of_words": _validation(record, "bag_of_words"),
        "adapter_parameters": counts.get("adapter"),
        "trained_parameters": counts.get("trained"),
        "adapter_bytes": record.adapter_bytes,
        "train_seconds": record.train_seconds,
        "examples_per_second": record.examples_per_second,
        "tokens_per_second": record.tokens_per_second,
        "peak_memory_bytes": record.peak_memory_bytes,
        "error": record.error,
        "command": record.command,
    }


def _recipe(spec: dict) -> str:
    """The settings that make two rows of one method different systems, beside rank and seed."""
    method, train = spec["method"], spec["train"]
    parts = [f"lr {train['lr']:g}", f"{train['epochs']} epochs", f"batch {train['batch_size']}"]
    if method["alpha"] is not None:
        parts.append(f"alpha {method['alpha']:g}")
    if method["targets"] not in ([], ["query", "value"]):
        parts.append("on " + "+".join(method["targets"]))
    parts += [f"biases {method['biases']}"] if method["biases"] != "none" else []
    parts += ["LayerNorms"] if method["layer_norms"] else []
    parts += [f"{spec['head']} head"] if spec["head"] != "standard" else []
    parts += [spec["precision"]] if spec["precision"] != "fp32" else []
    parts += [f"started from {Path(spec['init_from']).name}"] if spec["init_from"] else []
    return ", ".join(parts)


def _validation(record: records.Record, fact: str) -> dict[str, float] | None:
    """Chance or ceiling of every scored split, named as the scores are."""
    found = {}
    for split, facts in record.data.items():
        for name, value in (facts.get(fact) or {}).items():
            found[name + records.suffix_of(split)] = value
    return found or None
