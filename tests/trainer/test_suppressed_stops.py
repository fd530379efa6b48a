"""Budget forcing as an environment: a stop leads to the extension. The update must be that environment's gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.regret_to_go import RegretToGo
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.engines.base import NO_CHOICE
from mrt_pipeline.rollouts.label import LabelledRollout, label_rollouts
from mrt_pipeline.rollouts.prover import Success
from mrt_pipeline.trainer.batch import collate
from mrt_pipeline.trainer.learner import Learner, LearnerParams
from mrt_pipeline.trainer.logprobs import token_logprobs
from mrt_pipeline.trainer.loss import policy_loss
from mrt_pipeline.trainer.reinforce import _sequence

STOPS, VOCABULARY = (5, 3), range(16)


@pytest.fixture
def model(letters_policy, copy_policy):
    return copy_policy(letters_policy).model


@pytest.fixture
def all_traces(model, make_rollout):
    """Every thought of two tokens that forcing can give, once for each way to choose it, with its probability.

    extension: what takes the place of a stop.
    """

    def run(extension):
        with torch.no_grad():

            def step(ids):
                return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].float(), -1).numpy()

            prompt = [1, 4]  # of `make_rollout`
            found = []
            first = step(prompt)
            for a in VOCABULARY:
                if a in STOPS and len(extension) == 2:
                    found.append((extension, (a, NO_CHOICE), (first[a], 0.0)))
                    continue
                before = extension[0] if a in STOPS else a
                second = step([*prompt, before])
                for b in VOCABULARY:
                    after = extension[0] if b in STOPS else b
                    found.append(((before, after), (a, b), (first[a], second[b])))
        rollouts = []
        for thought, choices, logprobs in found:
            rollout = make_rollout(thought=thought, choices=choices, stop_reason="length")
            rollouts.append(replace(rollout, thought_logprobs=np.array(logprobs, dtype=np.float32)))
        return rollouts, np.exp([sum(logprobs) for _, _, logprobs in found])

    return run


def gradient(model, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), allow_unused=False)])


@pytest.mark.parametrize("extension", [(9,), (9, 8)])
@pytest.mark.parametrize("share_prompts", [False, True])
def test_the_expected_update_is_the_gradient_of_the_forced_environment(model, all_traces, extension, share_prompts):
    rollouts, chances = all_traces(extension)
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    value = np.random.default_rng(0).normal(size=(16, 16))  # of each thought
    values = np.array([value[tuple(rollout.thought)] for rollout in rollouts])

    ours = 0.0
    for rollout, chance, worth in zip(rollouts, chances, values, strict=True):
        weights = np.where(np.arange(len(rollout.sampled())) < 2, worth, 0.0)  # the answers are another matter
        batch = collate([_sequence(rollout, weights, likelihood=False)], share_prompts=share_prompts)
        logprobs, _ = token_logprobs(model, batch)
        loss, _ = policy_loss(logprobs, batch.weights, batch.trained, 1, batch.logprobs)
        ours = ours - float(chance) * gradient(model, loss)

    # The environment's own expectation, differentiated as it stands.
    first = torch.log_softmax(model(input_ids=torch.tensor([[1, 4]])).logits[0, -1].float(), -1)
    expected = 0.0
    for a in VOCABULARY:
        if a in STOPS and len(extension) == 2:
            expected = expected + first[a].exp() * value[extension]
            continue
        before = extension[0] if a in STOPS else a
        second = torch.log_softmax(model(input_ids=torch.tensor([[1, 4, before]])).logits[0, -1].float(), -1)
        after = [extension[0] if b in STOPS else b for b in VOCABULARY]
        worths = torch.tensor([value[before, b] for b in after], dtype=torch.float32)
        expected = expected + first[a].exp() * (second.exp() * worths).sum()
    theirs = gradient(model, expected)
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


class TwoWays:
    """J is .7 after the policy's own close, and .3 where it is stopped."""

    def success(self, actor, queries, seed):
        return [Success(np.where(q.forced, 0.3, 0.7), np.zeros(len(q.cuts)), 0) for q in queries]


