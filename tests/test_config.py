"""The tree: the values that ship are the defaults of the classes, and parts must fit each other."""

from pathlib import Path

import pytest
import yaml

from mrt_pipeline.config import FAMILIES, Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.trainer.learner import LearnerParams

FOLDER = Path(__file__).parents[1] / "conf/base/parameters"
SHIPPED = [
    (family.member(name), FOLDER / group / f"{name}.yaml")
    for group, family in FAMILIES.items()
    for name in family.builtin
    if group in ("engine", "prover", "algorithm")
]
GROUPS = [(RolloutParams, FOLDER / "rollout/default.yaml"), (LearnerParams, FOLDER / "learner/default.yaml")]


@pytest.mark.parametrize(("member", "file"), [*SHIPPED, *GROUPS], ids=lambda value: getattr(value, "__name__", ""))
def test_the_files_hold_the_defaults_of_the_classes(member, file):
    values = yaml.safe_load(file.read_text())
    values = values.get("algorithm", values)  # a file of the whole tree, as algorithm/mrt.yaml
    given = {name: value for name, value in values.items() if not str(value).startswith("${")}
    defaults = {name: field.default for name, field in member.model_fields.items() if not field.is_required()}
    assert given == defaults
    assert values.keys() == member.model_fields.keys()


def test_the_policies_of_the_files_are_those_of_the_classes():
    tiny = compose_parameters(FOLDER, {})["policy"]
    assert tiny == FAMILIES["policy"].member("tiny")().model_dump()
    given = {"policy": "language_model", "policy.path": "m", "task": "math", "prover": "sampled"}
    found = compose_parameters(FOLDER, given | {"task.train": "[a.json]", "task.evaluation": "[b.json]"})["policy"]
    assert found == FAMILIES["policy"].member("language_model")(path="m").model_dump()


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
