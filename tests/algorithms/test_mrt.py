from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular import MARKER, Tabular

from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt import MRT
from mrt_pipeline.engines.base import NO_CHOICE
from mrt_pipeline.mrt.baselines import center_by_group
from mrt_pipeline.mrt.credit import BONUSES
from mrt_pipeline.mrt.episodes import episode_boundaries
from mrt_pipeline.rollouts.label import Prefix

binary = st.sampled_from([0.0, 1.0])
# For each group: J of its prefix, and (thinks on: reward, answers at once: reward) of two rollouts of each kind.
groups = st.lists(
    st.tuples(st.floats(0, 1), st.tuples(binary, binary), st.tuples(binary, binary)), min_size=1, max_size=3
)
ON_OUTCOME = ("continue", "all", "termination")


@pytest.fixture(scope="session")
def batch(make_labelled):
    """Labelled rollouts as `sample_branches` makes them: in each group first those that think on."""

    def make(spec):
        prefix_tokens = np.array([6, 7])
        return [
            replace(
                make_labelled((0.0, 0.0, 0.0, 0.0), reward=reward, group=group),
                prefix=Prefix(prefix_tokens, success),
                direct=direct,
                at_cuts=np.array([0.625]),
            )
            for group, (success, on, at_once) in enumerate(spec)
            for direct, rewards in ((False, on), (True, at_once))
            for reward in rewards
        ]

    return make


def advantages(algorithm, rollouts):
    weights = algorithm.weights(rollouts)
    assert all(np.all(w == w[0]) for w in weights)
    return np.array([w[0] for w in weights])


def halves(rollouts):
    return np.array([2 * r.rollout.group + r.direct for r in rollouts])


def by_half(rollouts):
    """GRPO as if each half were a group of its own."""
    rewards = np.array([r.rollout.reward for r in rollouts])
    return center_by_group(rewards, halves(rollouts))


@given(groups)
@pytest.mark.parametrize("bonus", ["next_episode", "continue", "all"])
def test_alpha_zero_is_grpo_within_each_half(batch, bonus, spec):
    rollouts = batch(spec)
    assert np.allclose(advantages(MRT(alpha=0.0, bonus=bonus), rollouts), by_half(rollouts))
    apart = [replace(r, rollout=replace(r.rollout, group=int(half))) for r, half in zip(rollouts, halves(rollouts))]
    assert np.allclose(advantages(MRT(alpha=0.0, bonus=bonus), rollouts), advantages(GRPO(), apart))


@given(groups, st.floats(0.1, 3))
def test_what_alpha_scales_where_the_bonus_is_on_the_whole_rollout(batch, spec, alpha):
    rollouts = batch(spec)
    outcome, direct = by_half(rollouts), np.array([r.direct for r in rollouts])
    scale = np.where(direct, 1, 1 + alpha)
    assert np.allclose(advantages(MRT(alpha=alpha, bonus="continue"), rollouts), scale * outcome)
    assert np.allclose(advantages(MRT(alpha=alpha, bonus="all"), rollouts), (1 + alpha) * outcome)


@given(groups, st.floats(0, 3))
def test_termination_has_the_prefix_as_baseline(batch, spec, alpha):
    rollouts = batch(spec)
    expected = [(1 + alpha) * (r.rollout.reward - r.prefix.success) for r in rollouts]
    assert np.allclose(advantages(MRT(alpha=alpha, bonus="termination"), rollouts), expected)


@given(groups, st.floats(0.1, 3))
def test_the_bonus_of_the_next_episode_is_on_its_tokens_alone(batch, spec, alpha):
    rollouts = batch(spec)  # a prefix of two tokens; one more is the next episode and the last
    for item, weights, outcome in zip(rollouts, MRT(alpha=alpha).weights(rollouts), by_half(rollouts)):
        bonus = 0.0 if item.direct else alpha * (0.625 - item.prefix.success)
        assert np.allclose(weights, outcome + bonus * np.array([0, 0, 1, 1, 0, 0]))  # token, close; not the answer


