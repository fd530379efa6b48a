"""The way between the tables that nodes exchange (`schemas.py`) and what the library works with. See docs/tables.md."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from pandera.pandas import DataFrameSchema

from mrt_pipeline.engines.base import Completion
from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout
from mrt_pipeline.rollouts.prover import Query, n_tokens
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.schemas import LABELS, ROLLOUTS
from mrt_pipeline.tasks.base import Grade, Problem


def problems_table(problems: Sequence[Problem]) -> pd.DataFrame:
    """One row a problem; metadata as JSON text."""
    return pd.DataFrame(
        {
            "problem_id": [p.problem_id for p in problems],
            "source": [p.source for p in problems],
            "split": [p.split for p in problems],
            "question": [p.question for p in problems],
            "answers": [list(p.answers) for p in problems],
            "metadata": [json.dumps(p.metadata) for p in problems],
        }
    )


def problems_from_table(table: pd.DataFrame, split: str | None = None) -> list[Problem]:
    """The problems of a table, in its order; of one split if given."""
    if split is not None:
        table = table[table["split"] == split]
    return [
        Problem(row.problem_id, row.source, row.split, row.question, tuple(row.answers), json.loads(row.metadata))
        for row in table.itertuples(index=False)
    ]


def trace_ids(rollouts: Sequence[Rollout], policy: str) -> list[dict[str, str | int]]:
    """policy, problem_id and rollout_id of each rollout: those of a problem are numbered in their order."""
    counts: dict[str, int] = {}
    ids = []
    for rollout in rollouts:
        problem = rollout.problem.problem_id
        counts[problem] = counts.get(problem, -1) + 1
        ids.append({"policy": policy, "problem_id": problem, "rollout_id": counts[problem]})
    return ids


def rollouts_table(
    rollouts: Sequence[Rollout], policy: str, decode: Callable[[np.ndarray], str], seed: int
) -> pd.DataFrame:
    """One row a trace, or none. decode: token ids to text."""
    rows = [
        {
            **ids,
            "group": rollout.group,
            "prompt_token_ids": rollout.prompt,
            "thought_token_ids": rollout.thought,
            "thought_choice_ids": rollout.thought_choices,
            "thought_logprobs": rollout.thought_logprobs,
            "boundaries": rollout.boundaries,
            "natural_close_token_ids": rollout.natural_close,
            "close_token_ids": rollout.close,
            "close_logprob": rollout.close_logprob,
            "answer_token_ids": rollout.answer,
            "answer_logprobs": rollout.answer_logprobs,
            "text": decode(rollout.token_ids()),
            "answer_text": rollout.answer_text,
            "reward": rollout.reward,
            "grade": rollout.grade.value,
            "stop_reason": rollout.stop_reason,
            "natural_length": rollout.natural_length,
            "stream_length": rollout.stream_length,
            "dropped_tokens": rollout.dropped,
            "stopped_at": rollout.stopped_at,
            "stopped_reward": rollout.stopped_reward,
            "min_thinking": rollout.min_thinking,
            "seed": seed,
        }
        for rollout, ids in zip(rollouts, trace_ids(rollouts, policy), strict=True)
    ]
    return _typed(rows, ROLLOUTS)


def rollouts_from_table(table: pd.DataFrame, problems: Sequence[Problem]) -> list[Rollout]:
    """The rollouts that `rollouts_table` was made of."""
    by_id = {problem.problem_id: problem for problem in problems}
    return [
        Rollout(
            problem=by_id[row.problem_id],
            group=row.group,
            prompt=_ids(row.prompt_token_ids),
            thought=_ids(row.thought_token_ids),
            thought_choices=_ids(row.thought_choice_ids),
            thought_logprobs=np.asarray(row.thought_logprobs, dtype=np.float32),
            boundaries=_ids(row.boundaries),
            natural_length=row.natural_length,
            natural_close=_ids(row.natural_close_token_ids),
            stop_reason=row.stop_reason,
            close=_ids(row.close_token_ids),
            close_logprob=row.close_logprob,
            answer=_ids(row.answer_token_ids),
            answer_logprobs=np.asarray(row.answer_logprobs, dtype=np.float32),
            answer_text=row.answer_text,
            grade=Grade(row.grade),
            min_thinking=row.min_thinking,
            beyond=row.stream_length - len(row.thought_token_ids),
            dropped=row.dropped_tokens,
            stopped_at=None if np.isnan(row.stopped_at) else int(row.stopped_at),
            stopped_reward=None if np.isnan(row.stopped_reward) else row.stopped_reward,
        )
        for row in table.itertuples(index=False)
    ]


def episodes_table(labelled: Sequence[LabelledRollout], policy: str, prover: str) -> pd.DataFrame:
    """One row an episode boundary; the empty prefix is episode -1 and has no progress.

    Where no answer follows the first attempt to stop, it is one more row, `stopped`, with the reward that is known
    there as success: it takes the place of what follows in the natural reading, and is none in the forced one.
    """
    parts = []
    for item, ids in zip(labelled, trace_ids([item.rollout for item in labelled], policy), strict=True):
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
        if rollout.stopped_at is not None:
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
    budgets = np.asarray(budgets)
    parts = []
    for item, ids in zip(labelled, trace_ids([item.rollout for item in labelled], policy), strict=True):
        rollout = item.rollout
        natural = np.where(budgets <= rollout.natural_length, item.at_cuts, item.success_at(rollout.natural_length))
        if rollout.stopped_at is not None:
            natural = np.where(budgets >= rollout.stopped_at, rollout.stopped_reward, natural)
        reached = budgets <= rollout.stream_length
        for forced, at, success in ((False, budgets, natural), (True, budgets[reached], item.at_cuts[reached])):
            parts.append(pd.DataFrame({**ids, "n_tokens": at, "success": success, "forced": forced}))
    return pd.concat(parts, ignore_index=True).astype({"n_tokens": int, "forced": bool})


def labels_table(labelled: Sequence[LabelledRollout], policy: str) -> pd.DataFrame:
    """One row a trace: where J was asked for besides the boundaries, J there, and what the prover spent."""
    rows = [
        {**ids, "cuts": item.cuts, "cut_success": item.at_cuts, "prover_tokens": item.prover_tokens}
        for item, ids in zip(labelled, trace_ids([item.rollout for item in labelled], policy), strict=True)
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
    for ids, query, answers in zip(trace_ids(rollouts, policy), queries, found, strict=True):
        for episode, (cut, forced, sampled) in enumerate(zip(query.cuts, query.forced, answers, strict=True), start=-1):
            texts = [actor.read_answer(answer, forced) for answer in sampled]
            grades = [actor.task.grade(query.problem, text) if text else Grade.UNPARSED for text in texts]
            rows.append(
                {
                    **ids,
                    "episode": episode,
                    "n_tokens": int(cut),
                    "answers": [
                        "" if grade is Grade.UNPARSED else actor.task.read(text).strip()
                        for text, grade in zip(texts, grades, strict=True)
                    ],
                    "rewards": np.array([grade.reward for grade in grades], dtype=np.float64),
                    "answer_tokens": np.array([n_tokens(answer) for answer in sampled], dtype=np.int64),
                }
            )
    return pd.DataFrame(rows)


def _ids(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def _typed(rows: list[dict], schema: DataFrameSchema) -> pd.DataFrame:
    types = {name: str(column.dtype) for name, column in schema.columns.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)
