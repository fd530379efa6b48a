"""An audit in short, as Markdown."""

import numpy as np

from mrt_pipeline.auditing.audit import Audit
from mrt_pipeline.reporting.cells import aligned, markdown

_NAMES = {
    "accuracy": "accuracy",
    "regret": "regret, up to the longest thought",
    "after_share": "share of the thinking after the find",
    "settled_share": "share after the final answer was first stated",
    "cut_share": "thoughts cut off",
    "stated_share": "thoughts that state an answer before their end",
    "repeated": "paragraphs that repeat one",
    "episodes": "episodes of a thought",
}


def audit_report(audit: Audit) -> str:
    """The verdict, the numbers with their intervals, what stopping earlier and voting would do."""
    rows = [
        [name, f"{mean:.3f}", f"{low:.3f} to {high:.3f}"]
        for key, name in _NAMES.items()
        for mean, low, high in [audit.numbers.get(key, (np.nan,) * 3)]
        if not np.isnan(mean)
    ]
    length = audit.numbers["length"]
    rows.append([f"{audit.unit} of a thought", *(f"{length[0]:.0f}", f"{length[1]:.0f} to {length[2]:.0f}")])
    n, problems = len(audit.thoughts), len(audit.problems)
    lines = [
        f"# Audit of {n:,} traces of {problems:,} problems",
        "",
        audit.verdict,
        "",
        *aligned(["", "mean", "95 % interval"], rows),
        "",
        f"Means are over problems. {audit.graded:,} traces have a gold answer. {len(audit.refused):,} records could "
        "not be read.",
    ]
    if audit.graded:
        heads = ["accuracy kept:", f"stop at {audit.unit}:", "accuracy:", "saved:"]
        stops = [
            [f"{row.kept:.0%}", f"{row.budget}", f"{row.accuracy:.3f}", f"{row.saved:.1%}"]
            for row in audit.stopping.itertuples(index=False)
        ]
        lines += ["", "## What stopping earlier would cost", "", *markdown(heads, stops)]
    if len(audit.voting):
        votes = [
            [str(row.k), f"{row.accuracy:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]", f"{row.spent:.0f}"]
            for row in audit.voting.itertuples(index=False)
        ]
        heads = ["votes:", "accuracy", f"{audit.unit} of a problem:"]
        lines += ["", "## What voting would buy", "", *markdown(heads, votes)]
    return "\n".join(lines) + "\n"
