"""Linearised sampling of backtracking search: the policy sees its last episodes only (arXiv 2503.07572, figure 8).

An episode is an attempt with what goes back after it. Each next one is sampled from

    prompt + the last `window` whole episodes

so that the chain of episodes can run past the context; what is older is forgotten. A window's first episode may go on
from a step that stands in a forgotten one: it is shown as it was written, and nothing is put in for what it refers to.
(Countdown's attempts are written out in full, so there nothing is missing; in text that goes on from a line, the lines
before that one may be.) The chain ends where the policy stops by itself, and its last attempt is the answer; or at the
thinking budget, where an unfinished attempt is dropped and an answer forced after the window, as in ordinary sampling.

Tokens of a chain are those sampled, each once: those of all its episodes, of the answer, and of an attempt that was
dropped. Reading the window again for every episode is not counted.

Degenerate cases: a window of at least as many episodes as a trace has is ordinary sampling; window 0 makes every
attempt from the bare prompt, and differs from independent attempts only by going on until the policy stops.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.engines.base import Completion, SamplingParams
from mrt_pipeline.policy.template import Template
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.rollout import Rollout, RolloutParams
from mrt_pipeline.tasks.base import Problem


def sample_linearised(
    actor: Actor, problems: Sequence[Problem], n: int, seed: int, window: int, max_length: int
) -> list[Rollout]:
    """`n` graded rollouts of each problem, those of one problem side by side, as `Actor.sample`.

    Their thoughts are whole chains, with the log-probabilities that the tokens had after their window.
    The actor's thinking budget is of the whole chain and may exceed the context.
    max_length: the context, in tokens. Where `window` episodes do not leave room in it for an answer, fewer are shown;
    an attempt that does not fit into it ends the chain as the budget does.
    Raises ValueError for a template that does not answer in its stream.
    """
    template, limits = actor.template, actor.limits
    if not template.streams_answer:
        raise ValueError("only a stream of attempts can be linearised: this template answers after its thought")
    prompts = [actor.prompt(problem) for problem in problems]
    chains = [_Chain(prompt, limits, window, max_length) for prompt in prompts for _ in range(n)]
    params = SamplingParams(
        max_tokens=limits.answer_tokens, stop_token_ids=template.answer_stops, temperature=limits.temperature
    )
    seeds = np.random.default_rng(seed)
    while running := [chain for chain in chains if chain.limit() > 0]:
        most = [chain.limit() for chain in running]
        contexts = [chain.context() for chain in running]
        sampled = actor.engine.sample(contexts, params, int(seeds.integers(2**62)), max_tokens=most)
        for chain, completion, limit in zip(running, sampled, most, strict=True):
            chain.add(completion, limit, template)
    begun = [actor.begin(problems[i // n], i // n, chain.prompt, chain.completion()) for i, chain in enumerate(chains)]
    return actor.finish(begun, seed, [chain.recalled() for chain in chains])


class _Chain:
    """A chain in the making: whole episodes, and the attempt at the end that is not whole yet.

    ends: tokens at the ends of the whole episodes, 0 first.
    """

    def __init__(self, prompt: np.ndarray, limits: RolloutParams, window: int, max_length: int):
        self.prompt, self.limits, self.window, self.max_length = prompt, limits, window, max_length
        self.tokens, self.logprobs = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        self.ends = [0]
        self.stop_token_id: int | None = None
        self.stop_logprob = 0.0
        self.ended = False

    def left(self) -> int:
        """Tokens that the budget leaves."""
        return self.limits.thinking_budget - len(self.tokens)

    def recalled(self) -> np.ndarray:
        """The last whole episodes: `window`, or as many as leave room for an answer, which at least one token ends."""
        return self.tokens[self._start() : self.ends[-1]]

    def context(self) -> np.ndarray:
        """What the next tokens are sampled from."""
        return np.concatenate([self.prompt, self.tokens[self._start() :]])

    def _start(self) -> int:
        room = self.max_length - len(self.prompt) - self.limits.answer_tokens - 1
        starts = self.ends[-self.window - 1 :]
        return next((start for start in starts if len(self.tokens) - start <= room), self.ends[-1])

    def limit(self) -> int:
        """Most tokens to be sampled next; 0 at the end of the chain.

        An attempt is sampled in parts of `answer_tokens`, as an engine cannot stop at a sentence.
        """
        if self.ended:
            return 0
        if self.left() == 0:  # an episode filled the budget: does the policy stop there? Engines look as well
            return 1
        return max(0, min(self.limits.answer_tokens, self.left(), self.max_length - 1 - len(self.context())))

    def add(self, completion: Completion, limit: int, template: Template) -> None:
        """Take over what was sampled, up to the end of the first episode; what follows it saw too much."""
        left = self.left()
        ids, logprobs, stop = completion.token_ids[:left], completion.logprobs[:left], completion.stop_token_id
        if len(completion.token_ids) == limit < left or len(completion.token_ids) > left:
            stop = None  # a part is full, and the token after it is drawn again with the next part; or it is too late
        if stop is not None and stop != template.eos_id:
            if len(ids) < left:  # going back counts against the budget, the end of the trace does not
                ids, logprobs = np.append(ids, stop), np.append(logprobs, completion.stop_logprob)
            stop = None
        self.tokens = np.concatenate([self.tokens, ids]).astype(np.int64)
        self.logprobs = np.concatenate([self.logprobs, logprobs]).astype(np.float32)
        new = self.tokens[self.ends[-1] :]
        whole = [int(end) for end in template.boundaries(new, ()) if end and template.snap(new, end) == end]
        if whole:  # the last boundary may be that of an episode that is not
            self.ends.append(self.ends[-1] + whole[0])
            self.tokens, self.logprobs = self.tokens[: self.ends[-1]], self.logprobs[: self.ends[-1]]
            return
        self.ended = stop is not None or self.left() == 0
        if stop is not None:
            self.stop_token_id, self.stop_logprob = stop, completion.stop_logprob

    def completion(self) -> Completion:
        """The whole chain, as if it had been sampled at once."""
        return Completion(
            token_ids=self.tokens,
            choices=self.tokens,
            logprobs=self.logprobs,
            stop_token_id=self.stop_token_id,
            stop_logprob=self.stop_logprob,
            natural_length=len(self.tokens),
        )
