"""Writing to the MLflow run of the current `kedro run`; without one, nothing is written. See `outbox`."""

import logging
import math
import time
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from mrt_pipeline.config import Parameters
from mrt_pipeline.keys import configuration_key
from mrt_pipeline.tracking.failures import reason
from mrt_pipeline.tracking.find_policies import moves_on
from mrt_pipeline.tracking.outbox import current
from mrt_pipeline.tracking.records import Record

logger = logging.getLogger(__name__)

CONFIGURATION_TAG = "configuration_key"
PARTIAL_TAG = "partial"
"""true for a run that left nodes of its pipeline out: it has the key of a whole run, but not what that makes."""


def check_finite(metrics: dict[str, float]) -> None:
    """Raise ValueError naming the metrics that are not finite: MLflow would store them without a word."""
    bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        raise ValueError(f"metrics are not finite: {bad}")


def log_metrics(metrics: dict[str, float], step: int) -> None:
    """Log metrics of a step."""
    check_finite(metrics)
    now = _now()
    send({"kind": "metrics", "points": [[name, float(value), now, step] for name, value in metrics.items()]})


def log_text(text: str, path: str) -> None:
    """Log a text file as an artifact."""
    send({"kind": "text", "text": text, "path": path})


def log_problems(problems: pd.DataFrame, name: str) -> None:
    """Log the problems as a dataset input of the run, with a digest of their questions and splits."""
    if current():
        described = mlflow.data.from_pandas(problems[["problem_id", "split", "question"]], name=name)
        send({"kind": "input", "dataset": dict(described._to_mlflow_entity()), "context": "problems"})


def log_model(folder: Path, name: str, step: int, metrics: dict[str, float], register: str | None = None) -> None:
    """Log a saved policy as a LoggedModel with its metrics, so that the best one can be searched for.

    register: also make it the next version of this registered model; it gets no
    alias, so nothing is promoted.
    """
    check_finite(metrics)
    values = {name: float(value) for name, value in metrics.items()}
    record = {"kind": "model", "name": name, "step": step, "time": _now(), "metrics": values, "register": register}
    send(record, folder)


def send(record: Record, files: Path | None = None) -> None:
    """Send a record of the current run, if there is one."""
    if outbox := current():
        outbox.send(record, files)


def _now() -> int:
    return int(1000 * time.time())


def training_key(parameters: Parameters) -> str:
    """The key of all parameters that a training run depends on."""
    return configuration_key(parameters=parameters)


def find_finished_run(pipeline: str, parameters: Parameters) -> str | None:
    """The newest finished run of a whole pipeline with exactly these parameters in the current experiment, or None.

    Runs that still wait for a server are not found, nor any while it cannot be asked; none is looked for where
    `policy.path` is an alias, which may have moved on since.
    """
    if moves_on(parameters.policy.path or ""):
        return None
    wanted = f"tags.{CONFIGURATION_TAG} = '{training_key(parameters)}' and tags.pipeline = '{pipeline}'"
    wanted += f" and tags.{PARTIAL_TAG} = 'false'"
    try:
        runs = mlflow.search_runs(
            filter_string=f"{wanted} and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
            output_format="list",
        )
    except (MlflowException, OSError) as error:
        logger.warning("MLflow cannot be asked for a finished run (%s)", reason(error))
        return None
    return runs[0].info.run_id if runs else None
