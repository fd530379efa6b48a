"""Warm start: maximum likelihood on a task's own imperfect search traces, for policies made from scratch."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mrt_pipeline.policy.policy import Policy
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.tasks.base import Problem, ScratchTask
from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.learner import Learner
from mrt_pipeline.trainer.params import LearnerParams

_POOL = 16  # batches drawn at once


def warm_start(
    policy: Policy,
    task: ScratchTask,
    problems: Sequence[Problem],
    settings: LearnerParams,
    steps: int,
    batch_size: int,
    seed: int,
    log: Callable[[dict[str, float], int], None],
    log_every: int = 50,
    log_first: int = 0,
) -> dict[str, float]:
    """Train `policy` in place on fresh traces for `steps` batches; the last metrics are returned.

    problems: the training problems. log: called after each of the first `log_first` steps, every `log_every` steps and
    at the end, with the means since the last call, and the step.
    """
    learner = Learner(policy.model, settings)
    batches = _batches(policy, task, problems, batch_size, np.random.default_rng([seed, 0]))
    metrics: dict[str, float] = {}
    recent: list[dict[str, float]] = []
    started, n_tokens = time.perf_counter(), 0
    for step, batch in zip(range(steps), batches):
        recent.append(learner.update(batch, step / steps, seed=step))
        n_tokens += sum(len(sequence.token_ids) for sequence in batch)
        if step < log_first or (step + 1) % log_every == 0 or step + 1 == steps:
            metrics = {name: float(np.mean([entry[name] for entry in recent])) for name in recent[0]}
            metrics["tokens_per_second"] = n_tokens / (time.perf_counter() - started)
            recent = []
            log(metrics, step + 1)
    return metrics


def _batches(
    policy: Policy, task: ScratchTask, problems: Sequence[Problem], batch_size: int, rng: np.random.Generator
) -> Iterator[list[TrainingSequence]]:
    """Fresh traces without end. Some batches are drawn at once, so that each holds traces of similar length."""
    prompts = [encode_prompt(policy.tokenizer, policy.template, problem.question) for problem in problems]
    close = policy.template.close
    while True:
        drawn = rng.integers(len(problems), size=_POOL * batch_size)
        traces = [task.search_trace(problems[i], rng) for i in drawn]
        thoughts, answers = (
            policy.tokenizer(texts, add_special_tokens=False)["input_ids"]
            for texts in ([trace.thought for trace in traces], [trace.answer for trace in traces])
        )
        sequences = []
        for i, trace, thought, answer in zip(drawn, traces, thoughts, answers, strict=True):
            tokens = [*thought, *close, *answer, policy.template.eos_id]
            trained = np.ones(len(tokens), dtype=bool)
            # The token that stops: the one that closes the thought, or, where nothing does, the end of the trace.
            trained[len(thought) if close else -1] = not trace.cut
            ids = np.array([*prompts[i], *tokens])
            sequences.append(TrainingSequence(ids, len(prompts[i]), np.ones(len(tokens)), trained))
        sequences.sort(key=lambda sequence: len(sequence.token_ids))
        batches = [sequences[k * batch_size : (k + 1) * batch_size] for k in range(_POOL)]
        rng.shuffle(batches)
        yield from reversed(batches)
