import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrt_pipeline.evaluation.compare import (
    comparison_table,
    difference_table,
    gain_table,
    ratio_with_interval,
    sources_table,
    stopping_table,
)
from mrt_pipeline.evaluation.evaluate import measure
from mrt_pipeline.evaluation.intervals import Arm, Bootstrap
from mrt_pipeline.schemas import COMPARISON_GAINS, COMPARISON_SOURCES, COMPARISON_STOPPING

KEY = ("accuracy", 96, False)


def arm(name, values, seeds=None, **parts):
    values = np.atleast_2d(np.asarray(values, dtype=float))
    spent = {(96,): np.full(values.shape, 40.0)}
    return Arm(name, tuple(seeds or range(len(values))), {KEY: values}, thinking_tokens=spent, **parts)


def test_means_and_counts():
    found = comparison_table([arm("a", [[0, 1, 1, 0], [1, 1, 1, 0]])], Bootstrap([arm("a", [[0] * 4] * 2)], 50, 0.9, 0))
    row = found.iloc[0]
    assert (row["mean"], row["n_seeds"], row["n_problems"], row["thinking_tokens"]) == (0.625, 2, 4, 40.0)
    assert row["ci_low"] <= row["mean"] <= row["ci_high"]


def test_the_interval_of_a_mean_has_the_width_that_theory_gives():
    """One seed: the bootstrap over problems alone, so 1.96 standard errors each way."""
    one = arm("a", np.random.default_rng(0).random((1, 400)))
    row = comparison_table([one], Bootstrap([one], 4000, 0.95, 0)).iloc[0]
    sem = one.values[KEY].std() / 20
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 1.96 * sem, rel=0.1)


def test_seeds_widen_the_interval():
    base = np.random.default_rng(0).random(50)
    equal, spread = arm("a", [base] * 5), arm("a", [base + shift for shift in (-0.2, -0.1, 0, 0.1, 0.2)])
    widths = [
        np.ptp(comparison_table([a], Bootstrap([a], 2000, 0.95, 0))[["ci_low", "ci_high"]].to_numpy())
        for a in (equal, spread)
    ]
    assert widths[1] > 1.5 * widths[0]


values = arrays(np.float64, (2, 6), elements=st.floats(0, 1))


@given(values, st.floats(-0.5, 0.5))
def test_a_constant_difference_has_no_interval(numbers, shift):
    """Pairing: the same problems and seeds are drawn for both."""
    a, b = arm("a", numbers), arm("b", numbers + shift)
    row = difference_table([a, b], [a], Bootstrap([a, b], 40, 0.95, 0)).iloc[0]
    assert (row["arm"], row["against"]) == ("b", "a")
    assert np.allclose([row["difference"], row["ci_low"], row["ci_high"]], shift)


def test_arms_with_other_seeds_are_paired_by_problem_only():
    numbers = np.random.default_rng(0).random((2, 6))
    a, b = arm("a", numbers, seeds=(1, 2)), arm("b", numbers + 0.1, seeds=(3, 4))
    row = difference_table([a, b], [a], Bootstrap([a, b], 200, 0.95, 0)).iloc[0]
    assert row["ci_low"] < 0.1 < row["ci_high"]


def test_excludes_zero_says_whether_the_interval_does():
    base = arm("base", np.zeros((1, 30)))
    clear, unclear = arm("clear", np.ones((2, 30)) * 0.5), arm("unclear", np.tile([-1.0, 1.0], (2, 15)))
    arms = [base, clear, unclear]
    found = difference_table(arms, [base], Bootstrap(arms, 500, 0.95, 0)).set_index("arm")
    assert found.loc["clear", "excludes_zero"] and not found.loc["unclear", "excludes_zero"]


@given(values, st.floats(0.2, 3))
def test_the_gain_ratio_of_a_scaled_gain_is_the_scale(numbers, scale):
    base = arm("base", numbers[:1])
    gain = np.full((2, 1), 0.1)
    grpo, ours = arm("grpo", numbers[:1] + gain), arm("ours", numbers[:1] + scale * gain)
    arms = [base, grpo, ours]
    row = gain_table(arms, base, grpo, Bootstrap(arms, 40, 0.95, 0)).iloc[0]
    assert np.allclose([row["ratio"], row["ci_low"], row["ci_high"]], scale)


def test_fiellers_interval_holds_the_ratio_as_often_as_it_says():
    """Of 20 problems each, two correlated gains of .5 and .25 with noise: 95 % intervals by draws of problems."""
    rng, held, n = np.random.default_rng(0), 0, 400
    for _ in range(n):
        shared = rng.normal(size=60)
        reference, gain = 0.5 + shared + rng.normal(size=60), 0.25 + shared + rng.normal(size=60)
        draws = rng.multinomial(60, np.full(60, 1 / 60), size=400) / 60
        ratio, low, high = ratio_with_interval(gain.mean(), reference.mean(), draws @ gain, draws @ reference, 0.95)
        held += np.isnan(ratio) or low <= 0.5 <= high  # where it is not finite, nothing is excluded
    assert 0.92 <= held / n <= 0.98


def test_a_ratio_to_no_gain_is_undefined():
    base, grpo = arm("base", np.zeros((1, 20))), arm("grpo", np.tile([-0.1, 0.1], (2, 10)))
    arms = [base, grpo, arm("ours", np.ones((2, 20)))]
    row = gain_table(arms, base, grpo, Bootstrap(arms, 200, 0.95, 0)).iloc[0]
    assert np.isnan(row[["ratio", "ci_low", "ci_high"]].astype(float)).all()


