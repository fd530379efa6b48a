"""A look at a base policy before anything is trained on it: which credit can be expected to help?

Nothing is trained. On training problems, with the base policy:

- natural rollouts in batches, as a training step draws them, with J at every boundary; how often the outcome tells the
  rollouts of a group apart, and how J is spread over the episodes of a trace;
- the gradient of every credit on every batch (`gradients.py`), on the same rollouts;
- traces that are forced on past their natural end: does the policy keep what it has found?

Up to 4 MiB are kept of each gradient, twice while they are multiplied: 400 MiB for 12 batches and 4 credits, whatever
the size of the policy. The gradient itself takes as much as the weights that are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mrt_pipeline.algorithms.anytime import Anytime
from mrt_pipeline.algorithms.base import Algorithm, answers_afterwards
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.bars import bar
from mrt_pipeline.evaluation.gradients import direction, gram_matrix, keep, leave_one_out
from mrt_pipeline.evaluation.params import DiagnoseParams, credit_name
from mrt_pipeline.evaluation.regret_sources import FOUND
from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.policy.configured import longest_answer
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout, label_rollouts
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.tasks.base import Problem
from mrt_pipeline.trainer import draw

if TYPE_CHECKING:
    import torch

    from mrt_pipeline.trainer.learner import Learner

OUTCOME: Algorithm = GRPO()
EXPECTED_OUTCOME: Algorithm = MRTOnline(alpha=0.0)
"""GRPO with the expected outcome: where it points is where the outcome points, with less noise than GRPO's."""
TARGETS = {"outcome": 1, "anytime": 2}
"""Where a credit is to point: the expected gradient of which credit, by its place in `measured`.

`outcome`: being right at the end. `anytime`: being right at every budget, the objective of algorithms/anytime.py.
"""
LATER = (0, 1, 2, 5, 10, 15)
"""Episodes after a find at which J is looked at."""
MULTIPLE = 2
"""Training budgets that traces are forced on to."""
LARGE = 0.2
"""|progress| of an episode from which on it counts as large."""
APART = 0.05
"""How far apart J at the end must be for the expected outcome to tell rollouts apart."""

Row = tuple[str, str, int, float, float, int]
"""Quantity, credit, episodes later, mean, its standard error, how many it is the mean of."""
COLUMNS = ("quantity", "credit", "episodes_later", "mean", "sem", "n")
QUANTITIES = (
    *("accuracy", "success_start", "success_end", "thinking_tokens", "episodes", "success_sem", "problems"),
    *("reward_groups", "success_groups", "largest_episode", "large_progress", "found", "recall"),
    *("cosine_own", *(f"{quantity}_{target}" for target in TARGETS for quantity in ("cosine", "gain", "direction"))),
)


def diagnose(
    actor: Actor,
    learner: Learner,
    prover: Prover,
    problems: Sequence[Problem],
    group_size: int,
    params: DiagnoseParams,
    seed: int,
) -> pd.DataFrame:
    """A `diagnosis` table of the actor's policy, which the learner holds as well. problems: training problems."""
    from mrt_pipeline.trainer.reinforce import force_answers, training_sequences  # needs torch, which takes seconds

    actor.engine.update_weights()
    algorithms = measured(params.algorithms, actor.limits.thinking_budget)
    size = draw.DrawSize(params.groups, group_size, 0.0)
    batches: list[list[LabelledRollout]] = []
    gradients: list[list[torch.Tensor]] = [[] for _ in algorithms]
    for step in bar(range(params.batches), desc="batches", unit="batch"):
        seed_for = partial(draw.step_seed, seed, step)
        chosen = draw.choose_problems(problems, step * params.groups, params.groups, seed)
        drawn = draw.draw_step(actor, chosen, (), size, seed_for(draw.SAMPLE))
        labelled, own = _label(actor, algorithms, prover, drawn, seed_for)
        batches.append(labelled)
        for algorithm, mine, found in zip(algorithms, own, gradients, strict=True):
            answers = force_answers(actor, algorithm, mine, seed_for(draw.ANSWER))
            sequences = training_sequences(algorithm, mine, answers, actor.template.eos_id)
            found.append(keep(learner.gradient(sequences)))
    rows = rows_of_rollouts(batches) + rows_of_gradients(algorithms, gram_matrix(gradients))
    if not actor.template.streams_answer:  # there J is of the next attempt, and no thought holds an answer to recall
        rows += rows_of_recall(_forced_on(actor, prover, problems[: params.n_recall], seed))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measured(algorithms: Sequence[Algorithm], budget: int) -> list[Algorithm]:
    """GRPO, GRPO with the expected outcome, `anytime`, and the others. budget: the training budget.

    An `anytime` among them that differs in its budget alone is taken in place of that one.
    """
    always = [OUTCOME, EXPECTED_OUTCOME, Anytime(budget=budget)]
    return [*{credit_name(algorithm): algorithm for algorithm in [*always, *algorithms]}.values()]


