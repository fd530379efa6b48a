"""One `kedro run` is one MLflow run: kedro-mlflow's hook, with typed parameters, git state and a closing word."""

import logging
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import mlflow
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from mlflow.exceptions import MlflowException

from mrt_pipeline.config import LIKELIHOOD_ALGORITHMS, Parameters
from mrt_pipeline.config_loader import flatten
from mrt_pipeline.errors import InputError
from mrt_pipeline.learner.checkpoint import remove_checkpoint
from mrt_pipeline.pipelines.compare.nodes import choose_runs
from mrt_pipeline.tracking.freshness import check_inputs, note_saved
from mrt_pipeline.tracking.outbox import outbox
from mrt_pipeline.tracking.runs import CONFIGURATION_TAG, training_key

with warnings.catch_warnings(record=True):  # mlflow warns of the model that kedro-mlflow defines here, not of ours
    from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook

logger = logging.getLogger(__name__)
PARENT_VARIABLE = "MRT_PIPELINE_PARENT_RUN"  # set by a sweep: the MLflow run that its jobs belong under
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # else minutes a record
_NAMED = ("task", "policy", "engine", "prover", "algorithm")


class TrackingHook(MlflowHook):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self._parameters: dict[str, Any] = {}  # the tree as composed, for MLflow
        self._typed: Parameters | None = None  # the same, for keys
        self._project_path = Path.cwd()
        self._run_name = ""

    @hook_impl
    def after_context_created(self, context) -> None:
        """Read mlflow.yml; the parameters are composed here, so that wrong ones are refused before anything starts."""
        self._parameters = context.config_loader["parameters"]
        self._typed = Parameters.model_validate(self._parameters)
        self._project_path = context.project_path
        super().after_context_created(context)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Start the run; log the resolved configuration, flattened and as a file."""
        _check_kind(run_params["pipeline_names"] or [], self._parameters["algorithm"]["name"])
        check_inputs(self._project_path, pipeline, self._typed)
        if "arms" in pipeline.all_outputs():
            choose_runs(self._typed.compare)
        quiet = {name: value for name, value in run_params.items() if name not in ("runtime_params", "project_path")}
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        mlflow.enable_system_metrics_logging()
        super().before_pipeline_run(quiet, pipeline, catalog)
        if not self._is_mlflow_enabled:
            return
        mlflow.set_experiment_tag("mlflow.experimentKind", "custom_model_development")  # the UI opens with the runs
        mlflow.log_params(flatten(self._parameters))
        mlflow.log_dict(self._parameters, "parameters.yaml")
        given = flatten(run_params["runtime_params"] or {})
        overrides = ",".join(f"{name}={value}" for name, value in given.items())
        command = f"kedro run --pipeline={'+'.join(run_params['pipeline_names'] or ['__default__'])}"
        names = {group: self._parameters[group]["name"] for group in _NAMED}
        mlflow.set_tags(
            {
                **names,
                **git_state(self._project_path),
                "pipeline": "+".join(run_params["pipeline_names"] or ["mrt_rl"]),
                CONFIGURATION_TAG: training_key(self._typed),
                "kedro_command": f'{command} --params "{overrides}"' if overrides else command,
            }
        )
        if os.environ.get(PARENT_VARIABLE):
            mlflow.set_tag("mlflow.parentRunId", os.environ[PARENT_VARIABLE])
        others = [f"{name}={value}" for name, value in given.items() if name not in ("algorithm", "seed")]
        what = [names["algorithm"], f"seed={self._parameters['seed']}"]
        if run_params["pipeline_names"] in (["compare"], ["plan"], ["evaluate"]):  # nothing is trained
            what = run_params["pipeline_names"]
        self._run_name = " ".join([*what, *others])
        mlflow.set_tag("mlflow.runName", self._run_name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Any) -> None:
        """Note which configuration made it; see `freshness`."""
        note_saved(self._project_path, dataset_name, self._typed)

    @hook_impl
    def on_pipeline_error(
        self, error: Exception, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Send what waits, and mark the run as failed."""
        _send_the_rest()
        super().on_pipeline_error(error=error, run_params=run_params, pipeline=pipeline, catalog=catalog)

    def _log_param(self, name: str, value: Any) -> None:
        """kedro-mlflow would log each typed parameter model as one string; all are logged flattened at the start."""

    @hook_impl
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """End the run; print the report, if one was made, and where to look next."""
        _send_the_rest()
        run = mlflow.active_run() and mlflow.active_run().info.run_id
        try:
            super().after_pipeline_run(run_params, pipeline, catalog)
        except (MlflowException, OSError) as error:
            logger.error("MLflow could not be told that the run has ended: %s", str(error).splitlines()[0])
        if "trained_policy" in pipeline.all_outputs():  # only now is nothing lost if the checkpoint goes
            remove_checkpoint(catalog.load("trained_policy")["key"])
        if "comparison_report" in pipeline.all_outputs():
            print("\n" + catalog.load("comparison_report"))
            print("Look next: the figures in data/08_reporting/compare/, which are artifacts of this run as well.")
        if "plan_report" in pipeline.all_outputs():
            print("\n" + catalog.load("plan_report"))
        if "report" in pipeline.all_outputs():
            print("\n" + catalog.load("report"))
            print(
                "Look next: `kedro mlflow ui` (compare runs; regret and accuracy have the budget as their step), "
                "`kedro viz run`, and the tables and figures in data/."
            )
            if run:
                print(f"This run: {self._run_name} ({run})")


def _send_the_rest() -> None:
    if outbox.flush():
        logger.error("%d records of this run never reached MLflow", len(outbox))


def _check_kind(pipelines: list[str], algorithm: str) -> None:
    """Refuse an algorithm that is not of the pipeline's kind, before anything runs."""
    for pipeline, wants_likelihood in (("mrt_star", True), ("mrt_rl", False)):
        if pipeline in pipelines and (algorithm in LIKELIHOOD_ALGORITHMS) is not wants_likelihood:
            other = "mrt_rl" if wants_likelihood else "mrt_star"
            kind = ", ".join(LIKELIHOOD_ALGORITHMS) if wants_likelihood else "the RL algorithms"
            raise InputError(f"pipeline {pipeline} takes {kind}; for algorithm={algorithm} run --pipeline={other}")


def git_state(folder: Path) -> dict[str, str]:
    """The commit and whether the work tree had changes; empty outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": str(bool(git("status", "--porcelain"))).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}
