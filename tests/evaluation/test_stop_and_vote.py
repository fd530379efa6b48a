from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.evaluation.voting import (
    pass_at_k,
    shown_episodes,
    stopping_regret,
    trace_stopping_regret,
    vote_accuracy,
)
from mrt_pipeline.schemas import STOP_AND_VOTE, STOPPING_REGRET

RIGHT = "7"
INTERVALS = Intervals(0.95, 100, 0)


def votes(seed=0, policy="base", n=8):
    """Three traces of two problems with 2 to 4 boundaries; an answer may be missing."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem, rollout, boundaries in (("a", 0, 4), ("a", 1, 2), ("b", 0, 3)):
        for j in range(boundaries):
            answers = rng.choice([RIGHT, "1", "2", ""], size=n).tolist()
            rows.append(
                {
                    "policy": policy,
                    "problem_id": problem,
                    "rollout_id": rollout,
                    "episode": j - 1,
                    "n_tokens": 9 * j,
                    "answers": answers,
                    "rewards": np.array([float(answer == RIGHT) for answer in answers]),
                    "answer_tokens": rng.integers(1, 5, size=n),
                }
            )
    return pd.DataFrame(rows)


def majority(answers, p):
    """By voting in every subset."""
    found = []
    for subset in combinations(answers, p):
        counts = Counter(answer for answer in subset if answer)
        best = [answer for answer, count in counts.items() if count == max(counts.values())]
        found.append((RIGHT in best) / len(best) if best else 0.0)
    return np.mean(found)


def at(table, problem, rollout, j):
    trace = table[(table["problem_id"] == problem) & (table["rollout_id"] == rollout)].sort_values("episode")
    return trace.iloc[min(j, len(trace) - 1)]


def test_votes_at_an_episode_equal_voting_in_every_subset():
    table = votes()
    found = vote_accuracy(table, INTERVALS)
    STOP_AND_VOTE.validate(found)
    for j in (0, 2, 3):
        for p in (1, 3, 8):
            rows = {key: at(table, *key, j) for key in (("a", 0), ("a", 1), ("b", 0))}
            accuracy = {key: majority(row["answers"], p) for key, row in rows.items()}
            expected = (np.mean([accuracy["a", 0], accuracy["a", 1]]) + accuracy["b", 0]) / 2
            row = found[(found["method"] == "vote") & (found["episode"] == j) & (found["p"] == p)].iloc[0]
            assert row["accuracy"] == pytest.approx(expected)
            spent = [row["n_tokens"] + p * np.mean(row["answer_tokens"]) for row in rows.values()]
            assert row["n_tokens"] == pytest.approx(np.mean(spent))


def test_direct_answers_are_those_without_a_thought():
    table = votes()
    found = vote_accuracy(table, INTERVALS)
    for k in (1, 5):
        each = {}
        for row in table[table["episode"] == -1].itertuples():
            wins = [max(subset) for subset in combinations(row.rewards, k)]
            each.setdefault(row.problem_id, []).append(np.mean(wins))
        expected = np.mean([np.mean(values) for values in each.values()])
        row = found[(found["method"] == "direct") & (found["p"] == k)].iloc[0]
        assert row["accuracy"] == pytest.approx(expected)


def test_intervals_are_over_problems_not_traces_and_differences_are_paired():
    """Two problems: a drawn mean is one of three values, and the difference is drawn for the same problems."""
    both = pd.concat([votes(0), votes(1, policy="trained")])
    found = vote_accuracy(both, INTERVALS)
    STOP_AND_VOTE.validate(found)
    by_problem = {}
    for policy, table in both.groupby("policy"):
        for p in (1, 3):
            a = np.mean([majority(at(table, "a", rollout, 2)["answers"], p) for rollout in (0, 1)])
            by_problem[policy, p] = np.array([a, majority(at(table, "b", 0, 2)["answers"], p)])
    for (policy, p), values in by_problem.items():
        where = (found["policy"] == policy) & (found["method"] == "vote") & (found["episode"] == 2) & (found["p"] == p)
        (row,) = found[where].to_dict("records")
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((values.min(), values.max()))
        if policy == "trained":
            changes = values - by_problem["base", p]
            expected = (changes.mean(), changes.min(), changes.max())
            paired = (row["difference"], row["difference_low"], row["difference_high"])
            assert paired == pytest.approx(expected)
        else:
            assert np.isnan(row["difference"])


def test_a_policy_does_not_differ_from_itself():
    both = pd.concat([votes(3), votes(3).assign(policy="trained")])
    for table in (vote_accuracy(both, INTERVALS), stopping_regret(both, INTERVALS)):
        trained = table[table["policy"] == "trained"]
        assert (trained[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)


def test_as_many_episodes_are_shown_as_there_are_but_not_more_than_ten():
    assert list(shown_episodes(pd.DataFrame({"episode": [-1, 0, 1]}))) == [1, 2]
    assert list(shown_episodes(pd.DataFrame({"episode": [-1, 30]}))) == list(range(1, 11))
    assert list(shown_episodes(pd.DataFrame({"episode": [-1]}))) == []


def test_pass_at_k_by_hand():
    assert pass_at_k([1, 0, 0, 0], 1) == pytest.approx(0.25)
    assert pass_at_k([1, 0, 0, 0], 2) == pytest.approx(0.5)
    assert pass_at_k([0, 0], 2) == 0
    assert pass_at_k([1, 1], 1) == 1


def area(x, y):
    return sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))


def by_the_notebook(answers, b):
    """Appendix E step by step."""
    optimal = blue_area = 0.0
    x = [1, 2, 4, 6]
    for i in range(min(b, len(answers) - 1)):
        m = {p: majority(answers[i], p) for p in (1, 2, 4, 8)}
        after = majority(answers[i + 1], 1)
        green = [m[1], m[2], m[4], (m[4] + m[8]) / 2]
        blue = [m[1] + (after - m[1]) * (place - 1) / 5 for place in x]
        optimal += area(x, [max(pair) for pair in zip(green, blue, strict=True)])
        blue_area += area(x, blue)
    return (optimal - blue_area) / optimal if optimal else None


@pytest.mark.parametrize("b", [1, 2, 3])
def test_stopping_regret_equals_the_notebook_s(b):
    table = votes(seed=3)
    each = {}
    for (problem, _), trace in table.groupby(["problem_id", "rollout_id"], sort=False):
        value = by_the_notebook(list(trace["answers"]), b)
        if value is not None:
            each.setdefault(problem, []).append(value)
    found = stopping_regret(table, INTERVALS)
    STOPPING_REGRET.validate(found)
    assert found["episodes"].tolist() == [1, 2, 3]
    found = found[found["episodes"] == b]
    assert found["regret"].iloc[0] == pytest.approx(np.mean([np.mean(values) for values in each.values()]))
    assert found["n_traces"].iloc[0] == sum(map(len, each.values()))


def test_a_trace_that_gains_more_by_thinking_has_no_stopping_regret():
    gaining = np.array([[0.1] * 8, [0.9] * 8])
    assert trace_stopping_regret(gaining, 3) == 0
    losing = np.array([[0.9] * 8, [0.1] * 8])
    assert trace_stopping_regret(losing, 3) == pytest.approx(1 - area([1, 6], [0.9, 0.1]) / area([1, 6], [0.9, 0.9]))
    assert trace_stopping_regret(np.zeros((3, 8)), 3) is None


def test_where_no_answer_was_right_the_table_is_empty():
    table = votes()
    table["rewards"] = [np.zeros(8)] * len(table)
    assert STOPPING_REGRET.validate(stopping_regret(table, INTERVALS)).empty


def test_too_few_answers_are_refused():
    with pytest.raises(ValueError, match="8 answers"):
        trace_stopping_regret(np.zeros((2, 4)), 1)
