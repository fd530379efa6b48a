import pandas as pd
import pytest

from mrt_pipeline.reporting.cells import aligned
from mrt_pipeline.reporting.verdict import comparison_overview, comparison_verdict, overview, verdict

NAN = float("nan")


def table(quantity, base, trained=None):
    """Natural stop, `definition` paper; forced on and other definitions beside it, which must not be read.

    base: {budget: value}. trained: {budget: (value, ends of the interval of the difference)}.
    """
    rows = []
    for budget, value in base.items():
        rows.append(["base", budget, value, value - 0.02, value + 0.02, NAN, NAN, NAN])
    for budget, (value, low, high) in (trained or {}).items():
        rows.append(["trained", budget, value, value - 0.02, value + 0.02, value - base[budget], low, high])
    ends = ["ci_low", "ci_high", "difference", "difference_low", "difference_high"]
    natural = pd.DataFrame(rows, columns=["policy", "budget", quantity, *ends]).assign(forced=False)
    whole = pd.concat([natural.assign(forced=True, **{quantity: 0.9}), natural], ignore_index=True)
    if quantity == "regret":
        other = natural.assign(definition="step", regret=0.8)
        whole = pd.concat([other, whole.assign(definition="paper")], ignore_index=True)
    return whole


def said(regret, accuracy, thinking_budget=100):
    return verdict(regret, accuracy, thinking_budget, "mrt_online", 0.95)


def test_a_gain_at_the_training_budget_and_none_past_it():
    regret = table("regret", {100: 0.72, 400: 0.6}, {100: (0.534, -0.21, -0.16), 400: (0.5, -0.2, -0.1)})
    accuracy = table("accuracy", {100: 0.398, 400: 0.55}, {100: (0.603, 0.15, 0.25), 400: (0.56, -0.02, 0.04)})
    assert said(regret, accuracy) == (
        "Training by mrt_online lowered regret at 1x budget (100 thinking tokens) from 0.720 to 0.534 (difference "
        "-0.186, 95 % interval -0.210 to -0.160), and accuracy rose from 0.398 to 0.603; past the trained budget, at "
        "4x, accuracy shows no clear change (0.550 before, 0.560 after)."
    )


def test_a_loss():
    regret = table("regret", {100: 0.5}, {100: (0.6, 0.05, 0.15)})
    accuracy = table("accuracy", {100: 0.6}, {100: (0.5, -0.15, -0.05)})
    assert said(regret, accuracy) == (
        "Training by mrt_online raised regret at 1x budget (100 thinking tokens) from 0.500 to 0.600 (difference "
        "+0.100, 95 % interval +0.050 to +0.150), and accuracy fell from 0.600 to 0.500."
    )


@pytest.mark.parametrize(("low", "high"), [(-0.04, 0.02), (-0.04, -0.0004), (0.0004, 0.03)])
def test_an_interval_that_includes_0_as_it_is_printed_is_no_difference(low, high):
    regret = table("regret", {100: 0.5}, {100: (0.49, low, high)})
    accuracy = table("accuracy", {100: 0.6}, {100: (0.65, 0.02, 0.08)})
    found = said(regret, accuracy)
    assert "made no clear difference to regret at 1x budget (100 thinking tokens): 0.500 before, 0.490 after" in found
    assert "which includes 0), but accuracy rose from 0.600 to 0.650." in found
    accuracy = table("accuracy", {100: 0.6}, {100: (0.61, -0.02, 0.04)})
    assert "and accuracy shows no clear change (0.600 before, 0.610 after)." in said(regret, accuracy)


def test_regret_and_accuracy_may_move_against_each_other():
    regret = table("regret", {100: 0.5}, {100: (0.4, -0.15, -0.05)})
    accuracy = table("accuracy", {100: 0.6}, {100: (0.5, -0.15, -0.05)})
    assert "0.050), but accuracy fell from 0.600 to 0.500." in said(regret, accuracy)


def test_without_training_it_says_how_the_tokens_are_used():
    regret, accuracy = table("regret", {50: 0.8, 100: 0.72}), table("accuracy", {50: 0.3, 100: 0.398})
    assert said(regret, accuracy) == (
        "Without training, regret at 1x budget (100 thinking tokens) is 0.720 (95 % interval 0.700 to 0.740): 0.602 "
        "for answers that are wrong in the end, 0.118 for right ones that come late; accuracy by budget: 0.300 at "
        "0.5x, 0.398 at 1x."
    )
    lost = said(table("regret", {100: 0.5}), table("accuracy", {100: 0.4}))
    assert "0.600 for answers that are wrong in the end, less 0.100 for right ones that were lost on the way;" in lost


