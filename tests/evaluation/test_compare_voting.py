import numpy as np
import pytest

from mrt_pipeline.evaluation.compare import majority_table, voting_table
from mrt_pipeline.evaluation.intervals import Arm, Bootstrap
from mrt_pipeline.schemas import COMPARISON_MAJORITY, COMPARISON_VOTING


def arm(name, *seeds):
    """maj@k of two problems, the second without a right answer; a third one has no samples."""
    votes = {}
    for k in range(1, len(seeds[0][0]) + 1):
        votes["accuracy", k] = np.array([[2 * accuracy[k - 1], 0.0, np.nan] for accuracy, _ in seeds])
        votes["tokens", k] = np.array([[tokens[k - 1]] * 2 + [np.nan] for _, tokens in seeds], dtype=float)
    shape = (len(seeds), 3)
    return Arm(name, tuple(range(len(seeds))), {("regret", 96, False): np.zeros(shape)}, votes=votes)


ARMS = [
    arm("base", ([0.2, 0.2, 0.3], [40, 80, 120])),
    arm("grpo", ([0.3, 0.3, 0.5], [50, 100, 150]), ([0.5, 0.5, 0.4], [50, 100, 150])),
    arm("mrt", ([0.4, 0.4, 0.5], [40, 80, 120])),
]
BOOTSTRAP = Bootstrap(ARMS, 100, 0.95, 0)


def test_maj_at_k_is_averaged_over_seeds_and_problems():
    table = majority_table(ARMS, BOOTSTRAP)
    COMPARISON_MAJORITY.validate(table)
    grpo = table[table["arm"] == "grpo"]
    assert grpo["k"].tolist() == [1, 2, 3]
    assert grpo["accuracy"].tolist() == pytest.approx([0.4, 0.4, 0.45])
    assert grpo["tokens"].tolist() == pytest.approx([50, 100, 150])
    mrt = table[table["arm"] == "mrt"].iloc[0]  # one seed, two problems of 0.8 and 0
    assert (mrt["ci_low"], mrt["ci_high"]) == pytest.approx((0.0, 0.8))


def test_voting_is_compared_at_the_baselines_single_vote_and_at_its_best():
    table = voting_table(ARMS, ARMS[1], BOOTSTRAP)
    COMPARISON_VOTING.validate(table)
    table = table.set_index(["baseline_k", "arm"])
    assert table.loc[(1, "mrt"), "ratio"] == pytest.approx(50 / 40)
    assert np.isnan(table.loc[(1, "base"), "tokens"]) and table.loc[(1, "base"), "ratio"] == 0
    assert table.loc[(3, "mrt"), "level"] == pytest.approx(0.45)
    assert table.loc[(3, "mrt"), "tokens"] == pytest.approx(100)  # half-way from two votes to three
    assert table.loc[(3, "mrt"), "ratio"] == pytest.approx(1.5)
    for k in (1, 3):
        assert table.loc[(k, "grpo"), ["ratio", "ci_low", "ci_high"]].tolist() == [1, 1, 1]


def test_the_interval_of_the_ratio_by_drawing_problems_by_hand():
    """One seed each: curves, and the level of the baseline, of the drawn problems."""
    rng = np.random.default_rng(0)
    tokens = np.array([10.0, 20, 30])

    def random_arm(name, cost):
        accuracy = np.sort(rng.random((3, 1, 30)), axis=0)
        votes = {("accuracy", k): accuracy[k - 1] for k in (1, 2, 3)}
        votes |= {("tokens", k): np.full((1, 30), cost * tokens[k - 1]) for k in (1, 2, 3)}
        return Arm(name, (0,), {("regret", 96, False): np.zeros((1, 30))}, votes=votes)

    arms = [random_arm("grpo", 1), random_arm("mrt", 2)]
    bootstrap = Bootstrap(arms, 300, 0.9, 0)
    ratios = []
    for shares in bootstrap._problems:
        curves = {one.name: [float(one.votes["accuracy", k][0] @ shares) for k in (1, 2, 3)] for one in arms}
        level = curves["grpo"][-1]
        if curves["mrt"][-1] < level:
            ratios.append(0.0)
            continue
        needed = np.interp(level, curves["mrt"], 2 * tokens)  # ascending, so the first crossing is the only one
        ratios.append(np.interp(level, curves["grpo"], tokens) / needed)
    row = voting_table(arms, arms[0], bootstrap).set_index(["arm", "baseline_k"]).loc["mrt", 3]
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.quantile(ratios, [0.05, 0.95])))
