"""What a user sees: MLflow's pages and Kedro-Viz in a headless browser, of two toy runs, or of the runs in MRT_PROJECT.

Needs chromium, and takes minutes: `pytest -n 0 -m browser`. With MRT_SCREENSHOTS=<folder> what is seen is kept.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import mlflow
import pandas as pd
import pytest
from playwright.sync_api import expect

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="there is no chromium")]
SECOND = 1000
PATIENCE = 120  # seconds; the machine may be busy
BIN = Path(sys.executable).parent
ENVIRONMENT = {"PATH": f"{BIN}:{os.environ['PATH']}"}  # `mlflow ui` looks for uvicorn
expect.set_options(timeout=PATIENCE * SECOND)
ALGORITHMS = ("mrt_online", "grpo")
MLFLOW_HINTS = ("mlflow.assistant.chat_panel.close", "mlflow.detect_issues.guidance.got_it")
VIZ_LOOK = {"theme": "light", "showFeatureHints": False, "visible": {"sidebar": False, "miniMap": False}}


def kedro(folder, *arguments):
    command, environment = [str(BIN / "kedro"), *arguments], {**os.environ, **ENVIRONMENT}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def project(copy_project):
    if os.environ.get("MRT_PROJECT"):
        return Path(os.environ["MRT_PROJECT"]).resolve()
    folder = copy_project()
    for algorithm in ALGORITHMS:
        kedro(folder, "run", "--pipeline=mrt_rl", "--params", f"preset=smoke,algorithm={algorithm}")
    return folder


@pytest.fixture(scope="module")
def runs(project):
    """Experiment and the newest finished run of each algorithm."""
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("mrt-pipeline").experiment_id
    found = []
    for algorithm in ALGORITHMS:
        wanted = f"tags.algorithm = '{algorithm}' and tags.pipeline = 'mrt_rl' and attributes.status = 'FINISHED'"
        newest = client.search_runs([experiment], wanted, max_results=1)
        assert newest, f"{project} has no finished run of mrt_rl with algorithm={algorithm}"
        found.append(newest[0].info.run_id)
    return experiment, found


@pytest.fixture(scope="module")
def server(project, served, free_port, tmp_path_factory):
    """Runs a command on a port of its own, while it is needed; gives the address."""

    def serve(program, *arguments):
        port = free_port()
        command = [str(BIN / program), *arguments, "--port", str(port)]
        return served(command, f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("log"), ENVIRONMENT, cwd=project)

    return serve


@pytest.fixture(scope="module")
def mlflow_ui(server):
    with server("mlflow", "ui") as address:
        yield address


@pytest.fixture(scope="module")
def kedro_viz(server):
    with server("kedro", "viz", "run", "--no-browser") as address:
        yield address


@pytest.fixture
def page(browser):
    """A page without what MLflow and Kedro-Viz put over theirs for newcomers."""
    page = browser.new_page(viewport={"width": 1500, "height": 900}, device_scale_factor=1.5)
    page.set_default_timeout(PATIENCE * SECOND)
    for hint in (
        *(page.locator(f'[data-component-id="{name}"]') for name in MLFLOW_HINTS),
        page.get_by_text("Dismiss"),
    ):
        page.add_locator_handler(hint, lambda button: button.click())
    page.add_init_script(f"localStorage.KedroViz ??= {json.dumps(json.dumps(VIZ_LOOK))}")
    yield page
    page.close()


def keep(page, name):
    page.mouse.move(0, 0)
    page.wait_for_timeout(2 * SECOND)  # animations
    if os.environ.get("MRT_SCREENSHOTS"):
        page.screenshot(path=Path(os.environ["MRT_SCREENSHOTS"]) / f"{name}.png")


DRAWN = "document.querySelector('.js-plotly-plot').data.map(t => [t.name, t.metricKey, [...t.x], [...t.y]])"


def test_mlflow_draws_the_regret_of_two_runs_against_the_budget(project, runs, mlflow_ui, page):
    experiment, compared = runs
    metrics = ["evaluation/regret", "evaluation/regret_base"]
    asked = {"runs": compared, "experiments": [experiment], "metric": metrics[0], "plot_metric_keys": metrics}
    query = "&".join(f"{name}={quote(json.dumps(value))}" for name, value in asked.items())
    page.goto(f"{mlflow_ui}/#/metric?{query}&x_axis=step&show_point=true")
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    drawn = {(run_name, metric): [*zip(x, y)] for run_name, metric, x, y in page.evaluate(DRAWN)}
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    logged = {
        (client.get_run(run).info.run_name, metric): [(p.step, p.value) for p in client.get_metric_history(run, metric)]
        for run in compared
        for metric in metrics
    }
    assert len(logged) == 4 and drawn == logged
    for run_name, metric in logged:
        expect(page.get_by_text(f"{run_name} ({metric})")).to_be_visible()  # the legend
    keep(page, "mlflow-compare")


def test_mlflow_shows_a_thought_with_a_span_for_each_episode(project, runs, mlflow_ui, page):
    page.goto(f"{mlflow_ui}/#/experiments/{runs[0]}/traces")
    rows = page.get_by_text(" make ")
    rows.first.wait_for()
    right = page.get_by_role("row").filter(has_text='"correct"').get_by_text(" make ")
    (right if right.count() else rows).first.click()
    thought = page.get_by_role("dialog").filter(has_text="Spans")
    identifier = thought.get_by_role("button").filter(has_text=re.compile("^[0-9a-f]{8}$")).inner_text()
    shown = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db").search_traces(locations=[runs[0]])
    (trace,) = (trace for trace in shown if identifier in trace.info.trace_id)
    episodes = [span for span in trace.data.spans if span.name.startswith("episode")]
    assert len(episodes) > 1
    for span in trace.data.spans:
        expect(thought.get_by_text(span.name, exact=True).first).to_be_visible()
    thought.get_by_text(episodes[1].name, exact=True).click()
    expect(thought.get_by_text(episodes[1].outputs["text"], exact=True)).to_be_visible()
    keep(page, "mlflow-thought")


OPENED = {  # what a box shows when it is opened
    "ingest": "make_problems",
    "base_policy": "provide_base_policy",
    "rollout": "draw_rollouts",
    "progress": "label_progress",
    "train": "look_before_training",
    "evaluate_base": "sample_held_out",
    "evaluate_trained": "measure_budgets",
}


def select(page, name):
    """Click on a node of Kedro-Viz."""
    page.locator(".pipeline-node").filter(has=page.get_by_text(name, exact=True)).last.click()
    expect(page.locator(".pipeline-metadata__title", has_text=name)).to_be_visible()


BOXES = ".pipeline-node--modularPipeline"


@pytest.fixture
def collapsed(kedro_viz, page):
    page.set_viewport_size({"width": 1250, "height": 1350})
    page.goto(f"{kedro_viz}/?pid=mrt_rl")
    expect(page.locator(".pipeline-node").first).to_be_visible()
    return page


@pytest.fixture
def viz(kedro_viz, page):
    """All boxes opened."""
    page.set_viewport_size({"width": 1250, "height": 1350})
    page.goto(f"{kedro_viz}/?pid=mrt_rl&expandAllPipelines=true")
    expect(page.locator(".pipeline-node--task").first).to_be_visible()
    return page


def test_the_anytime_figure_draws_the_accuracy_of_both_policies(project, page):
    folder = Path(project) / "data/08_reporting"
    page.set_viewport_size({"width": 1000, "height": 420})
    page.goto((folder / "figures/anytime.html").resolve().as_uri())
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    drawn = page.evaluate("document.querySelector('.js-plotly-plot')._fullData.map(t => [t.name, [...t.x], [...t.y]])")
    accuracy = pd.read_parquet(folder / "accuracy.parquet").sort_values("budget")
    for name, x, y in drawn:
        policy, _, forced = name.partition(", ")
        curve = accuracy[(accuracy["policy"] == policy) & (accuracy["forced"] == (forced == "forced on"))]
        assert (x, y) == (curve["budget"].tolist(), curve["accuracy"].tolist())
    assert len(drawn) == 4
    for name in ("base, forced on", "trained, forced on"):
        page.locator(".legendtoggle").nth([name for name, *_ in drawn].index(name)).click()
        page.wait_for_timeout(SECOND)  # else it is a double click
    expect(page.locator(".js-plotly-plot .scatterlayer .trace")).to_have_count(2)
    keep(page, "anytime")


def test_kedro_viz_shows_a_box_for_each_stage_from_top_to_bottom(collapsed):
    boxes = collapsed.locator(BOXES)
    expect(boxes).to_have_count(len(OPENED))
    keep(collapsed, "kedro-viz")
    height = {box.get_attribute("data-id"): box.bounding_box()["y"] for box in boxes.all()}
    assert height.keys() == OPENED.keys()
    trained, measured = list(OPENED), ["ingest", "base_policy", "evaluate_base", "evaluate_trained"]
    trained.remove("evaluate_base")  # it waits for nothing but the base policy
    for order in (trained, measured):
        assert sorted(order, key=height.get) == order
    expect(collapsed.locator(".pipeline-node--task")).to_have_count(0)
    free = collapsed.locator(".pipeline-node--data").all_text_contents()
    held_out = {f"base_{table}" for table in ("rollouts", "samples", "linearised", "episodes", "anytime", "votes")}
    between = {"problems", "base_policy", "rollouts", "episodes", "labels", "trained_policy"} | held_out
    assert {*free} == between | {"training_history", "report"} and len(free) == len({*free})


@pytest.mark.parametrize("stage", OPENED)
def test_kedro_viz_opens_each_box(collapsed, stage):
    collapsed.locator(f"{BOXES}[data-id={stage}]").click()
    inside = collapsed.locator(".pipeline-node--task").filter(has=collapsed.get_by_text(OPENED[stage], exact=True))
    expect(inside).to_be_attached()
    expect(collapsed.locator(BOXES)).to_have_count(len(OPENED) - 1)
    keep(collapsed, f"kedro-viz-{stage.removesuffix('_base')}")


def test_kedro_viz_says_what_a_node_does(viz):
    select(viz, "label_progress")
    viz.get_by_text("Show Code").click()
    expect(viz.get_by_text("Ask the meta-prover for J at every episode boundary").first).to_be_visible()
    keep(viz, "kedro-viz-node")


def test_kedro_viz_draws_a_figure_in_place(viz):
    select(viz, "regret_figure")
    preview = viz.locator(".pipeline-metadata .js-plotly-plot")
    expect(preview.get_by_text("Normalised regret by budget")).to_be_visible()
    assert (
        preview.locator(".scatterlayer .trace").count() == 4
    )  # base and trained, stopping by themselves and forced on
    viz.get_by_text("Expand preview").click()
    expect(viz.locator(".pipeline-metadata-modal .js-plotly-plot").get_by_text("training budget")).to_be_visible()
    keep(viz, "kedro-viz-figure")


@pytest.mark.parametrize(("table", "column"), [("regret", "definition"), ("problems", "answers"), ("rollouts", "text")])
def test_kedro_viz_shows_the_first_rows_of_a_table_in_place(viz, table, column):
    select(viz, table)
    expect(viz.locator(".pipeline-metadata .preview-table")).to_be_visible()
    viz.get_by_text("Expand preview").click()
    expanded = viz.locator(".pipeline-metadata-modal .preview-table")
    expect(expanded.get_by_role("columnheader", name=column, exact=True)).to_be_visible()
    assert expanded.get_by_role("row").count() > 5
    keep(viz, f"kedro-viz-{table}")


def test_kedro_viz_builds_a_site_that_any_web_server_can_serve(project, page, served, free_port, tmp_path):
    if os.environ.get("MRT_PROJECT"):
        pytest.skip("it would write into the project")
    kedro(project, "viz", "build", "--include-previews")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(project / "build")]
    with served(command, f"http://127.0.0.1:{port}", tmp_path) as address:
        page.set_viewport_size({"width": 1250, "height": 1350})
        page.goto(f"{address}/?pid=mrt_rl&expandAllPipelines=true")
        select(page, "regret")
        expect(page.locator(".pipeline-metadata .preview-table")).to_be_visible()
        keep(page, "kedro-viz-build")
