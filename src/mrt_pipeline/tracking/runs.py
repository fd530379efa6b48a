"""Writing to the MLflow run of the current `kedro run`; without one, nothing is written."""

import math
from pathlib import Path

import mlflow

from mrt_pipeline.config import Parameters
from mrt_pipeline.pipelines.keys import configuration_key

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
        mlflow.log_metrics(metrics, step=step)


def log_text(text: str, path: str) -> None:
    """Log a text file as an artifact."""
    if mlflow.active_run():
        mlflow.log_text(text, path)


def log_policy(folder: Path) -> None:
    """Log a saved policy (safetensors, configuration, tokenizer) as artifacts under `policy/`."""
    if mlflow.active_run():
        mlflow.log_artifacts(str(folder), "policy")


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
