"""The child process of the graders: [deadline, ...] in, a verdict out, a JSON line each.

Without an argument it compares an answer with gold answers by math-verify; with `<module>:<function>` it asks that
function of the user's. Both work on text that a model wrote, and so may hang, exhaust the memory or crash. So this
process only imports them, once; every answer is judged in a fork of it, which is killed at the deadline. Answers
arrive at math-verify as the content of a LaTeX expression and only ever reach its LaTeX grammar, never sympy's
`parse_expr`, which evaluates Python.

Lines: "ready", or {"refused": why}, then it ends. Verdicts: true, false, "unparsed", {"failed": why}. POSIX only.
"""

import contextlib
import importlib
import inspect
import json
import logging
import math
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

_MAX_BYTES = 2 * 1024**3  # that judging one answer may take, on top of what is imported
_FORK = multiprocessing.get_context("fork")
_TYPICAL = (  # gold answers and answers; together they lead through most of what is parsed and compared
    ("\\frac{1}{2}", "0.5"),
    ("2\\sqrt{3}", "\\sqrt{12}"),
    ("\\left(\\frac{1}{2}, \\pi\\right)", "(1, 3)"),
    ("[0, 1)", "(0, 1]"),
    ("x^2-1", "(x+1)(x-1)"),
    ("\\{1, 2\\}", "2, 1"),
    ("3+4i", "4i+3"),
    ("\\frac{2\\pi}{3}", "-\\pi/4"),
    ("50\\%", "0.5"),
    ("x=3", "3"),
    ("2^{10}", "1024"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\3\\end{pmatrix}"),
)

Verdict = bool | str | dict[str, str]


def math_comparison() -> Callable[[list[str], str], Verdict]:
    """Whether an answer is mathematically equal to one of the gold answers; "unparsed" if it is no mathematics.

    It has compared some already: most of the time of a first comparison is the parser's, which learns its grammar.
    Every fork has that, and the same random numbers, so no verdict depends on which answers came before.
    """
    from math_verify import LatexExtractionConfig, parse, verify
    from sympy.core.random import seed

    latex = [LatexExtractionConfig()]

    def read(answer: str) -> list:
        return parse(f"\\boxed{{{answer}}}", latex, parsing_timeout=None)

    def compare(golds: list[str], answer: str) -> Verdict:
        found = read(answer)
        if not found:
            return "unparsed"
        return any(verify(read(gold), found, timeout_seconds=None) for gold in golds)

    for gold, answer in _TYPICAL:
        compare([gold], answer)
    seed(0)  # sympy tests some expressions at random numbers
    return compare


def own_function(name: str) -> Callable[[dict[str, Any], str], Verdict]:
    """The user's function as one that judges; what it returns counts only if it is True or False.

    name: "<module>:<function>". Raises ValueError that says why it cannot be used.
    """
    module_name, _, function_name = name.partition(":")
    sys.path.append(os.getcwd())  # where it is not, as Python can be told not to look there
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing '{module_name}' fails: {_in_words(error)}") from error
    function = getattr(module, function_name, None)
    where = getattr(module, "__file__", None) or module_name
    if not callable(function):
        raise ValueError(f"{where} has no function '{function_name}'")
    try:
        with contextlib.suppress(ValueError):  # the signature of a built-in function may be unknown
            inspect.signature(function).bind("", {})
    except TypeError as error:
        raise ValueError(f"{where}: '{function_name}' does not take (answer, problem)") from error

    def judge(problem: dict[str, Any], answer: str) -> Verdict:
        verdict = function(answer, problem)
        if isinstance(verdict, bool):
            return verdict
        return {"failed": f"it returned {type(verdict).__name__}, not True or False"}

    return judge


def judge_in_fork(deadline: float, judge: Callable[..., Verdict], *question: Any) -> Verdict:
    """`judge` in a process of its own; "failed" if it has not answered after `deadline` seconds, or died."""
    receiver, sender = _FORK.Pipe(duplex=False)
    child = _FORK.Process(target=_judge, args=(sender, deadline, judge, *question))
    child.start()
    sender.close()
    try:
        if receiver.poll(deadline):
            return json.loads(receiver.recv_bytes())
        return {"failed": f"no verdict after {deadline:g} s"}
    except EOFError:
        return {"failed": "its process ended without a verdict"}
    finally:
        receiver.close()
        child.kill()
        with contextlib.suppress(OSError):  # its group may not be there yet
            os.killpg(cast(int, child.pid), signal.SIGKILL)
        child.join()


def _judge(sender: Connection, deadline: float, judge: Callable[..., Verdict], *question: Any) -> None:
    os.setpgid(0, 0)  # what it starts is killed with it
    signal.alarm(math.ceil(deadline) + 1)  # it ends even if its parent, which would kill it, is killed
    taken = 0
    with contextlib.suppress(OSError):  # Linux only
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + _MAX_BYTES if hard == resource.RLIM_INFINITY else min(taken + _MAX_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        verdict = judge(*question)
    except BaseException as error:  # SystemExit, too
        verdict = {"failed": _in_words(error)}
    sender.send_bytes(json.dumps(verdict).encode())


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:300]


def main(arguments: list[str]) -> None:
    """Answer requests until the input ends. What a grader reads or prints by itself comes from and goes to nowhere."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    logging.disable(logging.CRITICAL)  # math-verify logs what it cannot parse
    try:
        judge = own_function(arguments[0]) if arguments else math_comparison()
    except ValueError as error:
        print(json.dumps({"refused": str(error)}), file=replies, flush=True)
        return
    print(json.dumps("ready"), file=replies, flush=True)
    for line in requests:
        deadline, *question = json.loads(line)
        print(json.dumps(judge_in_fork(deadline, judge, *question)), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
