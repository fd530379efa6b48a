"""Reading finished runs back from MLflow, for `compare`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking.failures import is_refusal, reason
from mrt_pipeline.tracking.records import WAITING, find_run
from mrt_pipeline.tracking.runs import PARTIAL_TAG

logger = logging.getLogger(__name__)
_TABLES = (
    "base_rollouts",
    "base_episodes",
    "base_anytime",
    "base_samples",
    "trained_rollouts",
    "trained_episodes",
    "trained_anytime",
    "trained_samples",
    "training_history",
)
_OPTIONAL = ("base_votes", "trained_votes")  # runs made before these existed are compared without them


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of `mrt_rl` or `mrt_star`.

    run_id: MLflow's. started: in milliseconds since 1970. parameters: the tree as it was composed. has: the tables
    that comparing can use. tables: by dataset name; none before `read_tables`.
    """

    run_id: str
    started: int
    parameters: Mapping[str, Any]
    has: frozenset[str]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def find_runs(names: Sequence[str]) -> list[FinishedRun]:
    """The training runs that `names` stand for: run ids, parent runs of sweeps, or experiments; each once.

    Their tables are not read. Runs that left nodes of their pipeline out are skipped, with a line that says so.
    Raises InputError for a name that nothing has, for a run named by itself that is not a finished training run, for
    one that lacks a table, and if MLflow cannot be reached.
    """
    client = mlflow.MlflowClient()
    found: dict[str, Run] = {}
    try:
        for name in names:
            found |= {run.info.run_id: run for run in _resolve(client, name) if not _is_partial(run)}
    except (MlflowException, OSError) as error:
        raise InputError(f"MLflow at {mlflow.get_tracking_uri()} cannot be read ({reason(error)})") from error
    if not found:
        raise InputError(
            "there is no finished training run to compare: give compare.runs a sweep, experiment or run ids"
        )
    return [_found(client, run) for run in found.values()]


def read_tables(run: FinishedRun) -> FinishedRun:
    """The same run, with its tables."""
    with TemporaryDirectory() as folder:
        try:
            tables = {name: pd.read_parquet(_download(run.run_id, _path(name), folder)) for name in sorted(run.has)}
        except (MlflowException, OSError) as error:
            raise InputError(f"a table of run '{run.run_id}' cannot be read: {error}") from error
    return replace(run, tables=tables)


def _resolve(client: mlflow.MlflowClient, name: str) -> list[Run]:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return [run for run in client.search_runs([experiment.experiment_id], max_results=10_000) if _is_training(run)]
    try:
        run = _get_run(client, name)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        raise InputError(
            f"MLflow at {mlflow.get_tracking_uri()} has no experiment and no run '{name}': look the id up in "
            "`kedro mlflow ui`"
        ) from error
    if run.data.tags.get("pipeline") == "sweep":
        return _of_sweep(client, run)
    if not _is_training(run):
        what = f"{run.data.tags.get('pipeline', 'no pipeline')}, {run.info.status.lower()}"
        raise InputError(f"run '{name}' ({what}) is not a finished run of mrt_rl or mrt_star")
    return [run]


def _get_run(client: mlflow.MlflowClient, name: str) -> Run:
    """By its id, or by the one that it had while it waited for the server."""
    return client.get_run((find_run(client, name) or name) if name.startswith(WAITING) else name)


def _of_sweep(client: mlflow.MlflowClient, parent: Run) -> list[Run]:
    """The runs that the sweep made and those that it found finished; while it goes on, its children."""
    if any(artifact.path == "sweep.json" for artifact in client.list_artifacts(parent.info.run_id)):
        jobs = mlflow.artifacts.load_dict(f"runs:/{parent.info.run_id}/sweep.json")
        failed = [" ".join(job["overrides"]) for job in jobs if job["run_id"] is None]
        if failed:
            logger.warning("Left out, as they failed in the sweep: %s", "; ".join(failed))
        return [_get_run(client, job["run_id"]) for job in jobs if job["run_id"]]
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'", max_results=10_000
    )
    return [run for run in children if _is_training(run)]


def _is_partial(run: Run) -> bool:
    partial = run.data.tags.get(PARTIAL_TAG) == "true"
    if partial:
        logger.warning("Left out, as it executed a part of its pipeline only: run %s", run.info.run_id)
    return partial


def _is_training(run: Run) -> bool:
    return run.info.status == "FINISHED" and run.data.tags.get("pipeline") in ("mrt_rl", "mrt_star")


def _found(client: mlflow.MlflowClient, run: Run) -> FinishedRun:
    run_id = run.info.run_id
    try:
        there = {artifact.path for artifact in client.list_artifacts(run_id, "tables")}
        lacking = [name for name in _TABLES if _path(name) not in there]
        if lacking:
            raise InputError(f"run '{run_id}' lacks tables that comparing needs ({', '.join(lacking)}): leave it out")
        with TemporaryDirectory() as folder:
            parameters = yaml.safe_load(_download(run_id, "parameters.yaml", folder).read_text())
    except (MlflowException, OSError) as error:
        raise InputError(f"run '{run_id}' has no parameters.yaml that can be read: {error}") from error
    has = frozenset(name for name in (*_TABLES, *_OPTIONAL) if _path(name) in there)
    return FinishedRun(run_id, run.info.start_time, parameters, has)


def _download(run_id: str, path: str, folder: str) -> Path:
    return Path(mlflow.MlflowClient().download_artifacts(run_id, path, folder))


def _path(table: str) -> str:
    return f"tables/{table}.parquet"