def _label(
    actor: Actor,
    algorithms: Sequence[Algorithm],
    prover: Prover,
    drawn: Sequence[LabelledRollout],
    seed_for: Callable[[int], int],
) -> tuple[list[LabelledRollout], list[list[LabelledRollout]]]:
    """The rollouts with J at their boundaries; and, for each algorithm, with J where it wants it besides.

    The prover is asked once, for all of them.
    """
    rng = np.random.default_rng(seed_for(draw.CUT))
    wanted = [[list(algorithm.cuts(item, rng)) for algorithm in algorithms] for item in drawn]
    rollouts, cuts = [item.rollout for item in drawn], [[*chain.from_iterable(each)] for each in wanted]
    labelled = label_rollouts(actor, prover, rollouts, seed_for(draw.PROVE), cuts)
    ends = [np.cumsum([0, *map(len, each)]) for each in wanted]
    own = [
        [
            replace(item, cuts=item.cuts[end[k] : end[k + 1]], at_cuts=item.at_cuts[end[k] : end[k + 1]])
            for item, end in zip(labelled, ends, strict=True)
        ]
        for k in range(len(algorithms))
    ]
    return labelled, own


def _forced_on(actor: Actor, prover: Prover, problems: Sequence[Problem], seed: int) -> list[LabelledRollout]:
    """A trace of each problem, forced on to `MULTIPLE` training budgets, or as far as the context allows."""
    policy, budget = actor.policy, actor.limits.thinking_budget
    assert policy.card is not None  # a saved policy has one
    taken = max(len(actor.prompt(problem)) for problem in problems) + len(policy.template.stop_phrase)
    room = policy.card.max_length - taken - longest_answer(policy.card.template, actor.limits)
    longest = min(MULTIPLE * budget, max(budget, room))
    further = replace(actor, limits=actor.limits.within(longest))
    rollouts = further.sample(problems, 1, draw.step_seed(seed, 0, draw.LOOK), min_thinking=longest)
    return label_rollouts(further, prover, rollouts, draw.step_seed(seed, 1, draw.LOOK))


def rows_of_rollouts(batches: Sequence[Sequence[LabelledRollout]]) -> list[Row]:
    """What the natural rollouts show, group by group. Standard errors know that those of a group share a problem."""
    labelled = [item for batch in batches for item in batch]
    groups = np.array([(b, item.rollout.group) for b, batch in enumerate(batches) for item in batch])
    group = np.unique(groups, axis=0, return_inverse=True)[1].reshape(-1)
    rewards = np.array([item.rollout.reward for item in labelled])
    answered = answers_afterwards(labelled)
    outcomes = np.where(answered, [item.success[-1] for item in labelled], rewards)
    each: dict[str, ArrayLike] = {
        "accuracy": rewards,
        "success_start": [item.success[0] for item in labelled],
        "success_end": outcomes,
        "thinking_tokens": [len(item.rollout.thought) for item in labelled],
        "episodes": [len(item.boundaries) - 1 for item in labelled],
        "success_sem": [item.success_sem.mean() for item in labelled],
        "largest_episode": [largest_share(progress(item.success)) for item in labelled],
        "large_progress": [np.any(np.abs(progress(item.success)) > LARGE) for item in labelled],
    }
    rows = [_row(name, values, group) for name, values in each.items()]
    n_problems = len({item.rollout.problem.problem_id for item in labelled})
    return [
        *rows,
        ("problems", "", 0, float(n_problems), 0.0, n_problems),
        _row("reward_groups", spread(rewards, group) > 0),
        _row("success_groups", spread(outcomes, group) > APART),
    ]


