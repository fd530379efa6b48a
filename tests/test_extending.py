"""docs/extending.md is one file with one of each: it is written out, imported, and run from outside the package."""

import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import Field, ValidationError

import mrt_pipeline as mrt
from mrt_pipeline import registry
from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.tasks.math_problems import MathProblems

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The page's module, importable for this process as one of the working directory would be."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "mine.py").write_text("\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    sys.path.append(str(folder))
    __import__("mine")
    yield sys.modules["mine"]
    sys.path.remove(str(folder))
    del sys.modules["mine"]
    for family, name in ((mrt.Algorithm, "early"), (mrt.Task, "doubling"), (mrt.Prover, "smoothed")):
        del family._members[name]
    del mrt.EngineParams._members["counting"]


def tree(**overrides):
    return Parameters.model_validate(compose_parameters(ROOT / "conf/base/parameters", overrides))


def test_the_algorithm_is_chosen_by_name_with_its_parameters_and_gives_credit(mine, make_labelled):
    parameters = tree(plugins=["mine"], algorithm="early", **{"algorithm.decay": 0.25})
    assert isinstance(parameters.algorithm, mine.Early) and parameters.algorithm.decay == 0.25
    right, wrong = make_labelled(reward=1.0), make_labelled(reward=0.0)
    first, second = parameters.algorithm.weights([right, wrong])
    n = len(right.rollout.thought)
    assert first[:n] == pytest.approx(0.5 * 0.25 ** (np.arange(n) / n)) and (first[n:] == 0.5).all()
    assert second == pytest.approx(-first)


def test_what_does_not_fit_is_refused_as_for_those_that_ship(mine):
    with pytest.raises(mrt.InputError, match=r"unknown parameter 'algorithm.speed'; allowed here: decay, name"):
        tree(plugins=["mine"], algorithm="early", **{"algorithm.speed": 1})
    with pytest.raises(mrt.InputError, match=r"algorithm.decay: .*number"):
        tree(plugins=["mine"], algorithm="early", **{"algorithm.decay": "fast"})
    with pytest.raises(mrt.InputError, match=r"the plugin 'not_there' cannot be imported"):
        tree(plugins=["not_there"])
    with pytest.raises(ValidationError, match="unknown prover 'none'; known are exact, sampled, smoothed"):
        mrt.Prover.model_validate({"name": "none"})


def test_a_plugin_may_be_named_without_brackets_and_what_is_required_is_asked_for(mine):
    assert tree(plugins="mine", algorithm="early").algorithm.name == "early"

    class Asking(mrt.Algorithm):
        name: Literal["asking"] = "asking"
        question: str
        places: dict[str, int] = Field(default={})

    try:
        with pytest.raises(mrt.InputError, match=r"algorithm\.question"):
            tree(algorithm="asking")
        assert tree(algorithm="asking", **{"algorithm.question": "why"}).algorithm.question == "why"
    finally:
        del mrt.Algorithm._members["asking"]


def test_a_broken_package_breaks_only_what_chooses_it(monkeypatch):
    class Broken(EntryPoint):
        def load(self):
            raise ImportError("gone")

    def offered(group):
        points = [Broken("broken", "nothing", "mrt_pipeline.algorithm")]
        return EntryPoints(point for point in points if point.group == group)

    monkeypatch.setattr(registry, "entry_points", offered)
    assert tree().algorithm.name == "mrt_online"
    with pytest.raises(mrt.InputError, match="the algorithm 'broken' cannot be loaded: ImportError: gone"):
        tree(algorithm="broken")


def test_a_package_offers_its_classes_by_entry_points(mine, monkeypatch):
    class Offered(EntryPoint):
        def load(self):
            return mine

    def offered(group):
        points = [Offered("early", "mine", "mrt_pipeline.algorithm")]
        return EntryPoints(point for point in points if point.group == group)

    monkeypatch.setattr(registry, "entry_points", offered)
    assert tree(algorithm="early").algorithm.name == "early"
    assert "early" in mrt.Algorithm.names()


def test_the_function_grades_problems_of_files(mine, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(mine.__file__).parent))
    rows = [{"question": f"Sort {i}", "answer": "to be or not"} for i in range(8)]
    file = tmp_path / "problems.json"
    file.write_text(json.dumps(rows))
    (tmp_path / "other.json").write_text(json.dumps([{"question": "Other", "answer": "b a"}]))
    task = MathProblems(
        train=[str(file)], evaluation=[str(tmp_path / "other.json")], n_validation=1, grader="mine:same_words"
    )
    problem = task.problems()[0]
    assert task.grade(problem, "or not to Be") is mrt.Grade.CORRECT
    assert task.grade(problem, "to be") is mrt.Grade.WRONG


def test_all_four_run_the_pipeline_from_outside_the_package(mine, copy_project, language_model):
    project = copy_project()
    (project / "mine.py").write_text(Path(mine.__file__).read_text())
    params = (
        f"plugins=[mine],task=doubling,prover=smoothed,engine=counting,algorithm=early,policy=smollm2,"
        f"policy.path={language_model},policy.gguf_file=null,prover.n_answers=2,rollout.thinking_budget=12,"
        "training.sampled_tokens=300,training.groups=2,training.group_size=2,training.n_validation=2,"
        "evaluation.n_problems=4,evaluation.n_rollouts=1,evaluation.n_samples=2,evaluation.n_sample_problems=4,"
        "evaluation.n_vote_problems=2,evaluation.n_resamples=50,evaluation.n_traces=1,training.log_checkpoints=false"
    )
    command = [str(Path(sys.executable).with_name("kedro")), "run", "--pipeline=mrt_rl", "--params", params]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    episodes = pd.read_parquet(project / "data/07_model_output/trained_episodes.parquet")
    asked = episodes[~episodes["stopped"]]
    assert set(asked["prover"]) == {"smoothed"} and set(asked["success"]) <= {0.25, 0.5, 0.75}
    assert (project / "data/08_reporting/report.md").read_text().startswith("# early, seed 0")
