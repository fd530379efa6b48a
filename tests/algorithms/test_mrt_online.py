from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tabular import STOP, Tabular

from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.trainer.batch import TrainingSequence, collate
from mrt_pipeline.trainer.logprobs import token_logprobs
from mrt_pipeline.trainer.loss import policy_loss

ONLINE = MRTOnline(alpha=0.5, gamma=0.8, expected_outcome=False)
curves = st.lists(st.floats(0, 1), min_size=1, max_size=5)
batches = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), curves), min_size=1, max_size=8)


def labelled_batch(make_labelled, batch):
    return [make_labelled(success, group=group, reward=reward) for group, reward, success in batch]


def equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@given(batches, st.floats(0, 1), st.booleans(), st.booleans())
def test_alpha_zero_is_grpo_exactly(make_labelled, batch, gamma, normalize, divide):
    rollouts = labelled_batch(make_labelled, batch)
    mrt = MRTOnline(alpha=0.0, gamma=gamma, normalize_progress=normalize, divide_by_std=divide, expected_outcome=False)
    assert equal(mrt.weights(rollouts), GRPO(divide_by_std=divide).weights(rollouts))


@given(batches, st.floats(0, 1), st.floats(0, 2), st.booleans())
def test_constant_success_gives_no_bonus(make_labelled, batch, gamma, alpha, normalize):
    rollouts = labelled_batch(make_labelled, [(group, reward, [0.3] * len(s)) for group, reward, s in batch])
    assert equal(
        MRTOnline(alpha=alpha, gamma=gamma, normalize_progress=normalize, expected_outcome=False).weights(rollouts),
        GRPO().weights(rollouts),
    )


@given(batches, st.floats(0, 1), st.booleans(), st.randoms())
def test_permuting_rollouts_permutes_weights(make_labelled, batch, gamma, normalize, random):
    rollouts = labelled_batch(make_labelled, batch)
    order = random.sample(range(len(batch)), len(batch))
    mrt = MRTOnline(alpha=0.5, gamma=gamma, normalize_progress=normalize, expected_outcome=False)
    weights, permuted = mrt.weights(rollouts), mrt.weights([rollouts[i] for i in order])
    assert all(np.allclose(permuted[k], weights[i], atol=1e-9) for k, i in enumerate(order))


@given(batches)
def test_the_expected_outcome_is_the_mean_over_rewards(make_labelled, batch):
    """With r drawn right with probability J(end), the weights of thought and stop have the mean that GRPO's have."""
    ends = [success[-1] for _, _, success in batch]
    groups = [group for group, _, _ in batch]
    rollouts = labelled_batch(make_labelled, batch)
    found = MRTOnline(alpha=0.0, gamma=0.8, expected_outcome=True).weights(rollouts)
    for labelled, weights, end, group, (_, reward, _) in zip(rollouts, found, ends, groups, batch, strict=True):
        n_answer = len(labelled.rollout.answer)
        mean = np.mean([e for e, g in zip(ends, groups, strict=True) if g == group])
        assert np.allclose(weights[:-n_answer], end - mean)
        assert np.allclose(weights[-n_answer:], reward - end)


def test_a_trace_without_an_answer_keeps_its_reward_of_zero(make_labelled):
    rollouts = [make_labelled((0.0, 1.0), reward=0.0, group=0, stop_reason="eos"), make_labelled((0.0, 1.0), group=0)]
    unanswered, answered = MRTOnline(alpha=0.0, gamma=0.8, expected_outcome=True).weights(rollouts)
    assert np.allclose(unanswered, -0.5) and np.allclose(answered[:2], 0.5)


def test_a_trace_that_stopped_because_of_its_answer_keeps_its_reward(make_labelled):
    """Backtracking search: the stop comes after the answer, so J before it is not the expectation of r."""
    one, other = make_labelled((0.0, 0.2), reward=1.0, group=0), make_labelled((0.0, 0.2), reward=0.0, group=0)
    streamed = [
        replace(x, rollout=replace(x.rollout, stopped_at=3, stopped_reward=x.rollout.reward)) for x in (one, other)
    ]
    found = MRTOnline(alpha=0.0, gamma=0.8, expected_outcome=True).weights(streamed)
    assert equal(found, GRPO().weights(streamed))


