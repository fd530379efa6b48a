"""A row a trace: question, gold answer, thought, answer, under the usual names or under given ones."""

from collections.abc import Iterator, Mapping
from typing import Any

from mrt_pipeline.auditing.readers.values import as_golds, as_text, is_cut
from mrt_pipeline.auditing.trace import Trace, split_thinking
from mrt_pipeline.policy.template import THINK_CLOSE, THINK_OPEN

COLUMNS: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "instruction", "input", "query"),
    "gold": ("gold", "gold_answer", "ground_truth", "expected_answer", "reference_answer", "golds", "target", "label"),
    "thought": ("thought", "thinking", "reasoning", "reasoning_content", "think", "chain_of_thought", "cot"),
    "answer": ("answer", "response", "completion", "output", "final_answer", "content", "generation", "text"),
    "finished": ("finished", "finish_reason", "stop_reason"),
}
"""What a column is for, and what it is usually called, the first name first."""


def recognises(record: Any) -> bool:
    """Whether it has a question, and a thought or a text that has one in it."""
    if not isinstance(record, Mapping) or _named(record, "question", {}) is None:
        return False
    return _named(record, "thought", {}) is not None or _named(record, "answer", {}) is not None


def traces(record: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[Trace]:
    """The one trace of a row. The thought may stand in the answer, between think tags."""
    question, thought, answer, gold, finished = (
        _value(record, what, columns) for what in ("question", "thought", "answer", "gold", "finished")
    )
    if question is None:
        raise ValueError(f"there is no question: none of the columns {', '.join(COLUMNS['question'])}")
    written = as_text(answer)
    if _named(record, "thought", columns) is None:
        if THINK_OPEN not in written and THINK_CLOSE not in written:
            raise ValueError("there is no thought, and the answer has no think tags")
        inner, written, ended = split_thinking(written)
    else:
        inner, ended = as_text(thought), bool(written.strip())
    if finished is not None:
        ended = not is_cut(finished)
    yield Trace(as_text(question), as_golds(gold), inner, written, ended)


def _value(record: Mapping[str, Any], what: str, columns: Mapping[str, str]) -> Any:
    name = _named(record, what, columns)
    return None if name is None else record[name]


def _named(record: Mapping[str, Any], what: str, columns: Mapping[str, str]) -> str | None:
    if what in columns:
        if columns[what] not in record:
            raise ValueError(f"there is no column '{columns[what]}' for the {what}")
        return columns[what]
    return next((name for name in COLUMNS[what] if name in record), None)
