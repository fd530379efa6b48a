"""The MLflow run of the current `kedro run`: beginning, writing and ending it. Without one, nothing is written.

Everything that is written goes through the run's journal, so nothing here waits for a server but `begin`, which asks
once, and `end`.
"""

import logging
import math
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from mrt_pipeline.config import Parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.keys import configuration_key
from mrt_pipeline.tracking.failures import reason
from mrt_pipeline.tracking.find_policies import moves_on
from mrt_pipeline.tracking.journal import Journal
from mrt_pipeline.tracking.records import Record, new_address, now

logger = logging.getLogger(__name__)

OUTBOX = Path("data/outbox")
PARENT_VARIABLE = "MRT_PIPELINE_PARENT_RUN"  # set by a sweep: the MLflow run that its jobs belong under
CONFIGURATION_TAG = "configuration_key"
PARTIAL_TAG = "partial"
"""true for a run that left nodes of its pipeline out: it has the key of a whole run, but not what that makes."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # else minutes a record
_EXPERIMENT, _RUN = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"  # what MLflow itself reads
_UI = "http://127.0.0.1:5000"  # where `mlflow ui` serves a local store

_journal: Journal | None = None
_ended = threading.Event()  # of the current run


def configure(settings: dict[str, Any]) -> None:
    """Set MLflow's address and experiment as mlflow.yml says; MLflow's environment variables go before the file."""
    if unknown := settings.keys() - {"tracking_uri", "experiment"}:
        raise InputError(f"mlflow.yml holds tracking_uri and experiment, and not {', '.join(sorted(unknown))}")
    for name, value in {**_PATIENCE, _EXPERIMENT: settings["experiment"]}.items():
        os.environ.setdefault(name, value)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or settings["tracking_uri"])


def begin(root: Path, params: dict[str, str], tags: dict[str, str]) -> Journal:
    """Begin a run; its journal is kept in `root`. Raises InputError if something answers that is not MLflow."""
    journal = Journal(root, new_address(os.environ[_EXPERIMENT]))
    journal.start()
    journal.send({"kind": "describe", "params": params, "tags": tags})
    return journal


def begin_current(project: Path, params: dict[str, str], tags: dict[str, str]) -> None:
    """Begin the run of this `kedro run`."""
    global _ended
    if PARENT_VARIABLE in os.environ:
        tags = {**tags, "mlflow.parentRunId": os.environ[PARENT_VARIABLE]}
    use(begin(project / OUTBOX, params, tags))
    _ended = threading.Event()
    threading.Thread(target=_watch_system, args=(_ended,), daemon=True).start()


def use(journal: Journal | None) -> None:
    """Make its run the current one."""
    global _journal
    _journal = journal


def offer_current() -> None:
    """Let a node that calls MLflow itself write to the current run, in whatever thread it is run."""
    if _journal and _journal.address.run_id:
        os.environ[_RUN] = _journal.address.run_id


def end_current(status: str) -> None:
    """End the current run, and deliver what still waits."""
    os.environ.pop(_RUN, None)
    _ended.set()
    if _journal:
        _journal.end(status)
        while mlflow.active_run():  # of a node that called MLflow itself
            mlflow.end_run(status)


def _watch_system(ended: threading.Event) -> None:
    """MLflow's system metrics (CPU, memory, disk, network, GPU); its own loop ends when a server does not answer."""
    monitor, step = SystemMetricsMonitor(""), 0  # of no run, since it is not started
    while not ended.wait(monitor.sampling_interval):
        monitor.collect_metrics()
        metrics = {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
        if not ended.is_set():
            _send_metrics(metrics, step)
        for one in monitor.monitors:
            one.clear_metrics()
        step += 1


def run_id() -> str | None:
    """Of the current run or the last one that has ended: MLflow's, or the name that it waits under."""
    return _journal.run_id if _journal else None


def run_url() -> str | None:
    """The page of the run in the MLflow UI, for a local store where `mlflow ui` serves it; None until it is there."""
    if _journal is None or not _journal.address.run_id:
        return None
    uri = mlflow.get_tracking_uri()
    server = uri.rstrip("/") if uri.startswith("http") else _UI
    return f"{server}/#/experiments/{_journal.address.experiment_id}/runs/{_journal.address.run_id}"


def waiting() -> str:
    """What MLflow lacks of the run, as a sentence; empty if it has everything."""
    return _journal.waiting() if _journal else ""


def check_finite(metrics: dict[str, float]) -> None:
    """Raise ValueError naming the metrics that are not finite: MLflow would store them without a word."""
    bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        raise ValueError(f"metrics are not finite: {bad}")


def log_metrics(metrics: dict[str, float], step: int) -> None:
    """Log metrics of a step."""
    check_finite(metrics)
    _send_metrics(metrics, step)


def _send_metrics(metrics: dict[str, float], step: int) -> None:
    time = now()
    send({"kind": "metrics", "points": [[name, float(value), time, step] for name, value in metrics.items()]})


def log_text(text: str, path: str) -> None:
    """Log a text file as an artifact."""
    send({"kind": "text", "text": text, "path": path})


def log_artifact(files: Path, path: str | None) -> None:
    """Log a file, or what is in a folder, as it is now, into the artifacts' folder `path`."""
    send({"kind": "artifact", "path": path}, files)


def log_problems(problems: pd.DataFrame, name: str) -> None:
    """Log the problems as a dataset input of the run, with a digest of their questions and splits."""
    if _journal:
        described = from_pandas(problems[["problem_id", "split", "question"]], name=name)
        send({"kind": "input", "dataset": described.to_dict(), "context": "problems"})


def log_model(folder: Path, name: str, step: int, metrics: dict[str, float], register: str | None) -> None:
    """Log a saved policy as a LoggedModel with its metrics, so that the best one can be searched for.

    register: also make it the next version of this registered model; it gets no alias, so nothing is promoted.
    """
    check_finite(metrics)
    values = {name: float(value) for name, value in metrics.items()}
    record = {"kind": "model", "name": name, "step": step, "time": now(), "metrics": values, "register": register}
    send(record, folder)


def send(record: Record, files: Path | None = None) -> None:
    """Send a record of the current run, if there is one."""
    if _journal:
        _journal.send(record, files)


def git_state(folder: Path) -> dict[str, str]:
    """The commit and whether the work tree had changes; empty outside a git checkout."""
    command = ["git", "status", "--porcelain=v2", "--branch"]
    try:
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    dirty = any(not line.startswith("#") for line in said)
    return {"git_commit": said[0].removeprefix("# branch.oid "), "git_dirty": str(dirty).lower()}


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
    wanted += f" and tags.{PARTIAL_TAG} = 'false' and attributes.status = 'FINISHED'"
    try:
        runs = mlflow.search_runs(
            filter_string=wanted, order_by=["attributes.start_time DESC"], max_results=1, output_format="list"
        )
    except (MlflowException, OSError) as error:
        logger.warning("MLflow cannot be asked for a finished run (%s)", reason(error))
        return None
    return runs[0].info.run_id if runs else None
