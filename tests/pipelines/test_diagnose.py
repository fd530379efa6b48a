"""A diagnosis as a user runs it, at toy size; and of a language model with adapters, on random weights."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from job import run, runs

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.pipelines.base_policy.nodes import make_base_policy
from mrt_pipeline.pipelines.diagnose.nodes import measure_credits, report_diagnosis
from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.schemas import DIAGNOSIS

ROOT = Path(__file__).parents[2]
SMALL = "diagnose.batches=3,diagnose.groups=4,diagnose.n_recall=24"


@pytest.fixture(scope="module")
def project(copy_project):
    return copy_project()


def test_a_base_is_diagnosed_by_one_command(project):
    result = run(project, SMALL, pipeline="diagnose")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == "" and "4/4 diagnose.report_diagnosis" in result.stdout
    table = DIAGNOSIS.validate(pd.read_parquet(project / "data/08_reporting/diagnosis.parquet"))
    assert list(dict.fromkeys(table["credit"])) == ["", "grpo", "mrt_online alpha=0", "anytime", "mrt_online"]
    _, sentences, credits, *_ = (project / "data/08_reporting/diagnosis.md").read_text().split("\n\n")
    assert sentences in result.stdout and credits in result.stdout
    assert "Recommended" in sentences.splitlines()[-1]
    client, (only,) = runs(project)
    assert only.info.status == "FINISHED" and only.data.tags["mlflow.runName"].startswith("diagnose ")
    metrics = {name: value for name, value in only.data.metrics.items() if name.startswith("diagnosis/")}
    assert "diagnosis/cosine_outcome/mrt_online alpha 0" in metrics and all(map(np.isfinite, metrics.values()))
    steps = {point.step for point in client.get_metric_history(only.info.run_id, "diagnosis/recall")}
    assert {0, 1, 2} <= steps
    names = {Path(item.path).name for path in ("", "tables") for item in client.list_artifacts(only.info.run_id, path)}
    assert {"diagnosis.md", "diagnosis.parquet"} <= names


def test_bad_parameters_are_refused_before_anything_runs(project):
    result = run(project, "diagnose.algorithms=[mrt]", pipeline="diagnose")
    assert result.returncode == 1 and "mrt starts from stale prefixes" in result.stderr
    assert "Traceback" not in result.stderr and len(runs(project)[1]) <= 1


def test_a_language_model_with_adapters_is_diagnosed(language_model, tmp_path, monkeypatch):
    folder = ROOT / "conf/base/parameters"
    monkeypatch.chdir(tmp_path)
    given = {
        "policy": "smollm2",
        "policy.path": language_model,
        "policy.gguf_file": "null",
        "task": "reasoning_gym",
        "task.n_train": "8",
        "task.n_validation": "2",
        "task.n_test": "2",
        "prover": "sampled",
        "prover.n_answers": "2",
        "rollout.thinking_budget": "12",
        "training.group_size": "2",
        "training.n_validation": "2",
        "evaluation.n_problems": "2",
        "diagnose.algorithms": "[grpo,{name: mrt_online, gamma: 0.5}]",
        "diagnose.batches": "3",
        "diagnose.groups": "3",
        "diagnose.n_recall": "4",
    }
    p = Parameters.model_validate(compose_parameters(folder, given))
    problems = make_problems(p.task)
    base = make_base_policy(problems, p.task, p.policy)
    acting = (p.task, p.engine, p.rollout, p.prover, p.training, p.diagnose, p.seed)
    table = DIAGNOSIS.validate(measure_credits(problems, base, *acting))
    report = report_diagnosis(table, p.rollout, p.training, p.diagnose)
    assert "mrt_online gamma=0.5" in report and "The 9 groups are of 8 problems only." in report and "nan" not in report
