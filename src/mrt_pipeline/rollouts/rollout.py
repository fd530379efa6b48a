"""Episodic rollouts: what one is, and its limits. `actor.py` samples them."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from mrt_pipeline.engines.base import NO_CHOICE
from mrt_pipeline.registry import NonNegative, Params, PositiveInt
from mrt_pipeline.tasks.base import Grade, Problem

GONE = {
    "rollout.n_problems": "the rollout stage draws the first step of training: training.groups problems",
    "rollout.n_rollouts": "the rollout stage draws the first step of training: training.group_size of each problem",
}
"""Keys of earlier versions, and what took their place."""


class RolloutParams(Params):
    """Limits and temperature of a rollout.

    A thought that is longer than the budget is cut and the answer forced. Where the policy answers in the stream
    itself, the last attempt counts as well: it is an answer only if the policy stops after it in time.
    """

    thinking_budget: PositiveInt = Field(default=96, description="training budget: most thinking tokens of a rollout")
    answer_tokens: PositiveInt = Field(default=6, description="most tokens of an answer that is not written freely")
    temperature: NonNegative = Field(default=1.0, description="of thought and answer; 0 is greedy, in the library only")

    def within(self, thinking_budget: int) -> "RolloutParams":
        """The same with another thinking budget."""
        return self.model_copy(update={"thinking_budget": thinking_budget})


@dataclass(frozen=True)
class Rollout:
    """One trace of a policy on a problem: `prompt + thought + close + answer`.

    problem: what was asked. group: index of the problem within the batch; rollouts of one group share a prompt.
    prompt: (p,) token ids, ending with the opening of the thought.
    boundaries: (k + 1,) thinking tokens at the ends of its k episodes, int64, the empty prefix (0) first.
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
    min_thinking: thinking tokens below which attempts to stop were suppressed (budget forcing); 0: none were.
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
    boundaries: np.ndarray
    natural_length: int
    natural_close: np.ndarray
    stop_reason: str
    close: np.ndarray
    close_logprob: float
    answer: np.ndarray
    answer_logprobs: np.ndarray
    answer_text: str
    grade: Grade
    min_thinking: int = 0
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

    @property
    def measured_boundaries(self) -> np.ndarray:
        """Boundaries, and where the policy first tried to stop, whatever was put in its place: for measuring."""
        return np.union1d(self.boundaries, [self.natural_length])

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
        after = np.full(len(self.close) + len(self.answer), rest, dtype=np.float64)
        return np.concatenate([np.broadcast_to(thought, len(self.thought)), after])
