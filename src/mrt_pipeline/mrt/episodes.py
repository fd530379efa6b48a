"""Episodes: cutting a stream of thinking tokens at the places where an attempt starts, or ends."""

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

import numpy as np

Tokens = Sequence[int] | np.ndarray
"""Token ids of one text."""


def episode_boundaries(token_ids: Tokens, marker_ids: Collection[int]) -> np.ndarray:
    """Prefix lengths at which an episode ends.

    A token of the thought in `marker_ids` opens a new episode; tokens before the first belong to the first episode.
    Returns int64 (n_episodes + 1,), increasing: 0 first, as the paper's first prefix is empty, and the whole thought
    last, so the last episode may be unfinished; just [0] for an empty thought.
    """
    return _boundaries([i for i, token in enumerate(token_ids) if token in marker_ids], len(token_ids))


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

    pieces: the text of each token, so that joined they are the thought. max_episodes: the rest belongs to the last.
    A token that reaches over the separator belongs to the new episode if the marker starts in it.
    """
    opened, starts = 0, []
    for paragraph, (part, start) in enumerate(_paragraphs(pieces, separator)):
        if part.startswith(tuple(markers)) and paragraph - opened >= min_paragraphs:
            opened = paragraph
            starts.append(start)
    return _boundaries(starts if max_episodes is None else starts[: max_episodes - 1], len(pieces))


def paragraph_ends(pieces: Sequence[str], separator: str = "\n\n") -> list[int]:
    """Numbers of tokens after which a paragraph and its separator are complete, ascending; blank ones do not count.

    pieces: as in `paragraph_boundaries`, whose boundaries are among these, but for the first and the last one.
    """
    paragraphs = _paragraphs(pieces, separator)
    written = accumulate(part.strip() for part, _ in paragraphs)
    return [start for (_, start), any_text in zip(paragraphs[1:], written) if any_text]


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
    """Boundaries where the policy was unsure, as in SPO (arXiv 2505.23564): episodes of equally many decisions.

    A token sampled with a probability below `threshold` is one; an episode ends before every `cuts_per_episode`-th.
    """
    unsure = np.flatnonzero(np.asarray(logprobs) < np.log(threshold))
    return _boundaries(unsure[cuts_per_episode::cuts_per_episode], len(logprobs))


def merge_episodes(boundaries: np.ndarray, size: int) -> np.ndarray:
    """Boundaries of the episodes that remain when each `size` neighbours are one; the last may hold fewer."""
    return _boundaries(boundaries[::size], boundaries[-1])


def _boundaries(starts: Iterable[int], n_tokens: int) -> np.ndarray:
    """The beginning, the starts and the end, ascending, each once."""
    return np.unique([0, *starts, n_tokens]).astype(np.int64)
