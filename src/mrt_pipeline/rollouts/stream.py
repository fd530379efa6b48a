"""What was sampled as thinking, and how it divides into thought and answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mrt_pipeline.engines.base import NO_CHOICE, Completion
from mrt_pipeline.policy.template import Split, Template

_NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Stream:
    """All that was sampled as thinking, with the prefix it started from, of which the policy chose nothing.

    template: of the policy. split: how it divides into thought and answer.
    """

    sampled: Completion
    template: Template
    split: Split

    @classmethod
    def of(cls, completion: Completion, template: Template, start: np.ndarray = _NOTHING) -> Stream:
        """The completion after its prefix `start`, (m,) token ids."""
        sampled = replace(
            completion,
            token_ids=np.concatenate([start, completion.token_ids]).astype(np.int64),
            choices=np.concatenate([np.full(len(start), NO_CHOICE), completion.choices]),
            logprobs=np.concatenate([np.zeros(len(start), np.float32), completion.logprobs]),
            natural_length=len(start) + completion.natural_length,
        )
        # Without an attempt to stop the natural end is that of the stream, where nothing is finished.
        turned = sampled.natural_length < len(sampled.token_ids)
        finished = [len(start), *([sampled.natural_length] if turned else [])]
        return cls(sampled, template, template.split(sampled.token_ids, sampled.stop_token_id, finished))

    @property
    def thought(self) -> np.ndarray:
        """The part that is the thought, int64."""
        return self.sampled.token_ids[: self.split.n_thought]

    @property
    def close(self) -> np.ndarray:
        """Token ids between thought and answer, int64."""
        return np.array(self.split.close, dtype=np.int64)

    @property
    def rest(self) -> Completion:
        """What follows the thought: where the policy answers in the stream, its answer."""
        n = self.split.n_thought
        return replace(self.sampled, token_ids=self.sampled.token_ids[n:], logprobs=self.sampled.logprobs[n:])

    @property
    def natural_length(self) -> int:
        """Thinking tokens before the policy first tried to stop, moved back to where an answer can be forced."""
        tried = self.sampled.natural_length
        return min(self.template.snap(self.sampled.token_ids, tried, (tried,)), self.split.n_thought)

    @property
    def natural_close(self) -> np.ndarray:
        """What leads to the answer where the policy first tried to stop, int64; empty where no answer follows that."""
        token = self._first_stop
        return np.array(() if token is None else self.template.natural_close(token), dtype=np.int64)

    @property
    def _first_stop(self) -> int | None:
        """The token with which the policy first tried to stop; None if it never did."""
        tried = self.sampled.natural_length
        return int(self.sampled.choices[tried]) if tried < len(self.sampled.choices) else self.sampled.stop_token_id

    def stopped(self) -> np.ndarray | None:
        """The answer that the policy first tried to stop with, if none is to follow; None otherwise.

        It answers in the stream; or it tried to end the trace inside its thought, and that answer is empty.
        """
        if self._first_stop is None or len(self.natural_close):
            return None
        tried = self.sampled.natural_length
        start = self.template.snap(self.sampled.token_ids, tried) if self.template.streams_answer else tried
        return self.sampled.token_ids[start:tried]
