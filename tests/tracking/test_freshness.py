from pathlib import Path

import pytest
from kedro.pipeline import Node, Pipeline

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.keys import dataset_keys
from mrt_pipeline.pipeline_registry import register_pipelines
from mrt_pipeline.tracking.freshness import check_inputs, check_kind, note_saved

FOLDER = Path(__file__).parents[2] / "conf" / "base" / "parameters"


def parameters(**overrides):
    return Parameters.model_validate(compose_parameters(FOLDER, overrides))


def keys(**overrides):
    return dataset_keys([WHOLE["__default__"]], parameters(**overrides))


WHOLE = register_pipelines()
DEFAULT = keys()
STAGE = Pipeline([Node(lambda problems, policy: None, ["problems", "base_policy"], "rollouts", name="stage")])


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("mrt_pipeline.tracking.freshness.registered", WHOLE)
    return tmp_path / "keys.json"


@pytest.mark.parametrize(
    ("change", "changed", "kept"),
    [
        ({"task": {"seed": 1}}, {"problems", "base_policy", "rollouts", "trained_policy"}, set()),
        ({"policy": {"warm_start": {"learner": {"beta2": 0.9}}}}, {"base_policy", "regret"}, {"problems"}),
        ({"seed": 1}, {"rollouts", "trained_policy"}, {"base_policy", "base_rollouts", "base_episodes"}),
        ({"algorithm": "grpo"}, {"trained_policy", "accuracy", "labels"}, {"base_policy", "base_episodes", "rollouts"}),
        ({"algorithm": "mrt"}, {"rollouts"}, {"base_rollouts"}),
        ({"training": {"learner": {"learning_rate": 1e-3}}}, {"trained_policy"}, {"rollouts", "episodes", "labels"}),
        (
            {"evaluation": {"confidence": 0.9}},
            {"regret", "accuracy", "majority", "stop_and_vote"},
            {"episodes", "base_episodes", "trained_episodes", "trained_anytime", "base_votes", "trained_policy"},
        ),
        ({"evaluation": {"n_votes": 9}}, {"base_votes"}, {"base_episodes", "base_rollouts"}),
        ({"prover": "sampled"}, {"base_episodes", "trained_policy"}, {"base_rollouts"}),
        (
            {"evaluation": {"n_traces": 3}, "training": {"register_as": "best", "log_checkpoints": False}},
            set(),
            {"trained_policy", "base_episodes", "regret"},
        ),
        (
            {"evaluation": {"n_problems": 7}},
            {"base_rollouts", "regret"},
            {"base_policy", "trained_policy", "rollouts"},  # it is only looked at before the base is made
        ),
    ],
)
def test_a_key_changes_with_what_makes_the_dataset_and_with_nothing_else(change, changed, kept):
    other = keys(**change)
    for name in changed:
        assert other[name] != DEFAULT[name], name
    for name in kept:
        assert other[name] == DEFAULT[name], name


def test_every_dataset_of_every_pipeline_has_a_key_of_its_own():
    for pipeline in WHOLE.values():
        found = dataset_keys([pipeline], parameters())
        assert found.keys() == pipeline.all_outputs()
        assert len({*found.values()}) == len(found)


def test_inputs_of_the_same_configuration_pass(file):
    for name in ("problems", "base_policy", "not_a_table"):
        note_saved(file, name, DEFAULT)
    check_inputs(file, STAGE, DEFAULT)
    check_inputs(file, STAGE, keys(seed=1))


def test_a_missing_input_is_refused_naming_the_stage_that_makes_it(file):
    note_saved(file, "problems", DEFAULT)
    with pytest.raises(InputError, match=r"no 'base_policy'.*--pipelines=base_policy"):
        check_inputs(file, STAGE, DEFAULT)


def test_an_input_of_another_configuration_is_refused(file):
    note_saved(file, "problems", DEFAULT)
    note_saved(file, "base_policy", keys(policy={"hidden_size": 48}))
    with pytest.raises(InputError, match=r"'base_policy'.*another configuration"):
        check_inputs(file, STAGE, DEFAULT)


@pytest.mark.parametrize(("pipeline", "algorithm"), [("mrt_rl", "star"), ("mrt_star", "grpo")])
def test_an_algorithm_of_the_other_kind_is_refused(pipeline, algorithm):
    with pytest.raises(InputError, match="run --pipeline="):
        check_kind([pipeline], Algorithm.member(algorithm)())


def test_algorithms_of_the_kind_and_other_pipelines_pass():
    check_kind(["mrt_rl"], Algorithm.member("mrt_online")())
    check_kind(["mrt_star"], Algorithm.member("mrt_star")())
    check_kind(["evaluate"], Algorithm.member("star")())