def test_where_the_training_budget_was_not_measured_the_nearest_below_it_speaks():
    regret = table("regret", {25: 0.8, 50: 0.7, 200: 0.6}, dict.fromkeys((25, 50, 200), (0.4, -0.3, -0.1)))
    accuracy = table("accuracy", {25: 0.2, 200: 0.3}, dict.fromkeys((25, 200), (0.5, 0.1, 0.3)))
    found = said(regret, accuracy)
    assert "at 0.5x budget (50 thinking tokens) from 0.700 to 0.400" in found
    assert found.endswith("; past the trained budget, at 2x, accuracy rose from 0.300 to 0.500.")
    only_beyond = said(table("regret", {200: 0.7}), table("accuracy", {25: 0.2}))
    assert (
        only_beyond
        == "Without training, regret at 2x budget (200 thinking tokens) is 0.700 (95 % interval 0.680 to 0.720)."
    )


def test_where_nothing_is_right_there_is_nothing_to_compare():
    regret, accuracy = (
        table("regret", {100: 1.0}, {100: (1.0, 0, 0)}),
        table("accuracy", {100: 0.0}, {100: (0.0, 0, 0)}),
    )
    assert "No answer was right at any budget, neither before nor after training by mrt_online" in said(
        regret, accuracy
    )
    assert "budget, without training:" in said(table("regret", {100: 1.0}), table("accuracy", {100: 0.0002}))


def test_the_small_table_reads_well_as_it_is():
    regret = table("regret", {50: 0.8, 400: 0.7}, {50: (0.5, -0.4, -0.2), 400: (0.4, -0.4, -0.2)})
    accuracy = table("accuracy", {400: 0.2}, {400: (0.3, 0.05, 0.15)})
    assert overview(regret, accuracy, 100) == [
        "| budget    | accuracy: base | accuracy: trained | regret: base | regret: trained |",
        "| --------- | -------------: | ----------------: | -----------: | --------------: |",
        "| 0.5x (50) |                |                   |        0.800 |           0.500 |",
        "| 4x (400)  |          0.200 |             0.300 |        0.700 |           0.400 |",
    ]
    assert aligned(["a", "bb"], []) == ["| a | bb |", "| - | -: |"]


def compared(regrets, differences):
    """Tables of a comparison at 100 tokens. differences: {(arm, against): (low, high)}."""
    rows = [
        {"arm": arm, "quantity": quantity, "budget": budget, "forced": forced, "mean": mean}
        for arm, value in regrets.items()
        for quantity, budget, forced, mean in (
            ("accuracy", 100, False, 1 - value),
            ("regret", 100, False, value),
            ("regret", 100, True, 0.9),  # not read
            ("regret", 50, False, 0.9),
        )
    ]
    pairs = [
        {"arm": arm, "against": against, "quantity": quantity, "budget": 100, "forced": forced, "ci_low": low}
        | {"ci_high": high, "difference": 0.0, "excludes_zero": low > 0 or high < 0}
        for (arm, against), (low, high) in differences.items()
        for quantity, forced in (("accuracy", False), ("regret", True), ("regret", False))
    ]
    return pd.DataFrame(rows), pd.DataFrame(pairs)


def test_a_comparison_names_the_arm_of_the_lowest_regret_and_whether_it_can_be_told_from_the_baseline():
    regrets = {"base": 0.7, "grpo": 0.6, "mrt": 0.5}
    pairs = {("mrt", "grpo"): (-0.12, -0.08), ("base", "grpo"): (0.05, 0.15), ("grpo", "base"): (-0.15, -0.05)}
    comparison, differences = compared(regrets, pairs)
    assert comparison_verdict(comparison, differences, 100) == (
        "At 1x budget (100 thinking tokens) mrt has the lowest regret, 0.500, against 0.600 of grpo (the baseline): "
        "the interval of the difference, -0.120 to -0.080, excludes 0."
    )
    assert comparison_overview(comparison, 100)[2:] == [
        "| mrt  |         0.500 |           0.500 |",
        "| grpo |         0.600 |           0.400 |",
        "| base |         0.700 |           0.300 |",
    ]


def test_a_baseline_that_is_best_is_compared_with_the_next_arm():
    pairs = {("mrt", "grpo"): (-0.02, 0.06), ("base", "grpo"): (0.05, 0.15), ("grpo", "base"): (-0.15, -0.05)}
    found = comparison_verdict(*compared({"base": 0.7, "grpo": 0.5, "mrt": 0.52}, pairs), 100)
    assert "grpo (the baseline) has the lowest regret, 0.500, against 0.520 of mrt: the interval" in found
    assert found.endswith("-0.020 to +0.060, includes 0, so the two cannot be told apart.")


def test_the_untrained_base_may_be_best():
    pairs = {("mrt", "grpo"): (0.02, 0.06), ("base", "grpo"): (-0.15, -0.05), ("grpo", "base"): (0.05, 0.15)}
    found = comparison_verdict(*compared({"base": 0.4, "grpo": 0.5, "mrt": 0.52}, pairs), 100)
    assert "base (without training) has the lowest regret, 0.400, against 0.500 of grpo (the baseline)" in found
