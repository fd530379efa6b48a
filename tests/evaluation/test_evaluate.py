from itertools import product

import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.evaluation.evaluate import accuracy_by_budget, budgets_of, regret_by_all_tokens, regret_by_budget
from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.mrt.regret import regret

INTERVALS = Intervals(0.95, 50, 0)


def episodes(*traces):
    """Rows from (policy, problem, rollout, boundaries, success, natural length)."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "policy": policy,
                    "problem_id": problem,
                    "rollout_id": rollout,
                    "episode": np.arange(-1, len(x) - 1),
                    "n_tokens": x,
                    "success": y,
                    "forced": np.asarray(x) > natural,
                }
            )
            for policy, problem, rollout, x, y, natural in traces
        ],
        ignore_index=True,
    )


TRACES = [
    ("base", "a", 0, [0, 4, 8], [0.0, 1.0, 0.5], 4),
    ("base", "a", 1, [0, 8], [0.25, 0.25], 8),
    ("base", "b", 0, [0, 2, 8], [0.0, 0.0, 1.0], 2),
    ("trained", "a", 0, [0, 8], [1.0, 1.0], 8),
    ("trained", "b", 0, [0, 8], [1.0, 1.0], 8),
]


def regret_of(table, policy, budget, forced, definition="paper"):
    row = table[(table["policy"] == policy) & (table["budget"] == budget) & (table["forced"] == forced)]
    row = row[row["definition"] == definition]
    assert len(row) == 1
    return row["regret"].item()


def test_regret_is_the_mean_over_traces_then_problems():
    table = regret_by_budget(episodes(*TRACES), [4, 8, 16], INTERVALS)
    assert len(table) == 2 * 2 * 3 * 2
    for budget, definition in product((4, 8, 16), ("paper", "step")):
        for forced in (False, True):
            curves = {}
            for policy, problem, _, x, y, natural in TRACES:
                kept = [i for i, tokens in enumerate(x) if forced or tokens <= natural]
                found = regret(np.array(x)[kept], np.array(y)[kept], budget, definition)
                curves.setdefault((policy, problem), []).append(found)
            for policy in ("base", "trained"):
                expected = np.mean([np.mean(values) for key, values in curves.items() if key[0] == policy])
                assert regret_of(table, policy, budget, forced, definition) == pytest.approx(expected)


def test_regret_by_all_tokens_counts_prompt_thought_and_answers():
    votes = pd.DataFrame(
        [
            ("base", "a", 0, -1, 0, [0.0, 1.0], [2, 4]),
            ("base", "a", 0, 0, 5, [1.0, 1.0], [1, 1]),
            ("base", "b", 0, -1, 0, [0.0, 0.0], [9, 9]),
            ("base", "b", 0, 0, 2, [1.0, 1.0], [1, 3]),  # 2 + 2 + 2 tokens, before the point of the empty prefix
        ],
        columns=["policy", "problem_id", "rollout_id", "episode", "n_tokens", "rewards", "answer_tokens"],
    )
    prompts = [np.zeros(4, int), np.zeros(2, int)]
    rollouts = pd.DataFrame({"policy": "base", "problem_id": ["a", "b"], "rollout_id": 0, "prompt_token_ids": prompts})
    table = regret_by_all_tokens(votes, rollouts, [10, 20], INTERVALS)
    assert set(table["definition"]) == {"paper_all_tokens"} and not table["forced"].any()
    a = regret(np.array([4 + 3, 4 + 5 + 1]), np.array([0.5, 1.0]), 20)
    b = regret(np.array([2 + 2 + 2, 2 + 9]), np.array([1.0, 0.0]), 20)
    assert regret_of(table, "base", 20, False, "paper_all_tokens") == pytest.approx((a + b) / 2)


def test_the_natural_curve_holds_its_last_value_and_the_forced_one_goes_on():
    table = regret_by_budget(episodes(TRACES[0]), [8], INTERVALS)
    # Natural: up to 1 at 4 tokens, held to 8: area (2 + 4) / 8. Forced: down to 0.5 at 8: area (2 + 3) / 8.
    assert regret_of(table, "base", 8, False) == pytest.approx(1 - 6 / 8)
    assert regret_of(table, "base", 8, True) == pytest.approx(1 - 5 / 8)


def test_up_to_the_natural_end_both_readings_agree():
    table = regret_by_budget(episodes(*TRACES), [2], INTERVALS)
    for policy in ("base", "trained"):
        assert regret_of(table, policy, 2, False) == pytest.approx(regret_of(table, policy, 2, True))


def test_regret_intervals_hold_the_regret():
    table = regret_by_budget(episodes(*TRACES), [4, 8], INTERVALS)
    assert (table["ci_low"] <= table["regret"]).all() and (table["regret"] <= table["ci_high"]).all()
    base = table[table["policy"] == "base"]
    assert (base["ci_low"] < base["ci_high"]).all()
    again = regret_by_budget(episodes(*TRACES), [4, 8], INTERVALS)
    pd.testing.assert_frame_equal(table, again)


@pytest.fixture
def anytime_and_rollouts():
    rows, lengths = [], []
    for problem, rollout, natural, values in (
        ("a", 0, 3, (0.0, 0.5)),
        ("a", 1, 12, (0.5, 1.0)),
        ("b", 0, 6, (0.25, 0.25)),
    ):
        lengths.append({"policy": "base", "problem_id": problem, "rollout_id": rollout, "natural_length": natural})
        for budget, value in zip((4, 8), values, strict=True):
            for forced in (False, True):
                if forced and problem == "b" and budget == 8:
                    continue  # was not forced on to 8
                rows.append(
                    {
                        "policy": "base",
                        "problem_id": problem,
                        "rollout_id": rollout,
                        "n_tokens": budget,
                        "success": value / 2 if forced else value,
                        "forced": forced,
                    }
                )
    return pd.DataFrame(rows), pd.DataFrame(lengths)


def test_accuracy_by_hand(anytime_and_rollouts):
    table = accuracy_by_budget(*anytime_and_rollouts, [4, 8, 99], INTERVALS).set_index(["forced", "budget"])
    assert sorted(table.index) == [(False, 4), (False, 8), (True, 4), (True, 8)]  # nothing is known at 99
    assert table.loc[(False, 4), "accuracy"] == pytest.approx((0.25 + 0.25) / 2)
    assert table.loc[(False, 8), "accuracy"] == pytest.approx((0.75 + 0.25) / 2)
    assert table.loc[(True, 4), "accuracy"] == pytest.approx(0.125)
    assert table.loc[(True, 8), "accuracy"] == pytest.approx(0.375)  # problem a alone
    assert table.loc[(False, 4), "thinking_tokens"] == pytest.approx((3 + 4 + 4) / 3)
    assert table.loc[(False, 8), "thinking_tokens"] == pytest.approx((3 + 8 + 6) / 3)
    assert table.loc[(True, 4), "thinking_tokens"] == 4 and table.loc[(True, 8), "thinking_tokens"] == 8
    assert (table["ci_low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["ci_high"]).all()


def test_policies_are_kept_apart(anytime_and_rollouts):
    anytime, rollouts = anytime_and_rollouts
    other = anytime.assign(policy="trained", success=1.0)
    both = accuracy_by_budget(
        pd.concat([anytime, other]), pd.concat([rollouts, rollouts.assign(policy="trained")]), [4], INTERVALS
    )
    natural = both[~both["forced"]].set_index("policy")["accuracy"]
    assert natural["trained"] == 1 and natural["base"] == 0.25


@pytest.mark.parametrize(
    ("multiples", "expected"),
    [
        ([1.0], [96]),
        ([2.0, 0.25, 1.0], [24, 96, 192]),
        ([0.001, 0.5, 0.5], [1, 48]),
        ([1.001, 1.0], [96]),
    ],
)
def test_budgets_are_ascending_and_distinct(multiples, expected):
    assert budgets_of(96, multiples) == expected


def test_differences_to_the_base_are_paired_by_problem():
    table = regret_by_budget(episodes(*TRACES), [8], INTERVALS).set_index(["policy", "forced", "definition"])
    assert table.loc["base", ["difference", "difference_low", "difference_high"]].isna().all(axis=None)
    for which in product((False, True), ("paper", "step")):
        base, trained = table.loc[("base", *which)], table.loc[("trained", *which)]
        assert trained["difference"] == pytest.approx(trained["regret"] - base["regret"])
        # the trained regret is 0 everywhere, so the difference varies as the base's regret
        expected = (-base["ci_high"], -base["ci_low"])
        assert (trained["difference_low"], trained["difference_high"]) == pytest.approx(expected)
