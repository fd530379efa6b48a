from pathlib import Path

import pytest

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.keys import check_policy, policy_key

FOLDER = Path(__file__).parents[2] / "conf" / "base" / "parameters"


def parameters(**overrides):
    return Parameters.model_validate(compose_parameters(FOLDER, overrides))


@pytest.mark.parametrize(
    "change",
    [{"task": {"seed": 1}}, {"policy": {"hidden_size": 48}}, {"policy": {"warm_start": {"learner": {"beta2": 0.9}}}}],
)
def test_the_base_key_changes_with_whatever_makes_the_base(change):
    assert policy_key("base", parameters(**change)) != policy_key("base", parameters())


@pytest.mark.parametrize("change", [{"seed": 1}, {"algorithm": "grpo"}, {"prover": "sampled"}])
def test_what_only_concerns_training_changes_the_trained_key_alone(change):
    assert policy_key("base", parameters(**change)) == policy_key("base", parameters())
    assert policy_key("trained", parameters(**change)) != policy_key("trained", parameters())


def test_the_evaluation_is_free_to_change():
    assert policy_key("trained", parameters(evaluation={"n_problems": 7})) == policy_key("trained", parameters())


@pytest.mark.parametrize("name", ["base", "trained"])
def test_a_policy_of_another_configuration_is_refused(name):
    ref = {"name": name, "path": "somewhere", "key": policy_key(name, parameters())}
    check_policy(ref, parameters())
    with pytest.raises(InputError, match="another configuration"):
        check_policy(ref, parameters(task={"seed": 1}))
