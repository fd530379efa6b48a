import click
import pytest
from click.testing import CliRunner

from mrt_pipeline import cli
from mrt_pipeline.cli import parse_overrides, run


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


def test_kedros_own_options_are_kept():
    result = CliRunner().invoke(run, ["--help"])
    assert result.exit_code == 0
    for option in ("--pipeline", "--pipelines", "--params", "--from-nodes"):
        assert option in result.output


def test_a_pipelines_own_defaults_give_way_to_what_the_user_asks(monkeypatch):
    seen = []
    monkeypatch.setattr(cli.kedro_run, "callback", lambda **arguments: seen.append(arguments["params"]))
    cli._run(pipeline="mrt_star", pipelines=[], params={"algorithm": "star"})
    cli._run(pipeline=None, pipelines=["mrt_rl"], params={})
    assert seen == [{"algorithm": "star", "training": "star"}, {}]
