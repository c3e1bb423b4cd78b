"""Tables, pictures and a page from records. Nothing here imports torch: a laptop with pandas is enough."""

import re
from pathlib import Path

import pandas as pd

from .. import record as records

PROTOCOLS = ("last", "best")
LINEAR_LAYERS = 6  # kinds of them in an encoder layer


def load_records(root: str | Path) -> pd.DataFrame:
    """Every run below ``root`` as one row: settings, status, costs, and ``best``/``last`` scores as dicts. A key that lies
    there twice is one run; the one that ended well stays."""
    found = sorted(
        records.read_all(Path(root)), key=lambda record: (record.key, record.status != "ok")
    )
    rows = pd.DataFrame([_row(record) for record in found])
    return rows.drop_duplicates("key", ignore_index=True) if len(rows) else rows


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
        "policy": _policy(spec),
        "schedule": _schedule(spec),
        "last": (record.last or {}).get("scores"),
        "best": (record.best or {}).get("scores"),
        "epochs": record.epochs,
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
        "commit": record.provenance.get("commit"),
        "versions": record.provenance.get("versions"),
        "start": _start(spec),
        "official": _official(record),
    }


def _start(spec: dict) -> str:
    """``plain``, or the task whose run this one was started from."""
    return _stem(spec["init_from"]).partition("-")[0] if spec["init_from"] else "plain"


def _stem(start: str) -> str:
    """A run's key or folder without seed and hash, so that seeds that each have a start of their own are one system."""
    place = Path(start).parent if Path(start).name == "adapter" else Path(start)
    return re.sub(r"-s\d+-[0-9a-f]{10}$", "", place.name)


def _official(record: records.Record) -> bool:
    """Whether it trained and was scored on every row of the official splits."""
    official, found = record.spec["task"].get("official_rows", {}), record.data
    splits = ["train", *record.spec["task"].get("validation", [])]
    return all(
        split in official and found.get(split, {}).get("rows") == official[split]
        for split in splits
    )


def _policy(spec: dict) -> str:
    """What is trained and on what, where it is not the usual: two rows of one method that are different systems."""
    method, targets = spec["method"], spec["method"]["targets"]
    where = "all linear layers" if len(targets) == LINEAR_LAYERS else "+".join(targets)
    parts = [f"on {where}"] if targets not in ([], ["query", "value"]) else []
    parts += (
        [f"layers {'+'.join(map(str, method['layers']))}"] if method["layers"] is not None else []
    )
    parts += [f"biases {method['biases']}"] if method["biases"] != "none" else []
    parts += ["LayerNorms"] if method["layer_norms"] else []
    parts += [f"{spec['head']} head"] if spec["head"] != "standard" else []
    parts += [f"started from {_stem(spec['init_from'])}"] if spec["init_from"] else []
    return ", ".join(parts)


def _schedule(spec: dict) -> str:
    """The numbers of the recipe."""
    method, train = spec["method"], spec["train"]
    parts = [f"lr {train['lr']:g}", f"{train['epochs']} epochs", f"batch {train['batch_size']}"]
    parts += [f"alpha {method['alpha']:g}"] if method["alpha"] is not None else []
    parts += [spec["precision"]] if spec["precision"] != "fp32" else []
    parts += (
        [train["optimizer"]] if train.get("optimizer", "adamw") != "adamw" else []
    )  # older records do not know it
    return ", ".join(parts)


def _validation(record: records.Record, fact: str) -> dict[str, float] | None:
    """Chance or ceiling of every scored split, named as the scores are."""
    found = {}
    for split, facts in record.data.items():
        for name, value in (facts.get(fact) or {}).items():
            found[name + records.suffix_of(split)] = value
    return found or None
