"""An actor: a policy on its engine, at work on a task.

It thinks until it stops or the budget ends, then answers, and the answer is graded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from mrt_pipeline.bars import bar
from mrt_pipeline.engines.base import NO_CHOICE, Completion, Engine, EngineParams, SamplingParams, TorchEngineParams
from mrt_pipeline.mrt.episodes import Tokens
from mrt_pipeline.policy.policy import Policy
from mrt_pipeline.policy.template import Template, encode_prompt
from mrt_pipeline.rollouts.rollout import Rollout, RolloutParams
from mrt_pipeline.tasks.base import Grade, Problem, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Begun(NamedTuple):
    """A rollout that is not graded yet.

    answer: text to grade of the answer that was sampled with the thought. tried: text to grade where the policy first
        tried to stop (`Rollout.stopped_at`). Empty: there is none.
    """

    rollout: Rollout
    answer: str
    tried: str


@dataclass(frozen=True)
class Actor:
    """What samples: all of it stays the same while a policy is trained, but for the policy's weights.

    engine: samples from this very policy. limits: of a rollout.
    """

    policy: Policy
    engine: Engine
    task: Task
    limits: RolloutParams

    @classmethod
    def of(cls, policy: Policy, task: Task, limits: RolloutParams, engine: EngineParams | None = None) -> Actor:
        """An actor with an engine of its own, by default the embedded one."""
        return cls(policy, (engine or TorchEngineParams()).open(policy), task, limits)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's."""
        return self.policy.tokenizer

    @property
    def template(self) -> Template:
        """How the policy thinks and answers."""
        return self.policy.template

    def prompt(self, problem: Problem) -> np.ndarray:
        """Token ids of a problem, up to the opening of the thought."""
        return np.asarray(encode_prompt(self.tokenizer, self.template, problem.question))

    def sample(
        self,
        problems: Sequence[Problem],
        n: int,
        seed: int,
        min_thinking: Sequence[int] | int = 0,
        prefixes: Sequence[np.ndarray] | None = None,
        direct: Sequence[bool] | None = None,
        closed: bool = False,
    ) -> list[Rollout]:
        """`n` graded rollouts of each problem, those of one problem side by side: len(problems) * n.

        min_thinking: thinking tokens below which an attempt to stop is turned into an extension (budget forcing), for
            all problems or for each.
        prefixes: thinking tokens that each problem's rollouts start with. They count against the budget and as not
            sampled, so they are never trained. An answer must be possible after them (`Template.snap`).
        direct: for each problem, whether to answer right after the prefix (forced termination) instead of thinking on.
        closed: these answers follow the policy's own `close` instead of the stop phrase, as if it had closed its
            thought.
        seed: the same seed, weights and problems give the same rollouts.
        """
        template, limits = self.template, self.limits
        prompts = [self.prompt(problem) for problem in problems]
        starts = prefixes or [np.empty(0, dtype=np.int64)] * len(problems)
        used = np.array([len(start) for start in starts], dtype=np.int64)
        left = np.where(direct or [False] * len(problems), 0, limits.thinking_budget - used)
        if np.any(left < 0):
            raise ValueError(f"a prefix of {used.max()} tokens exceeds the thinking budget {limits.thinking_budget}")
        if any(template.snap(start, len(start), (len(start),)) < len(start) for start in starts):
            raise ValueError("a prefix ends inside an episode, where this template cannot answer: cut it with snap()")
        params = SamplingParams(
            max_tokens=limits.thinking_budget,
            stop_token_ids=template.thinking_stops,
            temperature=limits.temperature,
            n=n,
            extensions=template.extensions,
        )
        contexts = [np.concatenate(pair) for pair in zip(prompts, starts, strict=True)]
        least = np.broadcast_to(np.asarray(min_thinking), (len(problems),))
        sampled = self.engine.sample(contexts, params, seed, np.maximum(least - used, 0), left)
        begun = []
        for i, completion in enumerate(bar(sampled, desc="reading", unit="trace")):
            group = i // n
            item = self.begin(problems[group], group, prompts[group], completion, starts[group], int(least[group]))
            if closed and template.close and not left[group]:
                item = item._replace(rollout=replace(item.rollout, close=np.array(template.close, dtype=np.int64)))
            begun.append(item)
        return self.finish(begun, seed)

    def answer(
        self, rollouts: Sequence[Rollout], cuts: Sequence[int], seed: int, closed: bool = False
    ) -> list[Rollout]:
        """Cut each rollout's thought after so many tokens, where an answer is possible, and have it answered there.

        closed: after its own `close`, instead of the stop phrase.
        """
        return self.sample(
            [rollout.problem for rollout in rollouts],
            1,
            seed,
            prefixes=[rollout.thought[:cut] for rollout, cut in zip(rollouts, cuts, strict=True)],
            direct=[True] * len(rollouts),
            closed=closed,
        )

    def begin(
        self,
        problem: Problem,
        group: int,
        prompt: np.ndarray,
        completion: Completion,
        start: Sequence[int] | np.ndarray = (),
        min_thinking: int = 0,
    ) -> Begun:
        """The rollout whose thinking was sampled after the prefix `start`, with the answer if that was sampled with it.

        group, prompt, min_thinking: as in `Rollout`.
        """
        template = self.template
        tokens = np.concatenate([start, completion.token_ids]).astype(np.int64)
        choices = np.concatenate([np.full(len(start), NO_CHOICE), completion.choices])
        logprobs = np.concatenate([np.zeros(len(start), np.float32), completion.logprobs])
        tried, first_stop = len(start) + completion.natural_length, completion.stop_token_id
        finished = [len(start)]
        if tried < len(tokens):  # else the natural end is that of the stream, where nothing need be finished
            first_stop = int(choices[tried])
            finished.append(tried)
        split = template.split(tokens, completion.stop_token_id, finished)
        thought, rest = np.split(tokens, [split.n_thought])
        thought_logprobs, rest_logprobs = np.split(logprobs, [split.n_thought])
        thought_choices, rest_choices = np.split(choices, [split.n_thought])
        natural_close = () if first_stop is None else template.natural_close(first_stop)
        stopped_at, tried_text = None, ""
        if first_stop is not None and not natural_close:
            last = template.snap(tokens, tried) if template.streams_answer else tried
            stopped_at, tried_text = tried, self._text(tokens[last:tried])
        rollout = Rollout(
            problem=problem,
            group=group,
            prompt=prompt,
            thought=thought,
            thought_choices=thought_choices,
            thought_logprobs=thought_logprobs,
            boundaries=template.boundaries(thought, thought_logprobs),
            natural_length=min(template.snap(tokens, tried, (tried,)), len(thought)),
            natural_close=np.array(natural_close, dtype=np.int64),
            stop_reason=split.stop_reason,
            close=np.array(split.close, dtype=np.int64),
            close_logprob=completion.stop_logprob,
            answer=rest[:0],
            answer_logprobs=rest_logprobs[:0],
            answer_text="",
            grade=Grade.UNPARSED,
            min_thinking=min_thinking,
            beyond=len(rest),
            dropped=0 if split.answered else int((rest_choices != NO_CHOICE).sum()),
            stopped_at=stopped_at,
        )
        if not split.answered:
            return Begun(rollout, "", tried_text)
        text = self._text(rest)
        rollout = self._with_answer(rollout, replace(completion, token_ids=rest, logprobs=rest_logprobs), text)
        return Begun(rollout, text, tried_text)

    def finish(self, begun: Sequence[Begun], seed: int, recalled: Sequence[np.ndarray] | None = None) -> list[Rollout]:
        """The rollouts of `begin`, each with a graded answer; it is sampled for those that have none.

        recalled: what the policy sees of each thought when its answer is sampled, if that is not all of it.
        """
        rollouts, texts = [item.rollout for item in begun], [item.answer for item in begun]
        seen = [rollout.thought for rollout in rollouts] if recalled is None else recalled
        asked = [i for i, rollout in enumerate(rollouts) if not len(rollout.answer)]
        questions = [np.concatenate([rollouts[i].prompt, seen[i], rollouts[i].close]) for i in asked]
        forced = [tuple(rollouts[i].close) == self.template.stop_phrase for i in asked]
        sampled = self.sample_answers(questions, forced, seed + 1)
        for i, is_forced, answer in zip(asked, forced, sampled, strict=True):
            texts[i] = self.read_answer(answer, is_forced)
            rollouts[i] = self._with_answer(rollouts[i], answer, texts[i])
        problems = [rollout.problem for rollout in rollouts]
        grades = self.task.grade_all([*problems, *problems], [*texts, *(item.tried for item in begun)])
        return [
            replace(rollout, grade=grade, stopped_reward=None if rollout.stopped_at is None else stopped.reward)
            for rollout, grade, stopped in zip(rollouts, grades[: len(begun)], grades[len(begun) :], strict=True)
        ]

    def _with_answer(self, rollout: Rollout, answer: Completion, text: str) -> Rollout:
        """The rollout with this answer, of which `text` is to be graded."""
        ids, logprobs = answer.token_ids, answer.logprobs
        if answer.stop_token_id is not None:  # the token that ended it belongs to it
            ids = np.append(ids, answer.stop_token_id)
            logprobs = np.append(logprobs, np.float32(answer.stop_logprob))
        length = self.template.answer_length(ids)
        return replace(
            rollout,
            answer=ids[:length],
            answer_logprobs=logprobs[:length],
            answer_text=self.task.read(text or self._text(answer.token_ids)),
        )

    def sample_answers(
        self, contexts: Sequence[Tokens], forced: Sequence[bool], seed: int, n: int = 1
    ) -> list[Completion]:
        """`n` answers after each context: prompt, thought, and the close or stop phrase that ends it.

        forced: for each context, whether it ends with the stop phrase.
        """
        limits = [self.template.answer_limit(self.limits.answer_tokens, bool(is_forced)) for is_forced in forced]
        params = SamplingParams(
            max_tokens=max(limits, default=self.limits.answer_tokens),
            stop_token_ids=self.template.answer_stops,
            temperature=self.limits.temperature,
            n=n,
        )
        return self.engine.sample(contexts, params, seed, max_tokens=limits if len({*limits}) > 1 else None)

    def read_answer(self, answer: Completion, forced: bool) -> str:
        """What to grade of an answer; empty if it is none. forced: it follows the stop phrase."""
        return self.template.answer_text(self._text(answer.token_ids), answer.stop_token_id is not None, forced)

    def _text(self, token_ids: np.ndarray) -> str:
        return cast(str, self.tokenizer.decode(token_ids))
