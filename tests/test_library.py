"""The public names, and the README's lines about them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mrt_pipeline as mrt

ROOT = Path(__file__).parents[1]


def test_importing_loads_nothing_and_changes_nothing():
    script = (
        "import os, sys; before = set(sys.modules); variables = dict(os.environ)\n"
        "import mrt_pipeline as mrt\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert loaded <= {'mrt_pipeline'} | sys.stdlib_module_names, loaded\n"
        "assert dict(os.environ) == variables\n"
        "mrt.regret([0, 4], [0.0, 1.0], 4), mrt.progress([0.0, 1.0]), mrt.credit.grpo([1, 0], [0, 0], [2, 3])\n"
        "assert not {'torch', 'transformers', 'pydantic', 'pandas'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", mrt.__all__)
def test_every_public_name_is_there(name):
    assert getattr(mrt, name) is not None and name in dir(mrt)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mrt.nothing  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "src/mrt_pipeline/py.typed").exists()


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch, warm_policy, capsys):
    warm_policy.save(tmp_path / "data/06_models/trained_policy")
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "README.md").read_text().split("## My loop")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len([line for line in block.splitlines() if line and not line.startswith("import")]) <= 10
    names = {}
    exec(block, names)
    printed = capsys.readouterr().out
    assert re.search(r"mean regret [01]\.\d\d", printed)
    assert len(names["weights"]) == 32


def test_the_arrays_of_the_page_on_other_trainers_are_as_it_says(capsys):
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs/other-trainers.md").read_text(), re.DOTALL)[1]
    exec(block, {})
    said = [re.findall(r"-?\d+\.\d*", line.partition("#")[2]) for line in block.splitlines() if "print" in line]
    printed = [re.findall(r"-?\d+\.\d*", line) for line in capsys.readouterr().out.splitlines()]
    assert [list(map(float, numbers)) for numbers in printed] == [list(map(float, numbers)) for numbers in said]
