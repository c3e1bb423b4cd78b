"""Imports between folders go one way, and modules that do not need torch do not import it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lora_bench"

# From the bottom to the top: a unit imports only units of earlier lines. A unit is a folder or a
# module beside them; every __main__ belongs to the command line.
ORDER = [
    "errors", "checks", "files", "spec", "program", "record_formats", "record", "plans",
    "provenance", "claims", "network", "presets", "tuned",
    "data", "model", "tasks", "methods", "checkpoint", "overrides", "search_path", "compose",
    "hydra_program", "training", "sweep",
    "predict", "report", "items", "studies", "tune", "command line", "cli", "api", "__init__",
]  # fmt: skip


def unit(parts: tuple[str, ...]) -> str:
    return "command line" if parts[-1] == "__main__" else parts[0]


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Modules of the package that a file imports, also in functions; not those for type hints."""
    package = path.relative_to(PACKAGE).parts[:-1]
    tree = ast.parse(path.read_text())
    hints = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in hints:
            base = package[: len(package) - node.level + 1]
            named = tuple(node.module.split(".")) if node.module else ()
            if base + named:
                yield base + named
            else:
                yield from ((alias.name,) for alias in node.names)


def test_imports_between_folders_go_one_way():
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE).with_suffix("").parts
        here = unit(relative)
        for imported in imports(path):
            there = unit(imported)
            assert here == there or ORDER.index(there) < ORDER.index(here), (
                f"{'/'.join(relative)} imports {'.'.join(imported)}"
            )


def test_the_report_knows_records_specs_and_tuned_rates_alone():
    for path in (PACKAGE / "report").rglob("*.py"):
        allowed = {
            "report",
            "errors",
            "record",
            "record_formats",
            "plans",
            "spec",
            "program",
            "tuned",
        }
        outside = {unit(found) for found in imports(path)} - allowed
        assert not outside, f"{path.name} imports {sorted(outside)}"


def test_studies_share_records_and_reports_alone():
    shared = {
        "studies", "errors", "checks", "spec", "program", "presets", "record", "record_formats",
        "plans", "provenance", "overrides", "search_path", "compose", "hydra_program", "network",
        "report",
    }  # fmt: skip
    for path in (PACKAGE / "studies").rglob("*.py"):
        outside = {found[0] for found in imports(path)} - shared
        assert not outside, f"{path.name} imports {sorted(outside)}"


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
        "lora_bench.studies.low_rank.__main__",
        "lora_bench.studies.low_rank.findings",
        "lora_bench.studies.low_rank.tune",
    ]
    code = (
        f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_public_names_are_there():
    import lora_bench

    assert all(getattr(lora_bench, name) is not None for name in lora_bench.__all__)
