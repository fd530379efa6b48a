"""One `kedro run` is one MLflow run: kedro-mlflow's hook, with typed parameters, git state and a closing word."""

import contextlib
import io
import os
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import mlflow
import yaml
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines as registered
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from mlflow.exceptions import MlflowException

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import flatten
from mrt_pipeline.datasets.policy_dataset import PolicyDataset
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.compare.nodes import choose_runs
from mrt_pipeline.tracking.failures import is_wrong_setting, reason
from mrt_pipeline.tracking.freshness import check_inputs, keys_of_run, note_saved
from mrt_pipeline.tracking.outbox import OUTBOX, RESEND, Outbox, current, use
from mrt_pipeline.tracking.records import new_address
from mrt_pipeline.tracking.resend import send_waiting
from mrt_pipeline.tracking.runs import CONFIGURATION_TAG, PARTIAL_TAG, log_text, send, training_key
from mrt_pipeline.tracking.system_metrics import SystemMetrics
from mrt_pipeline.trainer.checkpoint import remove_checkpoint

with warnings.catch_warnings(record=True):  # mlflow warns of the model that kedro-mlflow defines here, not of ours
    from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig
    from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
    from kedro_mlflow.io.catalog.switch_catalog_logging import switch_catalog_logging

PARENT_VARIABLE = "MRT_PIPELINE_PARENT_RUN"  # set by a sweep: the MLflow run that its jobs belong under
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # else minutes a record
_NAMED = ("task", "policy", "engine", "prover", "algorithm")


