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
from mrt_pipeline.policy.template import Template, TemplateParams
from mrt_pipeline.policy.text_template import TextBacktrackTemplateParams
from mrt_pipeline.registry import PositiveInt, Registered
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.tasks.base import Grade, Problem


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
        if at_natural_end:
            end, close = rollout.natural_length, rollout.natural_close
        elif rollout.stop_reason == "stop":
            end, close = len(rollout.thought), rollout.close
        else:
            end, close = -1, rollout.close[:0]
        return cls(rollout.problem, rollout.prompt, rollout.thought, cuts, end, tuple(map(int, close)))

    @property
    def forced(self) -> np.ndarray:
        """Bool (n_cuts,): cuts at which the stop phrase is put, all but the natural end."""
        return (self.cuts != self.natural_length) | (not self.natural_close)

    def closes(self, stop_phrase: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What is put after the thought at each cut."""
        return [stop_phrase if forced else self.natural_close for forced in self.forced]


@dataclass(frozen=True)
class Success:
    """J at the cuts of a query: `mean` (n_cuts,) in [0, 1] and its standard error `sem` (n_cuts,); tokens spent.

    n_tokens: what was computed for this query; nothing for what another one of the same call had asked.
    """

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

    def check_template(self, template: Template | TemplateParams) -> None:
        """Raise InputError if J of a policy that thinks and answers like this cannot be estimated."""

    def success(self, actor: Actor, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """J of the actor's policy at every cut of every query."""
        raise NotImplementedError


class ExactProver(Prover):
    """J as the summed probability of the accepted answers, each with the end token where the template has one.

    The seed changes nothing.
    """

    name: Literal["exact"] = "exact"

    def check_template(self, template: Template | TemplateParams) -> None:
        """There must be a list of answers whose probabilities can be summed; see `Prover.check_template`."""
        if isinstance(template, TextBacktrackTemplateParams):
            raise InputError(
                "policy.template.kind=backtrack needs prover=sampled: an attempt is a text with its answer somewhere "
                "in it, so the probability of the answer alone says nothing"
            )
        if template.writes_freely:
            raise InputError(
                "policy.template.natural_answer=free needs prover=sampled: what is written freely has no list of "
                "accepted answers whose probability could be summed; or set natural_answer=opened"
            )

    def success(self, actor: Actor, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`. At each cut the accepted answers are scored after what closes the thought there."""
        self.check_template(actor.template)
        if actor.limits.temperature == 0:
            raise InputError("prover=exact needs probabilities of answers; with temperature 0 there are none")
        encode, end = actor.tokenizer.encode, actor.template.answer_end
        distinct = {answer for query in queries for answer in query.problem.answers}
        encoded = {answer: [*encode(answer, add_special_tokens=False), *end] for answer in distinct}
        answers = [[encoded[answer] for answer in query.problem.answers] for query in queries]
        closes = [query.closes(actor.template.stop_phrase) for query in queries]
        traces = [np.concatenate([query.prompt, query.thought]) for query in queries]
        means = [np.empty(len(query.cuts)) for query in queries]
        n_spent = [0] * len(queries)
        for close in sorted({close for found in closes for close in found}):
            places = {i: [other == close for other in found] for i, found in enumerate(closes) if close in found}
            contexts = {
                i: [
                    (int(n), traces[i][:n].tobytes(), queries[i].problem.answers)
                    for n in len(queries[i].prompt) + queries[i].cuts[here]
                ]
                for i, here in places.items()
            }
            first: dict[tuple, int] = {}  # traces of a problem begin alike: each context is asked of the first only
            for i, wanted in contexts.items():
                for context in wanted:
                    first.setdefault(context, i)
            new = {i: [c for c in dict.fromkeys(wanted) if first[c] == i] for i, wanted in contexts.items()}
            new = {i: asked for i, asked in new.items() if asked}
            found = actor.engine.score(
                [traces[i] for i in new],
                [np.array([n for n, *_ in asked]) for asked in new.values()],
                close,
                [answers[i] for i in new],
                actor.limits.temperature,
            )
            success: dict[tuple, float] = {}
            for (i, asked), scores in zip(new.items(), found, strict=True):
                success.update(zip(asked, np.exp(scores).sum(axis=1).clip(0.0, 1.0), strict=True))
                n_spent[i] += len(traces[i]) + len(asked) * sum(map(len, answers[i]))
            for i, here in places.items():
                means[i][here] = [success[context] for context in contexts[i]]
        return [Success(mean, np.zeros_like(mean), n) for mean, n in zip(means, n_spent, strict=True)]


class SampledProver(Prover):
    """J as the mean reward of `n_answers` answers at each cut (m in the paper)."""

    name: Literal["sampled"] = "sampled"
    n_answers: PositiveInt = Field(default=8, description="forced answers at each boundary (m in the paper)")

    def success(self, actor: Actor, queries: Sequence[Query], seed: int = 0) -> list[Success]:
        """See `Prover.success`."""
        forced_answers = force_answers(actor, queries, self.n_answers, seed)
        graded = grade_answers(actor, queries, forced_answers)
        result = []
        for query, found, read in zip(queries, forced_answers, graded, strict=True):
            rewards = [[grade.reward for _, grade in at_cut] for at_cut in read]
            mean = np.array(rewards).reshape(len(query.cuts), self.n_answers).mean(axis=1)
            sem = np.sqrt(mean * (1 - mean) / self.n_answers)
            result.append(Success(mean, sem, sum(n_tokens(answer) for at_cut in found for answer in at_cut)))
        return result


def force_answers(actor: Actor, queries: Sequence[Query], n: int, seed: int) -> list[list[list[Completion]]]:
    """`n` sampled answers at each cut of each query."""
    forced = [bool(value) for query in queries for value in query.forced]
    contexts = [
        [*query.prompt, *query.thought[:cut], *close]
        for query in queries
        for cut, close in zip(query.cuts, query.closes(actor.template.stop_phrase), strict=True)
    ]
    completions = iter(actor.sample_answers(contexts, forced, seed, n))
    return [[[next(completions) for _ in range(n)] for _ in query.cuts] for query in queries]


def grade_answers(
    actor: Actor, queries: Sequence[Query], found: Sequence[Sequence[Sequence[Completion]]]
) -> list[list[list[tuple[str, Grade]]]]:
    """What is read of each answer that was found at each cut of each query (empty: none), and its grade."""
    asked = [
        (query.problem, actor.read_answer(answer, forced))
        for query, at_cuts in zip(queries, found, strict=True)
        for forced, answers in zip(query.forced, at_cuts, strict=True)
        for answer in answers
    ]
    texts = [text for _, text in asked]
    graded = zip(texts, actor.task.grade_all([problem for problem, _ in asked], texts), strict=True)
    return [[[next(graded) for _ in answers] for answers in at_cuts] for at_cuts in found]


def n_tokens(answer: Completion) -> int:
    """Tokens of an answer, the one that ended it included."""
    return len(answer.token_ids) + (answer.stop_token_id is not None)