@pytest.mark.parametrize(
    "algorithm",
    [
        GRPO(),
        MRTOnline(alpha=1.0, gamma=0.0, normalize_progress=False, expected_outcome=True),
        RegretToGo(alpha=1.0, budget=6),
        BRPO(slots=3, answer_weight=1.0, budget=6),
    ],
    ids=lambda algorithm: algorithm.name,
)
@pytest.mark.parametrize("stop_reason", ["length", "stop"])
def test_between_a_stop_and_the_token_that_leads_to_the_same_state_the_update_is_zero(
    warm_policy, make_rollout, make_actor, algorithm, stop_reason
):
    """The same thought and answer after it, so the same weight, whichever of the two was chosen; also where closing a
    thought and being stopped lead to different answers."""
    template = replace(warm_policy.template, stop_phrase=(7, warm_policy.template.close_ids[0]))
    wait, close = template.extensions[0][0], template.close_ids[0]
    thought = [6, wait, 8, 9]
    actor = make_actor(warm_policy, template=template)
    how = {"thought": thought, "stop_reason": stop_reason, "reward": 1.0, "template": template}
    sampled = make_rollout(**how)
    suppressed = make_rollout(**how, choices=[6, close, 8, 9], natural_length=1, natural_close=[close])
    other = make_rollout(thought=[6, 8], stop_reason="stop", template=template)

    def weights(rollout):
        rollouts = [rollout, other]
        bare = [LabelledRollout(r, r.boundaries, np.empty(0), np.empty(0)) for r in rollouts]
        cuts = [algorithm.cuts(item, None) for item in bare]
        return algorithm.weights(label_rollouts(actor, TwoWays(), rollouts, 0, cuts))[0]

    assert np.array_equal(weights(sampled), weights(suppressed))
    assert suppressed.choices()[1] == close and sampled.choices()[1] == wait


successes = st.lists(st.floats(0, 1), min_size=4, max_size=4)


@given(successes, st.sampled_from([0.0, 1.0]))
@pytest.mark.parametrize(
    "algorithm",
    [MRTOnline(alpha=1.0, gamma=0.5, expected_outcome=False), RegretToGo(alpha=1.0, budget=6), STaR()],
    ids=lambda a: a.name,
)
def test_a_suppressed_stop_weighs_what_a_sampled_token_in_its_place_would(make_labelled, algorithm, success, reward):
    """An extension opens the next episode, so that is the credit of the stop whose place it took."""
    sampled = make_labelled(success, reward=reward, stop_reason="length")
    suppressed = make_labelled(success, reward=reward, stop_reason="length", choices=[6, 5, 8])
    other = make_labelled((0.0, 0.0, 0.0, 0.5), stop_reason="length")
    (with_token, _), (with_stop, _) = algorithm.weights([sampled, other]), algorithm.weights([suppressed, other])
    assert np.array_equal(with_token, with_stop)
    sequence = _sequence(suppressed.rollout, with_stop, likelihood=False)
    assert sequence.trained[1] and sequence.targets[1] == 5 and sequence.token_ids[3] == 7


def test_the_trainers_probability_of_a_suppressed_stop_is_compared_with_the_engines(model, all_traces):
    rollouts, _ = all_traces((9, 8))
    chosen = [rollout for rollout in rollouts if rollout.choices()[0] in STOPS]
    assert len(chosen) == 2
    sequences = [_sequence(rollout, np.ones(len(rollout.sampled())), False) for rollout in chosen]
    for sequence in sequences:  # the hand-made answer was never sampled from this model
        sequence.trained[2:] = False
    _, metrics = Learner(model, LearnerParams(learning_rate=1e-4)).correct_mismatch(sequences, cap=2.0)
    assert metrics["mismatch_max"] < 1e-5
