"""Reading finished runs back from MLflow, for `compare`."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.arms import Group, check_comparable, find_baseline, group_runs, shared_budgets
from mrt_pipeline.evaluation.params import CompareParams
from mrt_pipeline.evaluation.run_summary import Measures, TrainingRun, kept_runs, measure_tables
from mrt_pipeline.tracking.failures import is_refusal, reason
from mrt_pipeline.tracking.records import WAITING, find_run
from mrt_pipeline.tracking.runs import PARTIAL_TAG

logger = logging.getLogger(__name__)
_MEASURED = ("rollouts", "episodes", "anytime", "samples")
_TABLES = (*(f"{policy}_{table}" for policy in ("base", "trained") for table in _MEASURED), "training_history")
_OPTIONAL = ("base_votes", "trained_votes")  # runs made before these existed are compared without them


@dataclass
class FinishedRun:
    """A finished run of `mrt_rl` or `mrt_star`.

    run_id: MLflow's. started: in milliseconds since 1970. commit: of the code, if it was a git checkout. parameters:
    the tree as it was composed. has: the tables that comparing can use.
    """

    run_id: str
    started: int
    commit: str
    parameters: Mapping[str, Any]
    has: frozenset[str]
    _measures: dict[str, Measures] = field(default_factory=dict)

    def measures(self, policy: str) -> Measures:
        """See `TrainingRun`. Takes seconds, once a policy."""
        if policy not in self._measures:
            self._measures[policy] = measure_tables(self.tables, self.parameters, policy, self.run_id)
        return self._measures[policy]

    @property
    def history(self) -> pd.DataFrame:
        """See `TrainingRun`."""
        return self.tables["training_history"]

    @cached_property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """By dataset name. Read when they are first asked for; raises InputError if one cannot be."""
        client = MlflowClient()
        with TemporaryDirectory() as folder, _reading(f"a table of run '{self.run_id}'"):
            paths = {name: client.download_artifacts(self.run_id, _path(name), folder) for name in sorted(self.has)}
            return {name: pd.read_parquet(path) for name, path in paths.items()}


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        where = f"from MLflow at {mlflow.get_tracking_uri()} ({reason(error)})"
        raise InputError(f"{what} cannot be read {where}: try again when it is there") from error


def choose_runs(compare: CompareParams) -> dict[str, Group]:
    """The runs to compare, by arm, then by base and seed; InputError for what cannot be compared. Reads no tables."""
    names = [compare.runs] if isinstance(compare.runs, str) else compare.runs
    if not names:
        raise InputError("say what to compare: --params runs=<parent run, experiment or [run, run, ...]>")
    runs = find_runs(names)
    arms = group_runs(runs, compare.bases, compare.arms)
    find_baseline(list(arms), compare.baseline)
    chosen = [run for own in arms.values() for run in own.values()]
    if not compare.allow_different:
        check_comparable(chosen, compare.bases)
    shared_budgets(chosen)
    return arms


def find_runs(names: Sequence[str]) -> list[TrainingRun]:
    """The training runs that `names` stand for: run ids, parent runs of sweeps, experiments, folders; each once.

    Runs that left nodes of their pipeline out are skipped, with a line that says so. Raises InputError for a name that
    nothing has, for a run named by itself that is not a finished training run, for one that lacks a table, and if
    MLflow cannot be reached.
    """
    client = MlflowClient()
    found: dict[str, Run] = {}
    kept: dict[str, TrainingRun] = {}
    with _reading("what compare.runs names"):
        for name in names:
            if Path(name).is_dir():
                kept |= {run.run_id: run for run in kept_runs(Path(name))}
            else:
                found |= {run.info.run_id: run for run in _resolve(client, name) if not _is_partial(run)}
    runs = [*kept.values(), *(_found(client, run) for run_id, run in found.items() if run_id not in kept)]
    if not runs:
        raise InputError(
            "there is no finished training run to compare: give compare.runs a sweep, experiment, run ids, or a folder "
            "of kept runs"
        )
    return runs


def _resolve(client: MlflowClient, name: str) -> list[Run]:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return _search(client, experiment.experiment_id, "")
    try:
        run = _get_run(client, name)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        raise InputError(
            f"there is no folder '{name}', and MLflow at {mlflow.get_tracking_uri()} has no experiment and no run of "
            "that name: look the id up in `mlflow ui`"
        ) from error
    if run.data.tags.get("pipeline") == "sweep":
        return _of_sweep(client, run)
    if not _is_training(run):
        what = f"{run.data.tags.get('pipeline', 'no pipeline')}, {run.info.status.lower()}"
        raise InputError(f"run '{name}' ({what}) is not a finished run of mrt_rl or mrt_star")
    return [run]


def _get_run(client: MlflowClient, name: str) -> Run:
    """By its id, or by the name that it had while it waited for the server."""
    return client.get_run((find_run(client, name) or name) if name.startswith(WAITING) else name)


def _of_sweep(client: MlflowClient, parent: Run) -> list[Run]:
    """The runs that the sweep made and those that it found finished; while it goes on, its children."""
    if not any(artifact.path == "sweep.json" for artifact in client.list_artifacts(parent.info.run_id)):
        return _search(client, parent.info.experiment_id, f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    jobs: Any = mlflow.artifacts.load_dict(f"runs:/{parent.info.run_id}/sweep.json")
    failed = [" ".join(job["overrides"]) for job in jobs if job["run_id"] is None]
    if failed:
        logger.warning("Left out, as they failed in the sweep: %s", "; ".join(failed))
    return [_get_run(client, job["run_id"]) for job in jobs if job["run_id"]]


def _search(client: MlflowClient, experiment_id: str, wanted: str) -> list[Run]:
    return [run for run in client.search_runs([experiment_id], wanted, max_results=10_000) if _is_training(run)]


def _is_partial(run: Run) -> bool:
    partial = run.data.tags.get(PARTIAL_TAG) == "true"
    if partial:
        logger.warning("Left out, as it executed a part of its pipeline only: run %s", run.info.run_id)
    return partial


def _is_training(run: Run) -> bool:
    return run.info.status == "FINISHED" and run.data.tags.get("pipeline") in ("mrt_rl", "mrt_star")


def _found(client: MlflowClient, run: Run) -> FinishedRun:
    run_id = run.info.run_id
    with _reading(f"parameters.yaml of run '{run_id}'"):
        there = {artifact.path for artifact in client.list_artifacts(run_id, "tables")}
        if lacking := [name for name in _TABLES if _path(name) not in there]:
            raise InputError(f"run '{run_id}' lacks tables that comparing needs ({', '.join(lacking)}): leave it out")
        parameters = yaml.safe_load(mlflow.artifacts.load_text(f"runs:/{run_id}/parameters.yaml"))
    has = frozenset(name for name in (*_TABLES, *_OPTIONAL) if _path(name) in there)
    return FinishedRun(run_id, run.info.start_time, run.data.tags.get("git_commit", ""), parameters, has)


def _path(table: str) -> str:
    return f"tables/{table}.parquet"
