"""Imports go one way; tables need no torch. A new arrow is a decision: change ALLOWED on purpose."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lora_bench"
ALLOWED = {
    "checks": set(),
    "spec": {"checks"},
    "network": set(),
    "record": set(),
    "dropout": set(),
    "memory": set(),
    "tasks/metrics": set(),
    "packing": {"dropout"},
    "lora": {"dropout", "spec"},
    "heads": set(),
    "encoder": {"network", "packing", "spec"},
    "wrapper": {"dropout", "encoder", "heads", "lora", "packing", "spec"},
    "methods": {"lora", "spec", "wrapper"},
    "tasks": {"packing", "spec"},
    "data": {"network", "spec"},
    "data/__main__": {"encoder", "presets", "report", "spec"},
    "presets": {"spec"},
    "predict": {
        "checkpoint",
        "data",
        "encoder",
        "methods",
        "record",
        "run",
        "spec",
        "tasks",
        "train",
    },
    "checkpoint": {"record", "spec", "wrapper"},
    "checkpoint/restore": {"lora", "methods", "run", "spec", "tasks", "wrapper"},
    "checkpoint/export": {"encoder", "lora", "methods", "spec"},
    "checkpoint/foreign": {"lora", "spec"},
    "checkpoint/__main__": {"presets", "spec"},
    "loggers": {"spec"},
    "train": {"encoder", "loggers", "methods", "packing", "spec", "tasks", "wrapper"},
    "run": {
        "checkpoint",
        "data",
        "dropout",
        "encoder",
        "loggers",
        "memory",
        "methods",
        "record",
        "spec",
        "tasks",
        "train",
        "wrapper",
    },
    "report": {"record"},
    "__main__": {"presets", "record", "run", "spec", "sweep"},
    "sweep": {"presets", "record", "spec"},
    "__init__": set(),
}


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    name = relative.with_suffix("").as_posix()
    return name if name in ALLOWED else relative.parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports from, relative imports resolved, those inside functions too."""
    found = set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= (
                {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
            )
    return found


def test_imports_go_one_way():
    for path in PACKAGE.rglob("*.py"):
        extra = imported_rooms(path) - ALLOWED[room(path)] - {room(path).split("/")[0]}
        assert not extra, f"{path.relative_to(PACKAGE)} imports {sorted(extra)}"


def test_every_module_imports_and_tables_and_command_line_need_no_torch():
    modules = [
        "lora_bench",
        "lora_bench.report",
        "lora_bench.report.__main__",
        "lora_bench.report.page",
        "lora_bench.report.published",
        "lora_bench.report.readme",
        "lora_bench.sweep.plan",
        "lora_bench.__main__",
        "lora_bench.data.local",
    ]
    code = f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_public_names_are_there():
    import lora_bench

    assert all(getattr(lora_bench, name) is not None for name in lora_bench.__all__)
