"""Run the notebooks in their order, in this project, and keep what they show: `python notebooks/run.py`.

Needs the packages of `.[test]`. Takes about six minutes: the first trains the default, the third GRPO beside it.
"""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.resolve()


def main() -> None:
    """Run and write all of them."""
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"  # without five megabytes of JavaScript in each
    for path in sorted(FOLDER.glob("*.ipynb")):
        document = nbformat.read(path, as_version=4)
        NotebookClient(document, timeout=3600, resources={"metadata": {"path": str(FOLDER)}}).execute()
        for cell in document.cells:
            cell.metadata.pop("execution", None)  # times
            if cell.cell_type == "code":  # what libraries warn of here says nothing elsewhere
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        nbformat.write(document, path)
        print(path.name)


if __name__ == "__main__":
    main()