def test_gains_are_of_what_all_arms_share_and_empty_where_only_the_baseline_was_trained():
    base, grpo, ours = arm("base", np.zeros((1, 20))), arm("grpo", np.ones((2, 20))), arm("ours", np.ones((2, 20)))
    base.values["accuracy", 192, False] = ours.values["accuracy", 192, False] = base.values[KEY]
    arms = [base, grpo, ours]
    found = COMPARISON_GAINS.validate(gain_table(arms, base, grpo, Bootstrap(arms, 50, 0.95, 0)))
    assert found[["budget", "ratio"]].to_numpy().tolist() == [[96, 1]]
    assert COMPARISON_GAINS.validate(gain_table(arms[:2], base, grpo, Bootstrap(arms, 50, 0.95, 0))).empty


def test_a_ratio_to_a_loss_is_undefined():
    base, grpo = arm("base", np.full((1, 20), 0.5)), arm("grpo", np.full((2, 20), 0.4))
    arms = [base, grpo, arm("ours", np.ones((2, 20)))]
    assert np.isnan(gain_table(arms, base, grpo, Bootstrap(arms, 50, 0.95, 0)).iloc[0]["ratio"])


def test_measure_agrees_with_a_hand_calculation():
    episodes = pd.DataFrame(
        {
            "problem_id": ["p"] * 3 + ["q"] * 2,
            "rollout_id": 0,
            "n_tokens": [0, 10, 20, 0, 10],
            "success": [0.0, 1.0, 0.0, 0.5, 0.5],
            "forced": [False, False, True, False, False],
        }
    )
    anytime = pd.DataFrame(
        {"problem_id": ["p", "q", "p"], "n_tokens": 20, "success": [1.0, 0.5, 0.0], "forced": [False, False, True]}
    )
    found = measure(episodes, anytime, [20])
    # p: 0 up to 1 at 10 and held: area (5 + 10) / 20. q: 0.5 throughout (the jump at 0 has no width).
    assert found["regret", 20, False].to_dict() == pytest.approx({"p": 0.25, "q": 0.5})
    assert found["regret", 20, True].to_dict() == pytest.approx({"p": 0.5, "q": 0.5})
    assert found["accuracy", 20, False].to_dict() == {"p": 1.0, "q": 0.5}
    assert found["accuracy", 20, True].to_dict() == {"p": 0.0}


PARTS = ("never_found", "found_late", "lost", "unsure")


def analysed(name, rng, n_seeds=3, n_problems=12):
    """An arm with regret as a sum of parts; a few problems have no stopping regret, and a third is easy."""
    shares = rng.dirichlet(np.ones(5), size=(n_seeds, n_problems))
    easy = np.arange(n_problems) % 3 == 0
    sources = {}
    for difficulty, chosen in (("easy", easy), ("all", np.full(n_problems, True))):
        for i, part in enumerate(PARTS):
            sources[difficulty, part, 96] = np.where(chosen, shares[..., i], np.nan)
        sources[difficulty, "regret", 96] = np.where(chosen, shares[..., :4].sum(axis=-1), np.nan)
    stopping = np.where(rng.random((n_seeds, n_problems)) < 0.3, np.nan, rng.random((n_seeds, n_problems)))
    values = rng.random((n_seeds, n_problems))
    return arm(name, values, sources=sources, stopping={(1,): stopping, (2,): stopping / 2})


def test_the_parts_of_regret_sum_to_it_in_every_arm_and_so_do_their_differences():
    rng = np.random.default_rng(0)
    arms = [analysed("base", rng, n_seeds=1), analysed("grpo", rng), analysed("mrt", rng)]
    table = sources_table(arms, arms[1], Bootstrap(arms, 50, 0.95, 0))
    COMPARISON_SOURCES.validate(table)
    for (name, difficulty), rows in table.groupby(["arm", "difficulty"]):
        rows = rows.set_index("quantity")
        for column in ("mean", "difference"):
            assert rows.loc[list(PARTS), column].sum() == pytest.approx(rows.loc["regret", column]), (name, difficulty)
        assert set(rows["n_problems"]) == {4 if difficulty == "easy" else 12}
    own = table[table["arm"] == "grpo"]
    assert (own[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (table["ci_low"] <= table["mean"]).all() and (table["mean"] <= table["ci_high"]).all()


def test_problems_without_a_value_are_left_out_seed_by_seed():
    rng = np.random.default_rng(1)
    arms = [analysed("grpo", rng), analysed("mrt", rng)]
    table = stopping_table(arms, arms[0], Bootstrap(arms, 50, 0.95, 0))
    COMPARISON_STOPPING.validate(table)
    for row in table.itertuples():
        each = {one.name: [seed[~np.isnan(seed)].mean() for seed in one.stopping[row.episodes,]] for one in arms}
        assert row.mean == pytest.approx(np.mean(each[row.arm]))
        assert row.difference == pytest.approx(np.mean(each[row.arm]) - np.mean(each["grpo"]))


def test_arms_without_stopping_regret_are_left_out_and_leave_no_difference_to_them():
    rng = np.random.default_rng(2)
    old, new = arm("old", rng.random((2, 12))), analysed("new", rng)
    nowhere = arm("nowhere", rng.random((2, 12)), stopping={(1,): np.full((2, 12), np.nan)})
    arms = [old, new, nowhere]
    table = stopping_table(arms, old, Bootstrap(arms, 20, 0.95, 0))
    COMPARISON_STOPPING.validate(table)
    assert table["arm"].tolist() == ["new", "new"] and table["difference"].isna().all()
    COMPARISON_STOPPING.validate(stopping_table([old], old, Bootstrap([old], 20, 0.95, 0)))
