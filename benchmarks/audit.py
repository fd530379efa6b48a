"""Time of an audit of 1,000 made-up traces with integer answers, to the finished page.

python benchmarks/audit.py [--traces 1000]
"""

import argparse
import random
from time import perf_counter

import mrt_pipeline as mrt
from mrt_pipeline.reporting.page import audit_page

PER_PROBLEM, PARAGRAPHS = 4, (2, 40)


def make(n: int) -> list:
    """Traces that find their answer somewhere, and may lose it again."""
    rng = random.Random(0)
    traces = []
    for i in range(n):
        gold, length = (i // PER_PROBLEM) % 90 + 1, rng.randint(*PARAGRAPHS)
        found = rng.randint(1, length)
        said = [gold if k >= found and rng.random() < 0.9 else rng.randint(1, 99) for k in range(length)]
        thought = "\n\n".join(f"Wait, {'let me look at it again. ' * 8}So the answer is {answer}." for answer in said)
        final = f"The answer is \\boxed{{{gold if rng.random() < 0.8 else 7}}}."
        traces.append(mrt.Trace(f"What is {i // PER_PROBLEM} + 1?", (str(gold),), thought, final, True))
    return traces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=1000)
    traces = make(parser.parse_args().traces)
    started = perf_counter()
    found = mrt.audit(traces)
    measured = perf_counter()
    page = audit_page(found)
    print(f"{len(traces)} traces of {len(found.problems)} problems, {found.numbers['length'][0]:.0f} words each")
    print(
        f"measured in {measured - started:.1f} s, page of {len(page) / 1e6:.2f} MB in {perf_counter() - measured:.1f} s"
    )


if __name__ == "__main__":
    main()
