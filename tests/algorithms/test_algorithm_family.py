"""The algorithms as a family: found by name, with the parameters that ship as defaults."""

import pytest

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.config import class_defaults
from mrt_pipeline.errors import InputError

BUDGETED = {"anytime", "brpo", "regret_to_go"}


@pytest.mark.parametrize("name", Algorithm.builtin)
def test_defaults_are_what_ships(name):
    given = class_defaults("algorithm", name)
    if name in BUDGETED:
        assert given.pop("budget") == "${rollout.thinking_budget}"
        with pytest.raises(ValueError, match="budget"):
            Algorithm.member(name)()
    own = {"budget": 8} if name in BUDGETED else {}
    assert Algorithm.member(name)(**own).model_dump() == given | own


@pytest.mark.parametrize("name", Algorithm.builtin)
def test_every_parameter_is_described_and_every_algorithm_is_found_by_its_name(name):
    found = Algorithm.model_validate({"name": name, **({"budget": 8} if name in BUDGETED else {})})
    assert type(found) is Algorithm.member(name) and found.name == name
    assert all(field.description for key, field in type(found).model_fields.items() if key != "name")


def test_others_are_refused():
    assert {"grpo", "mrt_online"} <= set(Algorithm.names())
    with pytest.raises(InputError, match=r"unknown algorithm 'ppo'.*grpo.*mrt_online"):
        Algorithm.member("ppo")
    with pytest.raises(ValueError, match="alhpa"):
        Algorithm.model_validate({"name": "mrt_online", "alhpa": 1.0})
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Algorithm.model_validate({"name": "mrt_online", "alpha": -1.0})
