"""Responses of an OpenAI-compatible server, with the request that they answer.

The chat's messages stand in the record itself, in its `request` or in that one's `body`; the response in the record, in
its `response` or in that one's `body`, as in the batch interface. The thought is the message's `reasoning_content` (or
`reasoning`), or stands between think tags in its `content`. A gold answer may stand beside them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mrt_pipeline.auditing.readers.values import GOLD_NAMES, as_golds, as_text, first_of, is_cut, last_user_message
from mrt_pipeline.auditing.trace import Trace, split_thinking


def recognises(record: Any) -> bool:
    """Whether there are choices in it."""
    return isinstance(record, Mapping) and _inside(record, "response", "choices") is not None


def traces(record: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[Trace]:
    """A trace a choice."""
    messages, question = _inside(record, "request", "messages"), first_of(record, ("question", "problem", "prompt"))
    asked = last_user_message(messages if messages is not None else question)
    golds = as_golds(first_of(record, GOLD_NAMES))
    for choice in _inside(record, "response", "choices") or ():
        message = choice.get("message") or {"content": choice.get("text")}
        written, cut = as_text(message.get("content")), is_cut(choice.get("finish_reason"))
        thought = message.get("reasoning_content") or message.get("reasoning")
        if thought:
            yield Trace(asked, golds, as_text(thought), written, bool(written.strip()) or not cut)
        else:
            inner, answer, ended = split_thinking(written)
            yield Trace(asked, golds, inner, answer, False if cut and not answer else ended)


def _inside(record: Mapping[str, Any], part: str, key: str) -> Any:
    """The value under `key` in the record, in its `part`, or in the `body` of that."""
    inner = record.get(part)
    inner = inner if isinstance(inner, Mapping) else {}
    body = inner.get("body")
    places = (record, inner, body if isinstance(body, Mapping) else {})
    return next((place[key] for place in places if place.get(key) is not None), None)
