from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.mrt.episodes import (
    episode_boundaries,
    fixed_boundaries,
    low_probability_boundaries,
    merge_episodes,
    paragraph_boundaries,
    token_episodes,
)

tokens = st.lists(st.integers(0, 5), max_size=30)
markers = st.frozensets(st.integers(0, 5), max_size=3)


@given(tokens, markers)
def test_boundaries_increase_from_nothing_to_the_whole_thought(token_ids, marker_ids):
    boundaries = episode_boundaries(token_ids, marker_ids)
    assert boundaries.dtype == np.int64
    assert boundaries[0] == 0 and boundaries[-1] == len(token_ids)
    assert np.all(np.diff(boundaries) > 0)


@given(tokens, markers)
def test_every_episode_but_the_first_opens_with_a_marker_and_holds_no_other(token_ids, marker_ids):
    boundaries = episode_boundaries(token_ids, marker_ids)
    episodes = [token_ids[start:end] for start, end in pairwise(boundaries)]
    assert [token for episode in episodes for token in episode] == token_ids
    assert all(episode[0] in marker_ids for episode in episodes[1:])
    assert not any(token in marker_ids for episode in episodes for token in episode[1:])


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([], [0]),
        ([9], [0, 1]),
        ([1], [0, 1]),
        ([1, 9, 1, 9], [0, 2, 4]),
        ([9, 9, 1, 1, 9], [0, 2, 3, 5]),
    ],
)
def test_known_boundaries(token_ids, expected):
    assert episode_boundaries(token_ids, {1}).tolist() == expected


@given(tokens, markers)
def test_token_episodes_counts_the_boundaries_passed(token_ids, marker_ids):
    boundaries = episode_boundaries(np.array(token_ids, dtype=np.int64), marker_ids)
    found = token_episodes(boundaries)
    assert found.tolist() == [int(np.sum(boundaries[1:] <= i)) for i in range(len(token_ids))]


PAPER = ("Wait", "But wait", "Alternatively")


def split(text, every=4, **how):
    """Episodes as text, the text being cut into pieces of `every` characters."""
    pieces = [text[i : i + every] for i in range(0, len(text), every)]
    boundaries = paragraph_boundaries(pieces, PAPER, **how)
    return ["".join(pieces[start:end]) for start, end in pairwise(boundaries)]


def test_a_marker_opens_an_episode_three_paragraphs_after_the_last_opening():
    text = "a\n\nWait b\n\nc\n\nWait d\n\ne\n\nAlternatively f\n\nBut wait g\n\nh"
    assert split(text, every=1) == ["a\n\nWait b\n\nc\n\n", "Wait d\n\ne\n\nAlternatively f\n\n", "But wait g\n\nh"]
    assert split(text, every=1, min_paragraphs=1)[:2] == ["a\n\n", "Wait b\n\nc\n\n"]
    assert split(text, every=1, max_episodes=2) == [
        "a\n\nWait b\n\nc\n\n",
        "Wait d\n\ne\n\nAlternatively f\n\nBut wait g\n\nh",
    ]
    assert split(text, every=1, min_paragraphs=3, separator=" ") == [text]


def brute_force(text, min_paragraphs):
    """The rule as the released notebook has it: paragraphs are appended to the current step or open a new one."""
    paragraphs = text.split("\n\n")
    steps, previous = [[]], 0
    for i, paragraph in enumerate(paragraphs):
        if paragraph.startswith(PAPER) and i - previous >= min_paragraphs:
            steps.append([])
            previous = i
        steps[-1].append(paragraph)
    return ["\n\n".join(step) for step in steps]


paragraphs = st.lists(st.sampled_from(["Wait x", "But wait y", "z", "", "so Wait", "Alternatively"]), max_size=15)


@given(paragraphs.map("\n\n".join), st.integers(1, 4), st.integers(1, 7))
def test_paragraph_episodes_equal_the_notebooks(text, min_paragraphs, every):
    boundaries = paragraph_boundaries(list(text), PAPER, min_paragraphs)
    found = ["".join(text[a:b]) for a, b in pairwise(boundaries)]
    expected = brute_force(text, min_paragraphs)
    assert "".join(found) == text
    assert [part.removesuffix("\n\n") for part in found[:-1]] == expected[: len(found) - 1]
    coarse = split(text, every, min_paragraphs=min_paragraphs)  # tokens that reach over the blank line
    assert "".join(coarse) == text
    assert len(coarse) <= max(1, len(found))


@given(paragraphs.map("\n\n".join), st.integers(1, 4), st.integers(1, 6))
def test_max_episodes_keeps_the_first_cuts(text, min_paragraphs, max_episodes):
    free, bounded = (
        paragraph_boundaries(list(text), PAPER, min_paragraphs, limit).tolist() for limit in (None, max_episodes)
    )
    kept = min(max_episodes, len(free) - 1)
    assert bounded[:kept] == free[:kept]
    assert bounded[-1] == len(text) and len(bounded) == kept + 1


def test_fixed_and_low_probability_boundaries():
    assert fixed_boundaries(10, 4).tolist() == [0, 4, 8, 10]
    assert fixed_boundaries(0, 4).tolist() == [0]
    logprobs = np.log([0.9, 0.5, 0.95, 0.4, 0.99, 0.3, 0.2])
    assert low_probability_boundaries(logprobs, 0.8, 1).tolist() == [0, 3, 5, 6, 7]
    assert low_probability_boundaries(logprobs, 0.8, 2).tolist() == [0, 5, 7]
    assert low_probability_boundaries(logprobs, 0.1, 1).tolist() == [0, 7]


@given(st.lists(st.integers(1, 50), min_size=1, unique=True).map(sorted), st.integers(1, 5))
def test_merging_keeps_every_nth_boundary_and_the_ends(inner, size):
    boundaries = np.array([0, *inner])
    merged = merge_episodes(boundaries, size)
    assert merged[0] == 0 and merged[-1] == boundaries[-1]
    assert set(merged) <= set(boundaries)
    assert len(merged) - 1 == -(-(len(boundaries) - 1) // size)
