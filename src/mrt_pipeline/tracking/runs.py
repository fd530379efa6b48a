"""Writing to the MLflow run of the current `kedro run`; without one, nothing is written."""

import logging
import math
import time
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from mrt_pipeline.config import Parameters
from mrt_pipeline.pipelines.keys import configuration_key
from mrt_pipeline.tracking.outbox import outbox

logger = logging.getLogger(__name__)

CONFIGURATION_TAG = "configuration_key"


def check_finite(metrics: dict[str, float]) -> None:
    """Raise ValueError naming the metrics that are not finite: MLflow would store them without a word."""
    bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        raise ValueError(f"metrics are not finite: {bad}")


def log_metrics(metrics: dict[str, float], step: int) -> None:
    """Log metrics of a step."""
    check_finite(metrics)
    if mlflow.active_run():
        run_id, now = mlflow.active_run().info.run_id, int(1000 * time.time())
        outbox.send(lambda: mlflow.log_metrics(metrics, step=step, run_id=run_id, timestamp=now))


def log_text(text: str, path: str) -> None:
    """Log a text file as an artifact."""
    if mlflow.active_run():
        run_id = mlflow.active_run().info.run_id
        outbox.send(lambda: mlflow.log_text(text, path, run_id=run_id))


def log_policy(folder: Path) -> None:
    """Log a saved policy (safetensors, configuration, tokenizer) as artifacts under `policy/`."""
    if mlflow.active_run():
        run_id = mlflow.active_run().info.run_id
        outbox.send(lambda: mlflow.log_artifacts(str(folder), "policy", run_id=run_id))


def log_problems(problems: pd.DataFrame, name: str) -> None:
    """Log the problems as a dataset input of the run, with a digest of their questions and splits."""
    if mlflow.active_run():
        described = mlflow.data.from_pandas(problems[["problem_id", "split", "question"]], name=name)
        mlflow.log_input(described, context="problems")


def log_model(folder: Path, name: str, step: int, metrics: dict[str, float], register: str | None = None) -> None:
    """Log a saved policy as a LoggedModel with its metrics, so that the best one can be searched for.

    register: also make it the next version of this registered model; it gets no
    alias, so nothing is promoted.
    """
    check_finite(metrics)
    if not mlflow.active_run():
        return
    run_id = mlflow.active_run().info.run_id
    try:  # not sent later: weights would pile up
        model = mlflow.initialize_logged_model(
            name=name, source_run_id=run_id, model_type="policy", params={"step": str(step)}
        )
        mlflow.MlflowClient().log_model_artifacts(model.model_id, str(folder))
        mlflow.finalize_logged_model(model.model_id, "READY")
        mlflow.log_metrics(metrics, step=step, run_id=run_id, model_id=model.model_id)
        if register:
            mlflow.register_model(f"models:/{model.model_id}", register)
    except (MlflowException, OSError) as error:
        logger.warning("The policy %s could not be logged to MLflow: %s", name, error)


def training_key(parameters: Parameters) -> str:
    """The key of all parameters that a training run depends on."""
    return configuration_key(parameters=Parameters.model_dump(parameters, exclude={"compare", "plan"}))


def find_finished_run(pipeline: str, parameters: Parameters) -> str | None:
    """The newest finished run of a pipeline with exactly these parameters in the current experiment; None without."""
    wanted = f"tags.{CONFIGURATION_TAG} = '{training_key(parameters)}' and tags.pipeline = '{pipeline}'"
    runs = mlflow.search_runs(
        filter_string=f"{wanted} and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return runs[0].info.run_id if runs else None
