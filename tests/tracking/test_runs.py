from pathlib import Path
from threading import Thread

import mlflow
import pytest

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking import runs
from mrt_pipeline.tracking.runs import CONFIGURATION_TAG, find_finished_run, training_key

PARAMETERS = Path(__file__).parents[2] / "conf/base/parameters"


@pytest.fixture
def log_run(tmp_path):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("e")

    def log(parameters, partial, status="FINISHED"):
        tags = {CONFIGURATION_TAG: training_key(parameters), "pipeline": "mrt_rl", "partial": partial}
        run = mlflow.start_run(tags=tags)
        mlflow.end_run(status)
        return run.info.run_id

    yield log
    mlflow.set_tracking_uri(before)


def test_only_a_whole_finished_run_of_the_same_parameters_is_reused(log_run):
    parameters = Parameters.model_validate(compose_parameters(PARAMETERS, {}))
    other = Parameters.model_validate(compose_parameters(PARAMETERS, {"seed": 1}))
    log_run(parameters, "true")  # --nodes=report
    log_run(parameters, "false", status="FAILED")
    log_run(other, "false")
    assert find_finished_run("mrt_rl", parameters) is None
    whole = log_run(parameters, "false")
    log_run(parameters, "true")
    assert find_finished_run("mrt_rl", parameters) == whole
    assert find_finished_run("mrt_star", parameters) is None


def test_a_node_that_calls_mlflow_itself_writes_to_the_run(store, monkeypatch, tmp_path, tracking_at):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "test")
    runs.begin_current(tmp_path, {"a": "1"}, {"pipeline": "own"})
    runs.offer_current()
    thread = Thread(target=lambda: mlflow.log_metric("in_a_thread", 1))
    thread.start()
    thread.join()
    runs.offer_current()
    mlflow.log_metric("here", 2)
    runs.end_current("FAILED")
    run = mlflow.get_run(runs.run_id())
    assert (run.data.metrics, run.data.params) == ({"in_a_thread": 1, "here": 2}, {"a": "1"})
    assert run.info.status == "FAILED" and mlflow.active_run() is None and not runs.waiting()
    page = f"/#/experiments/{store}/runs/{run.info.run_id}"
    assert runs.run_url() == f"http://127.0.0.1:5000{page}"
    tracking_at("https://somewhere/")
    assert runs.run_url() == f"https://somewhere{page}"


def test_without_a_run_there_is_no_page_and_nothing_waits(store):
    runs.use(None)
    assert (runs.run_id(), runs.run_url(), runs.waiting()) == (None, None, "")
    runs.log_metrics({"a": 1.0}, 1)


def test_the_file_says_where_unless_the_environment_does(monkeypatch, tracking_at):
    tracking_at("sqlite:///somewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    runs.configure({"tracking_uri": "http://a", "experiment": "e"})
    assert mlflow.get_tracking_uri() == "http://a"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    runs.configure({"tracking_uri": "http://a", "experiment": "e"})
    assert mlflow.get_tracking_uri() == "http://b"
    with pytest.raises(InputError, match="and not server"):
        runs.configure({"tracking_uri": "http://a", "experiment": "e", "server": {}})
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
