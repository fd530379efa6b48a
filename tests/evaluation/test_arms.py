from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.arms import check_comparable, find_baseline, group_runs, shared_budgets
from mrt_pipeline.evaluation.arms import make_arms as arms_of_groups
from mrt_pipeline.evaluation.run_summary import measure_tables

BASES = ["policy.warm_start.seed"]


def make_arms(runs):
    return arms_of_groups(group_runs(runs, BASES))


@dataclass
class Run:
    """As tests need it: the tables can be changed until the summary is asked for."""

    run_id: str
    started: int
    parameters: dict
    tables: dict
    commit: str = "abc"

    def measures(self, policy):
        return measure_tables(self.tables, self.parameters, policy, self.run_id)

    @property
    def history(self):
        return self.tables["training_history"]


@pytest.fixture
def make_run():
    def make(
        run_id,
        algorithm="grpo",
        seed=0,
        forced=0.0,
        tokens=100,
        n_test=2,
        success=0.5,
        problems=("p", "q"),
        started=0,
        base=0,
    ):
        parameters = {
            "seed": seed,
            "preset": None,
            "task": {"n_test": n_test},
            "policy": {"name": "tiny", "warm_start": {"seed": base}},
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
        return Run(run_id, started, parameters, tables)

    return make


def test_seeds_of_one_configuration_are_one_arm(make_run):
    runs = [make_run("a", seed=2, success=0.5), make_run("b", seed=1, success=0.75), make_run("c", "mrt", seed=1)]
    base, grpo, mrt = make_arms(runs)
    assert [arm.name for arm in (base, grpo, mrt)] == ["base", "grpo", "mrt"]
    assert (base.seeds, grpo.seeds, mrt.seeds) == ((0,), (1, 2), (1,))
    assert grpo.values["accuracy", 10, False].tolist() == [[0.75, 0.75], [0.5, 0.5]]
    assert base.values["accuracy", 10, False].tolist() == [[0.25, 0.25]]
    assert np.allclose(grpo.values["regret", 10, False], [[0.25, 0.25], [0.5, 0.5]])
    assert grpo.thinking_tokens[10,].tolist() == [[8, 8], [8, 8]]
    assert len(grpo.histories) == 2 and base.histories == ()


def test_arms_of_one_algorithm_are_told_apart_by_what_differs(make_run):
    runs = [make_run("a"), make_run("b", forced=0.25), make_run("c", "mrt", forced=0.25)]
    names = [arm.name for arm in make_arms(runs)]
    assert names == ["base", "grpo training.forced_fraction=0.0", "grpo training.forced_fraction=0.25", "mrt"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_runs_with_the_same_seed_the_newest_is_taken(make_run, order, caplog):
    runs = [make_run(name, success=j, started=i) for i, (name, j) in enumerate((("a", 0.5), ("b", 0.25), ("c", 1.0)))]
    arms = make_arms([runs[i] for i in order])
    assert arms[1].values["accuracy", 10, False].tolist() == [[1.0, 1.0]]
    left_out = [line for line in caplog.messages if "is left out" in line]
    assert len(left_out) == 2 and not any(line.startswith("Run c") for line in left_out)


def test_the_arms_have_where_regret_comes_from_and_maj_at_k(make_run):
    base, grpo = make_arms([make_run("a", success=0.75), make_run("b", seed=1, success=0.25)])
    assert base.sources["all", "never_found", 10].tolist() == [[0.75, 0.75]]  # J stays at 0.25
    assert grpo.sources["all", "unsure", 10].tolist() == [[0.25, 0.25], [0, 0]]
    assert grpo.sources["easy", "found", 10].tolist() == [[1, 1], [0, 0]]  # the base's samples are all right
    assert {difficulty for difficulty, *_ in grpo.sources} == {"easy", "all"}
    assert np.array_equal(grpo.sources["all", "regret", 10], grpo.values["regret", 10, False])
    assert grpo.votes["tokens", 1].tolist() == [[6, 6], [6, 6]]


def forced_votes(problems, majority_after):
    """Eight answers at both ends of one episode; `majority_after` is the share of right ones after it."""
    rows = []
    for problem in problems:
        for episode, right in ((-1, 8), (0, round(8 * majority_after))):
            answers = ["1"] * right + ["0"] * (8 - right)
            rewards = [1.0] * right + [0.0] * (8 - right)
            where = {"problem_id": problem, "rollout_id": 0, "episode": episode, "n_tokens": 9 * (episode + 1)}
            rows.append({**where, "answers": answers, "rewards": rewards, "answer_tokens": [2] * 8})
    return pd.DataFrame(rows)


def test_runs_from_before_answers_were_forced_are_compared_without_stopping_regret(make_run, caplog):
    old, new, newer = make_run("a", started=1), make_run("b", "mrt"), make_run("c", "mrt", seed=1)
    for run in (new, newer):
        run.tables["trained_votes"] = forced_votes(["p", "q"], 1.0)
    new.tables["trained_votes"] = forced_votes(["p"], 0.0)
    base, grpo, mrt = make_arms([old, new, newer])
    assert (base.stopping, grpo.stopping) == ({}, {})
    # all right before; then to none: from 1 down to 0, so half of the area is lost; or all right after as well
    expected = np.array([[1 - 2.5 / 5, np.nan], [0.0, 0.0]])
    assert list(mrt.stopping) == [(1,)]
    np.testing.assert_allclose(mrt.stopping[1,], expected)
    assert "Run a has no table 'trained_votes'" in caplog.text and "Run b" not in caplog.text


def test_the_baseline_is_named_or_begins_so():
    arms = ["base", "grpo", "grpo forced", "mrt"]
    assert find_baseline(arms, "grpo") == "grpo"
    assert find_baseline(arms, "grpo f") == "grpo forced"
    with pytest.raises(InputError, match="fits more than one of the arms 'grpo', 'grpo forced', 'mrt'"):
        find_baseline(arms, "g")
    with pytest.raises(InputError, match="fits none"):
        find_baseline(arms, "base")


def test_runs_without_a_budget_in_common_are_refused(make_run):
    first, other = make_run("a"), make_run("b", "mrt")
    other.parameters["evaluation"]["budget_multiples"] = [2.0]
    with pytest.raises(InputError, match="no budget in common"):
        shared_budgets([first, other])


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


def test_runs_on_several_bases_are_one_arm_and_each_base_counts_as_itself(make_run):
    runs = [make_run("a", seed=1, success=0.5), make_run("b", seed=1, base=1, success=1.0), make_run("c", seed=2)]
    runs[1].tables["base_anytime"]["success"] = 0.75
    base, grpo = make_arms(runs)
    names = ("policy.warm_start.seed=0", "policy.warm_start.seed=1")
    assert (grpo.seeds, grpo.bases) == ((1, 2, 1), (names[0], names[0], names[1]))
    assert grpo.mean(grpo.values["accuracy", 10, False]) == pytest.approx(0.75)
    assert (base.seeds, base.bases) == ((0, 0), names)
    assert base.values["accuracy", 10, False].tolist() == [[0.25, 0.25], [0.75, 0.75]]


def test_only_bases_that_all_arms_have_are_compared(make_run, caplog):
    runs = [make_run("a"), make_run("b", base=1), make_run("c", "mrt", base=1)]
    assert [arm.bases for arm in make_arms(runs)] == [("policy.warm_start.seed=1",)] * 3
    assert "not all arms have runs on them: the bases policy.warm_start.seed=0" in caplog.text
    with pytest.raises(InputError, match="no base in common"):
        make_arms(runs[::2])


def test_bases_may_differ_only_in_what_is_named(make_run):
    runs = [make_run("a"), make_run("b", base=1)]
    check_comparable(runs, BASES)
    with pytest.raises(InputError, match=r"policy\.warm_start\.seed \(0 and 1\).*compare\.bases"):
        check_comparable(runs)
    assert [arm.name for arm in arms_of_groups(group_runs(runs))[1:]] == [
        f"grpo policy.warm_start.seed={base}" for base in (0, 1)
    ]


ARMS = {"outcome": {"algorithm.name": "grpo", "training.forced_fraction": 0.0}, "progress": {"algorithm.name": "mrt"}}


def test_arms_are_chosen_and_named_and_other_runs_left_out(make_run, caplog):
    caplog.set_level("INFO")
    runs = [make_run("a", seed=1), make_run("b", "mrt", seed=1), make_run("c", forced=0.25), make_run("d", seed=2)]
    arms = group_runs(runs, BASES, ARMS)
    found = {name: sorted(run.run_id for run in own.values()) for name, own in arms.items()}
    assert found == {"outcome": ["a", "d"], "progress": ["b"]}
    assert "1 runs fit none" in caplog.text


@pytest.mark.parametrize(
    "runs, wanted, said",
    [
        ([{"run_id": "a"}], ARMS, "no run fits the arm 'progress' \\(algorithm.name=mrt\\)"),
        ([{"run_id": "a"}], {"x": {"algorithm.name": "grpo"}, "y": {"seed": 0}}, "run a fits the arms 'x' and 'y'"),
        (
            [{"run_id": "a"}, {"run_id": "b", "seed": 1, "forced": 0.5}],
            {"x": {"algorithm.name": "grpo"}},
            "a and b both fit the arm 'x', but differ in training.forced_fraction \\(0.0 and 0.5\\)",
        ),
    ],
)
def test_arms_that_are_not_one_configuration_each_are_refused(make_run, runs, wanted, said):
    with pytest.raises(InputError, match=said):
        group_runs([make_run(**run) for run in runs], BASES, wanted)


def test_a_parameter_that_an_older_run_does_not_know_is_no_difference(make_run):
    old, new = make_run("a", seed=1), make_run("b", seed=2)
    new.parameters["training"]["groups"] = 32
    assert len(group_runs([old, new], BASES)) == 2
    assert len(group_runs([old, new], BASES, {"GRPO": {"algorithm.name": "grpo"}})["GRPO"]) == 2
