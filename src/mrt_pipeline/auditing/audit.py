"""How well the thoughts in given traces use their tokens: numbers, tables, and a verdict in two sentences.

J is by what a thought states (`stated.py`). All means are over problems, with bootstrap intervals over problems. What
needs gold answers is measured on the traces that have them; the rest on all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from mrt_pipeline.auditing.measure import (
    Cut,
    Grading,
    Measured,
    as_mathematics,
    episodes_table,
    measure,
    samples_table,
    tokens_of,
    words,
)
from mrt_pipeline.auditing.readers import read_traces
from mrt_pipeline.auditing.trace import Trace
from mrt_pipeline.evaluation.evaluate import problem_regrets
from mrt_pipeline.evaluation.intervals import Intervals, percentiles, problem_means
from mrt_pipeline.evaluation.regret_sources import SOURCES, regret_sources
from mrt_pipeline.evaluation.voting import majority_accuracy

_POINTS = 40  # of the anytime curve
_KEPT = (1.0, 0.99, 0.97, 0.95, 0.9)  # shares of the accuracy that stopping earlier is to keep
_CURVE = {"budget": int} | dict.fromkeys(
    ("accuracy", "ci_low", "ci_high", "regret", "regret_low", "regret_high", "spent"), float
)
_PROBLEM = (
    {"problem": int, "question": str, "gold": str, "n_traces": int}
    | dict.fromkeys(("length", "settled_share", "accuracy", "regret"), float)
    | {"cause": str, "tokens_after": float}
)
_TARGET = 0.02  # half width of an interval that is asked for
Value = tuple[float, float, float]
"""A mean and the ends of its interval."""


@dataclass(frozen=True)
class Audit:
    """What was found; see `audit`.

    unit: what pieces are, "tokens" or "words". budget: most pieces that are looked at, those of the longest thought.
    numbers: by name, means with intervals. curve: accuracy, and pieces spent, at a number of budgets. stopping: the
    least budget that keeps a share of the accuracy. voting: maj@k and its pieces. problems: a row a problem. thoughts:
    every trace as it was measured. refused: a line for each record that could not be read. graded: how many traces
    have gold answers; without any, what needs them is empty.
    """

    unit: str
    budget: int
    graded: int
    numbers: Mapping[str, Value]
    curve: pd.DataFrame
    stopping: pd.DataFrame
    voting: pd.DataFrame
    problems: pd.DataFrame
    thoughts: Sequence[Measured]
    refused: Sequence[str] = field(default=())

    @property
    def verdict(self) -> str:
        """What was found, in two sentences."""
        numbers, unit = self.numbers, self.unit
        if not self.graded:
            share = _percent(numbers["settled_share"])
            first = f"{share} of a thought comes, on average, after the answer that it gives in the end was first "
            first += "stated; whether that is right is not known, as there are no gold answers."
            cut, again = numbers["cut_share"][0], numbers["repeated"][0]
            return f"{first} {cut:.0%} of the thoughts were cut off, and {again:.1%} of their paragraphs repeat one."
        if not numbers["accuracy"][0]:
            return (
                f"No thought ends with a right answer: either the model is too weak for these {len(self.problems):,} "
                f"problems, or its answers are not read. {numbers['cut_share'][0]:.0%} of the thoughts were cut off."
            )
        first = f"{_percent(numbers['after_share'])} of the thinking {unit} come after the right answer was found; "
        first += f"accuracy is {numbers['accuracy'][0]:.3f}, regret {numbers['regret'][0]:.3f}."
        row = self.stopping[self.stopping["kept"] == 0.97].iloc[0]
        if row["saved"] < 0.005:
            return f"{first} Stopping earlier would cost accuracy at once."
        kept = row["accuracy"] / numbers["accuracy"][0]
        second = f"Stopping at {int(row['budget']):,} {unit} would keep {kept:.0%} of the accuracy"
        return f"{first} {second} and save {row['saved']:.0%} of the {unit}."


def audit(
    traces: str | Path | Sequence[Trace],
    grade: Grading | None = None,
    form: str = "auto",
    columns: Mapping[str, str] | None = None,
    tokenizer: str | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Audit:
    """Audit traces: a file, a folder, a dataset on the hub, or `Trace`s.

    grade: see `Grading`; None: answers are compared as mathematics. form, columns: see `read_traces`. tokenizer:
    folder or hub id of what counts tokens; None: words are counted. Raises InputError for what cannot be read at all.
    """
    refused: list[str] = []
    if isinstance(traces, str | Path):
        found = read_traces(str(traces), form, columns)
        traces, refused = found.traces, found.refused
    cut: Cut = tokens_of(tokenizer) if tokenizer else words
    measured = measure(traces, grade or as_mathematics(), cut)
    intervals = Intervals(confidence, n_resamples, seed)
    budget = max(1, *(item.n_pieces for item in measured))
    numbers = {name: intervals.mean(values) for name, values in _of_all(measured).items()}
    known = [item for item in measured if item.trace.golds]
    curve = pd.DataFrame(columns=[*_CURVE]).astype(_CURVE)
    stopping, voting, sources = (pd.DataFrame() for _ in range(3))
    if known:
        episodes, samples = episodes_table(known), samples_table(known)
        sources = regret_sources(episodes, samples, budget)
        by_problem = sources.groupby("problem_id")
        means = {name: by_problem[name].mean() for name in ("regret", *SOURCES)}
        means["accuracy"] = problem_means(samples["reward"], samples["problem_id"])
        after, spent = (by_problem[name].sum() for name in ("tokens_after", "thinking_tokens"))
        numbers |= {name: intervals.mean(values) for name, values in means.items()}
        numbers["after_share"] = _share(after, spent, intervals)
        curve = _curve(episodes, budget, intervals)
        stopping = _stopping(curve, float(samples["tokens"].mean()))
        voting = _voting(samples, intervals)
    unit = "tokens" if tokenizer else "words"
    problems = _problems(measured, sources)
    return Audit(unit, budget, len(known), numbers, curve, stopping, voting, problems, measured, refused)


def needed(value: Value, n: int, half_width: float = _TARGET) -> int:
    """Problems that an interval of this half width would take, as its width goes with one over their root."""
    half = (value[2] - value[1]) / 2
    return int(np.ceil(n * (half / half_width) ** 2 - 1e-6)) if half > half_width else n


def _of_all(measured: Sequence[Measured]) -> dict[str, pd.Series]:
    """What needs no gold answers, by problem."""
    ids = [item.problem_id for item in measured]
    values = {
        "length": [item.n_pieces for item in measured],
        "episodes": [len(item.episodes) - 1 for item in measured],
        "paragraphs": [len(item.steps) - 1 for item in measured],
        "repeated": [item.repeated for item in measured],
        "cut_share": [not item.trace.finished for item in measured],
        "stated_share": [any(item.answers[:-1]) for item in measured],
        "settled_share": [settled(item) for item in measured],
    }
    return {name: problem_means(found, ids) for name, found in values.items()}


def settled(item: Measured) -> float:
    """Share of a thought that comes after the answer of its end was first stated; NaN without such an answer."""
    last = item.answers[-1]
    if not last or not item.n_pieces:
        return np.nan
    first = next(i for i, answer in enumerate(item.answers) if answer == last)
    return 1 - float(item.steps[first]) / item.n_pieces


def _share(part: pd.Series, whole: pd.Series, intervals: Intervals) -> Value:
    """sum(part) / sum(whole) over problems, with its interval; problems without a part have none of it."""
    both = np.column_stack([part.fillna(0.0), whole])
    drawn = both[np.random.default_rng(intervals.seed).integers(0, len(both), (intervals.n_resamples, len(both)))]
    top, bottom = drawn.sum(axis=1).T
    interval = percentiles(top / np.maximum(bottom, 1), intervals.confidence)
    return float(both[:, 0].sum() / max(both[:, 1].sum(), 1)), *interval


def _curve(episodes: pd.DataFrame, budget: int, intervals: Intervals) -> pd.DataFrame:
    """Accuracy where every thought is stopped at a budget: J of the last paragraph that is complete there."""
    budgets = sorted({max(1, round(budget * share)) for share in np.linspace(0, 1, _POINTS + 1)[1:]})
    traces = [
        (problem, trace["n_tokens"].to_numpy(), trace["success"].to_numpy())
        for (problem, _), trace in episodes.groupby(["problem_id", "rollout_id"], sort=False)
    ]
    ids = [problem for problem, _, _ in traces]
    regrets = problem_regrets(episodes, budgets)
    rows = []
    for at in budgets:
        reached = [y[np.searchsorted(x, at, side="right") - 1] for _, x, y in traces]
        spent = float(np.mean([min(x[-1], at) for _, x, _ in traces]))
        accuracy = intervals.mean(problem_means(reached, ids))
        rows.append((at, *accuracy, *intervals.mean(regrets[at]), spent))
    return pd.DataFrame(rows, columns=[*_CURVE]).astype(_CURVE)


def _stopping(curve: pd.DataFrame, length: float) -> pd.DataFrame:
    """The least budget that has at least a share of the whole accuracy, and what stopping there saves."""
    whole = float(curve["accuracy"].iloc[-1])
    rows = []
    for kept in _KEPT:
        row = curve[curve["accuracy"] >= kept * whole - 1e-9].iloc[0]
        rows.append((kept, int(row["budget"]), float(row["accuracy"]), 1 - float(row["spent"]) / max(length, 1e-9)))
    return pd.DataFrame(rows, columns=["kept", "budget", "accuracy", "saved"])


def _voting(samples: pd.DataFrame, intervals: Intervals) -> pd.DataFrame:
    """maj@k over as many traces of each problem as all of them have; empty if that is one."""
    by_problem = samples.groupby("problem_id", sort=False)
    n = int(by_problem.size().min())
    if n < 2:
        return pd.DataFrame(columns=["k", "accuracy", "ci_low", "ci_high", "spent"])
    first = by_problem.head(n).groupby("problem_id", sort=False)
    votes = np.stack([majority_accuracy([*rows["answer_text"]], [*rows["reward"]]) for _, rows in first])
    spent = float(first["tokens"].mean().mean())
    rows = [(k + 1, *intervals.mean(votes[:, k]), (k + 1) * spent) for k in range(n)]
    return pd.DataFrame(rows, columns=["k", "accuracy", "ci_low", "ci_high", "spent"])


def _problems(measured: Sequence[Measured], sources: pd.DataFrame) -> pd.DataFrame:
    """A row a problem: question, traces, length; with gold answers accuracy, regret and where most of it comes from."""
    of: dict[int, list[Measured]] = {}
    for item in measured:
        of.setdefault(item.problem, []).append(item)
    rows = []
    by_problem = {} if sources.empty else dict(list(sources.groupby("problem_id")))
    for number, items in of.items():
        row: dict[str, object] = {
            "problem": number,
            "question": items[0].trace.question,
            "gold": ", ".join(items[0].trace.golds),
            "n_traces": len(items),
            "length": float(np.mean([item.n_pieces for item in items])),
            "settled_share": float(pd.Series([*map(settled, items)]).mean()),
        }
        own = by_problem.get(items[0].problem_id)
        if own is not None:
            parts = own[list(SOURCES)].mean()
            row |= {
                "accuracy": float(np.mean([item.success[-1] for item in items if item.trace.golds])),
                "regret": float(own["regret"].mean()),
                "cause": str(parts.idxmax()),
                "tokens_after": float(own["tokens_after"].mean()),
            }
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*_PROBLEM]).astype(_PROBLEM | {"cause": object})
    return table.assign(cause=table["cause"].fillna("").astype(str))


def _percent(value: Value) -> str:
    return "None" if np.isnan(value[0]) else f"{value[0]:.0%}"
