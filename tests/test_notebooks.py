"""The notebooks: committed with the outputs of one clean execution, and executed again (slow)."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
OF_COMMITTED_RESULTS = {"02_reading_results"}  # trains nothing: every output can be made again
SECONDS = 300  # that one cell may take
MACHINE = re.compile(r"(?<![\w.~])/(?:home|root|work|tmp|Users|usr|opt)/|site-packages")


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in code(notebook) for output in cell.outputs]


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell printed and showed as text; a stream may come in any number of parts."""
    return ["".join(map(text_of, cell.outputs)) for cell in code(notebook)]


def text_of(output: nbformat.NotebookNode) -> str:
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_glob_sees_the_notebooks():
    assert len(NOTEBOOKS) == 4  # change on purpose


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_was_executed_from_top_to_bottom_without_a_complaint(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        found = MACHINE.search(text_of(output))
        assert not found, f"{path.name} shows a folder of one machine: {found}"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    committed = texts(notebook)
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()
    assert outputs(notebook)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    if path.stem in OF_COMMITTED_RESULTS:
        assert texts(notebook) == committed, "execute it again, and commit its outputs"