def rows_of_gradients(algorithms: Sequence[Algorithm], gram: np.ndarray) -> list[Row]:
    """How noisy each credit is, and where it points. algorithms: those of `measured`; gram: as `gram_matrix` has it.

    `cosine_own`: one batch with the mean of the others. Of each of the TARGETS: `cosine_<target>`, one batch with the
    target's mean of the others; `gain_<target>`, that minus GRPO's, batch by batch; `direction_<target>`, of the
    expected gradients.
    """
    rows: list[Row] = []
    for k, name in enumerate(map(credit_name, algorithms)):
        rows.append(_row("cosine_own", leave_one_out(gram, k, k), credit=name))
        for target, place in TARGETS.items():
            cosine = leave_one_out(gram, k, place)
            rows += [
                _row(f"cosine_{target}", cosine, credit=name),
                _row(f"gain_{target}", cosine - leave_one_out(gram, 0, place), credit=name),
                (f"direction_{target}", name, 0, *direction(gram, k, place), gram.shape[1]),
            ]
    return rows


def rows_of_recall(labelled: Sequence[LabelledRollout]) -> list[Row]:
    """Which traces find, and J at the find and later: the first boundary at which J is at least .5."""
    curves = [item.success for item in labelled]
    finds = [first_find(curve) for curve in curves]
    found = _row("found", [find is not None for find in finds])
    return [found, *(_row("recall", values, later=later) for later, values in recall(curves, finds, LATER).items())]


def first_find(success: np.ndarray) -> int | None:
    """Index of the first boundary at which J is at least .5. success: (k + 1,) J at the boundaries of a trace."""
    found = np.flatnonzero(success >= FOUND)
    return int(found[0]) if len(found) else None


def recall(curves: Sequence[np.ndarray], finds: Sequence[int | None], later: Sequence[int]) -> dict[int, list[float]]:
    """J so many episodes after the find, of every trace that goes on for so long.

    curves: J at the boundaries of each trace. finds: index of the boundary of its find; None: it has none.
    """
    since = [curve[find:] for curve, find in zip(curves, finds, strict=True) if find is not None]
    return {n: [float(curve[n]) for curve in since if n < len(curve)] for n in later}


def largest_share(gains: np.ndarray) -> float:
    """Share of the squared progress of a trace that its largest episode has; NaN without progress. gains: (k,)."""
    squared = np.square(gains)
    return float(squared.max() / squared.sum()) if squared.sum() > 0 else np.nan


def spread(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Largest minus smallest value of each group, (groups,). values, groups: (rollouts,)."""
    return np.array([np.ptp(values[groups == group]) for group in np.unique(groups)])


def mean_and_error(values: ArrayLike, groups: ArrayLike | None = None) -> tuple[float, float, int]:
    """Mean of the values that are not NaN, its standard error and their number; NaN where there are too few.

    groups: values of a group may depend on each other; without them all are independent.
    """
    given = np.asarray(values, dtype=np.float64)
    own = np.arange(len(given)) if groups is None else np.asarray(groups)
    known, own = given[~np.isnan(given)], own[~np.isnan(given)]
    n, names = len(known), np.unique(own)
    if n == 0:
        return np.nan, np.nan, 0
    mean = float(known.mean())
    if len(names) < 2:
        return mean, np.nan, n
    sums = np.array([np.sum(known[own == name] - mean) for name in names])
    return mean, float(np.sqrt(np.sum(sums**2) * len(names) / (len(names) - 1)) / n), n


def _row(quantity: str, values: ArrayLike, groups: ArrayLike | None = None, credit: str = "", later: int = 0) -> Row:
    return (quantity, credit, later, *mean_and_error(values, groups))