def test_the_bonus_by_hand(make_labelled):
    # Episodes of 2, 1 and 3 tokens with progress 0.5, -0.25, 0.75; discounted by 0.5: 0.5625, 0.125, 0.75.
    rollouts = [
        make_labelled((0.0, 0.5, 0.25, 1.0), boundaries=[0, 2, 3, 6], reward=1.0, group=0),
        make_labelled((0.5, 0.5), boundaries=[0, 2], reward=0.0, group=0),
    ]
    first, second = MRTOnline(alpha=2.0, gamma=0.5, normalize_progress=False, expected_outcome=False).weights(rollouts)
    assert np.allclose(first, 0.5 + 2 * np.array([0.5625] * 2 + [0.125] + [0.75] * 3 + [0] * 3))
    assert np.allclose(second, -0.5)
    scale = np.sqrt((0.5625**2 + 0.125**2 + 0.75**2 + 0) / 4)
    normalised = MRTOnline(alpha=2.0, gamma=0.5, expected_outcome=False).weights(rollouts)[0]
    assert np.allclose(normalised, 0.5 + 2 / scale * np.array([0.5625] * 2 + [0.125] + [0.75] * 3 + [0] * 3))


@given(batches)
def test_gamma_one_without_normalisation_is_the_end_minus_before(make_labelled, batch):
    rollouts = labelled_batch(make_labelled, batch)
    bonus = [
        mrt - grpo
        for mrt, grpo in zip(
            MRTOnline(alpha=1.0, gamma=1.0, normalize_progress=False, expected_outcome=False).weights(rollouts),
            GRPO().weights(rollouts),
            strict=True,
        )
    ]
    for found, (_, _, success) in zip(bonus, batch, strict=True):
        assert np.allclose(found[: len(success) - 1], success[-1] - np.array(success[:-1]), atol=1e-9)
        assert np.allclose(found[len(success) - 1 :], 0, atol=1e-9)


@given(batches, st.floats(0.1, 10))
def test_normalised_bonuses_have_root_mean_square_alpha_over_episodes(make_labelled, batch, alpha):
    rollouts = labelled_batch(make_labelled, [(g, 0.0, s) for g, _, s in batch])  # one token an episode, no advantage
    bonus = np.concatenate(
        [w[:-3] for w in MRTOnline(alpha=alpha, gamma=0.5, expected_outcome=False).weights(rollouts)]
    )
    size = np.sqrt(np.mean(bonus**2)) if len(bonus) else 0.0
    moves = any(np.ptp(s) > 1e-3 for _, _, s in batch)
    assert not moves or size == pytest.approx(alpha, rel=1e-6)
    assert size <= alpha * (1 + 1e-6)


def test_an_empty_thought_gets_the_advantage_alone(make_labelled):
    rollouts = [make_labelled((0.4,), reward=1.0), make_labelled((0.1, 0.9), reward=0.0)]
    weights = MRTOnline(alpha=1.0, gamma=0.5, expected_outcome=False).weights(rollouts)
    assert weights[0].tolist() == [0.5] * 3


def gradient(policy, rollouts, weights, trained=None):
    """Of the learner's loss, flat."""
    model = policy.model
    model.zero_grad()
    sequences = [
        TrainingSequence(
            item.rollout.token_ids(),
            len(item.rollout.prompt),
            w,
            item.rollout.sampled() if trained is None else t,
            item.rollout.logprobs(),
        )
        for item, w, t in zip(rollouts, weights, trained or [None] * len(rollouts), strict=True)
    ]
    batch = collate(sequences)
    logprobs, _ = token_logprobs(model, batch)
    n_tokens = sum(int(s.trained.sum()) for s in sequences)
    policy_loss(logprobs, batch.weights, batch.trained, n_tokens, logprobs.detach())[0].backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
    model.zero_grad(set_to_none=True)
    return found


@pytest.fixture(scope="module")
def model(letters_policy, copy_policy):
    return copy_policy(letters_policy)


