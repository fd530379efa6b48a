"""Do the graders agree with the gold answers of problem files? For each file, three rates, and the exceptions.

read: rows with a question and an answer. spelled: the gold answer, boxed at the end of a sentence, is graded as correct
by the task. compared: math-verify, without the short cut for equal spellings, finds the gold answer equal to itself.

    python benchmarks/gold_answers.py <file> [<file> ...]
"""

import sys
from pathlib import Path

from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.math_grader import MathGrader
from mrt_pipeline.tasks.math_problems import MathProblems, ProblemSource

SHOWN = 20  # exceptions printed of each file


def main(paths: list[str]) -> None:
    print("| file | read | left out | spelled | compared |\n| --- | ---: | ---: | ---: | ---: |", flush=True)
    exceptions = {}
    for path in paths:
        source = ProblemSource(path=path)
        task = MathProblems(train=[source], evaluation=[source])
        problems = task._read([source], "train")
        golds = [p.answers[0] for p in problems]
        spelled = task.grade_all(problems, [f"So the answer is $\\boxed{{{gold}}}$." for gold in golds])
        compared = MathGrader().ask([[gold], gold] for gold in golds)
        right = [sum(grade is Grade.CORRECT for grade in grades) / len(problems) for grades in (spelled, compared)]
        n_rows = 1 + max(int(p.problem_id.rpartition("-")[2]) for p in problems)
        print(
            f"| {Path(path).name} | {len(problems)} | {n_rows - len(problems)} | {right[0]:.4f} | {right[1]:.4f} |",
            flush=True,
        )
        exceptions[path] = [
            f"{p.problem_id}: {p.answers[0]!r}: spelled {a.value}, compared {b.value}"
            for p, a, b in zip(problems, spelled, compared, strict=True)
            if not a is b is Grade.CORRECT
        ]
    for path, lines in exceptions.items():
        for line in lines[:SHOWN]:
            print(line)
        if len(lines) > SHOWN:
            print(f"{path}: {len(lines) - SHOWN} more")


if __name__ == "__main__":
    main(sys.argv[1:])
