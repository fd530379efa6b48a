"""The meta-prover mu: force the policy to stop and answer, and say how probable a right answer is.

    mu(. | x, z_0:j) = pi(. | x, z_0:j, stop phrase)          J = E[r(x, mu)]          (arXiv 2503.07572, section 4)

Where the policy closed its thought itself, J is that of the answer it gives after its own closing, which a language
model continues differently: so J at the natural end is the expectation of the reward.

In backtracking search there is no stop phrase: mu is the policy's next attempt, and J the probability that it is right.
How it goes on after that attempt is no part of it.

`sampled` draws m forced answers and grades them, as the paper does. `exact` sums the probabilities of the accepted
answers: the same expectation without sampling noise, by one teacher-forced pass over all boundaries of a trace. It
needs the complete list of accepted answers, so it knows more of the task than a checker does; and where a tokenizer has
several ways to write an answer, it only counts the canonical one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import Completion, Engine
from mrt_pipeline.policy.template import Template
from mrt_pipeline.rollouts.rollout import Rollout, RolloutSettings, sample_answers
from mrt_pipeline.tasks.base import Problem, Task


@dataclass(frozen=True)
class Query:
    """Where to ask: a trace's prompt and thought (token ids), and the cuts (n_cuts,), numbers of thinking tokens.

    natural_length, natural_close: a cut at which J is that of an answer after the policy's own close, and that close
        (`Rollout.natural_close`); -1 and empty: none.
    """

    problem: Problem
    prompt: np.ndarray
    thought: np.ndarray
    cuts: np.ndarray
    natural_length: int = -1
    natural_close: tuple[int, ...] = ()

    @classmethod
    def about(cls, rollout: Rollout, cuts: np.ndarray) -> "Query":
        """J at these cuts of a rollout, for its credit: after its own close only where its own answer follows that.

        Where a stop was suppressed J is that of being stopped, as it is for a token that leads to the same state: else
        the two choices would differ in credit.
        """
        asked = cls(rollout.problem, rollout.prompt, rollout.thought, cuts)
        if rollout.stop_reason != "stop" or not len(rollout.close):
            return asked
        return replace(asked, natural_length=len(rollout.thought), natural_close=tuple(rollout.close.tolist()))

    @property
    def forced(self) -> np.ndarray:
        """Bool (n_cuts,): cuts at which the stop phrase is put, all but the natural end."""
        return (self.cuts != self.natural_length) | (not self.natural_close)


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
        if template.writes_freely:
            raise ValueError("answers that are written freely have no list that their probability could be summed over")
        self.tokenizer, self.template, self.temperature = tokenizer, template, temperature
        self._encoded: dict[str, list[int]] = {}

    def success(self, engine: Engine, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`."""
        if not queries:
            return []
        answers = [[self._encode(answer) for answer in query.problem.answers] for query in queries]
        scores = self._score(engine, queries, [query.cuts for query in queries], self.template.stop_phrase, answers)
        passes = [1] * len(queries)
        for close in sorted({query.natural_close for query in queries} - {(), self.template.stop_phrase}):
            chosen = [i for i, q in enumerate(queries) if q.natural_close == close and not q.forced.all()]
            ends = [queries[i].cuts[~queries[i].forced] for i in chosen]
            found = self._score(engine, [queries[i] for i in chosen], ends, close, [answers[i] for i in chosen])
            for i, score in zip(chosen, found, strict=True):
                scores[i][~queries[i].forced] = score
                passes[i] += 1
        result = []
        for query, answer, score, n_passes in zip(queries, answers, scores, passes, strict=True):
            mean = np.exp(score).sum(axis=1).clip(0.0, 1.0)
            n_tokens = n_passes * (len(query.prompt) + len(query.thought)) + len(query.cuts) * sum(map(len, answer))
            result.append(Success(mean, np.zeros_like(mean), n_tokens))
        return result

    def _score(
        self,
        engine: Engine,
        queries: Sequence[Query],
        cuts: Sequence[np.ndarray],
        suffix: Sequence[int],
        answers: Sequence[Sequence[Sequence[int]]],
    ) -> list[np.ndarray]:
        traces = [np.concatenate([query.prompt, query.thought]) for query in queries]
        places = [len(query.prompt) + cut for query, cut in zip(queries, cuts, strict=True)]
        return engine.score(traces, places, suffix, answers, self.temperature) if queries else []

    def _encode(self, answer: str) -> list[int]:
        if answer not in self._encoded:
            ids = self.tokenizer.encode(answer, add_special_tokens=False)
            self._encoded[answer] = [*ids, *self.template.answer_end]
        return self._encoded[answer]


class SampledProver:
    """J as the mean reward of `n_answers` answers at each cut."""

    name = "sampled"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        task: Task,
        n_answers: int,
        settings: RolloutSettings,
    ):
        self.tokenizer, self.template, self.task = tokenizer, template, task
        self.n_answers, self.settings = n_answers, settings

    def success(self, engine: Engine, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`."""
        result = []
        found = force_answers(engine, self.template, queries, self.settings, self.n_answers, seed)
        for query, answers in zip(queries, found, strict=True):
            rewards = np.array(
                [
                    [self._reward(query.problem, answer, forced) for answer in at_cut]
                    for forced, at_cut in zip(query.forced, answers, strict=True)
                ]
            )
            mean = rewards.reshape(len(query.cuts), self.n_answers).mean(axis=1)
            sem = np.sqrt(mean * (1 - mean) / self.n_answers)
            result.append(Success(mean, sem, sum(n_tokens(answer) for at_cut in answers for answer in at_cut)))
        return result

    def _reward(self, problem: Problem, answer: Completion, forced: bool) -> float:
        text = read_answer(self.tokenizer, self.template, answer, forced)
        return self.task.grade(problem, text).reward if text else 0.0


def force_answers(
    engine: Engine, template: Template, queries: Sequence[Query], settings: RolloutSettings, n: int, seed: int
) -> list[list[list[Completion]]]:
    """`n` sampled answers at each cut of each query."""
    forced = [bool(value) for query in queries for value in query.forced]
    cuts = [(query, cut) for query in queries for cut in query.cuts]
    contexts = [
        [*query.prompt, *query.thought[:cut], *(template.stop_phrase if is_forced else query.natural_close)]
        for (query, cut), is_forced in zip(cuts, forced, strict=True)
    ]
    completions = iter(sample_answers(engine, template, contexts, forced, settings, seed, n))
    return [[[next(completions) for _ in range(n)] for _ in query.cuts] for query in queries]


def read_answer(tokenizer: PreTrainedTokenizerBase, template: Template, answer: Completion, forced: bool) -> str:
    """What to grade of an answer; empty if it is none. forced: it follows the stop phrase."""
    ended = answer.stop_token_id is not None
    return template.answer_text(tokenizer.decode(answer.token_ids), ended, forced)


def n_tokens(answer: Completion) -> int:
    """Tokens of an answer, the one that ended it included."""
    return len(answer.token_ids) + (answer.stop_token_id is not None)
