"""What was sampled as thinking, and how it divides into thought and answer."""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import NO_CHOICE, Completion
from mrt_pipeline.policy.template import Split, Template


@dataclass(frozen=True)
class Stream:
    """n tokens sampled as thinking, the prefix they started from included.

    token_ids, choices, logprobs: (n,), as in `Completion`; of the prefix the policy chose nothing.
    natural_length: tokens before the model first tried to stop; n if it never did.
    stop_token_id, stop_logprob: what ended it; None and 0 if it was the budget.
    split: how it divides into thought and answer.
    """

    token_ids: np.ndarray
    choices: np.ndarray
    logprobs: np.ndarray
    natural_length: int
    stop_token_id: int | None
    stop_logprob: float
    split: Split

    @classmethod
    def of(cls, start: np.ndarray, completion: Completion, template: Template) -> "Stream":
        """The completion after its prefix `start`, (m,) token ids."""
        token_ids = np.concatenate([start, completion.token_ids]).astype(np.int64)
        natural_length = len(start) + completion.natural_length
        # Without an attempt to stop it is the length of the stream, where nothing is finished.
        finished = [len(start), *([natural_length] if natural_length < len(token_ids) else [])]
        return cls(
            token_ids=token_ids,
            choices=np.concatenate([np.full(len(start), NO_CHOICE), completion.choices]),
            logprobs=np.concatenate([np.zeros(len(start), np.float32), completion.logprobs]),
            natural_length=natural_length,
            stop_token_id=completion.stop_token_id,
            stop_logprob=completion.stop_logprob,
            split=template.split(token_ids, completion.stop_token_id, finished),
        )

    @property
    def thought(self) -> np.ndarray:
        """The part that is the thought, int64."""
        return self.token_ids[: self.split.n_thought]

    @property
    def close(self) -> np.ndarray:
        """Token ids between thought and answer, int64."""
        return np.array(self.split.close, dtype=np.int64)

    def natural_end(self, template: Template) -> int:
        """`natural_length` where an answer can be forced, within the thought."""
        return min(template.snap(self.token_ids, self.natural_length, (self.natural_length,)), self.split.n_thought)

    def natural_close(self, template: Template) -> np.ndarray:
        """What leads to the answer where the policy first tried to stop, int64; empty where no answer follows that."""
        tried = self._first_stop_token()
        return np.array(() if tried is None else template.natural_close(tried), dtype=np.int64)

    def _first_stop_token(self) -> int | None:
        """The token with which the policy first tried to stop; None if it never did."""
        suppressed = self.natural_length < len(self.token_ids)
        return int(self.choices[self.natural_length]) if suppressed else self.stop_token_id

    def rest(self, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray, str]:
        """Token ids and log-probabilities of what follows the thought, with the stop token, and its text."""
        n = self.split.n_thought
        ids = np.append(self.token_ids[n:], self.stop_token_id)
        return ids, np.append(self.logprobs[n:], np.float32(self.stop_logprob)), tokenizer.decode(self.token_ids[n:])

    def first_stop(self, template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[int | None, str]:
        """Where the policy first tried to stop, and its answer there, if no answer is to follow.

        It answers in the stream; or it tried to end the trace inside its thought, and that answer is empty.
        """
        tried = self._first_stop_token()
        if tried is None or template.natural_close(tried):
            return None, ""
        if not template.streams_answer:
            return self.natural_length, ""
        start = template.snap(self.token_ids, self.natural_length)
        return self.natural_length, tokenizer.decode(self.token_ids[start : self.natural_length])