@pytest.mark.parametrize(
    ("boundaries", "stop_reason", "credited"),
    [
        ([0, 2, 3, 5], "stop", [2, 3]),  # the first token of a later episode ends it
        ([0, 2, 5], "stop", [2, 3, 4, 5]),  # it ends the thought, and gets credit for that
        ([0, 2, 5], "length", [2, 3, 4]),  # it was cut: nobody chose to stop
        ([0, 4, 5], "stop", [2, 3, 4]),  # the prefix was cut inside an episode
        ([0, 2], "stop", [2]),  # it stopped at once
    ],
)
def test_which_tokens_are_the_next_episode(make_labelled, boundaries, stop_reason, credited):
    algorithm = MRT()
    item = make_labelled([0.0] * len(boundaries), boundaries, stop_reason=stop_reason)
    item = replace(item, prefix=Prefix(np.array([6, 7]), 0.25))
    assert algorithm.cuts(item, None) == [next((b for b in boundaries if b > 2), 2)]
    (weights,) = algorithm.weights([replace(item, at_cuts=np.array([0.75]))])
    assert np.flatnonzero(weights == 0.5).tolist() == credited
    assert np.flatnonzero(weights).tolist() == credited


def test_only_the_half_that_thinks_on_is_asked_for_j(make_labelled):
    item = replace(make_labelled(), prefix=Prefix(np.array([6]), 0.25))
    for bonus in BONUSES:
        for direct in (False, True):
            asked = MRT(alpha=1.0, bonus=bonus).cuts(replace(item, direct=direct), None)
            assert asked == ([2] if bonus == "next_episode" and not direct else [])


@pytest.mark.parametrize(("answer", "reward"), [((10, 2), 1.0), ((2,), 0.0)])
def test_an_episode_that_ends_the_whole_trace_is_worth_its_reward(make_labelled, answer, reward):
    """In backtracking search it is an attempt after which the policy stops; elsewhere, ending without an answer."""
    item = make_labelled((0.0, 0.0), [0, 2], reward=reward, stop_reason="stop" if reward else "eos")
    rollout = replace(item.rollout, close=np.empty(0, dtype=np.int64), answer=np.array(answer))
    item = replace(item, rollout=rollout, prefix=Prefix(np.array([6, 7]), 0.25), at_cuts=np.array([0.25]))
    (weights,) = MRT().weights([item])
    assert weights.tolist() == [0, 0, *[reward - 0.25] * len(answer)]


@given(st.floats(0.1, 3))
def test_thinking_on_without_progress_gets_no_credit(batch, alpha):
    """r = J everywhere: nothing was gained, so no variant moves the policy."""
    rollouts = batch([(1.0, (1.0, 1.0), (1.0, 1.0)), (0.0, (0.0, 0.0), (0.0, 0.0))])
    rollouts = [replace(r, at_cuts=np.array([r.prefix.success])) for r in rollouts]
    for bonus in BONUSES:
        assert np.allclose(advantages(MRT(alpha=alpha, bonus=bonus), rollouts), 0)


@given(groups, st.randoms(use_true_random=False))
@pytest.mark.parametrize("bonus", BONUSES)
def test_permuting_the_batch_permutes_the_weights(batch, bonus, spec, random):
    rollouts = batch(spec)
    order = list(range(len(rollouts)))
    random.shuffle(order)
    algorithm = MRT(alpha=0.7, bonus=bonus)
    weights = algorithm.weights(rollouts)
    for found, i in zip(algorithm.weights([rollouts[i] for i in order]), order, strict=True):
        assert np.allclose(found, weights[i])


# The expected update, by listing every group of two that think on and two that answer at once.


@pytest.fixture(scope="module")
def tabular():
    return Tabular(longest=2, rng=np.random.default_rng(3))


