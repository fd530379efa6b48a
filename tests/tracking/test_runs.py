from pathlib import Path

import mlflow
import pytest

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
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
