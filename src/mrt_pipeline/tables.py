"""The way between the tables that nodes exchange (`schemas.py`) and what the library works with. See docs/tables.md."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandera.pandas import DataFrameSchema

from mrt_pipeline.engines.base import Completion
from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout
from mrt_pipeline.rollouts.prover import Query, grade_answers, n_tokens
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.schemas import LABELS, PROBLEMS, ROLLOUTS
from mrt_pipeline.tasks.base import Grade, Problem

_PROBLEM = ("problem_id", "source", "split", "question")  # columns that hold a field of the problem as it is
_ROLLOUT = {  # columns that hold a field of the rollout as it is
    **{name: name for name in ("group", "boundaries", "close_logprob", "answer_text", "stop_reason", "natural_length")},
    **{name: name for name in ("thought_logprobs", "answer_logprobs", "min_thinking", "stopped_at", "stopped_reward")},
    **{f"{name}_token_ids": name for name in ("prompt", "thought", "natural_close", "close", "answer")},
    "thought_choice_ids": "thought_choices",
    "dropped_tokens": "dropped",
}


def problems_table(problems: Sequence[Problem]) -> pd.DataFrame:
    """One row a problem; metadata as JSON text."""
    rows = [
        {**{name: getattr(p, name) for name in _PROBLEM}, "answers": [*p.answers], "metadata": json.dumps(p.metadata)}
        for p in problems
    ]
    return pd.DataFrame(rows, columns=list(PROBLEMS.columns))


def problems_from_table(table: pd.DataFrame, split: str | None = None) -> list[Problem]:
    """The problems of a table, in its order; of one split if given."""
    if split is not None:
        table = table[table["split"] == split]
    return [
        Problem(row.problem_id, row.source, row.split, row.question, tuple(row.answers), json.loads(row.metadata))
        for row in table.itertuples(index=False)
    ]


def rollouts_table(
    rollouts: Sequence[Rollout], policy: str, decode: Callable[[np.ndarray], str | list[str]], seed: int
) -> pd.DataFrame:
    """One row a trace, or none. decode: token ids to text."""
    rows = [
        {
            **ids,
            **{column: getattr(rollout, field) for column, field in _ROLLOUT.items()},
            "text": decode(rollout.token_ids()),
            "reward": rollout.reward,
            "grade": rollout.grade.value,
            "stream_length": rollout.stream_length,
            "seed": seed,
        }
        for ids, rollout in zip(_trace_ids(rollouts, policy), rollouts, strict=True)
    ]
    return _typed(rows, ROLLOUTS)


def rollouts_from_table(table: pd.DataFrame, problems: Sequence[Problem]) -> list[Rollout]:
    """The rollouts that `rollouts_table` was made of."""
    by_id = {problem.problem_id: problem for problem in problems}
    rollouts = []
    for row in table.to_dict("records"):
        fields = {field: _read(column, row[column]) for column, field in _ROLLOUT.items()}
        beyond = row["stream_length"] - len(fields["thought"])
        rollouts.append(Rollout(problem=by_id[row["problem_id"]], grade=Grade(row["grade"]), beyond=beyond, **fields))
    return rollouts


def _read(column: str, value: Any) -> Any:
    """A value of a column as the rollout has it."""
    if column in ("stopped_at", "stopped_reward"):
        return None if np.isnan(value) else int(value) if column == "stopped_at" else value
    if column.endswith("_logprobs"):
        return np.asarray(value, dtype=np.float32)
    return _ids(value) if column == "boundaries" or column.endswith("_ids") else value


def episodes_table(labelled: Sequence[LabelledRollout], policy: str, prover: str) -> pd.DataFrame:
    """One row an episode boundary; the empty prefix is episode -1 and has no progress.

    Where no answer follows the first attempt to stop, it is one more row, `stopped`, with the reward that is known
    there as success: it takes the place of what follows in the natural reading, and is none in the forced one.
    """
    parts = []
    for ids, item in _of_traces(labelled, policy):
        rollout = item.rollout
        trace = pd.DataFrame(
            {
                **ids,
                "episode": np.arange(-1, len(item.boundaries) - 1),
                "n_tokens": item.boundaries,
                "success": item.success,
                "success_sem": item.success_sem,
                "progress": np.append(np.nan, progress(item.success)),
                "forced": item.boundaries > rollout.natural_length,
                "stopped": False,
                "prover": prover,
            }
        )
        if rollout.stopped_at is not None and rollout.stopped_reward is not None:
            trace = _with_stop(trace, rollout.stopped_at, rollout.stopped_reward)
        parts.append(trace)
    return pd.concat(parts, ignore_index=True)


def _with_stop(trace: pd.DataFrame, stopped_at: int, reward: float) -> pd.DataFrame:
    """The rows of a trace with the one of its first attempt to stop, before what it was forced on to."""
    last = trace[~trace["forced"]].iloc[-1:]
    stop = last.assign(
        episode=last["episode"] + 1,
        n_tokens=stopped_at,
        success=reward,
        success_sem=0.0,
        progress=reward - last["success"],
        stopped=True,
    )
    return pd.concat([trace[~trace["forced"]], stop, trace[trace["forced"]]])


def anytime_table(labelled: Sequence[LabelledRollout], policy: str, budgets: Sequence[int]) -> pd.DataFrame:
    """J at each budget, once stopping where the model stops (forced False) and once budget-forced (forced True).

    labelled: at the natural end, with `budgets` as further cuts (those beyond a thought at its end).
    A thought that was not forced on to a budget has no forced row there. Where no answer follows the first attempt to
    stop, stopping gives the reward that is known there, from the budget on that lets it get there.
    """
    at_budgets, parts = np.asarray(budgets), []
    for ids, item in _of_traces(labelled, policy):
        rollout = item.rollout
        n, reached = rollout.natural_length, at_budgets <= rollout.stream_length
        natural = np.where(at_budgets <= n, item.at_cuts, item.success_at(n))
        if rollout.stopped_at is not None and rollout.stopped_reward is not None:
            natural = np.where(at_budgets >= rollout.stopped_at, rollout.stopped_reward, natural)
        for forced, at, success in ((False, at_budgets, natural), (True, at_budgets[reached], item.at_cuts[reached])):
            parts.append(pd.DataFrame({**ids, "n_tokens": at, "success": success, "forced": forced}))
    return pd.concat(parts, ignore_index=True).astype({"n_tokens": int, "forced": bool})


def labels_table(labelled: Sequence[LabelledRollout], policy: str) -> pd.DataFrame:
    """One row a trace: where J was asked for besides the boundaries, J there, and what the prover spent."""
    rows = [
        {**ids, "cuts": item.cuts, "cut_success": item.at_cuts, "prover_tokens": item.prover_tokens}
        for ids, item in _of_traces(labelled, policy)
    ]
    return _typed(rows, LABELS)


def labelled_from_tables(
    rollouts: pd.DataFrame, episodes: pd.DataFrame, labels: pd.DataFrame, problems: Sequence[Problem]
) -> list[LabelledRollout]:
    """The labelled rollouts that `rollouts_table`, `episodes_table` and `labels_table` were made of."""
    traces = dict(list(episodes[~episodes["stopped"]].groupby(["problem_id", "rollout_id"], sort=False)))
    rows = {(row.problem_id, row.rollout_id): row for row in labels.itertuples(index=False)}
    keys = zip(rollouts["problem_id"], rollouts["rollout_id"], strict=True)
    return [
        LabelledRollout(
            rollout,
            traces[key]["n_tokens"].to_numpy(dtype=np.int64),
            traces[key]["success"].to_numpy(),
            traces[key]["success_sem"].to_numpy(),
            _ids(rows[key].cuts),
            np.asarray(rows[key].cut_success, dtype=np.float64),
            rows[key].prover_tokens,
        )
        for rollout, key in zip(rollouts_from_table(rollouts, problems), keys, strict=True)
    ]


def votes_table(
    actor: Actor,
    policy: str,
    rollouts: Sequence[Rollout],
    queries: Sequence[Query],
    found: Sequence[Sequence[Sequence[Completion]]],
) -> pd.DataFrame:
    """One row an episode boundary: the answers forced there, as votes count them (empty: none), rewards and tokens."""
    rows = []
    graded = grade_answers(actor, queries, found)
    for ids, query, answers, read in zip(_trace_ids(rollouts, policy), queries, found, graded, strict=True):
        for episode, (cut, sampled, at_cut) in enumerate(zip(query.cuts, answers, read, strict=True), start=-1):
            voted = ["" if grade is Grade.UNPARSED else actor.task.read(text).strip() for text, grade in at_cut]
            rewards = np.array([grade.reward for _, grade in at_cut], dtype=np.float64)
            row = {**ids, "episode": episode, "n_tokens": int(cut), "answers": voted, "rewards": rewards}
            rows.append({**row, "answer_tokens": _ids([n_tokens(answer) for answer in sampled])})
    return pd.DataFrame(rows)


def _trace_ids(rollouts: Sequence[Rollout], policy: str) -> list[dict[str, Any]]:
    """policy, problem_id and rollout_id of each rollout: those of a problem are numbered in their order."""
    counts: Counter[str] = Counter()
    ids = []
    for rollout in rollouts:
        problem = rollout.problem.problem_id
        ids.append({"policy": policy, "problem_id": problem, "rollout_id": counts[problem]})
        counts[problem] += 1
    return ids


def _of_traces(labelled: Sequence[LabelledRollout], policy: str) -> Iterable[tuple[dict[str, Any], LabelledRollout]]:
    return zip(_trace_ids([item.rollout for item in labelled], policy), labelled, strict=True)


def _ids(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def _typed(rows: list[dict], schema: DataFrameSchema) -> pd.DataFrame:
    types = {name: str(column.dtype) for name, column in schema.columns.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)