@pytest.fixture(scope="module")
def expected_update(tabular, make_rollout, make_labelled):
    prefix = Prefix(np.array([9, 9]), float(tabular.success(())))

    def labelled(algorithm, trace, direct):
        thought = np.array([9, 9, *trace.thought])
        item = make_labelled()
        rollout = make_rollout(
            thought=thought,
            choices=[NO_CHOICE, NO_CHOICE, *trace.thought],
            reward=float(trace.right),
            stop_reason="stop" if trace.stopped else "length",
        )
        boundaries = np.union1d(episode_boundaries(thought, {MARKER}), [2])
        item = replace(item, rollout=rollout, boundaries=boundaries, prefix=prefix, direct=direct)
        return replace(item, at_cuts=np.array([tabular.success(thought[2:cut]) for cut in algorithm.cuts(item, None)]))

    def chosen(item, weights):
        """The weight of each choice: new thinking tokens, the stop if it was chosen, the answer."""
        kept = np.flatnonzero(item.rollout.sampled())[:-1]  # the end token after the answer is certain
        return weights[kept]

    def expectation(algorithm):
        """The expected gradient that comes from what thinks on, and from what answers at once."""
        on = [(trace, labelled(algorithm, trace, False)) for trace in tabular.traces()]
        direct = [(trace, labelled(algorithm, trace, True)) for trace in tabular.direct()]
        totals = [0.0, 0.0]
        for group in product(on, on, direct, direct):
            weights = algorithm.weights([item for _, item in group])
            chance = np.prod([tabular.chance(trace) for trace, _ in group])
            for i, ((trace, item), w) in enumerate(zip(group, weights, strict=True)):
                totals[i // 2] = totals[i // 2] + chance * tabular.score(trace, chosen(item, w))
        return totals

    return expectation


@pytest.fixture(scope="module")
def gradients(tabular):
    """By finite differences: of the expected reward of thinking on, and of answering; of J after the next episode."""
    j = {trace.thought: float(tabular.success(trace.thought)) for trace in tabular.traces()}

    def next_episode(trace):
        later = [i for i, token in enumerate(trace.thought) if i > 0 and token == MARKER]
        return j[trace.thought[: later[0]] if later else trace.thought]

    return (
        tabular.gradient(tabular.traces(), lambda trace: trace.right),
        tabular.gradient(tabular.direct(), lambda trace: trace.right),
        tabular.gradient(tabular.traces(), next_episode),
    )


@pytest.mark.parametrize("bonus", BONUSES)
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_the_expected_update_is_the_one_that_is_claimed(expected_update, gradients, bonus, alpha):
    on, direct = expected_update(MRT(alpha=alpha, bonus=bonus))
    of_reward, of_direct, of_next = gradients
    m = 2
    claimed = {
        "next_episode": ((m - 1) * of_reward + alpha * m * of_next, (m - 1) * of_direct),
        "continue": ((1 + alpha) * (m - 1) * of_reward, (m - 1) * of_direct),
        "all": ((1 + alpha) * (m - 1) * of_reward, (1 + alpha) * (m - 1) * of_direct),
        "termination": ((1 + alpha) * m * of_reward, (1 + alpha) * m * of_direct),
    }[bonus]
    assert np.allclose(on, claimed[0], atol=1e-8)
    assert np.allclose(direct, claimed[1], atol=1e-8)


@pytest.mark.parametrize("bonus", BONUSES)
def test_alpha_changes_the_direction_of_the_next_episodes_bonus_only(expected_update, bonus):
    (without, _), (with_it, _) = (expected_update(MRT(alpha=alpha, bonus=bonus)) for alpha in (0.0, 0.7))
    cosine = np.sum(without * with_it) / np.sqrt(np.sum(without**2) * np.sum(with_it**2))
    if bonus == "next_episode":
        assert cosine < 0.99
    else:
        assert cosine == pytest.approx(1, abs=1e-12)
        assert np.allclose(with_it, 1.7 * without)


@pytest.mark.parametrize(("bonus", "refresh_every"), [("some", 1), ("all", 0)])
def test_wrong_settings_are_refused(bonus, refresh_every):
    with pytest.raises(ValueError, match=r"next_episode.*some|greater than 0"):
        MRT(alpha=1.0, bonus=bonus, refresh_every=refresh_every)


def test_half_of_a_group_needs_an_even_number():
    def tree(group_size):
        return SimpleNamespace(training=SimpleNamespace(group_size=group_size, answer_weight=0.5))

    MRT().check(tree(4))
    with pytest.raises(ValueError, match=r"group_size 5 must be even"):
        MRT().check(tree(5))


def test_new_prefixes_are_sampled_as_often_as_is_asked():
    assert MRT(refresh_every=3).prefixes_every == 3 and GRPO().prefixes_every == 0
