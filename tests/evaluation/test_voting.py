import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.evaluation.compare import Arm
from mrt_pipeline.evaluation.voting import majority_table, tokens_to_reach, voting_table


def votes(accuracy, tokens):
    """maj@k of two problems, the second without a right answer."""
    k = range(1, len(accuracy) + 1)
    one = pd.DataFrame({"problem_id": "p", "k": k, "accuracy": 2 * np.array(accuracy), "tokens": tokens})
    return pd.concat([one, one.assign(problem_id="q", accuracy=0.0)])


def arm(name, *seeds):
    return Arm(name, tuple(range(len(seeds))), {}, {}, votes=tuple(votes(*seed) for seed in seeds))


ARMS = [
    arm("base", ([0.2, 0.2, 0.3], [40, 80, 120])),
    arm("grpo", ([0.3, 0.3, 0.5], [50, 100, 150]), ([0.5, 0.5, 0.4], [50, 100, 150])),
    arm("mrt", ([0.4, 0.4, 0.5], [40, 80, 120])),
]


def test_maj_at_k_is_averaged_over_seeds_and_problems():
    table = majority_table(ARMS)
    grpo = table[table["arm"] == "grpo"]
    assert grpo["k"].tolist() == [1, 2, 3]
    assert grpo["accuracy"].tolist() == pytest.approx([0.4, 0.4, 0.45])
    assert grpo["tokens"].tolist() == [50, 100, 150]


def test_only_ks_that_all_seeds_have_are_averaged():
    table = majority_table([arm("a", ([0.1, 0.2], [10, 20]), ([0.3], [10]))])
    assert table["k"].tolist() == [1] and table["accuracy"].tolist() == pytest.approx([0.2])


def test_voting_is_compared_at_the_baselines_single_vote_and_at_its_best():
    table = voting_table(majority_table(ARMS), "grpo").set_index(["baseline_k", "arm"])
    assert table.loc[(1, "mrt"), "ratio"] == pytest.approx(50 / 40)
    assert table.loc[(1, "grpo"), "ratio"] == 1
    assert table.loc[(1, "base"), ["tokens", "ratio"]].isna().all()
    assert table.loc[(3, "mrt"), "level"] == pytest.approx(0.45)
    assert table.loc[(3, "mrt"), "tokens"] == pytest.approx(100)  # half-way from two votes to three
    assert table.loc[(3, "mrt"), "ratio"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("level", "expected"), [(0.05, 10), (0.2, 10), (0.3, 15), (0.4, 20), (0.6, 30), (0.61, np.nan)]
)
def test_a_level_is_first_reached_on_straight_lines_between_points(level, expected):
    found = tokens_to_reach(level, np.array([10.0, 20, 30, 40]), np.array([0.2, 0.4, 0.6, 0.3]))
    assert found == pytest.approx(expected, nan_ok=True)
