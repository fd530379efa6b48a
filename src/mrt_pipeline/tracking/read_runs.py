"""Reading finished runs back from MLflow, for `compare`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

logger = logging.getLogger(__name__)
_TABLES = (
    "problems",
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


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of `mrt_rl` or `mrt_star`.

    run_id, name: MLflow's. parameters: the tree as it was composed. tables: by dataset name.
    """

    run_id: str
    name: str
    parameters: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]


def read_runs(names: Sequence[str]) -> list[FinishedRun]:
    """The training runs that `names` stand for: run ids, parent runs of sweeps, or experiments; each once.

    Raises InputError for a name that nothing has, for a run named by itself that is not a finished training run, and
    if MLflow cannot be reached.
    """
    client = mlflow.MlflowClient()
    found: dict[str, Run] = {}
    try:
        for name in names:
            found |= {run.info.run_id: run for run in _resolve(client, name)}
    except (MlflowException, OSError) as error:
        raise InputError(f"MLflow at {mlflow.get_tracking_uri()} cannot be read ({reason(error)})") from error
    if not found:
        raise InputError(
            "there is no finished training run to compare: give compare.runs a sweep, experiment or run ids"
        )
    return [_read(client, run) for run in found.values()]


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


def _is_training(run: Run) -> bool:
    return run.info.status == "FINISHED" and run.data.tags.get("pipeline") in ("mrt_rl", "mrt_star")


def _read(client: mlflow.MlflowClient, run: Run) -> FinishedRun:
    run_id = run.info.run_id
    with TemporaryDirectory() as folder:
        try:
            parameters = yaml.safe_load(Path(client.download_artifacts(run_id, "parameters.yaml", folder)).read_text())
            tables = {
                name: pd.read_parquet(client.download_artifacts(run_id, f"tables/{name}.parquet", folder))
                for name in _TABLES
            }
        except (MlflowException, OSError) as error:
            raise InputError(f"run '{run_id}' lacks a table that comparing needs: {error}") from error
    return FinishedRun(run_id, run.info.run_name, parameters, tables)
