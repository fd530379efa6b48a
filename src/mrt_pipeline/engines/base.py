"""The protocol of an engine: sampling tokens, and scoring given ones, under the current weights of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from mrt_pipeline.mrt.episodes import Tokens
from mrt_pipeline.registry import PositiveInt, Registered

if TYPE_CHECKING:
    from mrt_pipeline.policy.policy import Policy

NO_CHOICE = -1
"""In arrays of choices: the policy was not asked."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. Temperature only: top-p and top-k would bias the importance ratio in training.

    max_tokens: most tokens of a completion, the stop token not counted.
    stop_token_ids: sampling ends at any of these; the stop token is not part of the completion.
    temperature: 1 samples from the model's distribution; 0 is greedy.
    n: completions of each prompt.
    extensions: budget forcing. The first of these token lists takes the place of a stop token that is sampled before
        `min_tokens`, as 'Wait' in s1 (arXiv 2501.19393); the next time the second, and so on in turn, as in MRT's
        extrapolation (without its limit of 2,048 tokens for each).
    """

    max_tokens: int
    stop_token_ids: tuple[int, ...]
    temperature: float = 1.0
    n: int = 1
    extensions: tuple[tuple[int, ...], ...] = ()

    def rows(self, n_prompts: int, min_tokens: int | Tokens, max_tokens: Tokens | None) -> list[Row]:
        """The completions that are to be made, `n` of each prompt side by side; see `Engine.sample`.

        Raises ValueError for limits that these parameters do not allow.
        """
        least = np.broadcast_to(np.asarray(min_tokens), (n_prompts,))
        most = np.full(n_prompts, self.max_tokens) if max_tokens is None else np.asarray(max_tokens)
        if most.max(initial=0) > self.max_tokens:
            raise ValueError(f"max_tokens {most.max()} exceeds params.max_tokens {self.max_tokens}")
        if not all(self.extensions):
            raise ValueError("an extension must have at least one token")
        if least.max(initial=0) > 0 and not self.extensions:
            raise ValueError("min_tokens needs extensions to put in place of a stop token")
        return [Row(self, int(least[i]), int(most[i])) for i in range(n_prompts) for _ in range(self.n)]


@dataclass(frozen=True)
class Completion:
    """One sampled completion of n tokens.

    token_ids: (n,) without the stop token.
    choices: (n,) what the policy chose at each place: the token that stands there; or the stop token, where budget
        forcing put an extension in its place; NO_CHOICE at the extension's further tokens. Only choices are trained.
    logprobs: (n,) log-probability of each choice under the sampling distribution; 0 without one.
    stop_token_id, stop_logprob: the sampled stop token and its log-probability; None and 0 if it ended by length, as
        `max_tokens` were reached.
    natural_length: tokens before the first attempt to stop; n if there was none before the end.
    """

    token_ids: np.ndarray
    choices: np.ndarray
    logprobs: np.ndarray
    stop_token_id: int | None
    stop_logprob: float
    natural_length: int


class Row:
    """A completion in the making, of at most `most` tokens, forced on up to `least`: what sampled tokens do to it.

    tokens, choices, logprobs: as in `Completion`. ended: the policy is not asked any more.
    """

    def __init__(self, params: SamplingParams, least: int, most: int):
        self.params, self.least, self.most, self.ended = params, least, most, most == 0
        self.tokens: list[int] = []
        self.choices: list[int] = []
        self.logprobs: list[float] = []
        self.natural_length = -1  # it has not tried to stop
        self.stop_token_id: int | None = None
        self.stop_logprob = 0.0
        self._n_extensions = 0

    def take(self, token: int, logprob: float) -> None:
        """Add the token that was sampled next, or what budget forcing puts in its place.

        After `most` tokens one more is asked for, which may only be a stop token; but not after an extension that the
        maximum cut short.
        """
        n, extensions = len(self.tokens), self.params.extensions
        put_in: Sequence[int] = (token,)
        if token in self.params.stop_token_ids:
            if n >= self.least or not extensions:
                self.stop_token_id, self.stop_logprob, self.ended = token, logprob, True
                return
            self.natural_length = n if self.natural_length < 0 else self.natural_length
            put_in = extensions[self._n_extensions % len(extensions)]
            self._n_extensions += 1
        room, further = self.most - n, len(put_in) - 1
        self.tokens += put_in[:room]
        self.choices += [token, *[NO_CHOICE] * further][:room]
        self.logprobs += [logprob, *[0.0] * further][:room]
        self.ended = len(put_in) > room

    def completion(self) -> Completion:
        """What it is now."""
        return Completion(
            token_ids=np.array(self.tokens, dtype=np.int64),
            choices=np.array(self.choices, dtype=np.int64),
            logprobs=np.array(self.logprobs, dtype=np.float32),
            stop_token_id=self.stop_token_id,
            stop_logprob=self.stop_logprob,
            natural_length=len(self.tokens) if self.natural_length < 0 else self.natural_length,
        )


def check_cuts(trace: Tokens, cuts: Tokens) -> None:
    """Raise ValueError if a cut of a trace lies outside of it, or leaves nothing before it."""
    if len(cuts) and (min(cuts) < 1 or max(cuts) > len(trace)):
        raise ValueError(f"cuts must lie in 1..{len(trace)}, got {[int(cut) for cut in cuts]}")


class Engine(Protocol):
    """Samples and scores tokens. Sampling is repeatable: same weights, prompts, parameters and seed, same tokens.

    shares_weights: it computes with the very module that is trained, so its log-probabilities are the trainer's.
    """

    shares_weights: bool

    def sample(
        self,
        prompts: Sequence[Tokens],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Tokens = 0,
        max_tokens: Tokens | None = None,
    ) -> list[Completion]:
        """`params.n` completions of each prompt, those of one prompt side by side: len(prompts) * n.

        min_tokens: budget forcing up to that many tokens, for all prompts or for each.
        max_tokens: for each prompt, if it is less than `params.max_tokens`; at 0 nothing is sampled.
        """

    def score(
        self,
        traces: Sequence[Tokens],
        cuts: Sequence[Tokens],
        suffix: Tokens,
        continuations: Sequence[Sequence[Tokens]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """Log-likelihood of continuations after cutting traces short, under the distribution that is sampled from.

        For trace i, each cut k in cuts[i] and each c in continuations[i]: log p(c | trace[:k] + suffix).
        The suffix may be empty: then c is predicted from the last token of trace[:k].
        Returns one float64 array (len(cuts[i]), len(continuations[i])) for each trace.
        """

    def update_weights(self) -> None:
        """Take over the policy's current weights; to be called after every optimiser step."""


class EngineParams(Registered):
    """Family of the engines: parameters, and `open`, which gives an engine that samples from one policy."""

    kind: ClassVar[str] = "engine"
    builtin: ClassVar[dict[str, str]] = {
        "torch": "mrt_pipeline.engines.base",
        "vllm": "mrt_pipeline.engines.vllm_engine",
        "vllm_server": "mrt_pipeline.engines.vllm_server",
    }

    def open(self, policy: Policy) -> Engine:
        """An engine that samples from `policy` as it is at the time. Raises InputError in words if there is none."""
        raise NotImplementedError


class TorchEngineParams(EngineParams):
    """The embedded engine; see engines/torch_engine.py."""

    name: Literal["torch"] = "torch"
    batch_size: PositiveInt = Field(default=256, description="rows sampled at once")
    score_tokens: PositiveInt = Field(default=4096, description="most padded tokens of a scoring pass")

    def open(self, policy: Policy) -> Engine:
        """See `EngineParams.open`."""
        from mrt_pipeline.engines.torch_engine import TorchEngine

        return TorchEngine(policy.model, self.batch_size, self.score_tokens)
