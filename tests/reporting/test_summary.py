import pandas as pd
import pytest

from mrt_pipeline.evaluation.regret_sources import QUANTITIES
from mrt_pipeline.reporting.summary import evaluation_metrics, markdown_report
from mrt_pipeline.reporting.verdict import overview, verdict

RUN = ("mrt_online", 96, 0, 0.95)  # algorithm, training budget, seed, confidence


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
        "base": dict(zip(QUANTITIES, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, float("nan"), 30.0], strict=True)),
        "trained": dict(zip(QUANTITIES, [0.5, 0.0, 0.0, 0.5, 0.0, 0.5, 11.6, 40.0], strict=True)),
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
    report = markdown_report(both, accuracy, sources, stopping, majority, *RUN)
    assert "| budget | step: base | step: trained |" in report
    step = both[(both["definition"] == "step") & (both["budget"] == 48) & ~both["forced"]].set_index("policy")["regret"]
    assert f"| 48 | {step['base']:.3f} [" in report and f"] | {step['trained']:.3f} [" in report
    metrics = evaluation_metrics(both, accuracy, sources, stopping, majority, 96)
    assert metrics[48]["regret_step"] == pytest.approx(step["trained"])
    assert metrics[48]["regret"] == evaluation_metrics(regret, accuracy, sources, stopping, majority, 96)[48]["regret"]


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
    report = markdown_report(regret, accuracy, sources, stopping, majority, *RUN)
    assert "| policy | samples | maj@1 | tokens | maj@2 | tokens | maj@4 | tokens |" in report
    cells = "0.100 [0.050, 0.600] | 30 | 0.200 [0.050, 0.600] | 61 | 0.400 [0.050, 0.600] | 122 |"
    assert f"| base | ordinary | {cells}" in report and f"| trained | linearised | {cells}" in report
    found = evaluation_metrics(regret, accuracy, sources, stopping, majority, 96)
    assert [found[k]["majority"] for k in (1, 2, 3, 4)] == [k / 10 for k in (1, 2, 3, 4)]
    assert [found[k]["majority_base"] for k in (1, 2, 3, 4)] == [k / 10 for k in (1, 2, 3, 4)]
    assert found[1]["majority_linearised_low"] == 0.05
    assert found[3]["majority_tokens_linearised"] == pytest.approx(91.2)
    assert not any("majority_linearised_base" in metrics for metrics in found.values())


def test_the_report_says_where_regret_comes_from(regret, accuracy, sources, stopping, majority):
    report = markdown_report(regret, accuracy, sources, stopping, majority, *RUN)
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
    assert "Stopping regret" not in markdown_report(regret, accuracy, sources, stopping.head(0), majority, *RUN)


def test_the_report_has_trained_minus_base_at_every_budget(regret, accuracy, sources, stopping, majority):
    lines = markdown_report(regret, accuracy, sources, stopping, majority, *RUN).splitlines()
    start = lines.index("Trained minus base, paired by problem (* the interval excludes 0):")
    assert lines[start + 4] == "| 48 | natural | -0.255 [-0.510, -0.205] * | -0.200 [-0.400, -0.150] * |"
    assert lines[start + 7] == "| 96 | forced on | -0.405 [-0.810, -0.355] * | -0.050 [-0.100, +0.000] |"
    assert lines[start + 8] == ""


def test_the_report_of_one_policy_has_its_columns_only(regret, accuracy, sources, stopping, majority):
    one = [part[part["policy"] == "base"] for part in (regret, accuracy, sources, stopping, majority)]
    lines = markdown_report(*one, *RUN).splitlines()
    assert lines[0] == "# base policy, training budget 96 thinking tokens"
    assert "| budget | stop | accuracy: base | regret: base | thinking tokens: base |" in lines
    assert "trained" not in "\n".join(lines)


def test_the_analyses_are_metrics_by_budget_and_by_episodes(regret, accuracy, sources, stopping, majority):
    found = evaluation_metrics(regret, accuracy, sources, stopping, majority, 96)
    assert not any({"regret_regret", "regret_found"} & metrics.keys() for metrics in found.values())
    assert found[96]["regret_lost"] == 0.5 and "regret_lost" not in found[48]
    assert found[96]["regret_never_found_base"] == 1.0
    assert found[1]["stopping_regret"] == 0.1


def test_the_report_has_a_row_for_every_budget_and_way_of_stopping(regret, accuracy, sources, stopping, majority):
    accuracy.loc[accuracy["policy"] == "base", "thinking_tokens"] = 50.2
    lines = markdown_report(regret, accuracy, sources, stopping, majority, *RUN).splitlines()
    start = lines.index("Every budget, where the model stops by itself and where it is forced on:") + 2
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : lines.index("", start)]]
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


def test_the_report_begins_with_what_a_run_ends_with(regret, accuracy, sources, stopping, majority):
    title, said, table, *rest = markdown_report(regret, accuracy, sources, stopping, majority, *RUN).split("\n\n")
    assert title == "# mrt_online, seed 0, training budget 96 thinking tokens"
    assert said == verdict(regret, accuracy, 96, "mrt_online", 0.95)
    assert table.splitlines() == overview(regret, accuracy, 96) and len(rest) > 5


def test_metrics_by_budget(regret, accuracy, sources, stopping, majority):
    nothing = (sources.head(0), stopping.head(0), majority.head(0))
    found = evaluation_metrics(regret, accuracy, *nothing, 96)
    names = [
        f"{quantity}{forced}{policy}{end}"
        for quantity in ("regret", "accuracy")
        for forced in ("", "_forced")
        for policy in ("", "_base", "_minus_base")
        for end in ("", "_low", "_high")
    ]
    assert found.keys() == {48, 96}
    assert all(sorted(metrics) == sorted(names) for metrics in found.values())
    assert (found[96]["regret"], found[48]["regret"]) == (0.3, 0.4)
    assert (found[96]["regret_forced"], found[96]["regret_forced_base"]) == (0.1, 0.5)
    assert (found[96]["regret_minus_base"], found[48]["regret_minus_base"]) == (-0.15, -0.2)
    assert found[48]["accuracy_base"] == 0.11
    assert found[96]["accuracy_low"] == pytest.approx(0.6)
    assert found[48]["accuracy_forced_high"] == pytest.approx(0.73)
    assert all(type(value) is float for metrics in found.values() for value in metrics.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("column", ["regret", "ci_low", "ci_high"])
def test_a_metric_that_is_not_finite_is_named(regret, accuracy, sources, stopping, majority, value, column):
    regret.loc[2, column] = value  # trained, stopped, 96
    name = {"regret": "regret", "ci_low": "regret_low", "ci_high": "regret_high"}[column]
    with pytest.raises(ValueError, match=f"{name} at 96"):
        evaluation_metrics(regret, accuracy, sources, stopping, majority, 96)
