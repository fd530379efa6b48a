"""How long does it take to grade distinct LaTeX answers? The pool of children, as a multiple of commit 2dd71c2.

    python benchmarks/grading.py [answers] [rounds]                 (200, 5; 1,000 answers take about 3 minutes a round)

2dd71c2 asked one process, one answer after the other, each compared in a fork that had compared nothing yet; its worker
is taken from git. Each round times both, one after the other, from the start of the processes on, and then the pool
once more with the same answers. Wanted: the ratio is at most one over the number of cores; repetitions are free. The
grades of both have to be the same.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.math_grader import MathGrader, usable_cores

BEFORE = "2dd71c2:src/mrt_pipeline/tasks/math_worker.py"
DEADLINE = 30.0  # so that a busy machine changes no verdict
GRADES = {True: Grade.CORRECT, False: Grade.WRONG, "unparsed": Grade.UNPARSED, "failed": Grade.FAILED}


def pairs(n: int) -> list[tuple[str, str]]:
    """`n` distinct gold answers and answers, half of them equal: ten kinds, in turn."""
    rng = random.Random(0)
    found: dict[tuple[str, str], None] = {}
    while len(found) < n:
        a, b, c, off = rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 9), rng.randint(0, 1)
        kinds = [
            (f"\\frac{{{a}}}{{{b}}}", f"\\frac{{{2 * a + off}}}{{{2 * b}}}"),
            (f"\\sqrt{{{c * c * a}}}", f"{c + off}\\sqrt{{{a}}}"),
            (f"(x+{a})(x-{b})", f"x^2+{a - b + off}x-{a * b}"),
            (f"[{a},{a + b})", f"\\left[{a + off},\\frac{{{2 * (a + b)}}}{{2}}\\right)"),
            (f"({a},\\frac{{{c}}}{{{b}}})", f"({a}, {c + off}/{b})"),
            (f"{a}+{b}i", f"{b + off}i+{a}"),
            (f"\\frac{{{a}\\pi}}{{{b}}}", f"{a + off}\\pi/{b}"),
            (f"\\{{{a},{a + b}\\}}", f"{a + b + off},{a}"),
            (f"x^{{{c}}}+{a}y", f"{a}y+x^{{{c + off}}}"),
            (f"\\frac{{{a}}}{{x+{c}}}", f"\\frac{{{b * a}}}{{{b}x+{b * c + off}}}"),
        ]
        found[kinds[len(found) % len(kinds)]] = None
    return list(found)


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


def grades_before(worker: str, golds: list[list[str]], answers: list[str]) -> list[Grade]:
    with subprocess.Popen(
        [sys.executable, "-c", worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdout.readline()
        grades = []
        for question in zip(golds, answers, strict=True):
            process.stdin.write(json.dumps([DEADLINE, *question]).encode() + b"\n")
            process.stdin.flush()
            grades.append(GRADES[json.loads(process.stdout.readline())])
        process.stdin.close()
    return grades


def main(n: int, rounds: int) -> None:
    worker = subprocess.check_output(["git", "show", BEFORE], cwd=Path(__file__).parent, text=True)
    chosen = pairs(n)
    golds, answers = [[gold] for gold, _ in chosen], [answer for _, answer in chosen]
    before: list[float] = []
    pool: list[float] = []
    again: list[float] = []
    for _ in range(rounds):
        with timed(before):
            expected = grades_before(worker, golds, answers)
        grader = MathGrader(DEADLINE)
        with timed(pool):
            grades = grader.grade_all(golds, answers)
        with timed(again):
            grader.grade_all(golds, answers)
        grader.close()
        if grades != expected:
            differ = [(*pair, a.value, b.value) for pair, a, b in zip(chosen, expected, grades, strict=True) if a != b]
            sys.exit(f"the grades differ: {differ}")
    counts = ", ".join(f"{grades.count(grade)} {grade.value}" for grade in Grade if grade in grades)
    print(f"{n} answers ({counts}), {usable_cores()} cores, {rounds} rounds: median (lowest to highest)")
    for name, seconds in (("the pool", pool), ("the same answers again", again)):
        ratios = [ours / theirs for ours, theirs in zip(seconds, before, strict=True)]
        spread = f"{statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})"
        print(f"{name:23} {statistics.median(seconds):7.3f} s  {spread} of one process with a fresh fork an answer")
    print(f"{'2dd71c2':23} {statistics.median(before):7.3f} s")


if __name__ == "__main__":
    main(*([int(value) for value in sys.argv[1:]] + [200, 5][len(sys.argv) - 1 :]))
