"""What a run tells MLflow, as records of plain data, and how each kind is delivered.

A record carries all that it needs but its run, times and steps included, so that it can wait on a disk; delivering it
twice is as good as once.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, Trace, TraceLocation
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpansLocation, TraceMetadataKey, TraceTagKey
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

Record = dict[str, Any]
WAITING = "waiting-"  # how the ids of runs begin that began while the server was down
WAITED_AS = "waited_as"  # the tag that keeps such an id
_UPLOAD = 10_000_000  # bytes a second that an upload may be as slow as


@dataclass
class RunAddress:
    """Where the records of a run belong.

    name: the run's id on the server, or one of our own (`WAITING`...) if it began while the server was down.
    run_id: on the server; None until the run has begun there. experiment: name. start_time: milliseconds.
    tags: those that the run begins with.
    """

    name: str
    run_id: str | None
    experiment: str
    start_time: int
    tags: dict[str, str]


def new_address(experiment: str, run_id: str | None = None, tags: dict[str, str] | None = None) -> RunAddress:
    """Of a run that begins now, or has just begun on the server as `run_id`."""
    name = run_id or f"{WAITING}{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    return RunAddress(name, run_id, experiment, int(1000 * time.time()), resolve_tags(tags))


def deliver(address: RunAddress, record: Record, files: Path | None) -> None:
    """Deliver a record, and begin its run on the server first if need be; sets `address.run_id` then."""
    client = mlflow.MlflowClient()
    if address.run_id is None:
        address.run_id = _begin(client, address)
    arguments = {name: value for name, value in record.items() if name != "kind"}
    with _patience(files):
        _DELIVER[record["kind"]](client, address.run_id, files, **arguments)


def find_run(client: mlflow.MlflowClient, waited_as: str) -> str | None:
    """The id that a run has on the server which began while that was down; None until it has arrived there."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.{WAITED_AS} = '{waited_as}'", max_results=1)
    return runs[0].info.run_id if runs else None


def _begin(client: mlflow.MlflowClient, address: RunAddress) -> str:
    found = client.get_experiment_by_name(address.experiment)
    experiment = found.experiment_id if found else client.create_experiment(address.experiment)
    if found and found.lifecycle_stage == "deleted":
        client.restore_experiment(experiment)
    begun = client.search_runs([experiment], f"tags.{WAITED_AS} = '{address.name}'", max_results=1)
    if begun:  # an earlier attempt whose answer was lost
        return begun[0].info.run_id
    tags = {**address.tags, WAITED_AS: address.name}
    return client.create_run(experiment, start_time=address.start_time, tags=tags).info.run_id


@contextlib.contextmanager
def _patience(files: Path | None) -> Iterator[None]:
    """An upload is answered when the server has stored it, so large ones may take longer, and are not tried twice."""
    if files is None:
        yield
        return
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    before = {name: os.environ.get(name) for name in names}
    os.environ[names[0]] = str(int(before[names[0]] or 120) + size(files) // _UPLOAD)
    os.environ[names[1]] = "0"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def size(files: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return sum(path.stat().st_size for path in [files, *files.rglob("*")] if path.is_file())


def _metrics(client: mlflow.MlflowClient, run_id: str, files: None, points: list) -> None:
    client.log_batch(run_id, metrics=[Metric(*point) for point in points], synchronous=True)


def _params(client: mlflow.MlflowClient, run_id: str, files: None, values: dict) -> None:
    client.log_batch(run_id, params=[Param(name, value) for name, value in values.items()], synchronous=True)


def _tags(client: mlflow.MlflowClient, run_id: str, files: None, values: dict) -> None:
    parent = values.get(MLFLOW_PARENT_RUN_ID, "")
    if parent.startswith(WAITING):
        arrived = find_run(client, parent)
        if arrived is None:
            raise MlflowException(f"the parent run {parent} still waits")
        values = {**values, MLFLOW_PARENT_RUN_ID: arrived}
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in values.items()], synchronous=True)


def _experiment_tag(client: mlflow.MlflowClient, run_id: str, files: None, name: str, value: str) -> None:
    client.set_experiment_tag(client.get_run(run_id).info.experiment_id, name, value)


def _input(client: mlflow.MlflowClient, run_id: str, files: None, dataset: dict, context: str) -> None:
    client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), [InputTag(MLFLOW_DATASET_CONTEXT, context)])])


def _text(client: mlflow.MlflowClient, run_id: str, files: None, text: str, path: str) -> None:
    client.log_text(run_id, text, path)


def _artifact(client: mlflow.MlflowClient, run_id: str, files: Path, path: str | None) -> None:
    log = client.log_artifacts if files.is_dir() else client.log_artifact
    log(run_id, str(files), path)


def _model(
    client: mlflow.MlflowClient,
    run_id: str,
    files: Path,
    name: str,
    step: int,
    time: int,
    metrics: dict,
    register: str | None,
) -> None:
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"name = '{name}' AND source_run_id = '{run_id}'")
    model = (found or [None])[0] or mlflow.initialize_logged_model(
        name, source_run_id=run_id, params={"step": str(step)}, model_type="policy", experiment_id=experiment
    )
    client.log_model_artifacts(model.model_id, str(files))
    client.finalize_logged_model(model.model_id, "READY")
    points = [Metric(key, value, time, step, model_id=model.model_id, run_id=run_id) for key, value in metrics.items()]
    client.log_batch(run_id, metrics=points, synchronous=True)
    source = f"models:/{model.model_id}"
    if register and all(version.source != source for version in client.search_model_versions(f"name = '{register}'")):
        mlflow.register_model(source, register)


def _trace(client: mlflow.MlflowClient, run_id: str, files: None, trace: dict) -> None:
    """Past MLflow's own exporter, which drops what it cannot send."""
    given, tracing = Trace.from_dict(trace), TracingClient()
    experiment = client.get_run(run_id).info.experiment_id
    given.info.trace_location = TraceLocation.from_experiment_id(experiment)
    given.info.trace_metadata[TraceMetadataKey.SOURCE_RUN] = run_id
    with contextlib.suppress(NotImplementedError):  # a server that keeps spans as artifacts only
        tracing.log_spans(experiment, given.data.spans)
    info = tracing.start_trace(given.info)
    if info.tags.get(TraceTagKey.SPANS_LOCATION) != SpansLocation.TRACKING_STORE.value:
        tracing._upload_trace_data(info, given.data)


def _end(client: mlflow.MlflowClient, run_id: str, files: None, status: str, time: int) -> None:
    client.set_terminated(run_id, status, time)


_DELIVER: dict[str, Callable[..., None]] = {
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "experiment_tag": _experiment_tag,
    "input": _input,
    "text": _text,
    "artifact": _artifact,
    "model": _model,
    "trace": _trace,
    "end": _end,
}
STORED_AS_FILES = {"text", "artifact", "model", "trace"}  # these need the server's artifact store, which may fail alone
