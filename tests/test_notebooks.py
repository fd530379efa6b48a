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
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project / "src"), os.environ.get("PYTHONPATH", "")]))
    document = nbformat.read(notebook, as_version=4)
    client = NotebookClient(document, timeout=900, resources={"metadata": {"path": str(project / "notebooks")}})
    client.execute()
    ran = [cell for cell in document.cells if cell.cell_type == "code"]
    assert len(ran) > 3 and all(cell.execution_count for cell in ran)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(notebook):
    for cell in nbformat.read(notebook, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)
