from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.evaluation.voting import majority_accuracy, majority_by_policy, majority_by_problem
from mrt_pipeline.schemas import MAJORITY

RIGHT = {"a", "b"}  # two spellings of a right answer
ANSWERS = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=8)


def reward(answer):
    return float(answer in RIGHT)


def by_hand(answers, k):
    """Every k-subset, its vote counted, ties shared."""
    credits = []
    for subset in combinations(answers, k):
        votes = Counter(answer for answer in subset if answer is not None)
        winners = [answer for answer, count in votes.items() if count == max(votes.values())]
        credits.append(np.mean([reward(answer) for answer in winners]) if winners else 0.0)
    return np.mean(credits)


@given(ANSWERS)
def test_it_is_the_mean_over_all_subsets(answers):
    found = majority_accuracy(answers, list(map(reward, answers)))
    assert found == pytest.approx([by_hand(answers, k) for k in range(1, len(answers) + 1)])


@given(ANSWERS)
def test_one_vote_is_the_mean_reward(answers):
    assert majority_accuracy(answers, list(map(reward, answers)))[0] == pytest.approx(np.mean([*map(reward, answers)]))


@pytest.mark.parametrize("answer", ["a", "c"])
def test_identical_answers_gain_nothing_by_voting(answer):
    assert majority_accuracy([answer] * 6, [reward(answer)] * 6).tolist() == [reward(answer)] * 6


def test_many_samples_are_no_problem():
    found = majority_accuracy(["a"] * 30 + ["c"] * 20 + [None] * 14, [1.0] * 30 + [0.0] * 34)
    assert found[0] == pytest.approx(30 / 64) and found[-1] == 1.0
    assert np.all(np.diff(found) >= -1e-12)


@pytest.mark.parametrize(("answers", "rewards"), [([], []), (["a"], [])])
def test_what_cannot_vote_is_refused(answers, rewards):
    with pytest.raises(ValueError, match="each sample"):
        majority_accuracy(answers, rewards)


def samples(*rows):
    """(problem, answer text, grade, thought length), or with the length of the stream, whose end was dropped."""
    return pd.DataFrame(
        {
            "policy": "base",
            "stop_reason": ["length" if len(row) > 4 else "stop" for row in rows],
            "stream_length": [row[4] if len(row) > 4 else row[3] + 2 for row in rows],
            "problem_id": [row[0] for row in rows],
            "answer_text": [row[1] for row in rows],
            "grade": [row[2] for row in rows],
            "reward": [float(row[2] == "correct") for row in rows],
            "thought_token_ids": [np.zeros(row[3], int) for row in rows],
            "close_token_ids": [np.zeros(1, int)] * len(rows),
            "answer_token_ids": [np.zeros(2, int)] * len(rows),
        }
    )


def test_a_table_gives_accuracy_and_tokens_of_each_problem():
    table = samples(
        ("q", "1 + 2", "wrong", 4),
        ("p", " 3 * 4", "correct", 3),
        ("p", "3 * 4 ", "correct", 5),
        ("p", "", "unparsed", 7),
        ("q", "5 +", "unparsed", 4),
        ("q", "5 +", "unparsed", 4),
    )
    found = majority_by_problem(table)
    assert set(found) == {(quantity, k) for quantity in ("accuracy", "tokens") for k in (1, 2, 3)}
    assert [found["accuracy", k]["p"] for k in (1, 2, 3)] == pytest.approx([2 / 3, 1, 1])  # the empty one never wins
    assert [found["tokens", k]["p"] for k in (1, 2, 3)] == pytest.approx([8, 16, 24])
    assert [found["accuracy", k]["q"] for k in (1, 2, 3)] == [0, 0, 0]


def test_what_was_dropped_at_the_budget_is_paid_for():
    def tokens(table):
        found = majority_by_problem(table)
        return [found["tokens", k]["p"] for k in (1, 2)]

    table = samples(("p", "1", "wrong", 4), ("p", "1", "wrong", 4, 9))
    assert tokens(table) == pytest.approx([(7 + 12) / 2, 7 + 12])
    older = table.drop(columns=["stop_reason", "stream_length"])
    assert tokens(older) == [7, 14]


def test_policies_and_ways_of_sampling_are_measured_apart_with_intervals_over_problems():
    rows = [(f"{i}", str(j % 2), "correct" if i < 3 and j % 2 else "wrong", 4) for i in range(8) for j in range(3)]
    base = samples(*rows)
    trained = base.assign(policy="trained", reward=1.0)
    windowed = base.assign(thought_token_ids=[np.zeros(9, int)] * len(base))
    found = MAJORITY.validate(majority_by_policy(pd.concat([base, trained]), windowed, Intervals(0.9, 300, 1)))
    assert found.groupby(["policy", "linearised"], sort=False).size().to_dict() == {
        ("base", False): 3,
        ("trained", False): 3,
        ("base", True): 3,
    }
    for (policy, linearised), curve in found.groupby(["policy", "linearised"]):
        table = windowed if linearised else base if policy == "base" else trained
        problems = majority_by_problem(table)
        for k in (1, 2, 3):
            row = curve[curve["k"] == k].iloc[0]
            expected = Intervals(0.9, 300, 1).mean(problems["accuracy", k])
            assert (row["accuracy"], row["ci_low"], row["ci_high"]) == pytest.approx(expected)
            assert row["tokens"] == problems["tokens", k].mean() == k * (12 if linearised else 7)
    base_once = found[(found["policy"] == "base") & ~found["linearised"] & (found["k"] == 1)].iloc[0]
    assert base_once["accuracy"] == pytest.approx(1 / 8)
    assert base_once["ci_low"] < base_once["accuracy"] < base_once["ci_high"]
    assert set(majority_by_policy(base, windowed.iloc[:0], Intervals(0.9, 20, 1))["linearised"]) == {False}


def test_problems_with_different_numbers_of_samples_are_refused():
    with pytest.raises(ValueError, match="same number"):
        majority_by_problem(samples(("p", "1", "wrong", 1), ("p", "1", "wrong", 1), ("q", "1", "wrong", 1)))
