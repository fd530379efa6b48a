import pandas as pd
import pytest

from mrt_pipeline.evaluation.regret_sources import QUANTITIES, SOURCES
from mrt_pipeline.reporting.comparison import analyses_report, comparison_sources_figure


@pytest.fixture
def sources():
    rows = []
    for i, arm in enumerate(("base", "grpo", "mrt")):
        for difficulty, n_problems in (("hard", 3), ("all", 9)):
            for j, quantity in enumerate(QUANTITIES):
                mean = 0.01 * (i + j)
                ends = {"ci_low": mean - 0.01, "ci_high": mean + 0.01}
                difference = {"difference": 0.01 * (i - 1), "difference_low": -0.02, "difference_high": 0.01 * i}
                where = {"arm": arm, "difficulty": difficulty, "quantity": quantity, "budget": 96, "baseline": "grpo"}
                rows.append({**where, "mean": mean, **ends, **difference, "n_seeds": 2, "n_problems": n_problems})
    return pd.DataFrame(rows)


@pytest.fixture
def stopping(sources):
    one = sources[(sources["quantity"] == "lost") & (sources["difficulty"] == "all")]
    return pd.concat([one.assign(episodes=b) for b in (1, 2, 3, 7)]).drop(columns=["difficulty", "quantity", "budget"])


def test_the_report_has_every_arm_and_its_difference_to_the_baseline(sources, stopping):
    lines = analyses_report(sources, stopping).splitlines()
    assert lines[1] == "## Where regret comes from, natural stop, 96 thinking tokens (J >= 0.5 is found)"
    assert (
        lines[3]
        == "| arm | regret | never found | found late | lost | unsure | found | tokens after | thinking tokens |"
    )
    assert lines[5].startswith("| base | 0.000 [-0.010, 0.010] | 0.010 [0.000, 0.020] |")
    assert lines[9] == "Minus grpo, paired (* the interval excludes 0):"
    assert lines[13].startswith("| base | -0.010 [-0.020, +0.000] |") and lines[14].startswith("| mrt | +0.010 ")
    start = next(i for i, line in enumerate(lines) if line.startswith("## Thinking tokens by difficulty"))
    assert lines[start + 2] == "| arm | hard | all |"
    start = next(i for i, line in enumerate(lines) if line.startswith("## Stopping regret"))
    assert lines[start + 2] == "| arm | 1 | 3 | 7 |"
    assert "Stopping" not in analyses_report(sources, stopping.head(0))


def test_the_figure_stacks_the_parts_of_each_arm_over_all_problems_and_by_difficulty(sources):
    figure = comparison_sources_figure(sources)
    assert [note.text for note in figure.layout.annotations] == ["all (9 problems)", "hard (3 problems)"]
    assert len(figure.data) == 2 * len(SOURCES) and figure.layout.barmode == "stack"
    assert [bar.name for bar in figure.data if bar.showlegend] == [source.replace("_", " ") for source in SOURCES]
    for bar, source in zip(figure.data, 2 * SOURCES, strict=True):
        rows = sources[(sources["difficulty"] == "all") & (sources["quantity"] == source)]
        assert list(bar.x) == ["base", "grpo", "mrt"] and list(bar.y) == pytest.approx(rows["mean"].tolist())
