"""Refusing stale inputs: what lies in data/ may only be used by a run whose configuration would make the same thing.

Kedro looks at whether a dataset exists, not at what made it. Here every saved dataset is noted in `data/keys.json` with
a key of the parameter groups that made it; before a stage runs alone, the keys of its inputs are compared with those
that the run's own parameters give.
"""

import json
from pathlib import Path

from kedro.pipeline import Pipeline

from mrt_pipeline.config import Parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.paths import data_folder
from mrt_pipeline.pipelines.keys import configuration_key

_BASE = ("task", "policy")
_TRACES = (*_BASE, "engine", "rollout")
_TRAINED = (*_TRACES, "prover", "algorithm", "training", "seed")
_EVALUATED = (*_TRAINED, "evaluation")
# dataset -> (stage that makes it, parameter groups that decide what is in it)
_MADE_BY = {
    "problems": ("ingest", ("task",)),
    "base_policy": ("warm_start", _BASE),
    "rollouts": ("rollout", (*_TRACES, "seed")),
    "base_rollouts": ("evaluate", (*_TRACES, "evaluation")),
    "base_samples": ("evaluate", (*_TRACES, "evaluation")),
    "base_linearised": ("evaluate", (*_TRACES, "evaluation")),
    "base_votes": ("evaluate", (*_TRACES, "evaluation")),
    "episodes": ("progress", (*_TRACES, "prover", "evaluation", "seed")),
    "anytime": ("progress", (*_TRACES, "prover", "evaluation", "seed")),
    "base_episodes": ("evaluate", (*_TRACES, "prover", "evaluation")),
    "base_anytime": ("evaluate", (*_TRACES, "prover", "evaluation")),
    "learning_signal": ("train", (*_TRACES, "prover", "evaluation", "seed")),
    "trained_policy": ("train", _TRAINED),
    "training_history": ("train", _TRAINED),
    "trained_rollouts": ("evaluate_trained", _EVALUATED),
    "trained_samples": ("evaluate_trained", _EVALUATED),
    "trained_linearised": ("evaluate_trained", _EVALUATED),
    "trained_episodes": ("evaluate_trained", _EVALUATED),
    "trained_anytime": ("evaluate_trained", _EVALUATED),
    "trained_votes": ("evaluate_trained", _EVALUATED),
    "regret": ("evaluate_trained", _EVALUATED),
    "accuracy": ("evaluate_trained", _EVALUATED),
    "regret_sources": ("evaluate_trained", _EVALUATED),
    "regret_sources_summary": ("evaluate_trained", _EVALUATED),
    "stop_and_vote": ("evaluate_trained", _EVALUATED),
    "stopping_regret": ("evaluate_trained", _EVALUATED),
    "majority": ("evaluate_trained", _EVALUATED),
}
_RECORD = "keys.json"


def dataset_key(name: str, parameters: Parameters) -> str:
    """The key of a dataset that `parameters` would make."""
    return configuration_key(**{group: getattr(parameters, group) for group in _MADE_BY[name][1]})


def note_saved(project: Path, name: str, parameters: Parameters) -> None:
    """Note which configuration made the dataset that was just saved."""
    if name not in _MADE_BY:
        return
    record = _read(project)
    record[name] = dataset_key(name, parameters)
    (project / data_folder() / _RECORD).write_text(json.dumps(record, indent=2, sort_keys=True))


def check_inputs(project: Path, pipeline: Pipeline, parameters: Parameters) -> None:
    """Raise InputError if an input that `pipeline` finds in data/ is missing or was made by another configuration."""
    record = _read(project)
    for name in sorted(pipeline.inputs() & _MADE_BY.keys()):
        stage = _MADE_BY[name][0]
        if name not in record:
            raise InputError(f"there is no '{name}' in data/ yet: run `kedro run --pipelines={stage}`, or all stages")
        if record[name] != dataset_key(name, parameters):
            raise InputError(
                f"'{name}' in data/ was made by another configuration than this run's: give the --params it was made "
                f"with, or make it again with `kedro run --pipelines={stage}`, or run all stages"
            )


def _read(project: Path) -> dict[str, str]:
    path = project / data_folder() / _RECORD
    return json.loads(path.read_text()) if path.exists() else {}
