"""Episodes: cutting a stream of thinking tokens at the places where an attempt starts, or ends."""

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

import numpy as np

Tokens = Sequence[int] | np.ndarray
"""Token ids of one text."""


def episode_boundaries(token_ids: Tokens, marker_ids: Collection[int], max_episodes: int | None = None) -> np.ndarray:
    """Prefix lengths at which an episode ends.

    A token in `marker_ids` opens a new episode. As in the paper, whose first prefix is empty, the result starts with 0;
    it ends with the whole thought, so the last episode may be unfinished. Tokens before the first marker belong to the
    first episode.

    token_ids: the thinking tokens z.
    max_episodes: further markers are ignored once this many episodes are open; the rest is the last episode.
    Returns int64 (n_episodes + 1,): strictly increasing, first 0, last len(token_ids); just [0] for an empty thought.
    """
    starts = [i for i, token in enumerate(token_ids) if i > 0 and token in marker_ids]
    return _boundaries(starts, len(token_ids), max_episodes)


def token_episodes(boundaries: np.ndarray) -> np.ndarray:
    """The episode number (0-based) of each thinking token: int64 (n_tokens,) for `boundaries` as above."""
    return np.repeat(np.arange(len(boundaries) - 1), np.diff(boundaries))


def paragraph_boundaries(
    pieces: Sequence[str],
    markers: Sequence[str],
    min_paragraphs: int = 3,
    max_episodes: int | None = None,
    separator: str = "\n\n",
) -> np.ndarray:
    r"""Episode boundaries of written thinking, by the rule of the paper's released segmentation (docs/method.md).

    The text is split at `separator`, blank lines in the paper. A paragraph that starts with one of `markers` opens a
    new episode if it is at least `min_paragraphs` paragraphs after the one that opened the last (for the first: after
    the beginning of the text).

    pieces: the text of each token, so that joined they are the thought. max_episodes: as in `episode_boundaries`.
    Returns the same as `episode_boundaries`; a token that reaches over the separator belongs to the new episode if the
    marker starts in it.
    """
    opened, starts = 0, []
    for paragraph, (part, start) in enumerate(_paragraphs(pieces, separator)):
        if part.startswith(tuple(markers)) and paragraph - opened >= min_paragraphs:
            opened = paragraph
            starts.append(start)
    return _boundaries(starts, len(pieces), max_episodes)


def paragraph_ends(pieces: Sequence[str], separator: str = "\n\n") -> list[int]:
    """Numbers of tokens after which a paragraph and its separator are complete, ascending; blank ones do not count.

    pieces: as in `paragraph_boundaries`, whose boundaries are among these, but for the first and the last one.
    """
    paragraphs = _paragraphs(pieces, separator)
    return [
        start
        for (_, start), written in zip(paragraphs[1:], accumulate(part.strip() for part, _ in paragraphs), strict=False)
        if written
    ]


def _paragraphs(pieces: Sequence[str], separator: str) -> list[tuple[str, int]]:
    """Text of each paragraph, and the number of tokens before it: those that end where it starts, or sooner."""
    parts = "".join(pieces).split(separator)
    offsets = accumulate((len(part) + len(separator) for part in parts[:-1]), initial=0)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return list(zip(parts, np.searchsorted(ends, list(offsets), side="right").tolist(), strict=True))


def fixed_boundaries(n_tokens: int, every: int) -> np.ndarray:
    """Boundaries after every `every` tokens, for thinking without visible episodes; the last episode may be shorter."""
    return _boundaries(range(0, n_tokens, every), n_tokens)


def low_probability_boundaries(
    logprobs: Sequence[float] | np.ndarray, threshold: float, cuts_per_episode: int
) -> np.ndarray:
    """Boundaries where the policy was unsure, as in SPO (arXiv 2505.23564).

    A token sampled with a probability below `threshold` is a cut point; an episode ends before every
    `cuts_per_episode`-th of them, so that each holds the same number of decisions.
    """
    unsure = np.flatnonzero(np.asarray(logprobs) < np.log(threshold))
    return _boundaries(unsure[cuts_per_episode::cuts_per_episode], len(logprobs))


def merge_episodes(boundaries: np.ndarray, size: int) -> np.ndarray:
    """Boundaries of the episodes that remain when each `size` neighbours are one; the last may hold fewer."""
    return _boundaries(boundaries[::size], boundaries[-1])


def _boundaries(starts: Iterable[int], n_tokens: int, max_episodes: int | None = None) -> np.ndarray:
    """The beginning, the first `max_episodes` - 1 of the starts, and the end."""
    kept = list(starts) if max_episodes is None else list(starts)[: max(max_episodes - 1, 0)]
    return np.unique([0, *kept, n_tokens]).astype(np.int64)
