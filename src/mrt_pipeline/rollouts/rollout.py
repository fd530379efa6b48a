"""Episodic rollouts: think until the model stops or the budget ends, then answer, then grade."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import Completion, Engine, SamplingParams, StopReason
from mrt_pipeline.mrt.episodes import episode_boundaries
from mrt_pipeline.policy.template import ThinkTemplate, encode_prompt
from mrt_pipeline.tasks.base import Grade, Problem, Task


@dataclass(frozen=True)
class RolloutSettings:
    """Limits and temperature of a rollout.

    thinking_budget: most thinking tokens; a longer thought is cut and the answer forced.
    answer_tokens: most tokens of the answer.
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
    thought: (n,) thinking tokens. thought_logprobs: (n,). thought_sampled: (n,) False where budget forcing put a token.
    natural_length: thinking tokens before the model first tried to stop; n if it never did.
    stop_reason: "stop" if the model closed the thought itself at its end, "eos" if it ended the trace instead,
        "length" if it was cut at the budget.
    close: (c,) ids between thought and answer: the sampled close token, or the stop phrase. Empty after "eos".
    close_logprob: log-probability of the sampled close (or end) token; 0 if it was forced.
    answer: (m,) ids, with the end token if there was one. answer_logprobs: (m,).
    answer_text, grade: the decoded answer and its grade.
    """

    problem: Problem
    group: int
    prompt: np.ndarray
    thought: np.ndarray
    thought_logprobs: np.ndarray
    thought_sampled: np.ndarray
    natural_length: int
    stop_reason: str
    close: np.ndarray
    close_logprob: float
    answer: np.ndarray
    answer_logprobs: np.ndarray
    answer_text: str
    grade: Grade

    @property
    def reward(self) -> float:
        """The 0/1 outcome reward."""
        return self.grade.reward

    @property
    def n_sampled(self) -> int:
        """Tokens that the policy sampled: what training at equal numbers of sampled tokens counts."""
        return int(self.sampled().sum())

    def token_ids(self) -> np.ndarray:
        """The whole trace, (p + n + c + m,)."""
        return np.concatenate([self.prompt, self.thought, self.close, self.answer]).astype(np.int64)

    def sampled(self) -> np.ndarray:
        """Which tokens after the prompt the policy sampled, bool (n + c + m,). Only these may be trained."""
        close = np.full(len(self.close), self.stop_reason != "length")
        return np.concatenate([self.thought_sampled, close, np.ones(len(self.answer), dtype=bool)])

    def logprobs(self) -> np.ndarray:
        """Log-probabilities after the prompt, float32 (n + c + m,); 0 where nothing was sampled."""
        close = np.full(len(self.close), self.close_logprob if self.stop_reason != "length" else 0.0)
        return np.concatenate([self.thought_logprobs, close, self.answer_logprobs]).astype(np.float32)

    def per_token(self, thought: np.ndarray | float, rest: float) -> np.ndarray:
        """One number per token after the prompt: `thought` on the thinking tokens, `rest` on close and answer."""
        weights = np.full(len(self.thought) + len(self.close) + len(self.answer), rest, dtype=np.float64)
        weights[: len(self.thought)] = thought
        return weights

    def boundaries(self, template: ThinkTemplate) -> np.ndarray:
        """Episode boundaries of the thought; see `episode_boundaries`."""
        return episode_boundaries(self.thought, template.marker_ids)


def sample_rollouts(
    engine: Engine,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    template: ThinkTemplate,
    problems: Sequence[Problem],
    settings: RolloutSettings,
    n: int,
    seed: int,
    min_thinking: Sequence[int] | int = 0,
    prefixes: Sequence[np.ndarray] | None = None,
    direct: Sequence[bool] | None = None,
) -> list[Rollout]:
    """`n` graded rollouts of each problem, those of one problem side by side: len(problems) * n.

    min_thinking: thinking tokens below which an attempt to stop is turned into a continuation (budget forcing), for
        all problems or for each.
    prefixes: thinking tokens that each problem's rollouts start with. They count against the budget and as not
        sampled, so they are never trained.
    direct: for each problem, whether to answer right after the prefix (forced termination) instead of thinking on.
    seed: the same seed, weights and problems give the same rollouts.
    """
    prompts = [np.asarray(encode_prompt(tokenizer, problem.question)) for problem in problems]
    starts = [np.empty(0, dtype=np.int64)] * len(problems) if prefixes is None else list(prefixes)
    used = np.array([len(start) for start in starts], dtype=np.int64)
    left = np.where(np.zeros(len(problems), bool) if direct is None else direct, 0, settings.thinking_budget - used)
    if np.any(left < 0):
        raise ValueError(f"a prefix of {used.max()} tokens exceeds the thinking budget {settings.thinking_budget}")
    thinking = SamplingParams(
        max_tokens=settings.thinking_budget,
        stop_token_ids=(template.close_id, template.eos_id),
        temperature=settings.temperature,
        n=n,
        continuation=template.continuation,
    )
    contexts = [np.concatenate(pair) for pair in zip(prompts, starts, strict=True)]
    thoughts = engine.sample(contexts, thinking, seed, np.maximum(np.asarray(min_thinking) - used, 0), left)
    closes = [_close(thought, template) for thought in thoughts]
    answering = SamplingParams(
        max_tokens=settings.answer_tokens, stop_token_ids=(template.eos_id,), temperature=settings.temperature
    )
    answered = [i for i, thought in enumerate(thoughts) if thought.stop_token_id != template.eos_id]
    questions = [np.concatenate([contexts[i // n], thoughts[i].token_ids, closes[i]]) for i in answered]
    answers = dict(zip(answered, engine.sample(questions, answering, seed + 1), strict=True))

    rollouts = []
    for i, (thought, close) in enumerate(zip(thoughts, closes, strict=True)):
        problem, start = problems[i // n], starts[i // n]
        answer = _grade_answer(answers.get(i), thought, task, problem, tokenizer)
        rollouts.append(
            Rollout(
                problem=problem,
                group=i // n,
                prompt=prompts[i // n],
                thought=np.concatenate([start, thought.token_ids]).astype(np.int64),
                thought_logprobs=np.concatenate([np.zeros(len(start), np.float32), thought.logprobs]),
                thought_sampled=np.concatenate([np.zeros(len(start), bool), thought.sampled]),
                natural_length=len(start) + thought.natural_length,
                stop_reason=thought.stop_reason.value if i in answers else "eos",
                close=close,
                close_logprob=thought.stop_logprob,
                answer=answer[0],
                answer_logprobs=answer[1],
                answer_text=answer[2],
                grade=answer[3],
            )
        )
    return rollouts


def _grade_answer(
    answer: Completion | None, thought: Completion, task: Task, problem: Problem, tokenizer: PreTrainedTokenizerBase
) -> tuple[np.ndarray, np.ndarray, str, Grade]:
    """Token ids and log-probabilities of the answer with its end token, its text and grade."""
    if answer is None:  # the trace ended inside the thought; the end token stands where the answer would
        return np.array([thought.stop_token_id]), np.array([thought.stop_logprob], np.float32), "", Grade.UNPARSED
    text = tokenizer.decode(answer.token_ids)
    if answer.stop_token_id is None:  # an answer that does not end is none
        return answer.token_ids, answer.logprobs, text, Grade.UNPARSED
    ids = np.append(answer.token_ids, answer.stop_token_id)
    logprobs = np.append(answer.logprobs, np.float32(answer.stop_logprob))
    return ids, logprobs, text, task.grade(problem, text)


def _close(thought: Completion, template: ThinkTemplate) -> np.ndarray:
    if thought.stop_reason is StopReason.LENGTH:
        return np.array(template.stop_phrase, dtype=np.int64)
    if thought.stop_token_id == template.close_id:
        return np.array([template.close_id], dtype=np.int64)
    return np.empty(0, dtype=np.int64)
