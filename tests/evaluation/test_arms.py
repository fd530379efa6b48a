from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.arms import check_comparable, make_arms


@pytest.fixture
def make_run():
    def make(run_id, algorithm="grpo", seed=0, forced=0.0, tokens=100, n_test=2, success=0.5, problems=("p", "q")):
        parameters = {
            "seed": seed,
            "preset": None,
            "task": {"n_test": n_test},
            "policy": {"name": "tiny"},
            "engine": {"name": "torch"},
            "prover": {"name": "exact"},
            "algorithm": {"name": algorithm},
            "rollout": {"thinking_budget": 10},
            "training": {"sampled_tokens": tokens, "forced_fraction": forced},
            "evaluation": {"budget_multiples": [1.0]},
            "compare": {"runs": run_id},
        }
        tables = {"training_history": pd.DataFrame({"step": [0]})}
        for policy, j in (("base", 0.25), ("trained", success)):
            trace = {"policy": policy, "problem_id": list(problems), "rollout_id": 0}
            tables[f"{policy}_rollouts"] = pd.DataFrame({**trace, "natural_length": 8})
            tokens = {f"{part}_token_ids": [[1, 2]] * len(problems) for part in ("thought", "close", "answer")}
            tables[f"{policy}_samples"] = pd.DataFrame(
                {**trace, "answer_text": "1", "grade": "correct", "reward": 1.0, **tokens}
            )
            tables[f"{policy}_anytime"] = pd.DataFrame({**trace, "n_tokens": 10, "success": j, "forced": False})
            tables[f"{policy}_episodes"] = pd.DataFrame({**trace, "n_tokens": 0, "success": j, "forced": False})
        return SimpleNamespace(run_id=run_id, parameters=parameters, tables=tables)

    return make


def test_seeds_of_one_configuration_are_one_arm(make_run):
    runs = [make_run("a", seed=2, success=0.5), make_run("b", seed=1, success=0.75), make_run("c", "mrt", seed=1)]
    base, grpo, mrt = make_arms(runs)
    assert [arm.name for arm in (base, grpo, mrt)] == ["base", "grpo", "mrt"]
    assert (base.seeds, grpo.seeds, mrt.seeds) == ((0,), (1, 2), (1,))
    assert grpo.values["accuracy", 10, False].tolist() == [[0.75, 0.75], [0.5, 0.5]]
    assert base.values["accuracy", 10, False].tolist() == [[0.25, 0.25]]
    assert np.allclose(grpo.values["regret", 10, False], [[0.25, 0.25], [0.5, 0.5]])
    assert grpo.thinking_tokens[10, False] == 8
    assert len(grpo.histories) == 2 and base.histories == ()


def test_arms_of_one_algorithm_are_told_apart_by_what_differs(make_run):
    runs = [make_run("a"), make_run("b", forced=0.25), make_run("c", "mrt", forced=0.25)]
    names = [arm.name for arm in make_arms(runs)]
    assert names == ["base", "grpo training.forced_fraction=0.0", "grpo training.forced_fraction=0.25", "mrt"]


def test_a_second_run_of_the_same_seed_is_left_out(make_run):
    arms = make_arms([make_run("a", success=0.5), make_run("b", success=1.0)])
    assert arms[1].values["accuracy", 10, False].tolist() == [[0.5, 0.5]]


def test_only_problems_in_common_are_compared(make_run):
    arms = make_arms([make_run("a"), make_run("b", "mrt", problems=("q", "r"))])
    assert all(arm.values["accuracy", 10, False].shape == (1, 1) for arm in arms)
    with pytest.raises(InputError, match="in common"):
        make_arms([make_run("a"), make_run("b", "mrt", problems=("r",))])


@pytest.mark.parametrize(
    ("change", "named"), [({"tokens": 200}, "training.sampled_tokens"), ({"n_test": 3}, "task.n_test")]
)
def test_runs_that_are_not_comparable_are_refused_by_name(make_run, change, named):
    with pytest.raises(InputError, match=named):
        check_comparable([make_run("a"), make_run("b", "mrt", **change)])


def test_what_is_compared_may_differ(make_run):
    check_comparable([make_run("a"), make_run("b", "mrt", seed=3, forced=0.5)])
