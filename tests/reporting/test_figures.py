import pandas as pd
import pytest

from mrt_pipeline.evaluation.regret_sources import SOURCES
from mrt_pipeline.reporting.figures import budget_figure, majority_figure, progress_figure, sources_figure, vote_figure


def test_shares_are_drawn_from_zero_on_so_that_noise_is_not_blown_up():
    row = {"policy": "base", "forced": False, "ci_low": 1 - 2e-12, "ci_high": 1.0, "regret": 1 - 1e-12}
    figure = budget_figure(pd.DataFrame([{**row, "budget": budget} for budget in (48, 24)]), "regret", 48)
    assert list(figure.data[0].x) == [24, 48]
    assert figure.layout.yaxis.rangemode == "tozero"


def test_progress_counts_the_episodes_before_the_natural_end():
    episodes = pd.DataFrame(
        {
            "policy": "base",
            "progress": [float("nan"), 0.5, -0.5, 0.25, 0.9],
            "forced": [False, False, False, False, True],
            "stopped": [False, False, False, True, False],
        }
    )
    (bars,) = progress_figure(episodes).data
    assert sorted(bars.x) == [-0.5, 0.5]
    assert bars.name == "base, mean +0.000"


def test_the_sources_are_stacked_to_the_regret():
    row = {**dict(zip(SOURCES, [0.1, 0.2, 0.3, 0.05], strict=True)), "regret": 0.65, "found": 0.5}
    where = {"policy": "base", "difficulty": "all", "n_problems": 7}
    table = pd.DataFrame(
        [{**where, "quantity": q, "mean": v, "ci_low": v - 0.01, "ci_high": v + 0.02} for q, v in row.items()]
    )
    figure = sources_figure(table, 96)
    assert figure.layout.barmode == "stack"
    assert [bar.y[0] for bar in figure.data] == pytest.approx([row[source] for source in SOURCES])
    assert figure.data[0].x[0] == "base, all (7)"
    assert figure.data[0].hovertext[0] == "0.100 [0.090, 0.120]"
    assert figure.data[-1].error_y.array == pytest.approx([0.02])  # that of the whole, on top
    assert figure.data[-1].error_y.arrayminus == pytest.approx([0.01])


def test_votes_are_drawn_for_powers_of_two_and_direct_answers_beside_them():
    ends = {"ci_low": 0.0, "ci_high": 1.0}
    rows = [
        {"policy": "base", "method": method, "episode": j, "p": p, "accuracy": p / 10, "n_tokens": 10.0 * j + p, **ends}
        for method, j in (("vote", 0), ("vote", 3), ("direct", 0))
        for p in range(1, 9)
    ]
    figure = vote_figure(pd.DataFrame(rows))
    first, second, direct = figure.data
    assert (first.text[0], second.text[0]) == ("0", "3") and first.showlegend and not second.showlegend
    assert list(second.x) == [31, 32, 34, 38] and list(first.y) == [0.1, 0.2, 0.4, 0.8]
    assert list(first.error_y.arrayminus) == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert len(direct.x) == 8


def test_majorities_are_drawn_against_tokens_with_intervals_and_linearised_ones_dashed():
    rows = [
        {"policy": "base", "linearised": linearised, "k": k, "accuracy": k / 10, "tokens": 30.0 * k + linearised}
        for linearised in (False, True)
        for k in (2, 1, 3)
    ]
    table = pd.DataFrame(rows)
    table = table.assign(ci_low=table["accuracy"] - 0.02, ci_high=table["accuracy"] + 0.03)
    ordinary, linearised = majority_figure(table).data
    assert list(ordinary.x) == [30, 60, 90] and list(linearised.x) == [31, 61, 91]
    assert list(ordinary.text) == ["maj@1", "maj@2", "maj@3"]
    assert list(ordinary.error_y.array) == pytest.approx([0.03] * 3)
    assert list(ordinary.error_y.arrayminus) == pytest.approx([0.02] * 3)
    assert (ordinary.line.dash, linearised.line.dash) == ("solid", "dash")
    assert linearised.name == "base, linearised"
