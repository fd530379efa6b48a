"""Nodes of `audit`."""

import logging

import numpy as np
import pandas as pd

from mrt_pipeline.auditing.audit import Audit, audit
from mrt_pipeline.auditing.measure import as_mathematics
from mrt_pipeline.auditing.params import AuditParams
from mrt_pipeline.errors import InputError
from mrt_pipeline.reporting.audit import audit_report
from mrt_pipeline.reporting.page import audit_page
from mrt_pipeline.tasks.math_grader import OwnGrader
from mrt_pipeline.tracking.runs import log_metrics

logger = logging.getLogger(__name__)
_SHOWN = 5  # refused records that are named


def audit_traces(params: AuditParams) -> Audit:
    """Read the traces, measure them, and say of each record that could not be read why."""
    if params.traces is None:
        raise InputError("say what to audit: --params audit.traces=<file, folder or dataset on the hub>")
    if params.grader is None:
        grade = as_mathematics(params.grading_seconds)
    else:
        grader = OwnGrader(params.grading_seconds, params.grader)
        grader.check()
        grade = grader.grade_all
    found = audit(
        params.traces,
        grade=grade,
        form=params.form,
        columns=params.columns,
        tokenizer=params.tokenizer,
        confidence=params.confidence,
        n_resamples=params.n_resamples,
        seed=params.seed,
    )
    for line in found.refused[:_SHOWN]:
        logger.warning("Left out: %s", line)
    if len(found.refused) > _SHOWN:
        logger.warning("Left out: %d more records; the page names them", len(found.refused) - _SHOWN)
    return found


def report_audit(found: Audit) -> tuple[str, str, pd.DataFrame, pd.DataFrame]:
    """The page, the same in short as Markdown, a row a problem, and the curve; the numbers go to MLflow as well."""
    log_metrics({f"audit/{name}": mean for name, (mean, _, _) in found.numbers.items() if not np.isnan(mean)}, 0)
    return audit_page(found), audit_report(found), found.problems, found.curve
