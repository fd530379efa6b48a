"""The tables that pipelines exchange: their schemas, and the way from and to the carriers. See docs/tables.md."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pandera.pandas import Check, Column, DataFrameSchema

from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.policy.template import Template
from mrt_pipeline.rollouts.prover import Query, Success
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.tasks.base import Grade, Problem

_PROBABILITY = Check.in_range(0.0, 1.0)
_COUNT = Check.ge(0)
_TRACE = ["policy", "problem_id", "rollout_id"]

PROBLEMS = DataFrameSchema(
    {
        "problem_id": Column(str),
        "source": Column(str),
        "split": Column(str, Check.isin(["train", "validation", "test"])),
        "question": Column(str),
        "answers": Column(object),
        "metadata": Column(str),
    },
    unique=["problem_id"],
    strict=True,
)

ROLLOUTS = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "prompt_token_ids": Column(object),
        "thought_token_ids": Column(object),
        "thought_logprobs": Column(object),
        "natural_close_token_ids": Column(object),
        "close_token_ids": Column(object),
        "answer_token_ids": Column(object),
        "text": Column(str),
        "answer_text": Column(str),
        "reward": Column(float, _PROBABILITY),
        "grade": Column(str, Check.isin([grade.value for grade in Grade])),
        "stop_reason": Column(str, Check.isin(["stop", "length", "eos"])),
        "natural_length": Column(int, _COUNT),
        "stream_length": Column(int, _COUNT),
        "stopped_at": Column(float, _COUNT, nullable=True),
        "stopped_reward": Column(float, _PROBABILITY, nullable=True),
        "seed": Column(int),
    },
    unique=_TRACE,
    strict=True,
)

EPISODES = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "episode": Column(int, Check.ge(-1)),
        "n_tokens": Column(int, _COUNT),
        "success": Column(float, _PROBABILITY),
        "success_sem": Column(float, _COUNT),
        "progress": Column(float, Check.in_range(-1.0, 1.0), nullable=True),
        "forced": Column(bool),
        "stopped": Column(bool),
        "prover": Column(str),
    },
    unique=[*_TRACE, "episode", "stopped"],
    strict=True,
)

ANYTIME = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "n_tokens": Column(int, _COUNT),
        "success": Column(float, _PROBABILITY),
        "forced": Column(bool),
    },
    unique=[*_TRACE, "n_tokens", "forced"],
    strict=True,
)

VOTES = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "episode": Column(int, Check.ge(-1)),
        "n_tokens": Column(int, _COUNT),
        "answers": Column(object),
        "rewards": Column(object),
        "answer_tokens": Column(object),
    },
    unique=[*_TRACE, "episode"],
    strict=True,
)

_INTERVAL = {
    "policy": Column(str),
    "budget": Column(int, Check.gt(0)),
    "forced": Column(bool),
    "ci_low": Column(float),
    "ci_high": Column(float),
    "difference": Column(float, Check.in_range(-1.0, 1.0), nullable=True),
    "difference_low": Column(float, nullable=True),
    "difference_high": Column(float, nullable=True),
}

REGRET = DataFrameSchema(
    {**_INTERVAL, "regret": Column(float, _PROBABILITY), "definition": Column(str)},
    unique=["policy", "budget", "forced", "definition"],
    strict=True,
)

ACCURACY = DataFrameSchema(
    {**_INTERVAL, "accuracy": Column(float, _PROBABILITY), "thinking_tokens": Column(float)},
    unique=["policy", "budget", "forced"],
    strict=True,
)


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


def rollouts_table(rollouts: Sequence[Rollout], policy: str, decode, seed: int) -> pd.DataFrame:
    """One row a trace, or none. decode: token ids to text. The rollouts of a problem must stand side by side."""
    counts: dict[str, int] = {}
    rows = []
    for rollout in rollouts:
        problem_id = rollout.problem.problem_id
        counts[problem_id] = counts.get(problem_id, -1) + 1
        rows.append(
            {
                "policy": policy,
                "problem_id": problem_id,
                "rollout_id": counts[problem_id],
                "prompt_token_ids": rollout.prompt,
                "thought_token_ids": rollout.thought,
                "thought_logprobs": rollout.thought_logprobs,
                "natural_close_token_ids": rollout.natural_close,
                "close_token_ids": rollout.close,
                "answer_token_ids": rollout.answer,
                "text": decode(rollout.token_ids()),
                "answer_text": rollout.answer_text,
                "reward": rollout.reward,
                "grade": rollout.grade.value,
                "stop_reason": rollout.stop_reason,
                "natural_length": rollout.natural_length,
                "stream_length": rollout.stream_length,
                "stopped_at": rollout.stopped_at,
                "stopped_reward": rollout.stopped_reward,
                "seed": seed,
            }
        )
    types = {name: str(column.dtype) for name, column in ROLLOUTS.columns.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def queries_from_table(
    rollouts: pd.DataFrame,
    problems: Sequence[Problem],
    template: Template,
    budgets: Sequence[int],
) -> list[Query]:
    """What to ask the prover: J at episode boundaries, at the natural end, and at the budgets within the thought.

    Where an answer cannot be forced at a budget, J is asked at the last place before it (`Template.snap`).
    """

    def cuts(row) -> np.ndarray:
        thought = np.asarray(row.thought_token_ids)
        extra = _snap(template, thought, np.minimum(budgets, len(thought)), row.natural_length)
        return np.union1d(_boundaries(row, template), extra)

    return _queries(rollouts, problems, cuts)


def natural_queries(rollouts: pd.DataFrame, problems: Sequence[Problem], template: Template) -> list[Query]:
    """What to ask of the episode boundaries up to where the model stops by itself."""

    def cuts(row) -> np.ndarray:
        boundaries = _boundaries(row, template)
        return boundaries[boundaries <= row.natural_length]

    return _queries(rollouts, problems, cuts)


def ends_as_if_stopped(rollouts: pd.DataFrame, problems: Sequence[Problem]) -> list[Query]:
    """What to ask of the ends of traces if the policy were stopped there, though it closed its thought itself."""
    queries = _queries(rollouts, problems, lambda row: np.array([len(row.thought_token_ids)]))
    return [replace(query, natural_close=()) for query in queries]


def _queries(rollouts: pd.DataFrame, problems: Sequence[Problem], cuts: Callable[[Any], np.ndarray]) -> list[Query]:
    """One for each row. cuts: of a row."""
    by_id = {problem.problem_id: problem for problem in problems}
    return [
        Query(
            by_id[row.problem_id],
            np.asarray(row.prompt_token_ids),
            np.asarray(row.thought_token_ids),
            cuts(row),
            row.natural_length,
            tuple(map(int, row.natural_close_token_ids)),
        )
        for row in rollouts.itertuples(index=False)
    ]


def episodes_table(
    rollouts: pd.DataFrame, queries: Sequence[Query], found: Sequence[Success], template: Template, prover: str
) -> pd.DataFrame:
    """One row an episode boundary; the empty prefix is episode -1 and has no progress.

    Where no answer follows the first attempt to stop, it is one more row, `stopped`, with the reward that is known
    there as success: it takes the place of what follows in the natural reading, and is none in the forced one.
    """
    parts = []
    for row, query, success in zip(rollouts.itertuples(index=False), queries, found, strict=True):
        boundaries = _boundaries(row, template)
        at = np.searchsorted(query.cuts, boundaries)
        trace = pd.DataFrame(
            {
                "policy": row.policy,
                "problem_id": row.problem_id,
                "rollout_id": row.rollout_id,
                "episode": np.arange(-1, len(boundaries) - 1),
                "n_tokens": boundaries,
                "success": success.mean[at],
                "success_sem": success.sem[at],
                "progress": np.append(np.nan, progress(success.mean[at])),
                "forced": boundaries > row.natural_length,
                "stopped": False,
                "prover": prover,
            }
        )
        parts.append(trace if np.isnan(row.stopped_at) else _with_stop(trace, int(row.stopped_at), row.stopped_reward))
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


def anytime_table(
    rollouts: pd.DataFrame,
    queries: Sequence[Query],
    found: Sequence[Success],
    template: Template,
    budgets: Sequence[int],
) -> pd.DataFrame:
    """J at each budget, once stopping where the model stops (forced False) and once budget-forced (forced True).

    A thought that was not forced on to a budget has no forced row there. Where no answer follows the first attempt to
    stop, stopping gives the reward that is known there, from the budget on that lets it get there.
    """
    parts = []
    for row, query, success in zip(rollouts.itertuples(index=False), queries, found, strict=True):
        natural = np.minimum(budgets, row.natural_length)
        reached = np.array([budget for budget in budgets if budget <= row.stream_length], dtype=np.int64)
        for forced, n_tokens, cuts in ((False, np.asarray(budgets), natural), (True, reached, reached)):
            at = np.searchsorted(query.cuts, _snap(template, query.thought, cuts, row.natural_length))
            stopped = ~np.array(forced) & (n_tokens >= row.stopped_at)  # False if it is NaN
            parts.append(
                pd.DataFrame(
                    {
                        "policy": row.policy,
                        "problem_id": row.problem_id,
                        "rollout_id": row.rollout_id,
                        "n_tokens": n_tokens,
                        "success": np.where(stopped, row.stopped_reward, success.mean[at]),
                        "forced": forced,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True).astype({"n_tokens": int, "forced": bool})


def _snap(template: Template, thought: np.ndarray, cuts: np.ndarray, natural_length: int) -> np.ndarray:
    finished = (natural_length, len(thought))
    return np.array([template.snap(thought, cut, finished) for cut in cuts], dtype=np.int64)


def _boundaries(row, template: Template) -> np.ndarray:
    """Episode boundaries; the natural end is one of them even if the extension put there opens with no marker."""
    found = template.boundaries(np.asarray(row.thought_token_ids), np.asarray(row.thought_logprobs))
    return np.union1d(found, [row.natural_length])