def test_alpha_changes_the_gradient_and_not_only_its_size(model, make_labelled):
    rollouts = [make_labelled((0.0, 0.6, 0.1, 0.9), reward=1.0), make_labelled((0.0, 0.2, 0.4), reward=0.0)]
    plain, bonus = (
        gradient(model, rollouts, MRTOnline(alpha=alpha, gamma=0.8, expected_outcome=False).weights(rollouts))
        for alpha in (0.0, 0.5)
    )
    assert plain.norm() > 1e-3 and bonus.norm() > 1e-3
    assert torch.equal(plain, gradient(model, rollouts, GRPO().weights(rollouts)))
    cosine = float(plain @ bonus / (plain.norm() * bonus.norm()))
    assert abs(cosine) < 0.99


def test_the_group_mean_does_not_remove_a_bonus_that_all_rollouts_share(model, make_labelled):
    # The trap: equal rewards and equal curves in a group leave GRPO without a signal, but not MRT.
    rollouts = [make_labelled((0.0, 0.6, 0.1), reward=1.0) for _ in range(2)]
    assert gradient(model, rollouts, GRPO().weights(rollouts)).norm() == 0
    assert gradient(model, rollouts, ONLINE.weights(rollouts)).norm() > 1e-3


def test_weights_of_tokens_that_were_not_sampled_do_not_matter(model, make_labelled):
    thought_sampled = [True, False, True]
    rollouts = [make_labelled(reward=r, thought_sampled=thought_sampled, stop_reason="length") for r in (1.0, 0.0)]
    weights = ONLINE.weights(rollouts)
    expected = gradient(model, rollouts, weights)
    for value in (0.0, 1e6, float("nan"), float("inf")):
        changed = [np.where(item.rollout.sampled(), w, value) for item, w in zip(rollouts, weights, strict=True)]
        assert torch.equal(gradient(model, rollouts, changed), expected)
    others = [~item.rollout.sampled() for item in rollouts]
    assert not torch.equal(gradient(model, rollouts, weights, others), expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_expected_bonus_is_the_gradient_of_the_papers_progress_term(make_labelled, seed):
    """Episodes of one token, prefixes held fixed: sum over prefixes c of their chance times E_z [ J(c, z) - J(c) ]."""
    policy = Tabular(longest=3, rng=np.random.default_rng(seed))
    with_bonus, without = (
        policy.expected_update(
            MRTOnline(alpha=alpha, gamma=0.0, normalize_progress=False, expected_outcome=False), make_labelled
        )
        for alpha in (1.0, 0.0)
    )
    probabilities, expected = policy.probabilities(), np.zeros(policy.logits.shape)
    prefixes = {trace.thought: None for trace in policy.traces()}
    for prefix in prefixes:
        if len(prefix) == policy.longest:
            continue
        steps = [(policy.rows[prefix[:i]], policy.actions.index(token)) for i, token in enumerate(prefix)]
        chance = np.prod([probabilities[step] for step in steps])
        row, here = policy.rows[prefix], policy.success(prefix)
        gains = [0.0 if a == STOP else policy.success((*prefix, a)) - here for a in policy.actions]
        expected[row] += chance * probabilities[row] * (gains - probabilities[row] @ gains)
    assert np.allclose(with_bonus - without, 2 * expected, atol=1e-10)  # of a group of two


@pytest.mark.parametrize("seed", range(3))
def test_the_expected_outcome_leaves_the_expected_update_of_the_thought_alone(make_labelled, seed):
    """That of the answers, which need no group, is m times the gradient instead of m - 1."""
    policy = Tabular(longest=2, rng=np.random.default_rng(seed))
    found = policy.expected_update(MRTOnline(alpha=0.0, gamma=0.0, expected_outcome=True), make_labelled)
    grpo = policy.expected_update(GRPO(), make_labelled)
    answers = [row for state, row in policy.rows.items() if state and state[0] == "answer"]
    thoughts = [row for row in policy.rows.values() if row not in answers]
    assert np.allclose(found[thoughts], grpo[thoughts], atol=1e-10)
    assert np.allclose(found[answers], 2 * grpo[answers], atol=1e-10)
