import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mrt_pipeline.cli import PIPELINES, outside_a_project, parse_overrides, run
from mrt_pipeline.pipeline_registry import register_pipelines

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "peft", "accelerate", "mlflow", "pandas", "plotly", "datasets", "pandera", "trl"}


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def parse(text):
    return parse_overrides(click.Context(click.Command("run")), click.Option(["--params"]), text)


def test_commas_split_only_outside_brackets_and_quotes():
    assert parse("algorithm=grpo, algorithm.alpha=0.5,a.b=[1,2],c='x,y'") == {
        "algorithm": "grpo",
        "algorithm.alpha": "0.5",
        "a.b": "[1,2]",
        "c": "'x,y'",
    }
    assert parse("") == {}


@pytest.mark.parametrize("text", ["seed", "=3"])
def test_an_item_without_key_or_value_is_refused(text):
    with pytest.raises(click.BadParameter):
        parse(text)


def test_help_keeps_kedros_options_and_shows_what_can_be_chosen():
    result = CliRunner().invoke(run, ["--help"])
    assert result.exit_code == 0
    for option in ("--pipeline", "--pipelines", "--params", "--from-nodes"):
        assert option in result.output
    said = " ".join(result.output.split())
    for line in ("mrt_rl, mrt_star, ", "prover exact, sampled", "engine torch, vllm, ", "training default, star"):
        assert line in said
    assert said.count("kedro run --pipeline=") == 2


def test_the_pipelines_that_are_known_are_those_that_there_are():
    assert {*PIPELINES, "__default__"} == register_pipelines().keys()


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        (["--pipeline=mrt_star", "--params", "algorithm=star"], {"algorithm": "star", "training": "star"}),
        (["--pipelines=mrt_rl"], {}),
        (["--pipeline=mrt_rl", "--params", "seed=3"], {"seed": "3"}),
        (["--pipeline=compare", "--params", "runs=abc"], {"compare.runs": "'abc'"}),
        (["--pipeline=compare", "--params", "runs=[a,b]"], {"compare.runs": "[a,b]"}),
    ],
)
def test_a_pipelines_own_defaults_give_way_to_what_the_user_asks(monkeypatch, arguments, params):
    seen = []
    monkeypatch.setattr(run, "callback", lambda **given: seen.append(given["params"]))
    result = CliRunner().invoke(run, arguments)
    assert result.exit_code == 0, result.output
    assert seen == [params]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--pipeline=nonsense"], "there is no pipeline 'nonsense'; there are: mrt_rl, mrt_star, "),
        (["--pipelines=mrt_rl,nonsense"], "there is no pipeline 'nonsense'; there are: mrt_rl, "),
        (["--env=nonsense"], "there are: base, local"),
        (["--params", "nonsense=1"], "unknown parameter 'nonsense'; allowed here: algorithm, "),
        (["--params", "algorithm=nonsense"], "there is no algorithm/nonsense; there are: anytime, brpo, grpo, "),
        (["--params", "algorithm.alhpa=1"], "unknown parameter 'algorithm.alhpa'; allowed here: alpha, "),
        (["--params", "plugins=nonsense"], "the plugin 'nonsense' cannot be imported"),
    ],
)
def test_what_there_is_not_is_refused_in_one_sentence(monkeypatch, arguments, named):
    monkeypatch.setattr(run, "callback", lambda **given: pytest.fail("it ran"))
    result = CliRunner().invoke(run, arguments)
    assert result.exit_code == 1 and named in result.output
    assert result.output.startswith("Error: ") and len(result.output.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["--params", "nonsense=1"], ["--params", "algorithm.alhpa=1"]])
def test_help_and_refusals_import_nothing_heavy(arguments):
    code = f"""
import json, sys
from pathlib import Path
from kedro.framework.startup import bootstrap_project
bootstrap_project(Path.cwd())
from mrt_pipeline.cli import run
try:
    run.main({arguments})
finally:
    print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert not HEAVY & {*json.loads(done.stdout.splitlines()[-1])}, done.stderr


def test_outside_of_a_project_it_is_said_where_conf_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kedro", "run"])
    outside_a_project()  # here is one
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"Error: conf/ is looked for beside the pyproject\.toml .*git clone"):
        outside_a_project()
    monkeypatch.setattr(sys, "argv", ["kedro", "new"])
    outside_a_project()
    (tmp_path / "pyproject.toml").write_text('[tool.kedro]\npackage_name = "a"\nproject_name = "another"\n')
    for module in ("sweep", "serve"):
        done = subprocess.run([sys.executable, "-m", f"mrt_pipeline.{module}"], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith("Error: conf/ is looked for"), done.stderr
        assert len(done.stderr.splitlines()) == 1
