"""The samples that lm-evaluation-harness logs (`--log_samples`): a record a document, with its responses."""

from collections.abc import Iterator, Mapping
from typing import Any

from mrt_pipeline.auditing.readers.values import as_golds, as_text, first_of, last_user_message
from mrt_pipeline.auditing.trace import Trace, split_thinking

_QUESTIONS = ("question", "problem", "Question", "Problem", "query", "input")


def recognises(record: Any) -> bool:
    """Whether it has a document and responses."""
    return isinstance(record, Mapping) and "doc" in record and "resps" in record


def traces(record: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[Trace]:
    """A trace a response. The gold answer is the `target`."""
    doc = record["doc"] if isinstance(record["doc"], Mapping) else {}
    question = first_of(doc, _QUESTIONS)
    asked = as_text(question) if question is not None else last_user_message(_prompt(record.get("arguments")))
    golds = as_golds(record.get("target"))
    for text in _texts(record["resps"]):
        yield Trace(asked, golds, *split_thinking(text))


def _prompt(arguments: Any) -> Any:
    """The text that was sent: a list of calls with their arguments, or the same as a dictionary."""
    while isinstance(arguments, Mapping | list | tuple) and arguments:
        arguments = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    return arguments


def _texts(responses: Any) -> Iterator[str]:
    """All texts in lists of lists."""
    if isinstance(responses, str):
        yield responses
    elif isinstance(responses, list | tuple):
        for each in responses:
            yield from _texts(each)
