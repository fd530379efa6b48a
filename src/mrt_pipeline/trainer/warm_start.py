"""Warm start: maximum likelihood on a task's own imperfect search traces, for policies made from scratch."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from mrt_pipeline.policy.configured import PolicyParams
from mrt_pipeline.policy.policy import Policy, build_policy
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.registry import Params, PositiveInt
from mrt_pipeline.tasks.base import Problem, ScratchTask
from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.learner import Learner, LearnerParams

_POOL = 16  # batches drawn at once


class WarmStartParams(Params):
    """Likelihood training on the task's search traces; see trainer/warm_start.py."""

    steps: PositiveInt = Field(default=2000, description="optimiser steps")
    batch_size: PositiveInt = Field(default=32, description="traces of a step")
    seed: int = Field(
        default=0, description="of weights and traces; independent of the run's seed, so that runs share the result"
    )
    learner: LearnerParams = LearnerParams(optimizer="muon", learning_rate=3e-3, warmup=0.03, schedule="cosine")


class TinyPolicy(PolicyParams):
    """A Llama-style model from scratch over the task's symbols; see policy/policy.py."""

    name: Literal["tiny"] = "tiny"
    hidden_size: PositiveInt = Field(default=96, description="width")
    n_layers: PositiveInt = Field(default=3, description="layers")
    n_heads: PositiveInt = Field(default=3, description="attention heads")
    intermediate_size: PositiveInt = Field(default=256, description="width of the MLP")
    max_length: PositiveInt = Field(default=704, description="context length")
    warm_start: WarmStartParams = WarmStartParams()

    @model_validator(mode="after")
    def _heads(self) -> "TinyPolicy":
        if self.hidden_size % (2 * self.n_heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of n_heads {self.n_heads}")
        return self

    def check(self, tree) -> None:
        """See `Registered.check`."""
        if self.warm_start.learner.kl_beta > 0:
            raise ValueError(
                "policy.warm_start.learner.kl_beta must be 0: there is no base policy before the warm start"
            )

    def build(self, task: ScratchTask, key: str = "") -> Policy:
        """A policy with fresh weights. key: of its card."""
        sizes = self.model_dump(exclude={"name", "path", "warm_start"})
        return build_policy(task.symbols(), task.markers, task.template, seed=self.warm_start.seed, key=key, **sizes)


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
) -> dict[str, float]:
    """Train `policy` in place on fresh traces for `steps` batches; the last metrics are returned.

    problems: the training problems. log: called every `log_every` steps with the means since the last call, and the
    step.
    """
    learner = Learner(policy.model, settings)
    batches = _batches(policy, task, problems, batch_size, np.random.default_rng([seed, 0]))
    metrics: dict[str, float] = {}
    recent: list[dict[str, float]] = []
    started, n_tokens = time.perf_counter(), 0
    for step, batch in zip(range(steps), batches):
        recent.append(learner.update(batch, step / steps, seed=step))
        n_tokens += sum(len(sequence.token_ids) for sequence in batch)
        if (step + 1) % log_every == 0 or step + 1 == steps:
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
