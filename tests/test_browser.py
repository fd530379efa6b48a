"""What a user sees: MLflow's pages and Kedro-Viz in a headless browser, of two toy runs.

Needs chromium, and takes minutes: `pytest -m browser`. With MRT_SCREENSHOTS=<folder> the pages are kept as pictures.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
from playwright.sync_api import sync_playwright

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="there is no chromium")]
SECOND = 1000
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def project(copy_project):
    folder = copy_project()
    for algorithm in ("mrt_online", "grpo"):
        command = [str(BIN / "kedro"), "run", "--pipeline=mrt_rl", "--params", f"preset=smoke,algorithm={algorithm}"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
    return folder


@contextmanager
def served(command, folder, port):
    """The address of a server that answers."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    with open(folder / f"{port}.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(address, timeout=1)
                break
            except OSError:
                time.sleep(1)
        else:
            raise AssertionError((folder / f"{port}.log").read_text()[-2000:])
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def mlflow_ui(project):
    port = free_port()
    with served([str(BIN / "kedro"), "mlflow", "ui", "--port", str(port)], project, port) as address:
        yield address


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(90 * SECOND)
        yield page
        browser.close()


def keep(page, name):
    if os.environ.get("MRT_SCREENSHOTS"):
        page.wait_for_timeout(3 * SECOND)
        page.screenshot(path=Path(os.environ["MRT_SCREENSHOTS"]) / f"{name}.png")


def dismiss(page):
    """Close what MLflow puts over its pages for newcomers."""
    page.wait_for_timeout(2 * SECOND)
    for name in ("Got it",):
        if page.get_by_role("button", name=name).count():
            page.get_by_role("button", name=name).first.click()


def the_runs(project):
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("mrt-pipeline")
    return experiment.experiment_id, [run.info.run_id for run in client.search_runs([experiment.experiment_id])]


def test_mlflow_draws_the_regret_of_two_runs_against_the_budget(project, mlflow_ui, page):
    experiment, runs = the_runs(project)
    asked = {
        "runs": runs,
        "metric": "evaluation/regret",
        "experiments": [experiment],
        "plot_metric_keys": ["evaluation/regret", "evaluation/regret_base"],
    }
    page.goto(f"{mlflow_ui}/#/metric?" + "&".join(f"{name}={quote(json.dumps(v))}" for name, v in asked.items()))
    page.wait_for_selector(".js-plotly-plot .scatterlayer .trace")
    assert page.locator(".js-plotly-plot .scatterlayer .trace").count() == 4
    assert page.get_by_text("step=192").count()  # the largest budget
    keep(page, "mlflow-regret")


def test_mlflow_shows_a_thought_with_a_span_for_each_episode(project, mlflow_ui, page):
    page.goto(f"{mlflow_ui}/#/experiments/{the_runs(project)[0]}/traces")
    page.get_by_text("make").first.wait_for()
    dismiss(page)
    page.get_by_text("make").first.click()
    page.get_by_text("episode 0").first.wait_for()
    page.get_by_text("episode 0").first.click()
    assert page.get_by_text("answer", exact=True).count()
    keep(page, "mlflow-thought")


def test_kedro_viz_shows_the_pipeline(project, page):
    port = free_port()
    with served([str(BIN / "kedro"), "viz", "run", "--no-browser", "--port", str(port)], project, port) as address:
        page.goto(address)
        page.get_by_text("Train Policy").first.wait_for()
        for name in ("Make Problems", "Label Trained Held Out", "Analyse Thinking", "Report"):
            assert page.get_by_text(name, exact=False).count(), name
        keep(page, "kedro-viz")
