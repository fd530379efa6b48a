"""A thought as text, with the question it is about and the answer that follows it."""

from dataclasses import dataclass

from mrt_pipeline.policy.template import THINK_CLOSE, THINK_OPEN

MAX_CHARS = 2_000_000
"""A longer thought is refused: something else is in its place."""


@dataclass(frozen=True)
class Trace:
    """One thought of a model.

    golds: the accepted answers; empty if they are not known. answer: what was written after the thought; empty if
        nothing was. finished: whether the model ended its thought itself; None where the text alone does not say.
    """

    question: str
    golds: tuple[str, ...]
    thought: str
    answer: str
    finished: bool | None


def split_thinking(text: str) -> tuple[str, str, bool | None]:
    """Thought, answer, and whether the thought ends, of a text in which `</think>` stands between them.

    A text that only opens a thought never ends it. One without either marker is all thought; whether its model uses
    markers, so that it was cut, other texts of the source may tell.
    """
    thought, close, answer = text.partition(THINK_CLOSE)
    opened = thought.lstrip().startswith(THINK_OPEN)
    if opened:
        thought = thought.lstrip().removeprefix(THINK_OPEN)
    if close:
        return thought.lstrip("\n"), answer, True
    return thought.lstrip("\n"), "", False if opened else None
