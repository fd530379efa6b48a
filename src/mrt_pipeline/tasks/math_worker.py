"""The child process of `MathGrader`: [deadline, gold answers, answer] in, a verdict out, a JSON line each.

It runs math-verify on text that a model wrote, which may hang, exhaust its memory or crash. So this process only
imports it, once; every comparison happens in a fork of it, which is killed at the deadline. Answers arrive as the
content of a LaTeX expression and only ever reach math-verify's LaTeX grammar, never sympy's `parse_expr`, which
evaluates Python.

Verdicts: true, false, "unparsed", "failed". POSIX only.
"""

import json
import logging
import os
import resource
import select
import signal
import sys

from math_verify import LatexExtractionConfig, parse, verify

_MAX_BYTES = 2 * 1024**3
_LATEX = [LatexExtractionConfig()]


def compare(golds: list[str], answer: str) -> bool | str:
    """Whether an answer is mathematically equal to one of the gold answers; "unparsed" if it is no mathematics."""
    found = _read(answer)
    if not found:
        return "unparsed"
    return any(verify(_read(gold), found, timeout_seconds=None) for gold in golds)


def _read(answer: str) -> list:
    return parse(f"\\boxed{{{answer}}}", _LATEX, parsing_timeout=None)


def compare_in_fork(deadline: float, golds: list[str], answer: str) -> bool | str:
    """`compare` in a process of its own; "failed" if it has not answered after `deadline` seconds, or died."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
        try:
            os.write(writable, json.dumps(compare(golds, answer)).encode())
        finally:
            os._exit(0)
    os.close(writable)
    try:
        ready = select.select([readable], [], [], deadline)[0]
        verdict = os.read(readable, 64) if ready else b""
        return json.loads(verdict) if verdict else "failed"
    finally:
        os.close(readable)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main() -> None:
    """Answer requests until the input ends."""
    logging.disable(logging.CRITICAL)  # math-verify logs what it cannot parse
    compare(["\\left(\\frac{1}{2}, \\pi\\right)"], "(0.5, \\pi)")  # what is imported late is imported before the forks
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(compare_in_fork(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
