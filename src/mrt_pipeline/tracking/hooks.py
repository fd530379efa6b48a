"""One `kedro run` is one MLflow run, with typed parameters, git state, and the files that the catalog names."""

from pathlib import Path
from typing import Any

import yaml
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines as registered
from kedro.io import AbstractVersionedDataset, DataCatalog
from kedro.pipeline import Pipeline

from mrt_pipeline.config import Parameters
from mrt_pipeline.datasets.policy_dataset import PolicyDataset
from mrt_pipeline.registry import flatten
from mrt_pipeline.tracking import runs
from mrt_pipeline.tracking.read_runs import choose_runs

_NAMED = ("task", "policy", "engine", "prover", "algorithm")


class TrackingHook:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._catalog = DataCatalog()  # of the run

    @hook_impl
    def after_context_created(self, context) -> None:
        """Read mlflow.yml."""
        runs.configure(context.config_loader["mlflow"])

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Start the run; log the resolved configuration, flattened and as a file."""
        typed = Parameters.model_validate(catalog.load("parameters"))
        parameters = typed.model_dump()
        if "arms" in pipeline.all_outputs():  # what cannot be compared leaves no failed run
            choose_runs(typed.compare)
        self._catalog, project = catalog, Path(run_params["project_path"])
        names = run_params["pipeline_names"] or []
        given = flatten(run_params["runtime_params"] or {})
        overrides = ",".join(f"{name}={value}" for name, value in given.items())
        command = f"kedro run --pipeline={'+'.join(names or ['__default__'])}"
        chosen = {group: parameters[group]["name"] for group in _NAMED}
        left_out = ("runtime_params", "project_path")
        tags = {
            **{name: str(value) for name, value in run_params.items() if value and name not in left_out},
            **chosen,
            **runs.git_state(project),
            "pipeline": "+".join(names or ["mrt_rl"]),
            runs.PARTIAL_TAG: str(is_partial(names, pipeline, run_params)).lower(),
            runs.CONFIGURATION_TAG: runs.training_key(typed),
            "kedro_command": f'{command} --params "{overrides}"' if overrides else command,
            "mlflow.runName": run_name(names, chosen["algorithm"], parameters["seed"], given),
        }
        params = {name: str(value) for name, value in flatten(parameters).items()}
        runs.begin_current(project, params, tags)
        runs.log_text(yaml.safe_dump(parameters, indent=2), "parameters.yaml")

    @hook_impl
    def before_node_run(self) -> None:
        """Nodes may call MLflow themselves."""
        runs.offer_current()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Log the files of a dataset whose metadata names an `artifact_path`."""
        dataset = self._catalog.get(dataset_name)
        path = (getattr(dataset, "metadata", None) or {}).get("artifact_path")
        if path is None:
            return
        if isinstance(dataset, PolicyDataset):
            files = dataset.local_copy()
        else:
            files = Path(self._catalog.config_resolver.resolve_pattern(dataset_name)["filepath"])
            if isinstance(dataset, AbstractVersionedDataset) and (version := dataset.resolve_load_version()):
                files = files / version / files.name
        runs.log_artifact(files, None if path in ("", ".") else path)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Send what waits, and mark the run as failed."""
        runs.end_current("FAILED")

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """End the run."""
        runs.end_current("FINISHED")
        if "trained_policy" in pipeline.all_outputs():  # only now is nothing lost if the checkpoint goes
            from mrt_pipeline.trainer.checkpoint import remove_checkpoint

            remove_checkpoint(catalog.load("trained_policy").card.key)


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
