"""What cells hold: texts, chats, gold answers, reasons to stop."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrt_pipeline.tasks.answers import find_answer, last_boxed

GOLD_NAMES = ("gold", "gold_answer", "ground_truth", "expected_answer", "reference_answer", "answer", "solution")
"""What a gold answer is called beside a prompt and a completion."""


def as_text(value: Any) -> str:
    """A text, or the last message of a chat; empty for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Mapping):
        return as_text(value.get("content"))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return as_text(value[-1]) if value else ""
    return str(value)


def last_user_message(messages: Any) -> str:
    """The question of a chat, or the text itself."""
    if isinstance(messages, np.ndarray):
        messages = messages.tolist()
    if isinstance(messages, list | tuple):
        asked = [m for m in messages if isinstance(m, Mapping) and m.get("role") == "user"]
        return as_text(asked[-1]) if asked else as_text(messages)
    return as_text(messages)


def as_golds(value: Any) -> tuple[str, ...]:
    r"""The accepted answers in a cell: one, or several in a list; of a worked solution its `\boxed{}` or `####`."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(gold for each in value for gold in as_golds(each))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = as_text(value).strip()
    if last_boxed(text) is not None or "####" in text:
        text = find_answer(text) or ""
    return (text,) if text else ()


def first_of(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of these names that is there; None if none is."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def is_cut(reason: Any) -> bool:
    """Whether a reason to stop says that the length ended it."""
    return str(reason).lower() in ("length", "max_tokens", "max_new_tokens", "false", "0")
