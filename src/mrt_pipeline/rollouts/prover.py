"""The meta-prover mu: force the policy to stop and answer, and say how probable a right answer is.

    mu(. | x, z_0:j) = pi(. | x, z_0:j, stop phrase)          J = E[r(x, mu)]          (arXiv 2503.07572, section 4)

In backtracking search there is no stop phrase: mu is the policy's next attempt, and J the probability that it is right.
How it goes on after that attempt is no part of it.

`sampled` draws m forced answers and grades them, as the paper does. `exact` sums the probabilities of the accepted
answers: the same expectation without sampling noise, by one teacher-forced pass over all boundaries of a trace. It
needs the complete list of accepted answers, so it knows more of the task than a checker does; and where a tokenizer has
several ways to write an answer, it only counts the canonical one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import Completion, Engine, SamplingParams
from mrt_pipeline.policy.template import Template
from mrt_pipeline.tasks.base import Problem, Task


@dataclass(frozen=True)
class Query:
    """Where to ask: a trace's prompt and thought (token ids), and the cuts (n_cuts,), numbers of thinking tokens."""

    problem: Problem
    prompt: np.ndarray
    thought: np.ndarray
    cuts: np.ndarray


@dataclass(frozen=True)
class Success:
    """J at the cuts of a query: `mean` (n_cuts,) in [0, 1] and its standard error `sem` (n_cuts,); tokens spent."""

    mean: np.ndarray
    sem: np.ndarray
    n_tokens: int


class Prover(Protocol):
    """Estimates J."""

    name: str

    def success(self, engine: Engine, queries: Sequence[Query], seed: int) -> list[Success]:
        """J at every cut of every query. The exact prover ignores the seed."""
        ...


class ExactProver:
    """J as the summed probability of the accepted answers, each with the end token where the template has one."""

    name = "exact"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template, temperature: float = 1.0):
        self.tokenizer, self.template, self.temperature = tokenizer, template, temperature
        self._encoded: dict[str, list[int]] = {}

    def success(self, engine: Engine, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`."""
        if not queries:
            return []
        answers = [[self._encode(answer) for answer in query.problem.answers] for query in queries]
        scores = engine.score(
            [np.concatenate([query.prompt, query.thought]) for query in queries],
            [len(query.prompt) + query.cuts for query in queries],
            self.template.stop_phrase,
            answers,
            self.temperature,
        )
        result = []
        for query, answer, score in zip(queries, answers, scores, strict=True):
            mean = np.exp(score).sum(axis=1).clip(0.0, 1.0)
            n_tokens = len(query.prompt) + len(query.thought) + len(query.cuts) * sum(map(len, answer))
            result.append(Success(mean, np.zeros_like(mean), n_tokens))
        return result

    def _encode(self, answer: str) -> list[int]:
        if answer not in self._encoded:
            ids = self.tokenizer.encode(answer, add_special_tokens=False)
            self._encoded[answer] = [*ids, *self.template.answer_end]
        return self._encoded[answer]


class SampledProver:
    """J as the mean reward of `n_answers` forced answers of at most `answer_tokens` tokens."""

    name = "sampled"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        task: Task,
        n_answers: int,
        answer_tokens: int,
        temperature: float = 1.0,
    ):
        self.tokenizer, self.template, self.task, self.n_answers = tokenizer, template, task, n_answers
        self.params = SamplingParams(
            max_tokens=answer_tokens, stop_token_ids=template.answer_stops, temperature=temperature, n=n_answers
        )

    def success(self, engine: Engine, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`."""
        result = []
        for query, answers in zip(
            queries, force_answers(engine, self.template, queries, self.params, seed), strict=True
        ):
            rewards = np.array([[self._reward(query.problem, answer) for answer in at_cut] for at_cut in answers])
            mean = rewards.reshape(len(query.cuts), self.n_answers).mean(axis=1)
            sem = np.sqrt(mean * (1 - mean) / self.n_answers)
            result.append(Success(mean, sem, sum(n_tokens(answer) for at_cut in answers for answer in at_cut)))
        return result

    def _reward(self, problem: Problem, answer: Completion) -> float:
        text = forced_text(self.tokenizer, self.template, answer)
        return self.task.grade(problem, text).reward if text else 0.0


def force_answers(
    engine: Engine, template: Template, queries: Sequence[Query], params: SamplingParams, seed: int
) -> list[list[list[Completion]]]:
    """`params.n` sampled answers at each cut of each query."""
    prompts = [[*query.prompt, *query.thought[:cut], *template.stop_phrase] for query in queries for cut in query.cuts]
    completions = iter(engine.sample(prompts, params, seed))
    return [[[next(completions) for _ in range(params.n)] for _ in query.cuts] for query in queries]


def forced_text(tokenizer: PreTrainedTokenizerBase, template: Template, answer: Completion) -> str:
    """What to grade of a forced answer; empty if it is none."""
    ended = answer.stop_token_id is not None
    return template.answer_text(tokenizer.decode(answer.token_ids), ended, forced=True)


def n_tokens(answer: Completion) -> int:
    """Tokens of an answer, the one that ended it included."""
    return len(answer.token_ids) + (answer.stop_token_id is not None)
