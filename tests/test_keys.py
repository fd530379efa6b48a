import numpy as np
import pandas as pd
import pytest
from kedro.pipeline import Node, Pipeline
from pydantic import BaseModel

from mrt_pipeline.keys import call_key, configuration_key, dataset_keys, reads
from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.reuse import shared
from mrt_pipeline.rollouts.prover import SampledProver


def measure(table, policy, prover, n):
    return table


TABLE = pd.DataFrame({"problem_id": ["a", "b"], "tokens": [np.array([1, 2]), np.array([3])]})


@pytest.fixture
def policy(tiny_policy):
    return SavedPolicy(tiny_policy.card.model_copy(update={"key": "one"}))


def test_the_key_of_a_call_changes_with_any_of_its_arguments_and_with_nothing_else(policy):
    given = (TABLE, policy, SampledProver(n_answers=4), 3)
    key = call_key(measure, *given)
    assert len(key) == 12 and key == call_key(measure, TABLE.copy(), policy.called(name="trained"), *given[2:])
    other = TABLE.assign(tokens=[np.array([1, 2]), np.array([4])])
    for i, changed in enumerate((other, policy.called(key="two"), SampledProver(n_answers=5), 4)):
        assert call_key(measure, *given[:i], changed, *given[i + 1 :]) != key
    assert call_key(lambda table, policy, prover, n: table, *given) != key


def test_a_table_has_the_key_that_it_has_after_a_file(tmp_path):
    TABLE.to_parquet(tmp_path / "table.parquet")
    once = pd.read_parquet(tmp_path / "table.parquet")
    once.to_parquet(tmp_path / "again.parquet")
    assert configuration_key(table=once) == configuration_key(table=pd.read_parquet(tmp_path / "again.parquet"))


class Tree(BaseModel):
    size: int = 1
    prover: SampledProver = SampledProver(n_answers=2)


def make(size):
    return size


@reads(prover=["name"])
def judge(prover):
    return prover


@reads(n=[])
def check(table, n):
    return table


def test_only_what_is_read_of_an_argument_counts():
    assert call_key(judge, SampledProver(n_answers=2)) == call_key(judge, SampledProver(n_answers=3))
    pipeline = Pipeline([Node(judge, "params:prover", "judged")])
    few, many = (dataset_keys([pipeline], Tree(prover=SampledProver(n_answers=n))) for n in (2, 3))
    assert few == many
    assert call_key(check, TABLE, 1) == call_key(check, TABLE, 2)


@reads(prover=["name"])
def name_and_number(prover):
    return prover.name, prover.n_answers


def test_a_function_gets_no_more_of_an_argument_than_it_says_it_reads():
    assert judge(SampledProver(n_answers=2)).name == "sampled"
    with pytest.raises(AttributeError, match="n_answers"):
        name_and_number(SampledProver(n_answers=2))
    assert check(TABLE, 1) is TABLE


def several(n, *tables):
    return tables


def test_every_one_of_several_inputs_counts():
    made = [Node(make, "params:size", "made"), Node(label, ["made", "params:prover.n_answers"], "labels", name="label")]
    found = []
    for inputs in (["made"], ["made", "labels"], ["labels", "made"]):
        node = Node(several, ["params:size", *inputs], "joined")
        found.append(dataset_keys([Pipeline([*made, node])], Tree())["joined"])
    assert len({*found}) == 3
    assert call_key(several, 1, TABLE) != call_key(several, 1, TABLE, TABLE)


def label(made, n_answers):
    return made


def test_a_dataset_depends_on_its_inputs_and_on_the_parameters_that_are_read():
    pipeline = Pipeline(
        [Node(make, "params:size", "made"), Node(label, ["made", "params:prover.n_answers"], ["labels"], name="label")]
    )
    keys = dataset_keys([pipeline], Tree())
    assert keys.keys() == {"made", "labels"}
    assert dataset_keys([pipeline], Tree(size=2)).keys() == keys.keys()
    assert all(dataset_keys([pipeline], Tree(size=2))[name] != keys[name] for name in keys)
    other = dataset_keys([pipeline], Tree(prover=SampledProver(n_answers=3)))
    assert other["made"] == keys["made"] and other["labels"] != keys["labels"]


def test_the_last_pipeline_that_makes_a_dataset_counts():
    first, second = (Pipeline([Node(function, "params:size", "made")]) for function in (make, len))
    assert dataset_keys([first, second], Tree()) == dataset_keys([second], Tree())


def test_what_is_shared_is_made_once_for_the_same_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []

    @shared
    def tables(n):
        calls.append(n)
        return pd.DataFrame({"n": [n]}), TABLE

    for n in (1, 2, 1):
        first, second = tables(n)
        assert first["n"].tolist() == [n] and second["tokens"][0].tolist() == [1, 2]
    assert calls == [1, 2]


def test_what_fails_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @shared
    def table(fails):
        if fails.pop():
            raise RuntimeError("once")
        return TABLE

    with pytest.raises(RuntimeError):
        table([False, True])
    assert len(table([False])) == 2
