"""The tree: what is not given comes from the classes, and parts must fit each other."""

from pathlib import Path

import pytest
import yaml

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.config import CLASSES, Parameters, class_defaults, class_names
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.params import credit_name
from mrt_pipeline.keys import configuration_key
from mrt_pipeline.policy.configured import PolicyParams

FOLDER = Path(__file__).parents[1] / "conf/base/parameters"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CLASSES for name in class_names(group)])
def test_each_class_is_offered_with_its_own_defaults(group, name):
    values, kind = class_defaults(group, name), CLASSES[group]
    model = kind.member(name) if hasattr(kind, "member") else kind
    given = {key: value for key, value in values.items() if value != "???" and not str(value).startswith("${")}
    assert values.keys() == model.model_fields.keys()
    assert given.keys() == {key for key, field in model.model_fields.items() if not field.is_required()}
    for key, value in given.items():
        default = model.model_fields[key].default
        assert value == (default.model_dump(mode="json") if hasattr(default, "model_dump") else _plain(default)), key


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", Algorithm.names())
def test_an_algorithm_is_chosen_with_the_defaults_of_its_class(name):
    given = {"algorithm": name, "rollout.thinking_budget": "54"}
    needs = {"budget": 54} if name in ("anytime", "brpo", "regret_to_go") else {}
    training = {"training": "star"} if Algorithm.member(name).likelihood else {}
    assert compose_parameters(FOLDER, given | training)["algorithm"] == Algorithm.member(name)(**needs).model_dump()


def test_the_policies_without_a_file_are_those_of_the_classes():
    assert compose_parameters(FOLDER, {})["policy"] == PolicyParams.member("tiny")().model_dump()
    given = {"policy": "language_model", "policy.path": "m", "task": "math", "prover": "sampled"}
    found = compose_parameters(FOLDER, given | {"task.train": "[a.json]", "task.evaluation": "[b.json]"})["policy"]
    assert found == PolicyParams.member("language_model")(path="m").model_dump()


def test_no_file_repeats_what_its_class_says():
    for file in FOLDER.glob("*/*.yaml"):
        if file.parent.name in CLASSES and file.stem in class_names(file.parent.name):
            values = yaml.safe_load(file.read_text())
            defaults = class_defaults(file.parent.name, file.stem)
            own = values.get(file.parent.name, {})
            assert not [key for key, value in own.items() if defaults[key] == value], file


@pytest.mark.parametrize("key", ["rollout.n_problems", "rollout.n_rollouts"])
def test_a_key_of_an_earlier_version_is_refused_with_what_took_its_place(key):
    with pytest.raises(InputError, match=r"is no parameter any more: .*training\.group"):
        compose_parameters(FOLDER, {key: "4"})
    tree = compose_parameters(FOLDER, {})
    group, name = key.split(".")
    with pytest.raises(ValueError, match="Extra inputs"):
        Parameters.model_validate({**tree, group: {**tree[group], name: 4}})


def test_what_is_trained_is_not_sampled_greedily():
    with pytest.raises(InputError, match=r"rollout\.temperature is 0"):
        compose_parameters(FOLDER, {"rollout.temperature": "0"})


def test_the_algorithms_of_a_diagnosis_are_given_by_name_and_completed_as_the_chosen_one():
    given = {"rollout.thinking_budget": "54", "diagnose.algorithms": "[grpo,{name: anytime, alpha: 2},brpo]"}
    found = compose_parameters(FOLDER, given)["diagnose"]["algorithms"]
    assert [entry["name"] for entry in found] == ["grpo", "anytime", "brpo"]
    assert (
        found[1] == compose_parameters(FOLDER, {**given, "algorithm": "anytime", "algorithm.alpha": "2"})["algorithm"]
    )
    default = Parameters.model_validate(compose_parameters(FOLDER, {})).diagnose.algorithms
    names = ["grpo", "mrt_online alpha=0", "mrt_online", "anytime"]
    assert [credit_name(algorithm) for algorithm in default] == names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[nonsense]", "unknown algorithm 'nonsense'; known are anytime, brpo"),
        ("[mrt]", r"diagnose\.algorithms.* mrt starts from stale prefixes"),
        ("[{name: grpo, alpha: 1}]", r"diagnose\.algorithms\.0\.alpha: unknown parameter"),
        ("[{alpha: 1}]", "the algorithm has no name"),
        ("[grpo,grpo]", "'grpo' is there twice"),
        ("grpo", "should be a valid list"),
    ],
)
def test_algorithms_that_cannot_be_diagnosed_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        compose_parameters(FOLDER, {"diagnose.algorithms": given})


def test_what_a_diagnosis_looks_at_changes_no_key_of_a_training():
    trees = [compose_parameters(FOLDER, given) for given in ({}, {"diagnose.algorithms": "[star]"})]
    one, other = map(Parameters.model_validate, trees)
    assert one != other and configuration_key(p=one) == configuration_key(p=other) and "diagnose" not in one.deciding()
