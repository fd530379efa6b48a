"""What a rollout earned minus what its siblings, the other rollouts of its problem, earned at the same time or budget.

Arguments are named as in mrt/credit.py.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mrt_pipeline.mrt.columns import as_columns, as_curves, check_budget, members_of
from mrt_pipeline.mrt.episodes import token_episodes
from mrt_pipeline.mrt.progress import progress


def center_by_group(values: ArrayLike, groups: ArrayLike, divide_by_std: bool = False) -> np.ndarray:
    """Values minus the mean of their group, optionally over the group's standard deviation: (n,) for two (n,)."""
    values, groups = np.asarray(values), np.asarray(groups)
    centred = np.zeros(len(values))
    for members in members_of(groups):
        centred[members] = values[members] - values[members].mean()
        if divide_by_std:
            centred[members] /= max(float(centred[members].std()), 1e-6)
    return centred


def area_to_go(boundaries: np.ndarray, success: np.ndarray, budget: ArrayLike) -> np.ndarray:
    """G_j of algorithms/regret_to_go.py for each episode, (k,). boundaries, success: (k + 1,).

    budget: C, in thinking tokens; of several the mean.
    """
    budgets, ends = np.atleast_1d(np.asarray(budget, dtype=np.float64))[:, None], np.asarray(boundaries[1:])
    held = np.mean(np.clip(budgets - ends, 0, None) / budgets, axis=0)
    return np.cumsum((progress(success) * held)[::-1])[::-1]


def centred_area_to_go(
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    budget: ArrayLike,
    n_stop: ArrayLike = 1,
) -> list[np.ndarray]:
    """G_t - b_t of algorithms/regret_to_go.py: for each rollout (n_i + n_stop_i,), its thinking tokens and its stop.

    Arguments and errors as for `regret_to_go`.
    """
    groups, ending = as_columns(groups=groups, n_stop=n_stop)
    boundaries, success = as_curves(boundaries, success, len(groups))
    check_budget(budget)
    values = [area_to_go(b, j, budget) for b, j in zip(boundaries, success, strict=True)]
    return _minus_siblings(groups, boundaries, values, np.zeros(len(groups)), ending)


def centred_least(
    groups: ArrayLike, boundaries: Sequence[ArrayLike], success: Sequence[ArrayLike], n_stop: ArrayLike = 1
) -> list[np.ndarray]:
    """L_t - b_t of algorithms/least.py: for each rollout (n_i + n_stop_i,). Arguments and errors as for `least`."""
    groups, ending = as_columns(groups=groups, n_stop=n_stop)
    boundaries, success = as_curves(boundaries, success, len(groups))
    values = [np.minimum.accumulate(j[:0:-1])[::-1] for j in success]
    return _minus_siblings(groups, boundaries, values, np.array([j[-1] for j in success]), ending)


def centred_anytime(
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    budget: ArrayLike,
    alpha: float = 1.0,
    n_stop: ArrayLike = 1,
) -> list[np.ndarray]:
    """X_t - (1 - J_t) b_t of algorithms/anytime.py: for each rollout (n_i + n_stop_i,).

    Arguments and errors as for `anytime`.
    """
    groups, ending = as_columns(groups=groups, n_stop=n_stop)
    boundaries, success = as_curves(boundaries, success, len(groups))
    check_budget(budget)
    gains = np.zeros((len(groups), max((b[-1] + n for b, n in zip(boundaries, ending, strict=True)), default=0)))
    rooms = np.zeros_like(gains)  # 0 where nothing is chosen any more
    for row, (b, j, n) in enumerate(zip(boundaries, success, ending, strict=True)):
        own = token_episodes(b)
        gains[row, : b[-1]] = (j[-1] - j[:-1] + alpha * area_to_go(b, j, budget))[own]
        rooms[row, : b[-1] + n] = np.append((1 - j[:-1])[own], np.full(n, 1 - j[-1]))
    baselines = np.empty_like(gains)
    for members in members_of(groups):
        product, square = gains[members] * rooms[members], rooms[members] ** 2
        baselines[members] = (product.sum(axis=0) - product) / (1 + square.sum(axis=0) - square)
    credits = gains - rooms * baselines
    return [credits[row, : b[-1] + n] for row, (b, n) in enumerate(zip(boundaries, ending, strict=True))]


def _minus_siblings(
    groups: np.ndarray,
    boundaries: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    after: np.ndarray,
    ending: np.ndarray,
) -> list[np.ndarray]:
    """A value at every choice minus the mean of the siblings' at the same time: (n_i + n_stop_i,) for each rollout.

    values: for each rollout (k_i,), of its episodes. after: (rollouts,) its value from the end of the thought on.
    """
    lengths = np.array([b[-1] for b in boundaries], dtype=np.int64) + ending
    credit = np.repeat(after[:, None].astype(np.float64), max(lengths, default=0), axis=1)
    for row, (b, own) in enumerate(zip(boundaries, values, strict=True)):
        credit[row, : b[-1]] = own[token_episodes(b)]
    for members in members_of(groups):
        if len(members) > 1:
            total = credit[members].sum(axis=0)
            credit[members] -= (total - credit[members]) / (len(members) - 1)
    return [credit[row, :length] for row, length in enumerate(lengths)]


def budget_relative_advantages(success: np.ndarray) -> np.ndarray:
    """A of algorithms/brpo.py: success q (traces of one group, slots) in, advantages of the same shape out."""
    n_slots = success.shape[1]
    to_go = np.cumsum(success[:, ::-1], axis=1)[:, ::-1] / n_slots  # R
    advantages = np.empty_like(to_go)
    for slot in range(n_slots):
        weights = 2.0 ** np.arange(slot)
        so_far = success[:, :slot] @ weights / weights.sum() if slot else 0.0
        held = so_far * (n_slots - slot) / n_slots  # V1
        baseline = slot / n_slots * held + (n_slots - slot) / n_slots * to_go[:, slot].mean()
        advantages[:, slot] = to_go[:, slot] - baseline
    return advantages
