from pathlib import Path

import pytest
from kedro.pipeline import Node, Pipeline

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking.freshness import check_inputs, dataset_key, note_saved

FOLDER = Path(__file__).parents[2] / "conf" / "base" / "parameters"


def parameters(**overrides):
    return Parameters.model_validate(compose_parameters(FOLDER, overrides))


DEFAULT = parameters()
STAGE = Pipeline([Node(lambda problems, policy: None, ["problems", "base_policy"], "rollouts", name="stage")])


@pytest.fixture
def project(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("change", "changed", "kept"),
    [
        ({"task": {"seed": 1}}, {"problems", "base_policy", "rollouts", "trained_policy"}, set()),
        ({"policy": {"warm_start": {"learner": {"beta2": 0.9}}}}, {"base_policy", "regret"}, {"problems"}),
        ({"seed": 1}, {"rollouts", "trained_policy"}, {"base_policy", "base_rollouts", "base_episodes"}),
        ({"algorithm": "grpo"}, {"trained_policy", "accuracy"}, {"base_policy", "episodes"}),
        ({"prover": "sampled"}, {"base_episodes", "trained_policy"}, {"base_rollouts"}),
        (
            {"evaluation": {"n_traces": 3}, "training": {"register_as": "best", "log_checkpoints": False}},
            set(),
            {"trained_policy", "base_episodes", "regret"},
        ),
        ({"evaluation": {"n_problems": 7}}, {"base_rollouts", "regret"}, {"trained_policy", "rollouts"}),
    ],
)
def test_a_key_changes_with_what_makes_the_dataset_and_with_nothing_else(change, changed, kept):
    other = parameters(**change)
    for name in changed:
        assert dataset_key(name, other) != dataset_key(name, DEFAULT), name
    for name in kept:
        assert dataset_key(name, other) == dataset_key(name, DEFAULT), name


def test_inputs_of_the_same_configuration_pass(project):
    for name in ("problems", "base_policy", "not_a_table"):
        note_saved(project, name, DEFAULT)
    check_inputs(project, STAGE, DEFAULT)
    check_inputs(project, STAGE, parameters(seed=1))


def test_a_missing_input_is_refused_naming_the_stage_that_makes_it(project):
    note_saved(project, "problems", DEFAULT)
    with pytest.raises(InputError, match=r"no 'base_policy'.*--pipelines=warm_start"):
        check_inputs(project, STAGE, DEFAULT)


def test_an_input_of_another_configuration_is_refused(project):
    note_saved(project, "problems", DEFAULT)
    note_saved(project, "base_policy", parameters(policy={"hidden_size": 48}))
    with pytest.raises(InputError, match=r"'base_policy'.*another configuration"):
        check_inputs(project, STAGE, DEFAULT)
