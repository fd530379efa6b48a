"""Writing to the MLflow run of the current `kedro run`; without one, nothing is written."""

import math
from pathlib import Path

import mlflow


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
