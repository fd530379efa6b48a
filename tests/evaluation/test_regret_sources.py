import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.evaluation.regret_sources import (
    SOURCES,
    difficulty_of,
    regret_sources,
    summarize_sources,
    trace_sources,
)
from mrt_pipeline.mrt.regret import regret
from mrt_pipeline.schemas import REGRET_SOURCES, REGRET_SOURCES_SUMMARY


@st.composite
def traces(draw):
    lengths = draw(st.lists(st.integers(1, 12), min_size=0, max_size=7))
    n_tokens = np.cumsum([0, *lengths])
    values = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
    success = np.array(draw(st.lists(values, min_size=len(n_tokens), max_size=len(n_tokens))))
    return n_tokens, success, draw(st.integers(1, 60))


def on_a_grid(n_tokens, success, budget, threshold, steps=200_000):
    """The same by walking along the curve in small steps."""
    t = (np.arange(steps) + 0.5) * budget / steps
    height = 1 - np.interp(t, n_tokens, success)
    ends, values = list(n_tokens), list(success)
    if budget not in ends:  # the cut episode ends at the budget, the held value as well
        values = [value for end, value in zip(ends, values) if end < budget] + [np.interp(budget, ends, values)]
        ends = [end for end in ends if end < budget] + [budget]
    first = next((end for end, value in zip(ends, values) if end <= budget and value >= threshold), None)
    parts = dict.fromkeys(SOURCES, 0.0)
    for i in range(1, len(ends)):
        area = height[(t > ends[i - 1]) & (t < min(ends[i], budget))].sum() / steps
        if first is None:
            parts["never_found"] += area
        elif ends[i] <= first:
            parts["found_late"] += area
        else:
            parts["unsure" if values[i] >= threshold else "lost"] += area
    return parts


@given(traces())
def test_the_parts_sum_to_the_regret(trace):
    parts = trace_sources(*trace, threshold=0.5)
    assert sum(parts.values()) == pytest.approx(regret(*trace), abs=1e-12)
    assert min(parts.values()) >= 0
    assert parts["never_found"] == 0 or parts["never_found"] == sum(parts.values())


@pytest.mark.parametrize("seed", range(8))
def test_the_parts_equal_a_walk_along_the_curve(seed):
    rng = np.random.default_rng(seed)
    n_tokens = np.cumsum([0, *rng.integers(1, 12, size=6)])
    success = rng.random(7) * (seed % 4 > 0) * 1.2 % 1
    for budget in (5, 17, 80):
        expected = on_a_grid(n_tokens, success, budget, 0.5)
        assert trace_sources(n_tokens, success, budget, 0.5) == pytest.approx(expected, abs=1e-4)


def test_a_trace_that_is_right_from_the_start_has_no_regret_and_one_that_never_is_has_all():
    right = trace_sources(np.array([0, 10]), np.array([1.0, 1.0]), 20, 0.5)
    assert right == dict.fromkeys(SOURCES, 0.0)
    wrong = trace_sources(np.array([0, 10]), np.array([0.0, 0.0]), 20, 0.5)
    assert wrong == {**dict.fromkeys(SOURCES, 0.0), "never_found": 1.0}


def test_parts_are_fractions_in_spite_of_rounding():
    parts = trace_sources(np.array([0, 43, 70, 95, 145, 192]), np.zeros(6), 192, 0.5)
    assert parts["never_found"] == 1.0


def table(policy, problem, n_tokens, success, rollout_id=0):
    return pd.DataFrame(
        {
            "policy": policy,
            "problem_id": problem,
            "rollout_id": rollout_id,
            "n_tokens": n_tokens,
            "success": success,
            "forced": False,
            "stopped": False,
        }
    )


def test_the_table_by_hand():
    episodes = pd.concat(
        [
            table("base", "a", [0, 10, 20], [0.0, 1.0, 0.0]),  # found at 10, lost at 20
            table("base", "b", [0, 10], [0.0, 0.0]),  # never found
        ]
    )
    samples = pd.DataFrame({"problem_id": ["a", "a", "b", "b"], "reward": [1.0, 1.0, 0.0, 0.0]})
    found = regret_sources(episodes, samples, budget=40)
    REGRET_SOURCES.validate(found)
    a, b = found.to_dict("records")
    assert (a["difficulty"], b["difficulty"]) == ("easy", "hard")
    assert (a["found_at"], a["tokens_after"]) == (10, 10)
    assert np.isnan(b["found_at"]) and np.isnan(b["tokens_after"])
    assert a["found_late"] == pytest.approx(5 / 40)
    assert a["lost"] == pytest.approx((5 + 20) / 40)
    assert (b["never_found"], b["regret"]) == (1.0, 1.0)
    summary = summarize_sources(found, Intervals(0.95, 50, 0))
    REGRET_SOURCES_SUMMARY.validate(summary)
    whole = summary[summary["difficulty"] == "all"].set_index("quantity")
    assert set(whole["n_problems"]) == {2} and whole.loc["found", "mean"] == 0.5
    assert whole.loc["regret", "mean"] == pytest.approx((a["regret"] + b["regret"]) / 2)
    assert whole.loc["tokens_after", "mean"] == 10  # of the trace that finds
    assert dict.fromkeys(summary["difficulty"]).keys() == {"easy", "hard", "all"}
    assert summary["difference"].isna().all()


def test_the_summary_compares_the_policies_by_problem():
    rng = np.random.default_rng(0)

    def random_table(policy, problem, rollout):
        return table(policy, problem, [0, 10, 20], rng.random(3), rollout)

    episodes = pd.concat(
        [random_table(policy, p, r) for policy in ("base", "trained") for p in "abcdef" for r in (0, 1)]
    )
    samples = pd.DataFrame({"problem_id": list("aabbccdd"), "reward": [1.0, 1, 0, 0, 0, 0, 1, 0]})
    traces = regret_sources(episodes, samples, budget=30)
    summary = summarize_sources(traces, Intervals(0.9, 400, 3))
    REGRET_SOURCES_SUMMARY.validate(summary)
    for (policy, difficulty), rows in summary.groupby(["policy", "difficulty"]):
        rows = rows.set_index("quantity")
        chosen = traces[(traces["policy"] == policy) & ((difficulty == "all") | (traces["difficulty"] == difficulty))]
        by_problem = chosen.groupby("problem_id")[["regret", *SOURCES]].mean()
        for quantity, values in by_problem.items():
            assert rows.loc[quantity, "mean"] == pytest.approx(values.mean())
            assert rows.loc[quantity, "ci_low"] <= rows.loc[quantity, "mean"] <= rows.loc[quantity, "ci_high"]
        assert rows.loc[list(SOURCES), "mean"].sum() == pytest.approx(rows.loc["regret", "mean"])
        if policy == "trained":
            assert rows.loc[list(SOURCES), "difference"].sum() == pytest.approx(rows.loc["regret", "difference"])
    means = traces.groupby(["policy", "problem_id"])["lost"].mean()
    by_problem = (means["trained"] - means["base"]).sort_index()
    row = summary[(summary["policy"] == "trained") & (summary["difficulty"] == "all")].set_index("quantity").loc["lost"]
    expected = Intervals(0.9, 400, 3).mean(by_problem)
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(expected)


def test_difficulty_is_the_rate_of_right_samples():
    samples = pd.DataFrame({"problem_id": list("aaabbbccc"), "reward": [1, 1, 0, 1, 0, 0, 0, 1, 1]})
    assert difficulty_of(samples) == {"a": "easy", "b": "hard", "c": "easy"}
