"""Time of an RL step of the embedded default beside TRL's GRPOTrainer, in one run: same model, prompts and lengths.

    OMP_NUM_THREADS=1 python benchmarks/rl_step.py [--groups 8] [--rounds 5] [--budget 96] [--policy FOLDER | --lora]

After each step of TRL comes one of ours by GRPO and one by MRT-online (sampling, prover, update), so that all three see
the same machine. One optimiser step each; the learning rates are so small that the policy stays as it is. Prints
medians of the ratios with their range, and the parts of our step. Quote the ratios, not the seconds.
"""

import argparse
import copy
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import torch
from prover import SMOLLM2_135M
from transformers import LlamaForCausalLM, TrainerCallback
from trl import GRPOConfig

import mrt_pipeline as mrt
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.policy.policy import Policy, add_adapters
from mrt_pipeline.trainer import draw
from mrt_pipeline.trainer.reinforce import training_sequences

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from trl_progress_credit import ON_A_CPU, GRPOTrainer, toy_arguments

ANSWER, GROUP = 6, 8  # answer tokens, rollouts of a problem


def large_policy(task) -> Policy:
    """A model with the sizes of SmolLM2-135M and random weights, and LoRA adapters, on the symbols of the task."""
    small = mrt.TinyPolicy().build(task)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(SMOLLM2_135M)
    return replace(small, model=add_adapters(model, rank=16, alpha=32, dropout=0.0, seed=0))


def our_step(actor, algorithm, learner, problems, step):
    """Sample, prove, update; seconds of each, and the sampled tokens."""
    seed, times = partial(draw.step_seed, 0, step), [perf_counter()]
    drawn = draw.draw_step(actor, problems, (), draw.DrawSize(len(problems), GROUP, 0.0), seed(draw.SAMPLE))
    times.append(perf_counter())
    labelled = draw.label_draw(actor, algorithm, mrt.ExactProver(), drawn, seed)
    times.append(perf_counter())
    learner.update(training_sequences(algorithm, labelled, [], actor.template.eos_id), 0.0, seed(draw.UPDATE))
    times.append(perf_counter())
    tokens = sum(item.rollout.n_sampled for item in labelled)
    return dict(zip(("sample", "prove", "update"), (end - start for start, end in pairwise(times)))), tokens


class AfterEachStep(TrainerCallback):
    """Times TRL's step, and lets ours follow."""

    def __init__(self, ours):
        self.ours, self.rounds = ours, []

    def on_step_begin(self, *args, **kwargs):
        self.began = perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        seconds = perf_counter() - self.began
        self.rounds.append((seconds, {name: step(state.global_step) for name, step in self.ours.items()}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=96, help="thinking tokens")
    parser.add_argument("--policy", help="folder of a saved policy; without it, random weights that rarely stop early")
    parser.add_argument("--lora", action="store_true", help="135 M parameters, of which adapters are trained")
    given = parser.parse_args()
    task = mrt.Countdown()
    if given.lora:
        policy = large_policy(task)
    else:
        policy = mrt.open_policy(given.policy) if given.policy else mrt.TinyPolicy().build(task)
    problems = [problem for problem in task.problems() if problem.split == "train"][: given.groups]
    ours = Policy(copy.deepcopy(policy.model), policy.tokenizer, policy.template)
    actor = mrt.Actor.of(ours, task, mrt.RolloutParams(thinking_budget=given.budget, answer_tokens=ANSWER))
    learner = mrt.Learner(ours.model, mrt.LearnerParams(learning_rate=1e-9))
    steps = {
        algorithm.name: partial(our_step, actor, algorithm, learner, problems) for algorithm in (GRPO(), MRTOnline())
    }
    timed = AfterEachStep(steps)
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            folder,
            max_steps=given.rounds + 1,
            per_device_train_batch_size=given.groups * GROUP,
            num_generations=GROUP,
            max_completion_length=given.budget + ANSWER + 2,  # with what closes the thought and ends the answer
            learning_rate=1e-9,
            loss_type="dapo",
            logging_steps=1,
            **ON_A_CPU,
        )
        arguments = toy_arguments(task, {problem.problem_id: problem for problem in problems}, policy)
        trainer = GRPOTrainer(**arguments, args=config, callbacks=[timed])
        trainer.train()
    history = [row for row in trainer.state.log_history if "completions/mean_length" in row][1:]
    theirs = statistics.mean(row["completions/mean_length"] for row in history) * given.groups * GROUP
    rounds = timed.rounds[1:]  # the first one warms up
    parameters = sum(p.numel() for p in ours.model.parameters())
    print(f"{torch.get_num_threads()} threads, {given.groups} x {GROUP} rollouts, {parameters:,} parameters, float32")
    print(f"TRL: {theirs:.0f} tokens a step, {statistics.median(seconds for seconds, _ in rounds):.2f} s")
    for name in steps:
        found = [step[name] for _, step in rounds]
        ratios = [seconds / sum(step[name][0].values()) for seconds, step in rounds]
        parts = {part: statistics.median(times[part] for times, _ in found) for part in found[0][0]}
        shares = ", ".join(f"{part} {seconds / sum(parts.values()):.0%}" for part, seconds in parts.items())
        tokens = statistics.mean(n for _, n in found)
        print(
            f"{name}: {tokens:.0f} tokens a step, {statistics.median(ratios):.2f} x faster than TRL "
            f"({min(ratios):.2f} to {max(ratios):.2f}); {shares}"
        )


if __name__ == "__main__":
    main()
