"""Wiring of `audit`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import stage
from mrt_pipeline.pipelines.audit.nodes import audit_traces, report_audit


def create_pipeline(**kwargs) -> Pipeline:
    """Traces that exist -> a page, a report and tables. No model is needed."""
    made = ["audit_page", "audit_report", "audit_problems", "audit_curve"]
    return stage("audit", (audit_traces, "params:audit", "audited"), (report_audit, "audited", made))
