"""What is refused before anything runs: an algorithm of the other kind, and stale inputs.

What lies in data/ may only be used by a run whose configuration would make the same thing. Kedro looks at whether a
dataset exists, not at what made it. Here every saved dataset is noted in `data/keys.json` with its key
(`keys.dataset_keys`); before a stage runs alone, the keys of its inputs are compared with those that the run's own
parameters give.
"""

import json
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines as registered
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.config import Parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.keys import dataset_keys
from mrt_pipeline.paths import data_folder


class FreshnessHook:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._file = Path()
        self._keys: dict[str, str] = {}  # of every dataset that the run makes or finds

    @hook_impl(tryfirst=True)  # before the tracking hook begins a run
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Refuse what cannot run, with InputError."""
        parameters = Parameters.model_validate(catalog.load("parameters"))
        check_kind(run_params["pipeline_names"] or [], parameters.algorithm)
        self._keys = dataset_keys([registered["__default__"], pipeline], parameters)
        self._file = Path(run_params["project_path"]) / data_folder() / "keys.json"
        check_inputs(self._file, pipeline, self._keys)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Note which configuration made it."""
        note_saved(self._file, dataset_name, self._keys)


def note_saved(file: Path, name: str, keys: dict[str, str]) -> None:
    """Note in a file which configuration made the dataset that was just saved. keys: of the run."""
    if name in keys:
        file.write_text(json.dumps({**_read(file), name: keys[name]}, indent=2, sort_keys=True))


def check_inputs(file: Path, pipeline: Pipeline, keys: dict[str, str]) -> None:
    """Raise InputError if an input that `pipeline` finds in data/ is missing or was made by another configuration."""
    record = _read(file)
    for name in sorted(pipeline.inputs() & keys.keys()):
        makers = {stage: maker for stage, maker in registered.items() if name in maker.all_outputs()}
        stage = min(makers, key=lambda stage: (len(makers[stage].nodes), stage))
        if name not in record:
            raise InputError(f"there is no '{name}' in data/ yet: run `kedro run --pipelines={stage}`, or all stages")
        if record[name] != keys[name]:
            raise InputError(
                f"'{name}' in data/ was made by another configuration than this run's: give the --params it was made "
                f"with, or make it again with `kedro run --pipelines={stage}`, or run all stages"
            )


def check_kind(pipelines: list[str], algorithm: Algorithm) -> None:
    """Raise InputError for an algorithm that is not of the pipeline's kind."""
    for pipeline, wants_likelihood in (("mrt_star", True), ("mrt_rl", False)):
        if pipeline in pipelines and algorithm.likelihood is not wants_likelihood:
            other = "mrt_rl" if wants_likelihood else "mrt_star"
            kind = "algorithms of likelihood (star, mrt_star)" if wants_likelihood else "the RL algorithms"
            raise InputError(f"pipeline {pipeline} takes {kind}; for algorithm={algorithm.name} run --pipeline={other}")


def _read(file: Path) -> dict[str, str]:
    return json.loads(file.read_text()) if file.exists() else {}
