"""The notebooks run from top to bottom, in their order, in a copy of the project."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def project(copy_project):
    folder = copy_project()
    (folder / "notebooks").mkdir()
    for notebook in NOTEBOOKS:
        shutil.copy(notebook, folder / "notebooks")
    return folder


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(project, notebook, monkeypatch):
    monkeypatch.setenv("MRT_PRESET", "smoke")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project / "src"), os.environ.get("PYTHONPATH", "")]))
    document = nbformat.read(notebook, as_version=4)
    client = NotebookClient(document, timeout=900, resources={"metadata": {"path": str(project / "notebooks")}})
    client.execute()
    ran = [cell for cell in document.cells if cell.cell_type == "code"]
    assert len(ran) > 3 and all(cell.execution_count for cell in ran)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_with_what_it_showed_when_run_from_top_to_bottom(notebook):
    """Made anew by `python notebooks/run.py`."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    shown = [output for cell in cells for output in cell.outputs]
    assert len(shown) > 3 and not any(output.output_type == "error" for output in shown)
    assert "/site-packages/" not in notebook.read_text()
