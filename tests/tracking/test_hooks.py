import subprocess

import pytest
from kedro.pipeline import Node, Pipeline

from mrt_pipeline.tracking import hooks
from mrt_pipeline.tracking.hooks import is_partial, run_name
from mrt_pipeline.tracking.runs import check_finite, git_state


def test_a_run_is_called_after_what_it_trains_and_a_stage_alone_after_the_stage():
    given = {"preset": "smoke", "algorithm": "grpo", "seed": "3"}
    assert run_name([], "grpo", 3, {}) == run_name(["mrt_rl"], "grpo", 3, {}) == "grpo seed=3"
    assert run_name(["mrt_star"], "star", 0, {"preset": "smoke"}) == "star seed=0 preset=smoke"
    assert run_name(["train"], "grpo", 3, given) == "train grpo seed=3 preset=smoke"
    assert run_name(["evaluate"], "grpo", 3, given) == "evaluate preset=smoke"


@pytest.mark.parametrize(
    ("names", "run", "run_params", "partial"),
    [
        (["mrt_rl"], "abc", {}, False),
        ([], "abc", {}, False),
        (["mrt_rl"], "c", {}, True),  # --nodes=c
        (["first", "last"], "abc", {}, False),
        (["mrt_rl"], "abc", {"only_missing_outputs": True}, True),
    ],
)
def test_a_run_that_leaves_nodes_of_its_pipeline_out_is_partial(monkeypatch, names, run, run_params, partial):
    def nodes(which):
        return Pipeline([Node(lambda: None, None, name, name=name) for name in which])

    registered = {"mrt_rl": nodes("abc"), "__default__": nodes("abc"), "first": nodes("a"), "last": nodes("bc")}
    monkeypatch.setattr(hooks, "registered", registered)
    assert is_partial(names, nodes(run), run_params) is partial


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_metrics_that_are_not_finite_are_refused_by_name(value):
    with pytest.raises(ValueError, match="bad"):
        check_finite({"good": 1.0, "bad": value})


def test_git_state_says_commit_and_dirt_and_nothing_outside_a_checkout(tmp_path):
    assert git_state(tmp_path) == {}
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = git_state(tmp_path)
    assert len(clean["git_commit"]) == 40 and clean["git_dirty"] == "false"
    (tmp_path / "file").write_text("x")
    assert git_state(tmp_path)["git_dirty"] == "true"
