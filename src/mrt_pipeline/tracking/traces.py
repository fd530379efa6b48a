"""Rollouts as MLflow traces with a span for each episode, to read in the Traces tab where a thought went wrong.

A span lasts a millisecond a token, so that the timeline shows where the tokens went.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import SpanType

_TOKEN = 1_000_000  # nanoseconds of a span for a token


@dataclass(frozen=True)
class Thought:
    """A rollout as it is shown: a row of a `rollouts` table and its rows of `episodes`, in order, with the question."""

    rollout: pd.Series
    episodes: pd.DataFrame
    question: str


def thoughts(rollouts: pd.DataFrame, episodes: pd.DataFrame, problems: pd.DataFrame, n: int) -> list[Thought]:
    """The first rollout of each of the first `n` problems of the table."""
    questions = problems.set_index("problem_id")["question"]
    parts = dict(list(episodes.groupby(["problem_id", "rollout_id"], sort=False)))
    first = rollouts.drop_duplicates("problem_id").head(n)
    return [
        Thought(row, parts[row["problem_id"], row["rollout_id"]], questions[row["problem_id"]])
        for _, row in first.iterrows()
    ]


def log_traces(shown: Sequence[Thought], decode: Callable[[Sequence[int]], str]) -> None:
    """Log a trace for each thought to the experiment of the active run; without a run, nothing.

    The text is that of the whole trace, budget forcing included; spans beyond the natural end say `forced`.
    """
    if not mlflow.active_run():
        return
    for thought in shown:
        _log(thought, decode)
    mlflow.flush_trace_async_logging()


def _log(thought: Thought, decode: Callable[[Sequence[int]], str]) -> None:
    row, start = thought.rollout, time.time_ns()
    episodes = thought.episodes[~thought.episodes["stopped"]]
    tokens, answer = np.asarray(row["thought_token_ids"]), np.asarray(row["answer_token_ids"])
    root = mlflow.start_span_no_context(
        name=f"{row['policy']} {row['problem_id']}",
        span_type=SpanType.CHAIN,
        inputs={"question": thought.question},
        attributes={
            "policy": row["policy"],
            "stop_reason": row["stop_reason"],
            "natural_length": int(row["natural_length"]),
            "thinking_tokens": len(tokens),
            "reward": float(row["reward"]),
            "J_start": float(episodes["success"].iloc[0]),
            "J_end": float(episodes["success"].iloc[-1]),
        },
        tags={"policy": row["policy"], "grade": row["grade"]},
        start_time_ns=start,
    )
    for before, after in zip(episodes.iloc[:-1].itertuples(), episodes.iloc[1:].itertuples(), strict=True):
        span = mlflow.start_span_no_context(
            name=f"episode {after.episode}  J {before.success:.2f} to {after.success:.2f}",
            span_type=SpanType.LLM,
            parent_span=root,
            attributes={
                "tokens": int(after.n_tokens - before.n_tokens),
                "J_before": float(before.success),
                "J_after": float(after.success),
                "progress": float(after.progress),
                "forced": bool(after.forced),
            },
            start_time_ns=start + int(before.n_tokens) * _TOKEN,
        )
        span.set_outputs({"text": decode(tokens[int(before.n_tokens) : int(after.n_tokens)])})
        span.end(end_time_ns=start + int(after.n_tokens) * _TOKEN)
    end = start + len(tokens) * _TOKEN
    span = mlflow.start_span_no_context(
        name="answer",
        span_type=SpanType.LLM,
        parent_span=root,
        attributes={"tokens": len(answer), "grade": row["grade"]},
        start_time_ns=end,
    )
    span.set_outputs({"text": decode(answer)})
    end += len(answer) * _TOKEN
    span.end(end_time_ns=end)
    root.set_outputs({"answer": row["answer_text"], "grade": row["grade"]})
    root.end(end_time_ns=end)
