import logging
import subprocess
import sys

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from tqdm import tqdm

from mrt_pipeline import bars, console
from mrt_pipeline.console import ConsoleHook, duration
from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking import runs


@pytest.fixture
def hook(monkeypatch):
    """Of a process that tracks nothing."""
    monkeypatch.setattr(runs, "run_url", lambda: None)
    monkeypatch.setattr(runs, "run_id", lambda: None)
    monkeypatch.setattr(runs, "waiting", lambda: "")
    hook = ConsoleHook()
    yield hook
    hook.on_pipeline_error()


@pytest.fixture(autouse=True)
def _levels(caplog):
    level = logging.getLogger("kedro.runner").level
    caplog.set_level(logging.WARNING, "kedro")
    caplog.set_level(logging.INFO, "mrt_pipeline")
    yield
    logging.getLogger("kedro.runner").setLevel(level)
    bars.show(None)


def started(hook, output="made", inputs=("params:task", "params:seed"), text="", names=None):
    nodes = [Node(lambda *given: None, list(inputs), output, name="first"), Node(len, output, None, name="second")]
    values = {"params:task": {}, "params:task.name": "countdown", "params:seed": 7, output: text}
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in values.items()})
    pipeline = Pipeline(nodes)
    hook.before_pipeline_run({"pipeline_names": names}, pipeline, catalog)
    return nodes, pipeline, catalog


def test_it_says_what_runs_with_the_parameters_that_are_used(hook, caplog):
    started(hook, names=["ingest", "rollout"])
    assert caplog.messages == ["ingest+rollout: 2 nodes, task countdown, seed 7"]


def test_the_page_of_a_run_is_shown_and_what_serves_it_where_there_is_no_server(hook, capsys, monkeypatch):
    monkeypatch.setattr(runs, "run_url", lambda: "http://here/#/runs/1")
    _, pipeline, catalog = started(hook, "report", text="# title\n\nA verdict.\n\n| a |\n")
    for address, line in (
        ("sqlite:///mlflow.db", "This run      http://here/#/runs/1  (`mlflow ui` serves it)\n"),
        ("http://here", "This run      http://here/#/runs/1\n"),
    ):
        monkeypatch.setattr("mlflow.get_tracking_uri", lambda address=address: address)
        hook.after_pipeline_run(pipeline, catalog)
        assert line in capsys.readouterr().out


def test_it_says_where_the_run_is_tracked(hook, caplog, monkeypatch):
    monkeypatch.setattr(runs, "run_url", lambda: "http://here/#/runs/1")
    started(hook)
    assert caplog.messages == ["mrt_rl: 2 nodes, task countdown, seed 7", "MLflow: http://here/#/runs/1"]


def test_a_line_a_node_and_its_duration(hook, caplog, monkeypatch):
    now = iter([0.0, 10.0, 12.4, 20.0, 220.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    (first, second), _, _ = started(hook)
    for node in (first, second):
        hook.before_node_run(node)
        hook.after_node_run(node)
    assert caplog.messages[1:] == ["1/2 first  2.4 s", "2/2 second  3 min 20 s"]


@pytest.mark.parametrize(("error", "silent"), [(InputError("no"), True), (KeyError("no"), False)])
def test_a_refusal_is_not_followed_by_advice_and_a_crash_is(hook, caplog, error, silent):
    (first, _), _, _ = started(hook)
    hook.before_node_run(first)
    hook.on_node_error(error, first)
    assert caplog.messages[-1] == "1/2 first  0.0 s, failed"
    assert logging.getLogger("kedro.runner.sequential_runner").isEnabledFor(logging.WARNING) is not silent
    started(hook)  # the next run of the same process
    assert logging.getLogger("kedro.runner.sequential_runner").isEnabledFor(logging.WARNING)


@pytest.mark.parametrize(
    ("output", "file"),
    [
        ("report", "report.md"),
        ("comparison_report", "comparison.md"),
        ("plan_report", "plan.md"),
        ("diagnosis_report", "diagnosis.md"),
    ],
)
def test_a_report_is_shown_up_to_its_first_table(hook, capsys, output, file):
    text = "# title\n\nA verdict.\n\n| a |\n| - |\n| 1 |\n\nAll the others:\n\n| b |\n"
    _, pipeline, catalog = started(hook, output, text=text)
    hook.after_pipeline_run(pipeline, catalog)
    shown, where = capsys.readouterr().out.split("\n\n| a |\n| - |\n| 1 |\n\n")
    assert shown == "\nA verdict."
    assert file in where and "kedro viz run" in where and "others" not in where


def test_a_single_stage_ends_with_one_line(hook, caplog, capsys, monkeypatch):
    _, pipeline, catalog = started(hook, names=["rollout"])
    hook.after_pipeline_run(pipeline, catalog)
    assert caplog.messages[-1].startswith("rollout finished in ") and capsys.readouterr().out == ""
    monkeypatch.setattr(runs, "waiting", lambda: "MLflow lacks 3 records.")
    hook.after_pipeline_run(pipeline, catalog)
    assert capsys.readouterr().out == "MLflow lacks 3 records.\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 1 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations_are_readable(seconds, said):
    assert duration(seconds) == said


def test_bars_are_shown_on_a_terminal_only_and_while_a_run_lasts(hook, monkeypatch):
    assert bars.shown() is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, pipeline, catalog = started(hook)
    drawn = bars.shown()(range(3))
    assert type(drawn) is tqdm and not drawn.leave
    drawn.close()
    hook.after_pipeline_run(pipeline, catalog)
    assert bars.shown() is None


def test_without_a_terminal_a_line_now_and_then(hook, caplog, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    started(hook)
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    shown = bars.bar(total=10, desc="sampling")
    for _ in range(10):
        now[0] += 25
        shown.update(1)
    shown.close()
    lines = [message for message in caplog.messages if "sampling" in message]
    assert 2 <= len(lines) <= 4 and lines[0].startswith("sampling: 30 % of 10 in 01:15")
    assert capsys.readouterr().err == ""


def test_without_anybody_who_looks_there_are_no_bars():
    assert list(bars.bar("abc", desc="letters")) == ["a", "b", "c"]
    with bars.bar(total=3) as quiet:
        quiet.update(2)
        quiet.set_postfix(loss=1)
    assert quiet.n == 2
    bars.show(lambda *given, **how: (given, how))
    assert bars.bar([1], desc="x") == (([1],), {"desc": "x"})


def test_the_console_makes_no_command_wait():
    heavy = "{'torch', 'mlflow', 'pandas', 'tqdm', 'transformers'} & set(sys.modules)"
    script = f"import sys, mrt_pipeline.console; assert not ({heavy}), {heavy}"
    subprocess.run([sys.executable, "-c", script], check=True)
