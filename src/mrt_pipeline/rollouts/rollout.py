"""Episodic rollouts: think until the model stops or the budget ends, then answer, then grade."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import NO_CHOICE, Completion, Engine, SamplingParams
from mrt_pipeline.policy.template import Template, encode_prompt
from mrt_pipeline.rollouts.stream import Stream
from mrt_pipeline.tasks.base import Grade, Problem, Task


@dataclass(frozen=True)
class RolloutSettings:
    """Limits and temperature of a rollout.

    thinking_budget: most thinking tokens; a longer thought is cut and the answer forced. Where the policy answers in
        the stream itself, the last attempt counts as well: it is an answer only if the policy stops after it in time.
    answer_tokens: most tokens of the answer, unless the template's natural answers have a limit of their own.
    temperature: of thought and answer.
    """

    thinking_budget: int
    answer_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True)
class Rollout:
    """One trace of a policy on a problem: `prompt + thought + close + answer`.

    problem: what was asked. group: index of the problem within the batch; rollouts of one group share a prompt.
    prompt: (p,) token ids, ending with the opening of the thought.
    thought: (n,) thinking tokens. thought_choices, thought_logprobs: (n,), what the policy chose at each place; see
        `Completion`. Where budget forcing put an extension in place of a stop, that is the stop.
    natural_length: thinking tokens before the model first tried to stop; n if it never did.
    natural_close: (c,) what leads to the answer there; empty if it never tried, or if no answer follows.
    stop_reason: "stop" if the model closed the thought itself at its end (in backtracking search: ended the trace after
        an attempt), "eos" if it ended the trace without an answer, "length" if it was cut at the budget.
    close: (c,) ids between thought and answer: the sampled close token and what is put in after it, or the stop phrase.
        Empty after "eos", and where the template has none.
    close_logprob: log-probability of the sampled close (or end) token; 0 if it was forced.
    answer: (m,) ids, with the token that ended it, if one did: eos, or a back symbol. answer_logprobs: (m,).
    answer_text, grade: the answer as the task reads it, and its grade.
    beyond: tokens of the stream beyond the thought: in backtracking search the attempt that is the answer; what the
        budget cut and the template drops, an attempt or a paragraph.
    dropped: how many of these were sampled and are in no other field.
    stopped_at, stopped_reward: the first attempt to stop if no answer is to follow it: tokens of the stream by then,
        and the reward there. That is the reward of the last attempt where the policy answers in the stream, and 0 where
        it tried to end the trace inside its thought. None if it never tried, or an answer follows.
    """

    problem: Problem
    group: int
    prompt: np.ndarray
    thought: np.ndarray
    thought_choices: np.ndarray
    thought_logprobs: np.ndarray
    natural_length: int
    natural_close: np.ndarray
    stop_reason: str
    close: np.ndarray
    close_logprob: float
    answer: np.ndarray
    answer_logprobs: np.ndarray
    answer_text: str
    grade: Grade
    beyond: int = 0
    dropped: int = 0
    stopped_at: int | None = None
    stopped_reward: float | None = None

    @property
    def reward(self) -> float:
        """The 0/1 outcome reward."""
        return self.grade.reward

    @property
    def n_sampled(self) -> int:
        """Tokens that the policy sampled: what training at equal numbers of sampled tokens counts.

        What was cut and dropped counts, as it cost the same; it is never trained.
        """
        return int(self.sampled().sum()) + self.dropped

    @property
    def stream_length(self) -> int:
        """Tokens that count against the thinking budget, those beyond the thought included."""
        return len(self.thought) + self.beyond

    @property
    def finished(self) -> tuple[int, int]:
        """Where an answer can be forced whatever the thought looks like: the natural end, and its end; see `snap`."""
        return self.natural_length, len(self.thought)

    def token_ids(self) -> np.ndarray:
        """The whole trace, (p + n + c + m,)."""
        return np.concatenate([self.prompt, self.thought, self.close, self.answer]).astype(np.int64)

    def choices(self) -> np.ndarray:
        """What the policy chose at each place after the prompt, int64 (n + c + m,); NO_CHOICE where it did not."""
        return np.concatenate([self.thought_choices, self._chosen_close(self.close, NO_CHOICE), self.answer])

    def sampled(self) -> np.ndarray:
        """Places after the prompt at which the policy chose, bool (n + c + m,). Only choices may be trained."""
        return self.choices() != NO_CHOICE

    def logprobs(self) -> np.ndarray:
        """Log-probabilities of the choices, float32 (n + c + m,); 0 without one."""
        close = self._chosen_close(self.close_logprob, 0.0)
        return np.concatenate([self.thought_logprobs, close, self.answer_logprobs]).astype(np.float32)

    def _chosen_close(self, chosen: np.ndarray | float, otherwise: float) -> np.ndarray:
        """`chosen` where the policy closed its thought itself, at the first token of `close`; (c,)."""
        first = (np.arange(len(self.close)) == 0) & (self.stop_reason != "length")
        return np.where(first, chosen, otherwise)

    def per_token(self, thought: np.ndarray | float, rest: float) -> np.ndarray:
        """One number per token after the prompt: `thought` on the thinking tokens, `rest` on close and answer."""
        weights = np.full(len(self.thought) + len(self.close) + len(self.answer), rest, dtype=np.float64)
        weights[: len(self.thought)] = thought
        return weights

    def boundaries(self, template: Template) -> np.ndarray:
        """Episode boundaries of the thought; see `Template.boundaries`."""
        return template.boundaries(self.thought, self.thought_logprobs)


def sample_rollouts(
    engine: Engine,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    problems: Sequence[Problem],
    settings: RolloutSettings,
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
    closed: these answers follow the policy's own `close` instead of the stop phrase, as if it had closed its thought.
    seed: the same seed, weights and problems give the same rollouts.
    """
    prompts = [np.asarray(encode_prompt(tokenizer, template, problem.question)) for problem in problems]
    starts = [np.empty(0, dtype=np.int64)] * len(problems) if prefixes is None else list(prefixes)
    used = np.array([len(start) for start in starts], dtype=np.int64)
    left = np.where(np.zeros(len(problems), bool) if direct is None else direct, 0, settings.thinking_budget - used)
    if np.any(left < 0):
        raise ValueError(f"a prefix of {used.max()} tokens exceeds the thinking budget {settings.thinking_budget}")
    if any(template.snap(start, len(start), (len(start),)) < len(start) for start in starts):
        raise ValueError("a prefix ends inside an episode, where this template cannot answer: cut it with snap()")
    thinking = SamplingParams(
        max_tokens=settings.thinking_budget,
        stop_token_ids=template.thinking_stops,
        temperature=settings.temperature,
        n=n,
        extensions=template.extensions,
    )
    contexts = [np.concatenate(pair) for pair in zip(prompts, starts, strict=True)]
    sampled = engine.sample(contexts, thinking, seed, np.maximum(np.asarray(min_thinking) - used, 0), left)
    streams = [Stream.of(starts[i // n], completion, template) for i, completion in enumerate(sampled)]
    if closed and template.close:
        streams = [
            replace(stream, split=replace(stream.split, close=template.close)) if now else stream
            for stream, now in zip(streams, np.repeat(left == 0, n), strict=True)
        ]
    return answer_streams(engine, task, tokenizer, template, problems, prompts, streams, settings, seed)


def answer_streams(
    engine: Engine,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    problems: Sequence[Problem],
    prompts: Sequence[np.ndarray],
    streams: Sequence[Stream],
    settings: RolloutSettings,
    seed: int,
    recalled: Sequence[np.ndarray] | None = None,
) -> list[Rollout]:
    """Graded rollouts from what was sampled as thinking; an answer is sampled after each stream that has none.

    prompts: token ids of each problem's. streams: as many of each problem, side by side.
    recalled: what the policy sees of each stream's thought when its answer is sampled, if that is not all of it.
    """
    n = len(streams) // len(problems)
    seen = [stream.thought for stream in streams] if recalled is None else recalled
    asked = [i for i, stream in enumerate(streams) if not stream.split.answered]
    questions = [np.concatenate([prompts[i // n], seen[i], streams[i].close]) for i in asked]
    forced = [stream.split.close == template.stop_phrase for stream in streams]
    sampled = sample_answers(engine, template, questions, [forced[i] for i in asked], settings, seed + 1)
    answers = dict(zip(asked, sampled, strict=True))

    rollouts = []
    for i, stream in enumerate(streams):
        problem, split = problems[i // n], stream.split
        if split.answered:  # the stream's last tokens are the answer, with the token that stopped it
            ids, logprobs, text = stream.rest(tokenizer)
            grade = task.grade(problem, text) if text else Grade.UNPARSED
            text = task.read(text)
        else:
            ids, logprobs, text = _sampled_answer(answers[i], tokenizer)
            length = template.answer_length(ids)
            ids, logprobs = ids[:length], logprobs[:length]
            ended = answers[i].stop_token_id is not None
            readable = template.answer_text(text, ended, forced[i])
            grade = task.grade(problem, readable) if readable else Grade.UNPARSED
            text = task.read(readable or text)
        stopped_at, stopped_text = stream.first_stop(template, tokenizer)
        rollouts.append(
            Rollout(
                problem=problem,
                group=i // n,
                prompt=prompts[i // n],
                thought=stream.thought,
                thought_choices=stream.choices[: split.n_thought],
                thought_logprobs=stream.logprobs[: split.n_thought],
                natural_length=stream.natural_end(template),
                natural_close=stream.natural_close(template),
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
        )
    return rollouts


def sample_answers(
    engine: Engine,
    template: Template,
    contexts: Sequence[Sequence[int]],
    forced: Sequence[bool],
    settings: RolloutSettings,
    seed: int,
    n: int = 1,
) -> list[Completion]:
    """`n` answers after each context: prompt, thought, and the close or stop phrase that ends it.

    forced: for each context, whether it ends with the stop phrase.
    """
    limits = [template.answer_limit(settings.answer_tokens, bool(is_forced)) for is_forced in forced]
    params = SamplingParams(
        max_tokens=max(limits, default=settings.answer_tokens),
        stop_token_ids=template.answer_stops,
        temperature=settings.temperature,
        n=n,
    )
    return engine.sample(contexts, params, seed, max_tokens=limits if len({*limits}) > 1 else None)


def _sampled_answer(answer: Completion, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray, str]:
    """Token ids and log-probabilities, with the token that ended it if one did, and text."""
    text = tokenizer.decode(answer.token_ids)
    if answer.stop_token_id is None:
        return answer.token_ids, answer.logprobs, text
    ids = np.append(answer.token_ids, answer.stop_token_id)
    return ids, np.append(answer.logprobs, np.float32(answer.stop_logprob)), text
