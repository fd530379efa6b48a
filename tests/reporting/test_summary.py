import pandas as pd
import pytest

from mrt_pipeline.evaluation.regret_sources import QUANTITIES
from mrt_pipeline.reporting.summary import analysis_metrics, budget_metrics, majority_metrics, markdown_report


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
                        "difference": -v / 2 if policy == "trained" else float("nan"),
                        "difference_low": -v if policy == "trained" else float("nan"),
                        "difference_high": 0.05 - v / 2 if policy == "trained" else float("nan"),
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture
def regret():
    return table("regret", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]).assign(definition="paper")


@pytest.fixture
def accuracy():
    return table("accuracy", [0.81, 0.71, 0.61, 0.51, 0.41, 0.31, 0.21, 0.11]).assign(thinking_tokens=47.6)


@pytest.fixture
def sources():
    """A `regret_sources_summary`, over all problems: the base never finds, the trained policy finds in half of them."""
    means = {
        "base": dict(zip(QUANTITIES, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, float("nan")], strict=True)),
        "trained": dict(zip(QUANTITIES, [0.5, 0.0, 0.0, 0.5, 0.0, 0.5, 11.6], strict=True)),
    }
    rows = []
    for policy, quantities in means.items():
        for quantity, mean in quantities.items():
            difference = mean - means["base"][quantity] if policy == "trained" else float("nan")
            ends = {"ci_low": mean - 0.25, "ci_high": mean + 0.25}
            ends |= {"difference_low": difference - 0.75, "difference_high": difference + 0.125}
            where = {"policy": policy, "difficulty": "all", "quantity": quantity, "budget": 96, "n_problems": 4}
            rows.append({**where, "mean": mean, "difference": difference, **ends})
    return pd.DataFrame(rows)


@pytest.fixture
def stopping():
    columns = ["policy", "episodes", "regret", "ci_low", "ci_high", "difference", "difference_low", "difference_high"]
    nan = float("nan")
    rows = [["base", 1, 0.2, 0.1, 0.3, nan, nan, nan, 5], ["trained", 1, 0.1, 0.05, 0.2, -0.1, -0.15, -0.0001, 6]]
    return pd.DataFrame(rows, columns=[*columns, "n_traces"])


def test_other_definitions_of_regret_stand_in_a_table_and_are_metrics_of_their_own(
    regret, accuracy, sources, stopping, majority
):
    both = pd.concat([regret, regret.assign(definition="step", regret=regret["regret"] + 0.05)], ignore_index=True)
    report = markdown_report(both, accuracy, sources, stopping, majority, "title")
    assert "| budget | step: base | step: trained |" in report
    step = both[(both["definition"] == "step") & (both["budget"] == 48) & ~both["forced"]].set_index("policy")["regret"]
    assert f"| 48 | {step['base']:.3f} [" in report and f"] | {step['trained']:.3f} [" in report
    metrics = budget_metrics(both, accuracy)
    assert {point["step"]: point["value"] for point in metrics["regret_step"]}[48] == pytest.approx(step["trained"])
    assert metrics["regret"] == budget_metrics(regret, accuracy)["regret"]


@pytest.fixture
def majority():
    rows = [
        {
            "policy": policy,
            "linearised": linearised,
            "k": k,
            "accuracy": k / 10,
            "ci_low": 0.05,
            "ci_high": 0.6,
            "tokens": 30.4 * k,
        }
        for policy, linearised in (("base", False), ("trained", False), ("trained", True))
        for k in (1, 2, 3, 4)
    ]
    return pd.DataFrame(rows)


def test_majorities_stand_in_the_report_and_are_metrics_by_k(regret, accuracy, sources, stopping, majority):
    report = markdown_report(regret, accuracy, sources, stopping, majority, "title")
    assert "| policy | samples | maj@1 | tokens | maj@2 | tokens | maj@4 | tokens |" in report
    cells = "0.100 [0.050, 0.600] | 30 | 0.200 [0.050, 0.600] | 61 | 0.400 [0.050, 0.600] | 122 |"
    assert f"| base | ordinary | {cells}" in report and f"| trained | linearised | {cells}" in report
    found = majority_metrics(majority)
    assert found["majority"] == found["majority_base"] == [{"value": k / 10, "step": k} for k in (1, 2, 3, 4)]
    assert found["majority_linearised_low"][0] == {"value": 0.05, "step": 1}
    assert found["majority_tokens_linearised"][2]["value"] == pytest.approx(91.2)
    assert "majority_linearised_base" not in found


