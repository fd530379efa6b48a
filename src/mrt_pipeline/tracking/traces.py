"""Rollouts as MLflow traces with a span for each episode, to read in the Traces tab where a thought went wrong.

A span lasts a millisecond a token, so that the timeline shows where the tokens went.
"""

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import SpanType, TraceInfo, TraceLocation, TraceState
from mlflow.tracing.constant import SpanAttributeKey, TraceTagKey

from mrt_pipeline.tracking.runs import send

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
    """Log a trace for each thought to the current run; without a run, nothing.

    The text is that of the whole trace, budget forcing included; spans beyond the natural end say `forced`.
    """
    for thought in shown:
        send({"kind": "trace", "trace": trace_of(thought, decode)})


def trace_of(thought: Thought, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """A thought as MLflow writes traces in JSON; its run and experiment are put in when it is delivered."""
    row, start, trace_id = thought.rollout, time.time_ns(), secrets.token_bytes(16)
    episodes = thought.episodes[~thought.episodes["stopped"]]
    tokens, answer = np.asarray(row["thought_token_ids"]).tolist(), np.asarray(row["answer_token_ids"]).tolist()
    inputs, outputs = {"question": thought.question}, {"answer": row["answer_text"], "grade": row["grade"]}
    spans: list[dict[str, Any]] = []

    def add(name: str, kind: str, first: int, last: int, about: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        """A span of the tokens from `first` to before `last`; the first span is the parent of the others."""
        attributes = {
            SpanAttributeKey.REQUEST_ID: f"tr-{trace_id.hex()}",
            SpanAttributeKey.SPAN_TYPE: kind,
            **about,
            SpanAttributeKey.OUTPUTS: made,
        }
        spans.append(
            {
                "trace_id": b64encode(trace_id).decode(),
                "span_id": b64encode(secrets.token_bytes(8)).decode(),
                "parent_span_id": spans[0]["span_id"] if spans else None,
                "name": name,
                "start_time_unix_nano": start + first * _TOKEN,
                "end_time_unix_nano": start + last * _TOKEN,
                "events": [],
                "status": {"code": "STATUS_CODE_OK", "message": ""},
                "attributes": {key: json.dumps(value) for key, value in attributes.items()},
            }
        )

    end = len(tokens) + len(answer)
    about = {
        "policy": row["policy"],
        "stop_reason": row["stop_reason"],
        "natural_length": int(row["natural_length"]),
        "thinking_tokens": len(tokens),
        "reward": float(row["reward"]),
        "J_start": float(episodes["success"].iloc[0]),
        "J_end": float(episodes["success"].iloc[-1]),
        SpanAttributeKey.INPUTS: inputs,
    }
    add(f"{row['policy']} {row['problem_id']}", SpanType.CHAIN, 0, end, about, outputs)
    for before, after in zip(episodes.iloc[:-1].itertuples(), episodes.iloc[1:].itertuples(), strict=True):
        first, last = int(before.n_tokens), int(after.n_tokens)
        episode = {
            "tokens": last - first,
            "J_before": float(before.success),
            "J_after": float(after.success),
            "progress": float(after.progress),
            "forced": bool(after.forced),
        }
        name = f"episode {after.episode}  J {before.success:.2f} to {after.success:.2f}"
        add(name, SpanType.LLM, first, last, episode, {"text": decode(tokens[first:last])})
    graded = {"tokens": len(answer), "grade": row["grade"]}
    add("answer", SpanType.LLM, len(tokens), end, graded, {"text": decode(answer)})
    info = TraceInfo(
        trace_id=f"tr-{trace_id.hex()}",
        trace_location=TraceLocation.from_experiment_id("0"),
        request_time=start // 1_000_000,
        state=TraceState.OK,
        request_preview=json.dumps(inputs),
        response_preview=json.dumps(outputs),
        execution_duration=end * _TOKEN // 1_000_000,
        tags={TraceTagKey.TRACE_NAME: spans[0]["name"], "policy": row["policy"], "grade": row["grade"]},
    )
    return {"info": info.to_dict(), "data": {"spans": spans}}
