"""Progress: the change of the meta-prover's success probability over an episode (arXiv 2503.07572, Definition 6.1).

    r_prg(z_j; c) = J(mu(. | z_j, c)) - J(mu(. | c))

Undiscounted progress telescopes: its sum over a trace is J(end) - J(start), so as a sum it only rewards the outcome.
It becomes credit by staying with its episode, discounted over the episodes to come.
"""

import numpy as np


def progress(success: np.ndarray) -> np.ndarray:
    """Progress of each episode: (n_boundaries - 1,), for J at the boundaries of one trace, the empty prefix first."""
    return np.diff(np.asarray(success, dtype=np.float64))


def discounted_progress(success: np.ndarray, gamma: float) -> np.ndarray:
    """Sum of the progress from each episode on, discounted by episode: D_j = sum_{i >= j} gamma^(i-j) progress_i.

    gamma = 0 is raw progress; gamma = 1 telescopes to J(end) - J(before episode j).
    success: J at the boundaries of one trace, (n_boundaries,). Returns (n_boundaries - 1,).
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    credit = progress(success)
    for j in range(len(credit) - 2, -1, -1):
        credit[j] += gamma * credit[j + 1]
    return credit
