"""The README's first command at full size: what the first page says of it is what a reader gets."""

import re

import pandas as pd
import pytest
from job import ROOT, kedro


@pytest.mark.long
def test_the_default_run_gives_the_figures_of_the_pages(copy_project):
    project = copy_project()
    done = kedro(project, "run", "--pipeline=mrt_rl")
    assert done.returncode == 0, done.stderr[-2000:]
    page = (ROOT / "docs/index.md").read_text()
    rows = re.findall(
        r"^\| (\d+) \| (natural|forced on) \|.*\| (0\.\d+) \[.*?\] \| (0\.\d+) \[.*?\] \| \d+ \| \d+ \|$", page, re.M
    )
    assert len(rows) == 12
    regret = pd.read_parquet(project / "data/08_reporting/regret.parquet").query("definition == 'paper'")
    found = regret.set_index(["budget", "forced", "policy"])
    for budget, stop, *values in rows:
        for policy, value in zip(("base", "trained"), values, strict=True):
            row = found.loc[(int(budget), stop == "forced on", policy)]
            # Other processors round otherwise, and a token that is drawn otherwise changes all that follow.
            assert row.ci_low - 0.02 < float(value) < row.ci_high + 0.02
        assert row.difference_high < 0
