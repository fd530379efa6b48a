"""The results pages: their tables stand in reports that `compare` made, and it makes these again from the kept runs."""

import re
from itertools import takewhile
from pathlib import Path

import pytest

from mrt_pipeline.config_loader import project_parameters
from mrt_pipeline.evaluation.arms import make_arms
from mrt_pipeline.pipelines.compare.nodes import compare_arms, report_comparison
from mrt_pipeline.tracking.read_runs import choose_runs

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
REPORTS = sorted((RESULTS / "reports").glob("*.md"))
PAGES = sorted({*RESULTS.glob("*.md")} - {RESULTS / "plan.md"})


def rows_of(path):
    """The rows of a page's tables, without heads and rules."""
    lines = path.read_text().splitlines()
    heads = {i - 1 for i, line in enumerate(lines) if re.match(r"\| -{3}", line)}
    return [line for i, line in enumerate(lines) if line.startswith("| ") and i not in heads and i - 1 not in heads]


def points(report):
    """Every row of accuracy and regret by budget, and of the differences, without the intervals."""
    lines = takewhile(lambda line: not line.startswith("## Gain"), report.splitlines())
    return [re.sub(r" \[[^]]*\]( \*)?", "", line) for line in lines if line.startswith("| ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_row_of_a_page_stands_in_a_report(page):
    made = {row for report in REPORTS for row in rows_of(report)}
    assert [row for row in rows_of(page) if row not in made] == []


@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_a_report_is_what_compare_makes_of_the_kept_runs(report, monkeypatch):
    monkeypatch.chdir(ROOT)
    compare = project_parameters(ROOT, {"compare": report.stem, "compare.n_resamples": "20"}).compare
    *tables, _ = compare_arms(make_arms(choose_runs(compare)), compare)
    assert points(report_comparison(*tables)) == points(report.read_text())
