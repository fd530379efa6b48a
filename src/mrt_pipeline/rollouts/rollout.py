"""Episodic rollouts: think until the model stops or the budget ends, then answer, then grade."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import Engine, SamplingParams, StopReason
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
        return int(self.thought_sampled.sum()) + int(self.stop_reason != "length") + len(self.answer)

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
) -> list[Rollout]:
    """`n` graded rollouts of each problem, those of one problem side by side: len(problems) * n.

    min_thinking: thinking tokens below which an attempt to stop is turned into a continuation (budget forcing), for
        all problems or for each.
    seed: the same seed, weights and problems give the same rollouts.
    """
    prompts = [encode_prompt(tokenizer, problem.question) for problem in problems]
    thinking = SamplingParams(
        max_tokens=settings.thinking_budget,
        stop_token_ids=(template.close_id, template.eos_id),
        temperature=settings.temperature,
        n=n,
        continuation=template.continuation,
    )
    thoughts = engine.sample(prompts, thinking, seed, min_thinking)
    closes = [_close(thought, template) for thought in thoughts]
    answering = SamplingParams(
        max_tokens=settings.answer_tokens, stop_token_ids=(template.eos_id,), temperature=settings.temperature
    )
    answered = [i for i, close in enumerate(closes) if len(close) or thoughts[i].stop_reason is StopReason.LENGTH]
    answers = dict(
        zip(
            answered,
            engine.sample(
                [[*prompts[i // n], *thoughts[i].token_ids, *closes[i]] for i in answered], answering, seed + 1
            ),
            strict=True,
        )
    )

    rollouts = []
    for i, (thought, close) in enumerate(zip(thoughts, closes, strict=True)):
        problem, completion = problems[i // n], answers.get(i)
        text, ids, logprobs = "", np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        stop_reason = thought.stop_reason.value
        if completion is None:  # ended the trace without an answer; the end token stands where the answer would
            stop_reason, grade = "eos", Grade.UNPARSED
            ids, logprobs = np.array([template.eos_id]), np.array([thought.stop_logprob], dtype=np.float32)
        else:
            text = tokenizer.decode(completion.token_ids, skip_special_tokens=True)
            ids, logprobs = completion.token_ids, completion.logprobs
            if completion.stop_token_id is not None:
                ids, logprobs = np.append(ids, completion.stop_token_id), np.append(logprobs, completion.stop_logprob)
                grade = task.grade(problem, text)
            else:
                grade = Grade.UNPARSED  # an answer that does not end is none
        rollouts.append(
            Rollout(
                problem=problem,
                group=i // n,
                prompt=np.asarray(prompts[i // n]),
                thought=thought.token_ids,
                thought_logprobs=thought.logprobs,
                thought_sampled=thought.sampled,
                natural_length=thought.natural_length,
                stop_reason=stop_reason,
                close=close,
                close_logprob=thought.stop_logprob,
                answer=ids,
                answer_logprobs=logprobs,
                answer_text=text,
                grade=grade,
            )
        )
    return rollouts


def _close(thought, template: ThinkTemplate) -> np.ndarray:
    if thought.stop_reason is StopReason.LENGTH:
        return np.array(template.stop_phrase, dtype=np.int64)
    if thought.stop_token_id == template.close_id:
        return np.array([template.close_id], dtype=np.int64)
    return np.empty(0, dtype=np.int64)
