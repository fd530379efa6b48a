import numpy as np
import pandas as pd
import pytest
from test_arms import BASES, forced_votes, make_arms, make_run  # noqa: F401

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.arms import group_runs
from mrt_pipeline.evaluation.run_summary import keep, kept_runs


def same(left, right):
    return left.keys() == right.keys() and all(
        np.allclose(left[key], right[key], atol=1e-3, equal_nan=True) for key in left
    )


def test_kept_runs_are_compared_as_those_they_were_made_of(make_run, tmp_path):  # noqa: F811
    runs = [
        make_run("a", success=1 / 3),
        make_run("b", "mrt"),
        make_run("c", seed=1, base=1),
        make_run("d", "mrt", base=1),
    ]
    for run in runs:
        run.tables["trained_votes"] = forced_votes(["p", "q"], 0.5)
        keep(run, tmp_path / "some")
    kept = kept_runs(tmp_path)
    assert {run.run_id: (run.parameters, run.commit) for run in kept} == {r.run_id: (r.parameters, "abc") for r in runs}
    assert group_runs(kept, BASES).keys() == group_runs(runs, BASES).keys()
    for found, expected in zip(make_arms(kept), make_arms(runs), strict=True):
        assert (found.name, found.seeds, found.bases) == (expected.name, expected.seeds, expected.bases)
        for part in ("values", "thinking_tokens", "votes", "sources", "stopping"):
            assert same(getattr(found, part), getattr(expected, part)), part
        for history, original in zip(found.histories, expected.histories, strict=True):
            pd.testing.assert_frame_equal(history, original, check_dtype=False)
    bases = {path.name for path in (tmp_path / "some" / "bases").iterdir()}
    assert len(bases) == 1 and len(list((tmp_path / "some").iterdir())) == 1 + len(runs)  # all bases are alike here


def test_what_is_no_kept_run_is_refused_in_words(make_run, tmp_path):  # noqa: F811
    folder = keep(make_run("a"), tmp_path)
    assert folder.name == "grpo-0-a" and kept_runs(tmp_path / "nothing") == []
    (folder / "trained.parquet").write_text("not a table")
    with pytest.raises(InputError, match=r"the kept run in .*grpo-0-a cannot be read"):
        kept_runs(tmp_path)[0].measures("trained")
    (folder / "run.yaml").write_text("run_id: a\n")
    with pytest.raises(InputError, match=r"run\.yaml does not describe a kept run"):
        kept_runs(tmp_path)
