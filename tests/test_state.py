"""No state is shared between runs: no global statements, no random numbers outside of streams."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lora_bench"
# Seeded once for each: the run's streams, and the random encoder that is the same for all runs.
SEEDING = {"model/streams.py", "model/dropout.py", "model/encoder.py"}
# random.Random(seed) and NumPy's generators have no global state
FREE = {"Random", "Generator", "SFC64", "SeedSequence", "default_rng"}


def attributes(tree: ast.AST) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]


def test_no_module_rebinds_its_own_names():
    for path in PACKAGE.rglob("*.py"):
        found = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Global)]
        assert not found, f"{path.relative_to(PACKAGE)} line {found[0].lineno}"


def test_module_level_names_are_not_written_to():
    """No module-level list, dict or set that code fills later."""
    writes = {"append", "extend", "add", "update", "pop", "clear", "setdefault", "insert", "remove"}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
            local = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)
                     and isinstance(n.ctx, ast.Store)}  # fmt: skip
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    written = node.attr in writes and node.value.id in names - local
                    assert not written, f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}"
                if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                    assert ast.unparse(node.value) not in names - local, ast.unparse(node)


def test_global_random_generators_are_seeded_and_used_by_streams_only():
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for found in attributes(ast.parse(path.read_text())):
            module, _, rest = found.removeprefix("np.").partition(".")
            if module == "random" and rest:
                assert rest.partition("(")[0] in FREE, f"{name}: {found}"
            if found in ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed"):
                assert name in SEEDING, f"{name}: {found}"
