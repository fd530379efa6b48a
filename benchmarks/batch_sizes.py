"""Padded tokens of one forward pass against time, for the learner's update and the exact prover, in one run.

    python benchmarks/batch_sizes.py

Uses the embedded default's model with random weights. Prints the time of each size over that of the largest; quote the
ratios, not the seconds.
"""

import statistics
import time

import numpy as np
import torch

from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.policy.policy import build_policy
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.prover import ExactProver
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tasks.countdown import Countdown
from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.learner import Learner, LearnerParams

SIZES = (40_000, 16_384, 8_192, 4_096, 2_048, 1_024)
REPEATS = 3


def main():
    task = Countdown()
    policy = build_policy(task.symbols(), task.markers, task.template, 96, 3, 3, 256, 512, seed=0)
    problems = [problem for problem in task.problems() if problem.split == "train"][:32]
    engine = TorchEngine(policy.model)
    actor = Actor(policy, engine, task, RolloutParams(thinking_budget=96, answer_tokens=6))
    rollouts = actor.sample(problems, n=8, seed=0)
    sequences = [
        TrainingSequence(r.token_ids(), len(r.prompt), np.ones(len(r.sampled())), r.sampled(), r.logprobs())
        for r in rollouts
    ]

    def score(size):
        engine.score_tokens = size
        label_rollouts(actor, ExactProver(), rollouts, seed=0)

    def update(size):
        settings = LearnerParams(learning_rate=1e-9, micro_batch_tokens=size)
        Learner(policy.model, settings).update(sequences, 0.0, seed=0)

    print(f"{torch.get_num_threads()} threads, {len(rollouts)} rollouts, time over that of {SIZES[0]} tokens")
    for name, work in (("update", update), ("score", score)):
        seconds = {size: [] for size in SIZES}
        for _ in range(REPEATS):
            for size in SIZES:
                start = time.perf_counter()
                work(size)
                seconds[size].append(time.perf_counter() - start)
        medians = {size: statistics.median(values) for size, values in seconds.items()}
        print(name, ", ".join(f"{size}: {median / medians[SIZES[0]]:.2f}" for size, median in medians.items()))


if __name__ == "__main__":
    main()
