"""The report of a run, and its numbers as metrics."""

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from mrt_pipeline.evaluation.regret_sources import QUANTITIES, SOURCES
from mrt_pipeline.reporting.cells import STAR, difference_cell, digits_of, interval_cell, markdown
from mrt_pipeline.reporting.verdict import overview, verdict
from mrt_pipeline.tracking.runs import check_finite

_DEFINITION_SUFFIX = {"paper": "", "step": "_step", "paper_all_tokens": "_all_tokens"}
_ENDS = {"_low": "ci_low", "_high": "ci_high"}
_STOPS = {False: "natural", True: "forced on"}


def markdown_report(
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    sources: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    algorithm: str,
    thinking_budget: int,
    seed: int,
    confidence: float,
) -> str:
    """The verdict and a small table, which `kedro run` ends with; then all tables, intervals in brackets.

    Every budget and way of stopping; the same of trained minus base; regret by its other definitions; then, of the
    natural stop at the training budget, where regret comes from; stopping regret; maj@k with its tokens.
    sources: a `regret_sources_summary` table.
    """
    paper = regret[regret["definition"] == "paper"]
    both = accuracy.merge(paper, on=["policy", "budget", "forced"], suffixes=("_accuracy", "_regret"))
    policies = sorted(set(both["policy"]))  # base, trained
    what = f"{algorithm}, seed {seed}" if "trained" in policies else "base policy"
    lines = [
        f"# {what}, training budget {thinking_budget} thinking tokens",
        "",
        verdict(regret, accuracy, thinking_budget, algorithm, confidence),
        "",
        *overview(regret, accuracy, thinking_budget),
    ]
    lines += _budgets(both, policies) + _differences(both) + _definitions(regret, policies)
    lines += _sources(sources) + _stopping(stopping) + _majorities(majority)
    return "\n".join(lines) + "\n"


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A titled table as `markdown` makes it; nothing if it has no rows."""
    return ["", f"{title}:", "", *markdown(heads, [list(map(str, row)) for row in rows])] if rows else []


def _budgets(both: pd.DataFrame, policies: list[str]) -> list[str]:
    heads = [f"{what}: {policy}" for what in ("accuracy", "regret") for policy in policies]
    heads += [f"thinking tokens: {policy}:" for policy in policies]
    rows = []
    for (forced, budget), part in both.groupby(["forced", "budget"]):
        side_by_side = [part[part["policy"] == policy].iloc[0] for policy in policies]
        cells = [interval_cell(row, what, f"_{what}") for what in ("accuracy", "regret") for row in side_by_side]
        rows.append([budget, _STOPS[forced], *cells, *(f"{row['thinking_tokens']:.0f}" for row in side_by_side)])
    title = "Every budget, where the model stops by itself and where it is forced on"
    return _table(title, ["budget:", "stop", *heads], rows)


def _differences(both: pd.DataFrame) -> list[str]:
    compared = both[both["difference_regret"].notna()].sort_values(["forced", "budget"])
    rows = [
        [row["budget"], _STOPS[row["forced"]], difference_cell(row, "_accuracy"), difference_cell(row, "_regret")]
        for _, row in compared.iterrows()
    ]
    title = f"Trained minus base, paired by problem ({STAR})"
    return _table(title, ["budget:", "stop", "accuracy", "regret"], rows)


def _definitions(regret: pd.DataFrame, policies: list[str]) -> list[str]:
    others = regret[~regret["forced"] & (regret["definition"] != "paper")]
    heads = [f"{name}: {policy}" for name in others["definition"].unique() for policy in policies]
    rows = []
    for budget, part in others.groupby("budget"):
        cells = {f"{row['definition']}: {row['policy']}": interval_cell(row, "regret") for _, row in part.iterrows()}
        rows.append([budget, *(cells[head] for head in heads)])
    title = "Regret by other definitions (docs/tables.md), natural stop"
    return _table(title, ["budget:", *heads], rows)


def _sources(sources: pd.DataFrame) -> list[str]:
    heads = ["policy", "problems", "number:", *(quantity.replace("_", " ") for quantity in QUANTITIES)]
    means, differences = [], []
    for (policy, difficulty, number), rows in sources.groupby(["policy", "difficulty", "n_problems"], sort=False):
        rows = rows.set_index("quantity").loc[list(QUANTITIES)]
        cells = [interval_cell(row, "mean", digits=digits_of(quantity)) for quantity, row in rows.iterrows()]
        means.append([policy, difficulty, number, *cells])
        cells = [difference_cell(row, digits=digits_of(quantity)) for quantity, row in rows.iterrows()]
        if any(cells):
            differences.append([f"{policy} - base", difficulty, number, *cells])
    at = "natural stop, training budget; J >= 0.5 is found; difficulty by the base's samples"
    return [
        *_table(f"Where regret comes from ({at})", heads, means),
        *_table(f"The same, trained minus base, paired by problem ({STAR})", heads, differences),
    ]


def _stopping(stopping: pd.DataFrame) -> list[str]:
    rows = [
        [row["policy"], row["episodes"], interval_cell(row, "regret"), difference_cell(row), row["n_traces"]]
        for _, row in stopping[stopping["episodes"].isin([1, 3, stopping["episodes"].max()])].iterrows()
    ]
    title = "Stopping regret (stop and vote against thinking on, appendix E), first episodes"
    return _table(title, ["policy", "episodes:", "regret", "minus base", "traces:"], rows)


def _majorities(majority: pd.DataFrame) -> list[str]:
    ks = [k for k in sorted(set(majority["k"])) if k & (k - 1) == 0]
    rows = []
    for (policy, linearised), part in majority.groupby(["policy", "linearised"], sort=False):
        cells = [policy, "linearised" if linearised else "ordinary"]
        for _, row in part[part["k"].isin(ks)].iterrows():
            cells += [interval_cell(row, "accuracy"), f"{row['tokens']:.0f}"]
        rows.append(cells)
    heads = ["policy", "samples", *(head for k in ks for head in (f"maj@{k}", "tokens:"))]
    title = "maj@k, and the tokens of k samples (natural stop; linearised: a window over the last episodes)"
    return _table(title, heads, rows)


def evaluation_metrics(
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    sources: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    thinking_budget: int,
) -> dict[int, dict[str, float]]:
    """Metrics by step: the budget; of stopping regret the number of episodes; of maj@k and its tokens, k.

    `regret`, `accuracy`, ... are the trained policy's, `..._base` the base's. Budget-forced values carry `_forced`,
    other definitions of regret than the paper's `_step`, `_all_tokens`, trained minus base `_minus_base`, ends of the
    interval `_low` and `_high`. Raises ValueError if one is not finite.
    """
    by_step: dict[int, dict[str, float]] = defaultdict(dict)

    def note(step: int, name: str, row: dict, columns: dict[str, str]) -> None:
        by_step[int(step)] |= {name + suffix: float(row[column]) for suffix, column in columns.items()}

    for quantity, table in (("regret", regret), ("accuracy", accuracy)):
        for row in table.to_dict("records"):
            name = quantity + _DEFINITION_SUFFIX[row.get("definition", "paper")]
            name += ("_forced" if row["forced"] else "") + _whose(row)
            note(row["budget"], name, row, {"": quantity} | _ENDS)
            if pd.notna(row["difference"]):
                ends = {end: f"difference{end}" for end in ("", *_ENDS)}
                note(row["budget"], f"{name}_minus_base", row, ends)
    for row in sources.to_dict("records"):
        if row["difficulty"] == "all" and row["quantity"] in SOURCES:
            note(thinking_budget, f"regret_{row['quantity']}{_whose(row)}", row, {"": "mean"})
    for row in stopping.to_dict("records"):
        note(row["episodes"], f"stopping_regret{_whose(row)}", row, {"": "regret"})
    for row in majority.to_dict("records"):
        whose = ("_linearised" if row["linearised"] else "") + _whose(row)
        note(row["k"], f"majority{whose}", row, {"": "accuracy"} | _ENDS)
        note(row["k"], f"majority_tokens{whose}", row, {"": "tokens"})
    check_finite({f"{name} at {step}": value for step, some in by_step.items() for name, value in some.items()})
    return dict(by_step)


def _whose(row: dict) -> str:
    return "" if row["policy"] == "trained" else f"_{row['policy']}"
