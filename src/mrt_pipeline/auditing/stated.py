r"""J by what a thought itself says so far: the cheapest meta-prover, which needs no model.

A statement is a `\boxed{...}`, what follows `####` on a line, what follows "the answer is" (would be, must be) up to
the end of the sentence, or the word before "is the answer". At any place of a thought the answer so far is the last
statement before it; J is 1 where that is right, else 0. Doubts count as well ("maybe the answer is 7"): what stands
there is what the thought would be stopped with. So J by statements is late where a model thinks an answer before it
says it, and low where a model never states one before its end.
"""

import re
from dataclasses import dataclass
from itertools import islice

from mrt_pipeline.tasks.answers import MAX_ANSWER_CHARS

_STATED = re.compile(
    r"\\(?:boxed|fbox) ?\{"
    r"|####[ \t]*(?P<hashes>[^\n]+)"
    r"|\b(?:answer|result)[ :*]*\b(?:is|(?:will|would|must|should|could|might|may) be|equals|=)(?!n['\u2019]t)[ :*]*"
    r"(?:(?:probably|likely|simply|just|then|therefore|indeed|actually|still)[ ,]+)?(?=(?P<sentence>[^\n]{1,200}))"
    r"|(?P<before>[^\s,;?!]{1,60}) is the (?:final |correct )?answer\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.?!](?:\s|$)|[,;]\s|\s(?:because|since|but|so|which|right)\b")
_NO_ANSWER = re.compile(
    r"(?:not|that|this|it|what|which|correct|right|wrong|unclear|clear|obvious|in|to|going)\b", re.I
)


_MOST = 2_000  # statements that are looked at


@dataclass(frozen=True)
class Statement:
    """An answer that a thought states. end: characters of the thought up to where it is stated."""

    end: int
    answer: str


def statements(thought: str) -> list[Statement]:
    """All that are stated, in their order."""
    found = []
    for match in islice(_STATED.finditer(thought), _MOST):
        if match["hashes"] is not None or match["before"] is not None:
            answer, end = match["hashes"] or match["before"], match.end()
        elif match["sentence"] is not None:
            sentence = _SENTENCE_END.split(match["sentence"], maxsplit=1)[0]
            answer, end = sentence, match.start("sentence") + len(sentence)
            if "\\boxed" in sentence:  # it is a match of its own
                continue
        else:
            inner = _in_braces(thought[match.end() : match.end() + MAX_ANSWER_CHARS + 1])
            if inner is None:
                continue
            answer, end = inner, match.end() + len(inner) + 1
        answer = answer.strip().strip("*\"'").strip()
        if 0 < len(answer) <= MAX_ANSWER_CHARS and not _NO_ANSWER.match(answer):
            found.append(Statement(end, answer))
    return sorted(found, key=lambda statement: statement.end)


def _in_braces(text: str) -> str | None:
    """The text up to the brace that closes one which is open before it; None if there is none."""
    depth = 1
    for i, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:i]
    return None


def answers_so_far(thought: str, places: list[int]) -> list[str]:
    """The answer that is stated last before each place, in characters, ascending; empty where none is yet."""
    stated, answers, i = statements(thought), [], 0
    for place in places:
        while i < len(stated) and stated[i].end <= place:
            i += 1
        answers.append(stated[i - 1].answer if i else "")
    return answers
