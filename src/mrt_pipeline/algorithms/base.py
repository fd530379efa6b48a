"""What an algorithm is here: a credit assignment. Labelled rollouts in, one weight per token out."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.mrt.credit import Credit, forced_answers
from mrt_pipeline.registry import Registered, taken_from
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout

Rollouts = Sequence[LabelledRollout]
Weights = list[np.ndarray]
TrainingBudget = Annotated[
    int,
    Field(
        gt=0,
        description="training budget C in thinking tokens",
        json_schema_extra=taken_from("rollout.thinking_budget"),
    ),
]
"""A parameter whose default is the training budget of the configuration."""


class Algorithm(Registered):
    """A credit assignment. It says what it needs to see, and never sees the optimiser.

    To add one takes one file: its formula in the docstring, a subclass with `name: Literal["mine"] = "mine"`, its
    parameters as fields, and `weights`. Importing the file is enough for `algorithm=mine`: name it in `plugins`, or as
    an entry point of the group `mrt_pipeline.algorithm`. Formulas to build on are in `mrt/credit.py`.

    needs_success: whether J at the episode boundaries is needed; without it `success` is empty.
    likelihood: the weights are of log-likelihood (STaR), so there is no importance ratio.
    """

    kind: ClassVar[str] = "algorithm"
    builtin: ClassVar[dict[str, str]] = {
        name: f"mrt_pipeline.algorithms.{name}"
        for name in (
            *("anytime", "brpo", "grpo", "least", "length_penalty", "mrt", "mrt_online", "mrt_star", "regret_to_go"),
            *("saturation", "star", "watermark"),
        )
    }
    needs_success: ClassVar[bool] = False
    likelihood: ClassVar[bool] = False

    @property
    def prefixes_every(self) -> int:
        """If positive, rollouts start from stale prefixes: half of each group thinks on from there, half answers.

        So often, in steps, new prefixes are sampled by the policy of that time.
        """
        return 0

    @property
    def from_base(self) -> bool:
        """Whether every step trains the base policy anew, on what the policy of the last step sampled."""
        return False

    def check(self, tree: Any) -> None:
        """See `Registered.check`."""
        if self.likelihood and tree.training.answer_weight > 0:
            raise ValueError(f"training.answer_weight must be 0 for {self.name}: likelihood takes no negative weight")

    def weights(self, rollouts: Rollouts) -> Weights:
        """A weight for every token after the prompt (thought, close, answer) of every rollout of a batch.

        It is the weight of what the policy chose at that place: the token, or the stop that budget forcing put an
        extension in place of. The learner ignores weights where the policy chose nothing.
        """
        raise NotImplementedError

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> Sequence[int]:
        """Where J is wanted besides the episode boundaries, in thinking tokens: it comes back as `at_cuts`.

        labelled: without J yet.
        """
        return ()

    def answers(self, labelled: LabelledRollout) -> Sequence[int]:
        """Where in the thought to force an answer that is to be trained, in thinking tokens."""
        return ()

    def answer_weights(self, rollouts: Rollouts, answers: Sequence[ForcedAnswer]) -> Weights:
        """A weight for every token after the prompt of every forced answer; only asked if there are any."""
        raise NotImplementedError


class IteratedAlgorithm(Algorithm):
    """Likelihood of what the policy itself sampled, in iterations: each is a training of its own (STaR)."""

    likelihood: ClassVar[bool] = True
    start_from: Literal["base", "current"] = Field(
        default="base", description="each iteration trains the base policy anew, or goes on from the current one"
    )

    @property
    def from_base(self) -> bool:
        """See `Algorithm.from_base`."""
        return self.start_from == "base"

    def check(self, tree: Any) -> None:
        """See `Registered.check`."""
        super().check(tree)
        if self.from_base and tree.training.learner.minibatches < 2:
            raise ValueError(
                "algorithm.start_from=base trains the base policy anew in every iteration, and one step teaches "
                "nothing: raise training.learner.minibatches, or set algorithm.start_from=current"
            )


def columns(rollouts: Rollouts) -> tuple[list[float], list[int], list[int]]:
    """Reward, group and number of thinking tokens of each, as the functions of `mrt/credit.py` take them."""
    own = [labelled.rollout for labelled in rollouts]
    return [rollout.reward for rollout in own], [rollout.group for rollout in own], [len(r.thought) for r in own]


def curves(rollouts: Rollouts) -> tuple[list[float], list[int], list[np.ndarray], list[np.ndarray]]:
    """Reward, group, episode boundaries and J there of each, likewise."""
    return *columns(rollouts)[:2], [item.boundaries for item in rollouts], [item.success for item in rollouts]


def answers_afterwards(rollouts: Rollouts) -> list[bool]:
    """Whose answer is sampled after its thought has ended, so that J there is the expectation of its reward."""
    own = [labelled.rollout for labelled in rollouts]
    return [r.stop_reason == "length" or (r.stop_reason == "stop" and r.stopped_at is None) for r in own]


def ending_tokens(rollouts: Rollouts) -> list[int]:
    """Tokens after each thought that were chosen while the policy might still have thought on.

    The closing token; where the trace ends without it, or with its last attempt as the answer (backtracking search),
    all that is left of it; none where the thought was cut.
    """
    own = [labelled.rollout for labelled in rollouts]
    return [0 if r.stop_reason == "length" else 1 if len(r.close) else len(r.answer) for r in own]


def place(credit: Credit, rollouts: Sequence[LabelledRollout | ForcedAnswer]) -> Weights:
    """The credit of each token after the prompt; see `Algorithm.weights` and `answer_weights`.

    `credit.stop` goes on all of `close` where it is a number, and on as many tokens after the thought where it is an
    array.
    """
    placed = []
    for item, thought, stop, answer in zip(rollouts, credit.thought, credit.stop, credit.answer, strict=True):
        rollout, n = item.rollout, len(item.rollout.thought)
        weights = rollout.per_token(thought, answer)
        weights[n : n + (len(stop) if np.ndim(stop) else len(rollout.close))] = stop
        placed.append(weights)
    return placed


def place_on_answers(answers: Sequence[ForcedAnswer], answer_weight: float) -> Weights:
    """The weights of forced answers whose baseline is J, and 0 on the thoughts before them."""
    rewards, success = [answer.rollout.reward for answer in answers], [answer.success for answer in answers]
    credits = forced_answers(rewards, success, answer_weight)
    return [answer.rollout.per_token(0.0, value) for answer, value in zip(answers, credits, strict=True)]
