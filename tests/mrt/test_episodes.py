from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.mrt.episodes import closed_boundaries, episode_boundaries, token_episodes

tokens = st.lists(st.integers(0, 5), max_size=30)
markers = st.frozensets(st.integers(0, 5), max_size=3)


@given(tokens, markers, st.none() | st.integers(1, 6))
def test_boundaries_cut_the_thought_into_at_most_max_episodes(token_ids, marker_ids, max_episodes):
    boundaries = episode_boundaries(token_ids, marker_ids, max_episodes)
    assert boundaries.dtype == np.int64
    assert boundaries[0] == 0 and boundaries[-1] == len(token_ids)
    assert np.all(np.diff(boundaries) > 0)
    assert max_episodes is None or len(boundaries) - 1 <= max_episodes


@given(tokens, markers)
def test_every_episode_but_the_first_opens_with_a_marker_and_holds_no_other(token_ids, marker_ids):
    boundaries = episode_boundaries(token_ids, marker_ids)
    episodes = [token_ids[start:end] for start, end in pairwise(boundaries)]
    assert [token for episode in episodes for token in episode] == token_ids
    assert all(episode[0] in marker_ids for episode in episodes[1:])
    assert not any(token in marker_ids for episode in episodes for token in episode[1:])


@given(tokens, markers, st.integers(1, 6))
def test_max_episodes_keeps_the_first_cuts(token_ids, marker_ids, max_episodes):
    free, bounded = (episode_boundaries(token_ids, marker_ids, limit) for limit in (None, max_episodes))
    kept = min(max_episodes, len(free) - 1)
    assert bounded[:kept].tolist() == free[:kept].tolist()
    assert len(bounded) == kept + 1


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


@given(tokens, markers)
def test_a_closing_token_is_the_last_of_its_episode(token_ids, closing):
    closed = closed_boundaries(token_ids, closing)
    assert closed.tolist() == sorted({0, len(token_ids)} | {i + 1 for i, t in enumerate(token_ids) if t in closing})
