"""How the cost of sampling and of the exact prover grows, as fitted exponents: 1 is linear.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--rounds 5]

On the embedded default's model with random weights. One number is doubled while the others stay; the exponent is the
slope of log time over log number, by least squares, with the range over the rounds.
"""

import argparse
from time import perf_counter

import numpy as np
import torch

import mrt_pipeline as mrt
from mrt_pipeline.engines.base import SamplingParams
from mrt_pipeline.engines.torch_engine import TorchEngine

SIZES = (1, 2, 4, 8)


def exponents(work, rounds: int) -> str:
    """Of `work(factor)` over the factors, each measured once a round."""
    work(SIZES[0])
    slopes = []
    for _ in range(rounds):
        seconds = []
        for size in SIZES:
            started = perf_counter()
            work(size)
            seconds.append(perf_counter() - started)
        slopes.append(np.polyfit(np.log(SIZES), np.log(seconds), 1)[0])
    return f"{np.median(slopes):.2f} ({min(slopes):.2f} to {max(slopes):.2f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    task = mrt.Countdown()
    policy = mrt.TinyPolicy(max_length=1024).build(task)
    engine = TorchEngine(policy.model)
    actor = mrt.Actor(policy, engine, task, mrt.RolloutParams(thinking_budget=96, answer_tokens=6))
    problem = next(problem for problem in task.problems() if len(problem.answers) == 2)
    prompt, rng = actor.prompt(problem), np.random.default_rng(0)

    def sample(rows: int, tokens: int):
        engine.sample([prompt] * rows, SamplingParams(max_tokens=tokens, stop_token_ids=()), seed=0)

    def prove(traces: int, tokens: int, boundaries: int):
        cuts = np.linspace(0, tokens, boundaries).astype(int)
        queries = [mrt.Query(problem, prompt, rng.integers(5, 30, tokens), cuts) for _ in range(traces)]
        mrt.ExactProver().success(actor, queries)

    print(f"{torch.get_num_threads()} threads; exponents of the time, 1 is linear")
    print("sampled tokens of a row, 64 rows, 48 to 384:", exponents(lambda n: sample(64, 48 * n), rounds))
    print("rows of 96 tokens, 256 to 2048:", exponents(lambda n: sample(256 * n, 96), rounds))
    print(
        "prover, traces of 96 tokens with 8 boundaries, 32 to 256:", exponents(lambda n: prove(32 * n, 96, 8), rounds)
    )
    print("prover, boundaries of 64 traces, 4 to 32:", exponents(lambda n: prove(64, 96, 4 * n), rounds))
    print(
        "prover, tokens of 64 traces with 8 boundaries, 48 to 384:", exponents(lambda n: prove(64, 48 * n, 8), rounds)
    )


if __name__ == "__main__":
    main()