def test_the_report_says_where_regret_comes_from(regret, accuracy, sources, stopping, majority):
    report = markdown_report(regret, accuracy, sources, stopping, majority, "title")
    ends = "[0.250, 0.750]"
    zero = "0.000 [-0.250, 0.250]"
    found = f"0.500 {ends} | 11.6 [11.3, 11.8]"
    assert f"| trained | all | 4 | 0.500 {ends} | {zero} | {zero} | 0.500 {ends} | {zero} | {found} |" in report
    assert report.count("| base | all | 4 |") == 1 and "[-0.250, 0.250] |  |" in report
    assert "| trained - base | all | 4 | -0.500 [-1.250, -0.375] * | -1.000 [-1.750, -0.875] * |" in report
    assert "+0.000 [-0.750, +0.125] | " in report
    # the interval reaches 0 as it is printed, so there is no star
    assert "| trained | 1 | 0.100 [0.050, 0.200] | -0.100 [-0.150, +0.000] | 6 |" in report
    assert "| base | 1 | 0.200 [0.100, 0.300] |  | 5 |" in report
    assert "Stopping regret" not in markdown_report(regret, accuracy, sources, stopping.head(0), majority, "title")


def test_the_report_has_trained_minus_base_at_every_budget(regret, accuracy, sources, stopping, majority):
    lines = markdown_report(regret, accuracy, sources, stopping, majority, "title").splitlines()
    start = lines.index("Trained minus base, paired by problem (* the interval excludes 0):")
    assert lines[start + 4] == "| 48 | natural | -0.255 [-0.510, -0.205] * | -0.200 [-0.400, -0.150] * |"
    assert lines[start + 7] == "| 96 | forced on | -0.405 [-0.810, -0.355] * | -0.050 [-0.100, +0.000] |"
    assert lines[start + 8] == ""


def test_the_report_of_one_policy_has_its_columns_only(regret, accuracy, sources, stopping, majority):
    one = [part[part["policy"] == "base"] for part in (regret, accuracy, sources, stopping, majority)]
    lines = markdown_report(*one, "title").splitlines()
    assert lines[2] == "| budget | stop | accuracy: base | regret: base | thinking tokens: base |"
    assert "trained" not in "\n".join(lines)


def test_the_analyses_are_metrics_by_budget_and_by_episodes(sources, stopping):
    found = analysis_metrics(sources, stopping, 96)
    assert "regret_regret" not in found and "regret_found" not in found
    assert found["regret_lost"] == [{"value": 0.5, "step": 96}]
    assert found["regret_never_found_base"] == [{"value": 1.0, "step": 96}]
    assert found["stopping_regret"] == [{"value": 0.1, "step": 1}]


def test_the_report_has_a_row_for_every_budget_and_way_of_stopping(regret, accuracy, sources, stopping, majority):
    accuracy.loc[accuracy["policy"] == "base", "thinking_tokens"] = 50.2
    lines = markdown_report(regret, accuracy, sources, stopping, majority, "mrt_online, seed 0").splitlines()
    assert lines[0] == "# mrt_online, seed 0"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2 : lines.index("", 2)]]
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
    names += [
        f"{quantity}{forced}_minus_base{end}"
        for quantity in ("regret", "accuracy")
        for forced in ("", "_forced")
        for end in ("", "_low", "_high")
    ]
    assert sorted(histories) == sorted(names)
    found = {name: {point["step"]: point["value"] for point in points} for name, points in histories.items()}
    assert found["regret"] == {96: 0.3, 48: 0.4}
    assert found["regret_forced"] == {96: 0.1, 48: 0.2}
    assert found["regret_forced_base"] == {96: 0.5, 48: 0.6}
    assert found["regret_minus_base"] == {96: -0.15, 48: -0.2}
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
