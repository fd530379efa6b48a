"""An actor: a policy on its engine, at work on a task.

It thinks until it stops or the budget ends, then answers, and the answer is graded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from mrt_pipeline.bars import bar
from mrt_pipeline.engines.base import NO_CHOICE, Completion, Engine, EngineParams, SamplingParams, TorchEngineParams
from mrt_pipeline.mrt.episodes import Tokens
from mrt_pipeline.policy.policy import Policy
from mrt_pipeline.policy.template import Template, encode_prompt
from mrt_pipeline.rollouts.rollout import Rollout, RolloutParams
from mrt_pipeline.rollouts.stream import Stream
from mrt_pipeline.tasks.base import Grade, Problem, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
        streams = [Stream.of(completion, template, starts[i // n]) for i, completion in enumerate(sampled)]
        if closed and template.close:
            streams = [
                stream if left[i // n] else replace(stream, split=replace(stream.split, close=template.close))
                for i, stream in enumerate(streams)
            ]
        return [
            replace(rollout, min_thinking=int(least[rollout.group]))
            for rollout in self.answer_streams(problems, prompts, streams, seed)
        ]

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

    def answer_streams(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[np.ndarray],
        streams: Sequence[Stream],
        seed: int,
        recalled: Sequence[np.ndarray] | None = None,
    ) -> list[Rollout]:
        """Graded rollouts from what was sampled as thinking; an answer is sampled after each stream that has none.

        prompts: token ids of each problem's. streams: as many of each problem, side by side.
        recalled: what the policy sees of each stream's thought when its answer is sampled, if that is not all of it.
        """
        n = len(streams) // len(problems) if problems else 0
        seen = [stream.thought for stream in streams] if recalled is None else recalled
        asked = [i for i, stream in enumerate(streams) if not stream.split.answered]
        questions = [np.concatenate([prompts[i // n], seen[i], streams[i].close]) for i in asked]
        forced = [stream.split.close == self.template.stop_phrase for stream in streams]
        sampled = self.sample_answers(questions, [forced[i] for i in asked], seed + 1)
        answers = dict(zip(asked, sampled, strict=True))
        return [
            self._rollout(problems[i // n], i // n, prompts[i // n], stream, answers.get(i), forced[i])
            for i, stream in enumerate(bar(streams, desc="grading", unit="answer"))
        ]

    def _rollout(
        self, problem: Problem, group: int, prompt: np.ndarray, stream: Stream, sampled: Completion | None, forced: bool
    ) -> Rollout:
        """A rollout from its stream and the answer sampled after it; None: what is left of the stream is the answer."""
        n, task, template = stream.split.n_thought, self.task, self.template
        answer = stream.rest if sampled is None else sampled
        ids, logprobs = answer.token_ids, answer.logprobs
        if answer.stop_token_id is not None:  # the token that ended it belongs to it
            ids = np.append(ids, answer.stop_token_id)
            logprobs = np.append(logprobs, np.float32(answer.stop_logprob))
        written = text = self._text(answer.token_ids)
        if sampled is not None:
            length = template.answer_length(ids)
            ids, logprobs, text = ids[:length], logprobs[:length], self.read_answer(answer, forced)
        stopped = stream.stopped()
        thought_logprobs = stream.sampled.logprobs[:n]
        return Rollout(
            problem=problem,
            group=group,
            prompt=prompt,
            thought=stream.thought,
            thought_choices=stream.sampled.choices[:n],
            thought_logprobs=thought_logprobs,
            boundaries=template.boundaries(stream.thought, thought_logprobs),
            natural_length=stream.natural_length,
            natural_close=stream.natural_close,
            stop_reason=stream.split.stop_reason,
            close=stream.close,
            close_logprob=stream.sampled.stop_logprob,
            answer=ids,
            answer_logprobs=logprobs,
            answer_text=task.read(text or written),
            grade=task.grade(problem, text) if text else Grade.UNPARSED,
            beyond=len(stream.sampled.token_ids) - n,
            dropped=0 if sampled is None else int((stream.sampled.choices[n:] != NO_CHOICE).sum()),
            stopped_at=None if stopped is None else stream.sampled.natural_length,
            stopped_reward=None if stopped is None else task.grade(problem, self._text(stopped)).reward,
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