class TrackingHook(MlflowHook):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self._parameters: dict[str, Any] = {}  # the tree as composed, for MLflow
        self._typed: Parameters | None = None
        self._keys: dict[str, str] = {}  # of the datasets that the run makes
        self._project_path = Path.cwd()
        self._run_name = ""
        self._catalog: DataCatalog | None = None
        self._down: Exception | None = None  # why the server could not be asked for the experiment
        self._system_metrics: SystemMetrics | None = None

    @hook_impl
    def after_context_created(self, context) -> None:
        """Read mlflow.yml; the parameters are composed here, so that wrong ones are refused before anything starts."""
        self._parameters = context.config_loader["parameters"]
        self._typed = Parameters.model_validate(self._parameters)
        self._project_path = context.project_path
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        self._down = None
        try:
            super().after_context_created(context)
        except (MlflowException, OSError) as error:
            self._down = _only_if_down(error)
            self.mlflow_config = KedroMlflowConfig.model_validate(context.config_loader["mlflow"])
            context.__setattr__("mlflow", self.mlflow_config)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Start the run; log the resolved configuration, flattened and as a file."""
        pipelines = run_params["pipeline_names"] or []
        _check_kind(pipelines, self._typed.algorithm)
        self._keys = keys_of_run(pipeline, self._typed)
        check_inputs(self._project_path, pipeline, self._keys)
        if "arms" in pipeline.all_outputs():
            if self._down:
                where = f"MLflow at {mlflow.get_tracking_uri()} cannot be reached ({reason(self._down)})"
                raise InputError(f"{where}, and the runs to compare are there: try again when it answers")
            choose_runs(self._typed.compare)
        quiet = {name: value for name, value in run_params.items() if name not in ("runtime_params", "project_path")}
        self._start(quiet, pipeline, catalog)
        if not current():
            return
        self._system_metrics = SystemMetrics(current())
        self._system_metrics.start()
        kind = {"name": "mlflow.experimentKind", "value": "custom_model_development"}  # the UI opens with the runs
        send({"kind": "experiment_tag", **kind})
        send({"kind": "params", "values": {name: str(value) for name, value in flatten(self._parameters).items()}})
        log_text(yaml.safe_dump(self._parameters, indent=2), "parameters.yaml")
        given = flatten(run_params["runtime_params"] or {})
        overrides = ",".join(f"{name}={value}" for name, value in given.items())
        command = f"kedro run --pipeline={'+'.join(pipelines or ['__default__'])}"
        names = {group: self._parameters[group]["name"] for group in _NAMED}
        self._run_name = run_name(pipelines, names["algorithm"], self._parameters["seed"], given)
        tags = {
            **{name: str(value) for name, value in quiet.items() if value},
            **names,
            **git_state(self._project_path),
            "pipeline": "+".join(pipelines or ["mrt_rl"]),
            PARTIAL_TAG: str(is_partial(pipelines, pipeline, run_params)).lower(),
            CONFIGURATION_TAG: training_key(self._typed),
            "kedro_command": f'{command} --params "{overrides}"' if overrides else command,
            "mlflow.runName": self._run_name,
        }
        if os.environ.get(PARENT_VARIABLE):
            tags["mlflow.parentRunId"] = os.environ[PARENT_VARIABLE]
        send({"kind": "tags", "values": tags})

    def _start(self, quiet: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Begin the run on the server or, while that is down, in the outbox."""
        use(None)
        mlflow.disable_system_metrics_logging()  # ours go through the outbox
        self.run_id, self._catalog = None, catalog
        root, experiment = self._project_path / OUTBOX, self.mlflow_config.tracking.experiment.name
        if not self._down:
            send_waiting(root)
            try:
                super().before_pipeline_run(quiet, pipeline, catalog)
            except (MlflowException, OSError) as error:
                self._down = _only_if_down(error)
        else:
            disabled = self.mlflow_config.tracking.disable_tracking.pipelines
            self._is_mlflow_enabled = not set(quiet["pipeline_names"] or ["__default__"]) <= set(disabled)
        switch_catalog_logging(catalog, False)  # files go through the outbox; see after_dataset_saved
        if self._is_mlflow_enabled:
            active = mlflow.active_run()
            run_id = active.info.run_id if active else self.mlflow_config.tracking.run.id
            use(Outbox(root, new_address(experiment, run_id)))
            if self._down:
                current().rest(self._down)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any], is_async: bool) -> None:
        """kedro-mlflow opens the run in the node's thread, for nodes that call MLflow themselves."""
        with contextlib.suppress(MlflowException, OSError):
            super().before_node_run(node, catalog, inputs, is_async)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Any) -> None:
        """Note which configuration made it, see `freshness`; log the file of an MlflowArtifactDataset."""
        note_saved(self._project_path, dataset_name, self._keys)
        dataset = self._catalog.get(dataset_name)
        if isinstance(dataset, PolicyDataset):
            if logged := dataset.logged():
                send({"kind": "artifact", "path": logged[0]}, logged[1])
        elif hasattr(dataset, "artifact_path"):
            send({"kind": "artifact", "path": dataset.artifact_path}, Path(str(dataset._get_load_path())))

    @hook_impl
    def on_pipeline_error(
        self, error: Exception, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Send what waits, and mark the run as failed."""
        self._end("FAILED")

    def _end(self, status: str) -> None:
        """Tell MLflow that the run has ended, and send what still waits."""
        outbox = current()
        if outbox is None:
            return
        self._system_metrics.finish()
        if not self._already_active_mlflow:
            outbox.send({"kind": "end", "status": status, "time": int(1000 * time.time())})
        outbox.flush()
        outbox.close()
        if not self._already_active_mlflow:
            with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                while mlflow.active_run():  # told once more, since only so mlflow forgets it
                    mlflow.end_run(status)

    def _log_param(self, name: str, value: Any) -> None:
        """kedro-mlflow would log each typed parameter model as one string; all are logged flattened at the start."""

    @hook_impl
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """End the run; print the report, if one was made, and where to look next."""
        self._end("FINISHED")
        if "trained_policy" in pipeline.all_outputs():  # only now is nothing lost if the checkpoint goes
            remove_checkpoint(catalog.load("trained_policy").card.key)
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
            outbox = current()
            if outbox:
                print(f"This run: {self._run_name} ({outbox.run_id})")
            if outbox and outbox.n_waiting:
                where = f"which wait in {outbox.folder}"
                print(f"MLflow lacks {outbox.n_waiting} records of it, {where}: `{RESEND}` sends them.")


def _only_if_down(error: Exception) -> Exception:
    """The error, if it says that the server is down; raises what else it is."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(("http://", "https://")):
        raise error
    if is_wrong_setting(error):
        raise InputError(
            f"MLflow at {uri} refuses to be asked ({reason(error)}): look at mlflow_tracking_uri in mlflow.yml "
            "(or MLFLOW_TRACKING_URI) and the credentials"
        ) from error
    return error


def run_name(pipelines: list[str], algorithm: str, seed: int, given: dict[str, Any]) -> str:
    """What a run is called: its algorithm and seed, then the other overrides; of single stages, their names first."""
    trained = [algorithm, f"seed={seed}"]
    if not {*pipelines} <= {"mrt_rl", "mrt_star", "__default__"}:
        trained = [*pipelines, *(trained if "train" in pipelines else [])]
    return " ".join([*trained, *(f"{key}={value}" for key, value in given.items() if key not in ("algorithm", "seed"))])


def is_partial(names: list[str], pipeline: Pipeline, run_params: dict[str, Any]) -> bool:
    """Whether a run leaves nodes of its pipelines out (--nodes, --from-nodes, --tags, ...).

    names: of the pipelines; none is the default one. pipeline: what is run of them.
    """
    whole = {node.name for name in names or ["__default__"] for node in registered[name].nodes}
    return bool(run_params.get("only_missing_outputs")) or {node.name for node in pipeline.nodes} != whole


def _check_kind(pipelines: list[str], algorithm: Algorithm) -> None:
    """Refuse an algorithm that is not of the pipeline's kind, before anything runs."""
    for pipeline, wants_likelihood in (("mrt_star", True), ("mrt_rl", False)):
        if pipeline in pipelines and algorithm.likelihood is not wants_likelihood:
            other = "mrt_rl" if wants_likelihood else "mrt_star"
            kind = "algorithms of likelihood (star, mrt_star)" if wants_likelihood else "the RL algorithms"
            raise InputError(f"pipeline {pipeline} takes {kind}; for algorithm={algorithm.name} run --pipeline={other}")


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
