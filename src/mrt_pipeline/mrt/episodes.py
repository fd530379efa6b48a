"""Episodes: cutting a stream of thinking tokens at the places where an attempt starts, or ends."""

from collections.abc import Collection, Sequence

import numpy as np


def episode_boundaries(
    token_ids: Sequence[int], marker_ids: Collection[int], max_episodes: int | None = None
) -> np.ndarray:
    """Prefix lengths at which an episode ends.

    A token in `marker_ids` opens a new episode. As in the paper, whose first prefix is empty, the result starts with 0;
    it ends with the whole thought, so the last episode may be unfinished. Tokens before the first marker belong to the
    first episode.

    token_ids: the thinking tokens z.
    max_episodes: further markers are ignored once this many episodes are open; the rest is the last episode.
    Returns int64 (n_episodes + 1,): strictly increasing, first 0, last len(token_ids); just [0] for an empty thought.
    """
    starts = [i for i, token in enumerate(token_ids) if i > 0 and token in marker_ids]
    if max_episodes is not None:
        starts = starts[: max(max_episodes - 1, 0)]
    ends = [len(token_ids)] if len(token_ids) else []
    return np.array([0, *starts, *ends], dtype=np.int64)


def closed_boundaries(token_ids: Sequence[int], closing_ids: Collection[int]) -> np.ndarray:
    """The same where a token in `closing_ids` is the last one of its episode, instead of opening the next.

    Tokens after the last closing one belong to a last episode that is unfinished.
    """
    ends = [i + 1 for i, token in enumerate(token_ids) if token in closing_ids]
    return np.unique([0, *ends, len(token_ids)]).astype(np.int64)


def token_episodes(boundaries: np.ndarray) -> np.ndarray:
    """The episode number (0-based) of each thinking token: int64 (n_tokens,) for `boundaries` as above."""
    return np.repeat(np.arange(len(boundaries) - 1), np.diff(boundaries))
