"""What a run tells MLflow, as records of plain data, and how each kind is delivered.

A record carries all that it needs but its run, times and steps included, so that it can wait on a disk; delivering it
twice is as good as once.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, Trace, TraceLocation
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import TraceMetadataKey
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

Record = dict[str, Any]
WAITING = "waiting-"  # how the names of runs begin, which stand for their ids while the server is down
NAME_TAG = "outbox"  # the tag that keeps the name
STORED_AS_FILES = {"text", "artifact", "model"}  # kinds that need the server's artifact store, which may fail alone
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens an experiment with its runs
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_UPLOAD = 10_000_000  # bytes a second that an upload may be as slow as


@dataclass
class RunAddress:
    """Where the records of a run belong.

    name: our own, in order of time. experiment: name. start_time: milliseconds. tags: those that the run begins with.
    run_id, experiment_id: on the server; empty until the run has begun there.
    """

    name: str
    experiment: str
    start_time: int
    tags: dict[str, str]
    run_id: str = ""
    experiment_id: str = ""


def new_address(experiment: str) -> RunAddress:
    """Of a run that begins now."""
    name = f"{WAITING}{datetime.now():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    return RunAddress(name, experiment, now(), resolve_tags())


def now() -> int:
    """Milliseconds, as MLflow counts time."""
    return int(1000 * time.time())


def begin(run: RunAddress) -> None:
    """Begin the run on the server, unless it is there, and fill the address in. Raises what MLflow raises."""
    client = MlflowClient()
    if run.run_id:
        client.get_run(run.run_id)  # it may have begun on another server
        return
    found = client.get_experiment_by_name(run.experiment)
    if found and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    run.experiment_id = found.experiment_id if found else client.create_experiment(run.experiment, tags=_KIND)
    begun = client.search_runs([run.experiment_id], f"tags.{NAME_TAG} = '{run.name}'", max_results=1)
    tags = {**run.tags, NAME_TAG: run.name}
    this = begun[0] if begun else client.create_run(run.experiment_id, run.start_time, tags)  # else an answer was lost
    run.run_id = this.info.run_id


def find_run(client: MlflowClient, name: str) -> str | None:
    """The id that a run has on the server; None until it has arrived there."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.{NAME_TAG} = '{name}'", max_results=1)
    return runs[0].info.run_id if runs else None


def deliver(run: RunAddress, record: Record, files: Path | None) -> None:
    """Deliver a record, with the file or folder that belongs to it, of a run that has begun."""
    client, run_id = MlflowClient(), run.run_id
    match record:
        case {"kind": "metrics", "points": points}:
            client.log_batch(run_id, metrics=[Metric(*point) for point in points])
        case {"kind": "describe", "params": params, "tags": tags}:
            client.log_batch(run_id, params=[Param(*item) for item in params.items()])
            client.log_batch(run_id, tags=[RunTag(*item) for item in _with_parent(client, tags).items()])
        case {"kind": "input", "dataset": dataset, "context": context}:
            tag = InputTag(MLFLOW_DATASET_CONTEXT, context)
            client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), [tag])])
        case {"kind": "text", "text": text, "path": path}:
            client.log_text(run_id, text, path)
        case {"kind": "artifact", "path": path} if files:
            with _patience(files):
                (client.log_artifacts if files.is_dir() else client.log_artifact)(run_id, str(files), path)
        case {"kind": "model"} if files:
            with _patience(files):
                _log_model(client, run, record, files)
        case {"kind": "trace", "trace": trace}:
            _log_trace(run, Trace.from_dict(trace))
        case {"kind": "end", "status": status, "time": end_time}:
            client.set_terminated(run_id, status, end_time)
        case _:
            raise ValueError(f"no such record: {record}")


def _with_parent(client: MlflowClient, tags: dict[str, str]) -> dict[str, str]:
    """A parent that has waited for the server by the id that it has there now."""
    parent = tags.get(MLFLOW_PARENT_RUN_ID, "")
    if not parent.startswith(WAITING):
        return tags
    arrived = find_run(client, parent)
    if arrived is None:
        raise MlflowException(f"the parent run {parent} still waits")
    return {**tags, MLFLOW_PARENT_RUN_ID: arrived}


def _log_model(client: MlflowClient, run: RunAddress, record: Record, files: Path) -> None:
    name, step, register = record["name"], record["step"], record["register"]
    wanted = f"name = '{name}' AND source_run_id = '{run.run_id}'"
    found = client.search_logged_models([run.experiment_id], wanted) or [
        client.create_logged_model(run.experiment_id, name, run.run_id, None, {"step": str(step)}, "policy")
    ]
    model = found[0]
    client.log_model_artifacts(model.model_id, str(files))
    client.finalize_logged_model(model.model_id, "READY")
    where = {"model_id": model.model_id, "run_id": run.run_id}
    points = [Metric(key, value, record["time"], step, **where) for key, value in record["metrics"].items()]
    client.log_batch(run.run_id, metrics=points)
    source = f"models:/{model.model_id}"
    if register and all(version.source != source for version in client.search_model_versions(f"name = '{register}'")):
        mlflow.register_model(source, register)


def _log_trace(run: RunAddress, trace: Trace) -> None:
    """Past MLflow's own exporter, which drops what it cannot send without a word."""
    trace.info.trace_location = TraceLocation.from_experiment_id(run.experiment_id)
    trace.info.trace_metadata[TraceMetadataKey.SOURCE_RUN] = run.run_id
    TracingClient().log_spans(run.experiment_id, trace.data.spans)
    TracingClient().start_trace(trace.info)


@contextlib.contextmanager
def _patience(files: Path) -> Iterator[None]:
    """An upload is answered when the server has stored it, so a large one may take longer."""
    before = os.environ.get(_TIMEOUT, "120")
    os.environ[_TIMEOUT] = str(int(before) + size(files) // _UPLOAD)
    try:
        yield
    finally:
        os.environ[_TIMEOUT] = before


def size(files: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return sum(path.stat().st_size for path in [files, *files.rglob("*")] if path.is_file())
