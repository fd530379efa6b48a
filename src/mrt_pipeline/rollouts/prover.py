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
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.engines.base import Completion
from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.template import TemplateParams
from mrt_pipeline.policy.text_template import TextBacktrackTemplateParams
from mrt_pipeline.registry import PositiveInt, Registered
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.tasks.base import Problem


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
    def about(cls, rollout: Rollout, cuts: np.ndarray, at_natural_end: bool = False) -> "Query":
        """J at these cuts of a rollout.

        at_natural_end: also where the policy first tried to stop J is that of the answer it would have given then: for
            measuring. For credit, J is after its own close only where its own answer follows that: where a stop was
            suppressed J is that of being stopped, as it is for a token that leads to the same state. Else the two
            choices would differ in credit.
        """
        asked = (rollout.problem, rollout.prompt, rollout.thought, cuts)
        if at_natural_end:
            return cls(*asked, rollout.natural_length, tuple(map(int, rollout.natural_close)))
        if rollout.stop_reason != "stop" or not len(rollout.close):
            return cls(*asked)
        return cls(*asked, len(rollout.thought), tuple(map(int, rollout.close)))

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


class Prover(Registered):
    """Family of the meta-provers: estimates of J."""

    kind: ClassVar[str] = "prover"
    builtin: ClassVar[dict[str, str]] = {
        "exact": "mrt_pipeline.rollouts.prover",
        "sampled": "mrt_pipeline.rollouts.prover",
    }

    def check(self, tree) -> None:
        """See `Registered.check`."""
        if tree.policy.given_template is not None:
            self.check_template(tree.policy.given_template)

    def check_template(self, template: TemplateParams) -> None:
        """Raise ValueError if J of a policy that thinks and answers like this cannot be estimated."""

    def success(self, actor: Actor, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """J of the actor's policy at every cut of every query."""
        raise NotImplementedError


class ExactProver(Prover):
    """J as the summed probability of the accepted answers, each with the end token where the template has one.

    The seed changes nothing.
    """

    name: Literal["exact"] = "exact"

    def check_template(self, template: TemplateParams) -> None:
        """There must be a list of answers whose probabilities can be summed; see `Prover.check_template`."""
        if isinstance(template, TextBacktrackTemplateParams):
            raise ValueError(
                "policy.template.kind=backtrack needs prover=sampled: an attempt is a text with its answer somewhere "
                "in it, so the probability of the answer alone says nothing"
            )
        if template.writes_freely:
            raise ValueError(
                "policy.template.natural_answer=free needs prover=sampled: what is written freely has no list of "
                "accepted answers whose probability could be summed; or set natural_answer=opened"
            )

    def success(self, actor: Actor, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`."""
        template = actor.template
        if template.writes_freely:
            raise InputError(
                "prover=exact cannot judge answers that are written freely, as policy.template.natural_answer=free has "
                "them: there is no list that their probability could be summed over. Set prover=sampled"
            )
        if actor.limits.temperature == 0:
            raise InputError("prover=exact needs probabilities of answers; with temperature 0 there are none")
        if not queries:
            return []
        encoded = _encode_answers(actor, queries)
        answers = [[encoded[answer] for answer in query.problem.answers] for query in queries]
        scores = _score(actor, queries, [query.cuts for query in queries], template.stop_phrase, answers)
        passes = [1] * len(queries)
        for close in sorted({query.natural_close for query in queries} - {(), template.stop_phrase}):
            chosen = [i for i, q in enumerate(queries) if q.natural_close == close and not q.forced.all()]
            ends = [queries[i].cuts[~queries[i].forced] for i in chosen]
            found = _score(actor, [queries[i] for i in chosen], ends, close, [answers[i] for i in chosen])
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
    actor: Actor,
    queries: Sequence[Query],
    cuts: Sequence[np.ndarray],
    suffix: Sequence[int],
    answers: Sequence[Sequence[Sequence[int]]],
) -> list[np.ndarray]:
    if not queries:
        return []
    traces = [np.concatenate([query.prompt, query.thought]) for query in queries]
    places = [len(query.prompt) + cut for query, cut in zip(queries, cuts, strict=True)]
    return actor.engine.score(traces, places, suffix, answers, actor.limits.temperature)


def _encode_answers(actor: Actor, queries: Sequence[Query]) -> dict[str, list[int]]:
    """Token ids of each accepted answer, with what the prover expects after it."""
    distinct = {answer for query in queries for answer in query.problem.answers}
    end = actor.template.answer_end
    return {answer: [*actor.tokenizer.encode(answer, add_special_tokens=False), *end] for answer in distinct}


class SampledProver(Prover):
    """J as the mean reward of `n_answers` answers at each cut (m in the paper)."""

    name: Literal["sampled"] = "sampled"
    n_answers: PositiveInt = Field(default=8, description="forced answers at each boundary (m in the paper)")

    def success(self, actor: Actor, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`."""
        result = []
        found = force_answers(actor, queries, self.n_answers, seed)
        for query, answers in zip(queries, found, strict=True):
            rewards = np.array(
                [
                    [_reward(actor, query.problem, answer, forced) for answer in at_cut]
                    for forced, at_cut in zip(query.forced, answers, strict=True)
                ]
            )
            mean = rewards.reshape(len(query.cuts), self.n_answers).mean(axis=1)
            sem = np.sqrt(mean * (1 - mean) / self.n_answers)
            result.append(Success(mean, sem, sum(n_tokens(answer) for at_cut in answers for answer in at_cut)))
        return result


def _reward(actor: Actor, problem: Problem, answer: Completion, forced: bool) -> float:
    text = actor.read_answer(answer, forced)
    return actor.task.grade(problem, text).reward if text else 0.0


def force_answers(actor: Actor, queries: Sequence[Query], n: int, seed: int) -> list[list[list[Completion]]]:
    """`n` sampled answers at each cut of each query."""
    forced = [bool(value) for query in queries for value in query.forced]
    cuts = [(query, cut) for query in queries for cut in query.cuts]
    stop_phrase = actor.template.stop_phrase
    contexts = [
        [*query.prompt, *query.thought[:cut], *(stop_phrase if is_forced else query.natural_close)]
        for (query, cut), is_forced in zip(cuts, forced, strict=True)
    ]
    completions = iter(actor.sample_answers(contexts, forced, seed, n))
    return [[[next(completions) for _ in range(n)] for _ in query.cuts] for query in queries]


def n_tokens(answer: Completion) -> int:
    """Tokens of an answer, the one that ended it included."""
    return len(answer.token_ids) + (answer.stop_token_id is not None)
