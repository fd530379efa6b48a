"""`kedro run --pipeline=audit` as a user types it."""

import json

import pandas as pd
import pytest
from job import run, runs

from mrt_pipeline.auditing.params import AuditParams
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.audit.nodes import audit_traces
from mrt_pipeline.schemas import AUDIT_CURVE, AUDIT_PROBLEMS


@pytest.fixture(scope="module")
def project(copy_project):
    return copy_project()


def test_traces_are_audited_by_one_command(project):
    rows = [
        {
            "question": f"What is {a} + 1?",
            "gold": a + 1,
            "thought": f"the answer is {a + 1}.\n\nWait.",
            "answer": str(a + 1),
        }
        for a in range(9)
    ]
    (project / "my.jsonl").write_text("\n".join([*map(json.dumps, rows), "{"]))
    result = run(project, "audit.traces=my.jsonl", pipeline="audit", preset=None)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "of the thinking words come after the right answer was found" in result.stdout
    assert "audit/report.html" in result.stdout and "Left out: my.jsonl, line 10: no JSON" in result.stdout
    folder = project / "data/08_reporting/audit"
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    AUDIT_PROBLEMS.validate(pd.read_parquet(folder / "audit_problems.parquet"))
    AUDIT_CURVE.validate(pd.read_parquet(folder / "audit_curve.parquet"))
    client, (last, *_) = runs(project)
    artifacts = {artifact.path for artifact in client.list_artifacts(last.info.run_id)}
    assert {"report.html", "report.md"} <= artifacts and last.data.metrics["audit/accuracy"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "say what to audit: --params audit.traces="),
        ({"traces": "nowhere.jsonl"}, "there is no file nowhere.jsonl"),
        ({"traces": "my.jsonl", "grader": "nowhere:grade"}, "task.grader=nowhere:grade cannot be used"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_words(given, said):
    with pytest.raises(InputError, match=said):
        audit_traces(AuditParams(**given))
