"""The protocol of an engine: sampling tokens, and scoring given ones, under the current weights of a policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from mrt_pipeline.registry import Registered

if TYPE_CHECKING:
    from mrt_pipeline.policy.policy import Policy

NO_CHOICE = -1
"""In arrays of choices: the policy was not asked."""


class StopReason(Enum):
    """Why sampling ended."""

    STOP = "stop"  # a stop token was sampled
    LENGTH = "length"  # max_tokens were reached


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

    def limits(
        self, n_prompts: int, min_tokens: int | Sequence[int], max_tokens: Sequence[int] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fewest and most tokens of each prompt's completions, (n_prompts,) each; see `Engine.sample`.

        Raises ValueError for limits that these parameters do not allow.
        """
        least = np.broadcast_to(np.asarray(min_tokens), (n_prompts,))
        most = np.full(n_prompts, self.max_tokens) if max_tokens is None else np.asarray(max_tokens)
        if most.max() > self.max_tokens:
            raise ValueError(f"max_tokens {most.max()} exceeds params.max_tokens {self.max_tokens}")
        if not all(self.extensions):
            raise ValueError("an extension must have at least one token")
        if least.max() > 0 and not self.extensions:
            raise ValueError("min_tokens needs extensions to put in place of a stop token")
        return least, most


@dataclass(frozen=True)
class Completion:
    """One sampled completion of n tokens.

    token_ids: (n,) without the stop token.
    choices: (n,) what the policy chose at each place: the token that stands there; or the stop token, where budget
        forcing put an extension in its place; NO_CHOICE at the extension's further tokens.
    logprobs: (n,) log-probability of each choice under the sampling distribution; 0 without one.
    stop_reason: why it ended.
    stop_token_id, stop_logprob: the sampled stop token and its log-probability; None and 0 if it ended by length.
    natural_length: tokens before the first attempt to stop; n if there was none before the end.
    """

    token_ids: np.ndarray
    choices: np.ndarray
    logprobs: np.ndarray
    stop_reason: StopReason
    stop_token_id: int | None
    stop_logprob: float
    natural_length: int

    @property
    def sampled(self) -> np.ndarray:
        """Bool (n,): places where the policy chose. Only choices are trained."""
        return self.choices != NO_CHOICE


def check_cuts(trace: Sequence[int], cuts: Sequence[int]) -> None:
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
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Sequence[int] = 0,
        max_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """`params.n` completions of each prompt, those of one prompt side by side: len(prompts) * n.

        min_tokens: budget forcing up to that many tokens, for all prompts or for each.
        max_tokens: for each prompt, if it is less than `params.max_tokens`; at 0 nothing is sampled.
        """
        ...

    def score(
        self,
        traces: Sequence[Sequence[int]],
        cuts: Sequence[Sequence[int]],
        suffix: Sequence[int],
        continuations: Sequence[Sequence[Sequence[int]]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """Log-likelihood of continuations after cutting traces short, under the distribution that is sampled from.

        For trace i, each cut k in cuts[i] and each c in continuations[i]: log p(c | trace[:k] + suffix).
        The suffix may be empty: then c is predicted from the last token of trace[:k].
        Returns one float64 array (len(cuts[i]), len(continuations[i])) for each trace.
        """
        ...

    def update_weights(self) -> None:
        """Take over the policy's current weights; to be called after every optimiser step."""
        ...


class EngineParams(Registered):
    """Family of the engines: parameters, and `open`, which gives an engine that samples from one policy."""

    kind: ClassVar[str] = "engine"
    builtin: ClassVar[dict[str, str]] = {
        "torch": "mrt_pipeline.engines.torch_engine",
        "vllm": "mrt_pipeline.engines.vllm_engine",
        "vllm_server": "mrt_pipeline.engines.vllm_server",
    }

    def open(self, policy: "Policy") -> Engine:
        """An engine that samples from `policy` as it is at the time. Raises InputError in words if there is none."""
        raise NotImplementedError
