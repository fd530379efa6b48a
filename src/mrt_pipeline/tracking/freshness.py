"""Refusing stale inputs: what lies in data/ may only be used by a run whose configuration would make the same thing.

Kedro looks at whether a dataset exists, not at what made it. Here every saved dataset is noted in `data/keys.json` with
its key (`keys.dataset_keys`); before a stage runs alone, the keys of its inputs are compared with those that the run's
own parameters give.
"""

import json
from pathlib import Path

from kedro.framework.project import pipelines as registered
from kedro.pipeline import Pipeline

from mrt_pipeline.config import Parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.keys import dataset_keys
from mrt_pipeline.paths import data_folder

_RECORD = "keys.json"


def keys_of_run(pipeline: Pipeline, parameters: Parameters) -> dict[str, str]:
    """The key of every dataset that a run of `pipeline` makes, or finds."""
    return dataset_keys([registered["__default__"], pipeline], parameters)


def note_saved(project: Path, name: str, keys: dict[str, str]) -> None:
    """Note which configuration made the dataset that was just saved. keys: of the run."""
    if name in keys:
        record = _read(project)
        record[name] = keys[name]
        (project / data_folder() / _RECORD).write_text(json.dumps(record, indent=2, sort_keys=True))


def check_inputs(project: Path, pipeline: Pipeline, keys: dict[str, str]) -> None:
    """Raise InputError if an input that `pipeline` finds in data/ is missing or was made by another configuration."""
    record = _read(project)
    for name in sorted(pipeline.inputs() & keys.keys()):
        stage = _stage(name)
        if name not in record:
            raise InputError(f"there is no '{name}' in data/ yet: run `kedro run --pipelines={stage}`, or all stages")
        if record[name] != keys[name]:
            raise InputError(
                f"'{name}' in data/ was made by another configuration than this run's: give the --params it was made "
                f"with, or make it again with `kedro run --pipelines={stage}`, or run all stages"
            )


def _stage(name: str) -> str:
    """The smallest pipeline that makes a dataset."""
    makers = {stage: pipeline for stage, pipeline in registered.items() if name in pipeline.all_outputs()}
    return min(makers, key=lambda stage: (len(makers[stage].nodes), stage))


def _read(project: Path) -> dict[str, str]:
    path = project / data_folder() / _RECORD
    return json.loads(path.read_text()) if path.exists() else {}
