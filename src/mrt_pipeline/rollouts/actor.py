"""An actor: a policy on its engine, at work on a task.

It thinks until it stops or the budget ends, then answers, and the answer is graded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import NO_CHOICE, Completion, Engine, EngineParams, SamplingParams, TorchEngineParams
from mrt_pipeline.policy.policy import Policy
from mrt_pipeline.policy.template import Template, encode_prompt
from mrt_pipeline.rollouts.rollout import Rollout, RolloutParams
from mrt_pipeline.rollouts.stream import Stream
from mrt_pipeline.tasks.base import Grade, Problem, Task


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
    def of(cls, policy: Policy, task: Task, limits: RolloutParams, engine: EngineParams | None = None) -> "Actor":
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
        starts = [np.empty(0, dtype=np.int64)] * len(problems) if prefixes is None else list(prefixes)
        used = np.array([len(start) for start in starts], dtype=np.int64)
        left = np.where(np.zeros(len(problems), bool) if direct is None else direct, 0, limits.thinking_budget - used)
        if np.any(left < 0):
            raise ValueError(f"a prefix of {used.max()} tokens exceeds the thinking budget {limits.thinking_budget}")
        if any(template.snap(start, len(start), (len(start),)) < len(start) for start in starts):
            raise ValueError("a prefix ends inside an episode, where this template cannot answer: cut it with snap()")
        thinking = SamplingParams(
            max_tokens=limits.thinking_budget,
            stop_token_ids=template.thinking_stops,
            temperature=limits.temperature,
            n=n,
            extensions=template.extensions,
        )
        contexts = [np.concatenate(pair) for pair in zip(prompts, starts, strict=True)]
        least = np.maximum(np.asarray(min_thinking) - used, 0)
        sampled = self.engine.sample(contexts, thinking, seed, least, left)
        streams = [Stream.of(starts[i // n], completion, template) for i, completion in enumerate(sampled)]
        if closed and template.close:
            streams = [
                replace(stream, split=replace(stream.split, close=template.close)) if now else stream
                for stream, now in zip(streams, np.repeat(left == 0, n), strict=True)
            ]
        forced = np.broadcast_to(np.asarray(min_thinking), (len(problems),))
        return [
            replace(rollout, min_thinking=int(forced[rollout.group]))
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
            for i, stream in enumerate(streams)
        ]

    def _rollout(
        self,
        problem: Problem,
        group: int,
        prompt: np.ndarray,
        stream: Stream,
        answer: Completion | None,
        forced: bool,
    ) -> Rollout:
        """A rollout from its stream and the answer sampled after it; None: the stream's last tokens are the answer."""
        split, task = stream.split, self.task
        if answer is None:  # with the token that stopped it
            ids, logprobs, text = stream.rest(self.tokenizer)
            grade = task.grade(problem, text) if text else Grade.UNPARSED
            text = task.read(text)
        else:
            ids, logprobs, text = _sampled_answer(answer, self.tokenizer)
            length = self.template.answer_length(ids)
            ids, logprobs = ids[:length], logprobs[:length]
            readable = self.template.answer_text(text, answer.stop_token_id is not None, forced)
            grade = task.grade(problem, readable) if readable else Grade.UNPARSED
            text = task.read(readable or text)
        stopped_at, stopped_text = stream.first_stop(self.template, self.tokenizer)
        logprobs_of_thought = stream.logprobs[: split.n_thought]
        return Rollout(
            problem=problem,
            group=group,
            prompt=prompt,
            thought=stream.thought,
            thought_choices=stream.choices[: split.n_thought],
            thought_logprobs=logprobs_of_thought,
            boundaries=self.template.boundaries(stream.thought, logprobs_of_thought),
            natural_length=stream.natural_end(self.template),
            natural_close=stream.natural_close(self.template),
            stop_reason=split.stop_reason,
            close=stream.close,
            close_logprob=stream.stop_logprob,
            answer=ids,
            answer_logprobs=logprobs,
            answer_text=text,
            grade=grade,
            beyond=len(stream.token_ids) - split.n_thought,
            dropped=0 if split.answered else int((stream.choices[split.n_thought :] != NO_CHOICE).sum()),
            stopped_at=stopped_at,
            stopped_reward=None if stopped_at is None else task.grade(problem, stopped_text).reward,
        )

    def sample_answers(
        self, contexts: Sequence[Sequence[int]], forced: Sequence[bool], seed: int, n: int = 1
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
        ended = answer.stop_token_id is not None
        return self.template.answer_text(self.tokenizer.decode(answer.token_ids), ended, forced)


def _sampled_answer(answer: Completion, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray, str]:
    """Token ids and log-probabilities, with the token that ended it if one did, and text."""
    text = tokenizer.decode(answer.token_ids)
    if answer.stop_token_id is None:
        return answer.token_ids, answer.logprobs, text
    ids = np.append(answer.token_ids, answer.stop_token_id)
    return ids, np.append(answer.logprobs, np.float32(answer.stop_logprob)), text
