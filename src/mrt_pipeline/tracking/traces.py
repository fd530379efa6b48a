"""Rollouts as MLflow traces with a span for each episode, to read in the Traces tab where a thought went wrong.

A span lasts a millisecond a token, so that the timeline shows where the tokens went.
"""

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import SpanType, TraceInfo, TraceLocation, TraceState
from mlflow.tracing.constant import (
    TRACE_SCHEMA_VERSION,
    TRACE_SCHEMA_VERSION_KEY,
    SpanAttributeKey,
    TraceMetadataKey,
    TraceTagKey,
)
from mlflow.tracking.context.registry import resolve_tags

from mrt_pipeline.tracking.outbox import current
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
    if current():
        for thought in shown:
            send({"kind": "trace", "trace": trace_of(thought, decode)})


def trace_of(thought: Thought, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """A thought as MLflow writes traces in JSON; its run and experiment are put in when it is delivered."""
    row, start, trace_id = thought.rollout, time.time_ns(), secrets.token_bytes(16)
    episodes = thought.episodes[~thought.episodes["stopped"]]
    tokens, answer = np.asarray(row["thought_token_ids"]), np.asarray(row["answer_token_ids"])
    inputs, outputs = {"question": thought.question}, {"answer": row["answer_text"], "grade": row["grade"]}
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
    name = f"{row['policy']} {row['problem_id']}"
    spans = [_span(trace_id, None, name, SpanType.CHAIN, start, (0, end), about, outputs)]
    add = partial(_span, trace_id, spans[0]["span_id"])
    for before, after in zip(episodes.iloc[:-1].itertuples(), episodes.iloc[1:].itertuples(), strict=True):
        episode = {
            "tokens": int(after.n_tokens - before.n_tokens),
            "J_before": float(before.success),
            "J_after": float(after.success),
            "progress": float(after.progress),
            "forced": bool(after.forced),
        }
        name = f"episode {after.episode}  J {before.success:.2f} to {after.success:.2f}"
        when = (int(before.n_tokens), int(after.n_tokens))
        spans.append(add(name, SpanType.LLM, start, when, episode, {"text": decode(tokens[slice(*when)])}))
    graded = {"tokens": len(answer), "grade": row["grade"]}
    spans.append(add("answer", SpanType.LLM, start, (len(tokens), end), graded, {"text": decode(answer)}))
    info = TraceInfo(
        trace_id=f"tr-{trace_id.hex()}",
        trace_location=TraceLocation.from_experiment_id("0"),
        request_time=start // 1_000_000,
        state=TraceState.OK,
        request_preview=json.dumps(inputs),
        response_preview=json.dumps(outputs),
        execution_duration=end * _TOKEN // 1_000_000,
        trace_metadata={
            TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION),
            TraceMetadataKey.INPUTS: json.dumps(inputs),
            TraceMetadataKey.OUTPUTS: json.dumps(outputs),
            **resolve_tags(),
        },
        tags={TraceTagKey.TRACE_NAME: spans[0]["name"], "policy": row["policy"], "grade": row["grade"]},
    )
    return {"info": info.to_dict(), "data": {"spans": spans}}


def _span(
    trace_id: bytes,
    parent: str | None,
    name: str,
    kind: str,
    start: int,
    tokens: tuple[int, int],
    attributes: dict[str, Any],
    outputs: dict[str, Any],
) -> dict[str, Any]:
    """tokens: first, and one past the last, of the trace. start: of the trace, in nanoseconds."""
    attributes = {
        SpanAttributeKey.REQUEST_ID: f"tr-{trace_id.hex()}",
        SpanAttributeKey.SPAN_TYPE: kind,
        **attributes,
        SpanAttributeKey.OUTPUTS: outputs,
    }
    return {
        "trace_id": b64encode(trace_id).decode(),
        "span_id": b64encode(secrets.token_bytes(8)).decode(),
        "parent_span_id": parent,
        "name": name,
        "start_time_unix_nano": start + tokens[0] * _TOKEN,
        "end_time_unix_nano": start + tokens[1] * _TOKEN,
        "events": [],
        "status": {"code": "STATUS_CODE_OK", "message": ""},
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
    }
