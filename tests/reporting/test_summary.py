import pandas as pd
import pytest

from mrt_pipeline.reporting.summary import budget_metrics, markdown_report


def table(quantity, values):
    """Rows for base and trained, stopped and forced on, at budgets 48 and 96, in a mixed order."""
    rows, value = [], iter(values)
    for policy in ("trained", "base"):
        for forced in (True, False):
            for budget in (96, 48):
                v = next(value)
                rows.append(
                    {
                        "policy": policy,
                        "budget": budget,
                        "forced": forced,
                        quantity: v,
                        "ci_low": v - 0.01,
                        "ci_high": v + 0.02,
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture
def regret():
    return table("regret", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]).assign(definition="paper")


@pytest.fixture
def accuracy():
    return table("accuracy", [0.81, 0.71, 0.61, 0.51, 0.41, 0.31, 0.21, 0.11]).assign(thinking_tokens=47.6)


def test_the_report_has_a_row_for_every_budget_and_way_of_stopping(regret, accuracy):
    accuracy.loc[accuracy["policy"] == "base", "thinking_tokens"] = 50.2
    lines = markdown_report(regret, accuracy, "mrt_online, seed 0").splitlines()
    assert lines[0] == "# mrt_online, seed 0"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert len({len(row) for row in rows}) == 1
    body = {tuple(row[:2]): row[2:] for row in rows[2:]}
    assert list(body) == [("48", "natural"), ("96", "natural"), ("48", "forced on"), ("96", "forced on")]
    # base, then trained, of each quantity
    assert body["96", "forced on"] == [
        "0.410 [0.400, 0.430]",
        "0.810 [0.800, 0.830]",
        "0.500 [0.490, 0.520]",
        "0.100 [0.090, 0.120]",
        "50",
        "48",
    ]
    assert body["48", "natural"] == [
        "0.110 [0.100, 0.130]",
        "0.510 [0.500, 0.530]",
        "0.800 [0.790, 0.820]",
        "0.400 [0.390, 0.420]",
        "50",
        "48",
    ]


def test_metrics_are_histories_over_budgets(regret, accuracy):
    histories = budget_metrics(regret, accuracy)
    names = [
        quantity + forced + policy + end
        for quantity in ("regret", "accuracy")
        for forced in ("", "_forced")
        for policy in ("", "_base")
        for end in ("", "_low", "_high")
    ]
    assert sorted(histories) == sorted(names)
    found = {name: {point["step"]: point["value"] for point in points} for name, points in histories.items()}
    assert found["regret"] == {96: 0.3, 48: 0.4}
    assert found["regret_forced"] == {96: 0.1, 48: 0.2}
    assert found["regret_forced_base"] == {96: 0.5, 48: 0.6}
    assert found["accuracy_base"] == {96: 0.21, 48: 0.11}
    assert found["accuracy_low"] == pytest.approx({96: 0.6, 48: 0.5})
    assert found["accuracy_forced_high"] == pytest.approx({96: 0.83, 48: 0.73})
    assert all(
        type(point["step"]) is int and type(point["value"]) is float
        for points in histories.values()
        for point in points
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("column", ["regret", "ci_low", "ci_high"])
def test_a_metric_that_is_not_finite_is_named(regret, accuracy, value, column):
    regret.loc[2, column] = value  # trained, stopped, 96
    name = {"regret": "regret", "ci_low": "regret_low", "ci_high": "regret_high"}[column]
    with pytest.raises(ValueError, match=f"{name} at 96"):
        budget_metrics(regret, accuracy)
