"""Backtracking search by the main job's own commands, at toy size."""

import pandas as pd
import pytest
from job import TABLES, run, runs, tables

from mrt_pipeline.schemas import ROLLOUTS

TOY = "task=countdown_backtracking,policy=toy,policy.warm_start.steps=120,training.sampled_tokens=2000"


@pytest.fixture(scope="module")
def project(copy_project):
    return copy_project()


def test_backtracking_search_runs_to_the_end_by_one_override(project):
    result = run(project, f"{TOY},training.answer_weight=1")
    assert result.returncode == 0, result.stdout + result.stderr
    made = tables(project)
    for name, table in made.items():
        TABLES[name].validate(table)
    rollouts = made["07_model_output/trained_rollouts"]
    assert not rollouts["text"].str.contains("think>").any() and rollouts["text"].str.contains(" : ").all()
    assert set(rollouts["close_token_ids"].map(len)) == {0}
    majority = made["08_reporting/majority"]
    assert len(majority[majority["linearised"]]) == len(majority[~majority["linearised"]]) == 2 * 4
    linearised = ROLLOUTS.validate(pd.read_parquet(project / "data/07_model_output/trained_linearised.parquet"))
    assert len(linearised) == 16 * 4 and linearised["stream_length"].max() > 96
    for budget, natural in ((24, False), (192, True)):  # every budget is measured, though cuts are moved back
        accuracy = made["08_reporting/accuracy"]
        assert len(accuracy[(accuracy["budget"] == budget) & (accuracy["forced"] == natural)]) == 2
    (last, *_) = runs(project)[1][::-1]
    assert last.data.tags["task"] == "countdown_backtracking"
    refused = run(project, f"{TOY},rollout.answer_tokens=6")
    assert refused.returncode == 1 and "rollout.answer_tokens is 6" in refused.stderr


@pytest.mark.long
def test_mrt_star_runs_on_backtracking_search_with_the_sampled_prover(project):
    result = run(project, f"{TOY},prover=sampled,training.groups=4", pipeline="mrt_star")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "algorithm mrt_star, task countdown_backtracking" in result.stdout and "Base policy: " in result.stdout
