"""Warm start: maximum likelihood on traces, a task's own imperfect searches or given ones."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import Policy
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.tasks.base import Problem, Searcher, SearchTrace
from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.learner import Learner
from mrt_pipeline.trainer.params import LearnerParams

_POOL = 16  # batches drawn at once
_TRIES = 50  # to fill them with traces that fit


def warm_start(
    policy: Policy,
    task: Searcher,
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
    at the end, with the means since the last call, and the step. Traces that the policy has no room for are left out;
    InputError if hardly any fits.
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
    policy: Policy, task: Searcher, problems: Sequence[Problem], batch_size: int, rng: np.random.Generator
) -> Iterator[list[TrainingSequence]]:
    """Fresh traces without end. Some batches are drawn at once, so that each holds traces of similar length."""
    prompts = [encode_prompt(policy.tokenizer, policy.template, problem.question) for problem in problems]
    room = policy.card.max_length if policy.card else None
    while True:
        sequences: list[TrainingSequence] = []
        for _ in range(_TRIES):
            drawn = rng.integers(len(problems), size=_POOL * batch_size - len(sequences))
            traces = [task.search_trace(problems[i], rng) for i in drawn]
            fresh = _sequences(policy, [prompts[i] for i in drawn], traces)
            sequences += [s for s in fresh if room is None or len(s.token_ids) <= room]
            if len(sequences) == _POOL * batch_size:
                break
        else:
            raise InputError(
                f"nearly all traces to warm-start on are longer than policy.max_length {room}: raise it, or give "
                "shorter ones"
            )
        sequences.sort(key=lambda sequence: len(sequence.token_ids))
        batches = [sequences[k * batch_size : (k + 1) * batch_size] for k in range(_POOL)]
        rng.shuffle(batches)
        yield from reversed(batches)


def _sequences(
    policy: Policy, prompts: Sequence[list[int]], traces: Sequence[SearchTrace]
) -> Iterator[TrainingSequence]:
    """`prompt + thought + close + answer + eos` of each trace, all of it to be imitated but where a search was cut."""
    thoughts, answers = (
        policy.tokenizer(texts, add_special_tokens=False)["input_ids"]
        for texts in ([trace.thought for trace in traces], [trace.answer for trace in traces])
    )
    close = policy.template.close_ids[:1]
    for prompt, trace, thought, answer in zip(prompts, traces, thoughts, answers, strict=True):
        tokens = [*thought, *close, *answer, policy.template.eos_id]
        trained = np.ones(len(tokens), dtype=bool)
        # The token that stops: the one that closes the thought, or, where nothing does, the end of the trace.
        trained[len(thought) if close else -1] = not trace.cut
        yield TrainingSequence(np.array([*prompt, *tokens]), len(prompt), np.ones(len(tokens)), trained)
