"""Finding an answer in text: what a model wrote, or what a file of problems gives as a solution.

Pure string work in bounded time; nothing here interprets mathematics. See `math_grader.py` for that.
"""

import re
from decimal import Decimal

MAX_ANSWER_CHARS = 512  # a longer "answer" is none: nothing that long is compared with a gold answer
_TAIL_CHARS = 20_000  # an answer is looked for in the end of a text only
_MAX_BOXES = 64  # further ones are not looked at
_BOX = re.compile(r"\\(?:boxed|fbox)")
_STATED = re.compile(r"\b(?:answer|result) *(?:is|:|=)[ :*]*", re.IGNORECASE)
_NUMBER = re.compile(r"-?\$?(?:\d[\d,]*)?\.?\d+(?:/\d+)?%?")
_SENTENCE_END = re.compile(r"(?<=[^\s.])\.(?=\s|$)|\n")


def find_answer(text: str) -> str | None:
    r"""The answer that a text ends with, or None.

    The first of these that is there: the last `\boxed{...}`, what follows the last `####` (GSM8K), what follows the
    last 'answer is' up to the end of the sentence, the whole text if it is a short single line, the last number.
    """
    text = text[-_TAIL_CHARS:]
    boxed = last_boxed(text)
    if boxed is not None:
        return _usable(boxed)
    _, hashes, after = text.rpartition("####")
    if hashes:
        return _usable(after.strip().partition("\n")[0])
    stated = list(_STATED.finditer(text))
    if stated:
        return _usable(_SENTENCE_END.split(text[stated[-1].end() :], maxsplit=1)[0])
    line = text.strip()
    if len(line) <= 64 and "\n" not in line:
        return _usable(line)
    numbers = _NUMBER.findall(text)
    return _usable(numbers[-1]) if numbers else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` or `\fbox{...}` whose braces are balanced; None if there is none."""
    text = text[-_TAIL_CHARS:]
    for match in list(_BOX.finditer(text))[: -_MAX_BOXES - 1 : -1]:
        content = _braced(text[match.end() :][: MAX_ANSWER_CHARS + 2])
        if content is not None:
            return content
    return None


def _braced(text: str) -> str | None:
    r"""What stands in the braces that `text` opens with, spaces before them aside; `\boxed 5` is `\boxed{5}`."""
    stripped = text.lstrip(" ")
    if not stripped.startswith("{"):
        token = stripped.split(maxsplit=1)
        return token[0].rstrip("$.") if stripped != text and token else None
    depth, escaped = 0, False
    for i, char in enumerate(stripped):
        if not escaped:
            depth += (char == "{") - (char == "}")
        escaped = char == "\\" and not escaped
        if depth == 0:
            return stripped[1:i]
    return None


def _usable(answer: str) -> str | None:
    answer = answer.strip().strip("*").strip()
    return answer if 0 < len(answer) <= MAX_ANSWER_CHARS else None


def normalize_answer(answer: str) -> str:
    """A spelling without what never matters: outer dollars, spaces, a final full stop, `\\left`, `\\dfrac`, `\\!`."""
    answer = answer.strip().rstrip(".").strip("$").strip().rstrip(".")
    for old, new in (("\\left", ""), ("\\right", ""), ("dfrac", "frac"), ("tfrac", "frac"), ("\\!", ""), ("\\,", "")):
        answer = answer.replace(old, new)
    return re.sub(r"\s+", "", answer)


def as_number(answer: str) -> Decimal | None:
    """The number that an answer spells in plain decimal notation ('1,234', '27.0', '$5', '.5'); None otherwise."""
    plain = normalize_answer(answer).removeprefix("\\").removeprefix("$")
    is_number = re.fullmatch(r"-?(?=.)(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d+)?", plain)
    return Decimal(plain.replace(",", "")) if is_number else None
