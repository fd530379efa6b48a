"""The tables of completions that TRL's trainers log (`log_completions`): prompt, completion, rewards, a row each."""

from collections.abc import Iterator, Mapping
from typing import Any

from mrt_pipeline.auditing.readers.values import GOLD_NAMES, as_golds, as_text, first_of, last_user_message
from mrt_pipeline.auditing.trace import Trace, split_thinking

_LOGGED = ("step", "advantage", "reward", "rewards")


def recognises(record: Any) -> bool:
    """Whether it has prompt and completion, and something that only a trainer writes beside them."""
    has = isinstance(record, Mapping) and {"prompt", "completion"} <= {*record}
    return has and any(name in record for name in _LOGGED)


def traces(record: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[Trace]:
    """The one trace of a row; a gold answer is there if the dataset's column was logged."""
    asked, golds = last_user_message(record["prompt"]), as_golds(first_of(record, GOLD_NAMES))
    yield Trace(asked, golds, *split_thinking(as_text(record["completion"])))
