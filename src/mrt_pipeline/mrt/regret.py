"""Normalised regret: the area between 1 and the anytime curve, up to a token budget.

Definition `paper` follows the released notebook `analysis/code/regret.ipynb` of arXiv 2503.07572: the best comparator
is taken to be right from the first token on (oracle 1.0), J is interpolated linearly between episode boundaries and at
the cut-off, held after the end of the trace, and the curve starts at the origin (0, 0). x counts thinking tokens.
Not reproduced from the notebook: halving the cost of the forced answers, and points beyond the cut-off when
extrapolating; both are slips there.

Definition `step` is the area under what a stopped thought is worth if only whole episodes count: J of the last boundary
that was reached, so a step function, whose area is exact. It knows no origin: before the first token J is that of the
empty prefix.
"""

from collections.abc import Callable

import numpy as np


def anytime_area(n_tokens: np.ndarray, success: np.ndarray, budget: float) -> float:
    """Mean height of one trace's anytime curve over [0, budget], trapezoid rule from (0, 0).

    n_tokens: thinking tokens at the points, non-decreasing, (n,). success: J there, (n,). budget > 0.
    """
    x, y = _checked(n_tokens, success, budget)
    x, y = up_to(np.append(0.0, x), np.append(0.0, y), budget)
    return float(np.trapezoid(y, x) / budget)


def up_to(n_tokens: np.ndarray, success: np.ndarray, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """The points of a curve before the budget and the one at it, interpolated; arguments as for `anytime_area`."""
    inside = n_tokens < budget
    end = int(inside.sum()) + 1  # only the first of several points at the budget is reached
    at_budget = np.interp(budget, n_tokens[:end], success[:end])  # holds the last value beyond the end
    return np.append(n_tokens[inside], budget), np.append(success[inside], at_budget)


def step_area(n_tokens: np.ndarray, success: np.ndarray, budget: float) -> float:
    """Mean height over [0, budget] of the step function that holds J from one boundary to the next.

    Arguments as for `anytime_area`; before the first point it is 0. Of several points at one place the last counts.
    """
    x, y = _checked(n_tokens, success, budget)
    ends = np.minimum(np.append(x[1:], budget), budget)
    return float(np.sum(y * np.maximum(ends - x, 0.0)) / budget)


AREAS: dict[str, Callable[[np.ndarray, np.ndarray, float], float]] = {"paper": anytime_area, "step": step_area}
"""Definitions of regret by name: the area that is taken from 1."""


def regret(n_tokens: np.ndarray, success: np.ndarray, budget: float, definition: str = "paper") -> float:
    """1 - area: 0 for a trace that is right from the first token on, 1 for one that never is."""
    return 1.0 - AREAS[definition](n_tokens, success, budget)


def _checked(n_tokens: np.ndarray, success: np.ndarray, budget: float) -> tuple[np.ndarray, np.ndarray]:
    if budget <= 0:
        raise ValueError(f"budget must be positive, got {budget}")
    x, y = np.asarray(n_tokens, dtype=np.float64), np.asarray(success, dtype=np.float64)
    if np.any(np.diff(x) < 0):
        raise ValueError("n_tokens must be non-decreasing")
    return x, y
