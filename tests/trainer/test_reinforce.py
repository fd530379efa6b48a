import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.algorithms.forced_answers import WithForcedAnswers
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt import MRT
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.mrt_star import MRTStar
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.rollouts.prover import ExactProver
from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.trainer import reinforce as reinforce_module
from mrt_pipeline.trainer.draw import UPDATE, step_seed
from mrt_pipeline.trainer.learner import Learner, LearnerParams
from mrt_pipeline.trainer.reinforce import TrainingParams, reinforce, validate

SAMPLED_TOKENS = 560
BUDGET = 12
ONLINE = MRTOnline(alpha=0.5, gamma=0.8, expected_outcome=False)


class Killed(Exception):
    pass


class Spy:
    """An algorithm that keeps what it was given."""

    def __init__(self, inner):
        self.inner, self.batches = inner, []
        self.needs_success, self.likelihood = inner.needs_success, inner.likelihood
        self.prefixes_every, self.from_base = inner.prefixes_every, inner.from_base
        self.cuts, self.answers, self.answer_weights = inner.cuts, inner.answers, inner.answer_weights

    def weights(self, rollouts):
        self.batches.append(rollouts)
        return self.inner.weights(rollouts)


@pytest.fixture
def run(tmp_path, warm_policy, copy_policy, make_actor, known_problems, problems):
    """A run of its own on a fresh copy of the warm policy: (weights, history, logged), as far as it came."""

    def start(
        folder,
        algorithm=None,
        kill_at=None,
        sampled_tokens=SAMPLED_TOKENS,
        validation=True,
        template=None,
        validate_every=2,
        stop_when_flat=None,
        **how,
    ):
        policy, logged = copy_policy(warm_policy), []
        training = TrainingParams(
            sampled_tokens=sampled_tokens,
            groups=2,
            group_size=4,
            forced_fraction=0.5,
            validate_every=validate_every,
            stop_when_flat=stop_when_flat,
            checkpoint_every=2,
            learner=LearnerParams(learning_rate=3e-4, minibatches=2, **how),
        )

        def log(metrics, step):
            logged.append((step, dict(metrics)))
            if step == kill_at:
                raise Killed

        history = None
        with contextlib.suppress(Killed):
            history = reinforce(
                make_actor(policy, template=template, thinking_budget=BUDGET),
                algorithm or ONLINE,
                ExactProver(),
                Learner(policy.model, training.learner),
                known_problems,
                problems[-3:] if validation else [],
                training,
                0,
                tmp_path / folder,
                log,
            )
        weights = torch.cat([p.detach().flatten() for p in policy.model.parameters()]).clone()
        return weights, history, logged

    return start


def without_times(history):
    return [{name: value for name, value in metrics.items() if not name.startswith("time/")} for metrics in history]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_goes_on_bit_equal(run, optimizer):
    whole, history, _ = run("whole", optimizer=optimizer)
    assert history[-1]["step"] >= 4
    _, unfinished, _ = run("killed", optimizer=optimizer, kill_at=3)
    assert unfinished is None
    resumed, resumed_history, logged = run("killed", optimizer=optimizer)
    assert torch.equal(resumed, whole)
    assert without_times(resumed_history) == without_times(history)
    # The record of the resumed run is complete: the steps before the checkpoint are logged again.
    assert [step for step, _ in logged] == [metrics["step"] for metrics in history]


@pytest.mark.parametrize(
    "algorithm",
    [
        WithForcedAnswers(ONLINE, 0.5),
        STaR(),
        MRTStar(keep=1),
        MRT(alpha=1.0, bonus="next_episode", refresh_every=3),  # killed between two refreshes
        BRPO(slots=4, answer_weight=1.0, budget=BUDGET),
    ],
    ids=lambda algorithm: algorithm.name,
)
def test_a_killed_run_of_any_algorithm_goes_on_bit_equal(run, algorithm):
    whole, history, _ = run("whole", algorithm)
    run("killed", algorithm, kill_at=3)
    resumed, resumed_history, _ = run("killed", algorithm)
    assert torch.equal(resumed, whole)
    assert without_times(resumed_history) == without_times(history)


def test_a_run_killed_before_its_first_checkpoint_starts_again(run):
    whole, history, _ = run("whole")
    run("killed", kill_at=1)
    resumed, resumed_history, _ = run("killed")
    assert torch.equal(resumed, whole)
    assert without_times(resumed_history) == without_times(history)


def test_killed_more_than_once(run):
    whole, history, _ = run("whole")
    for kill_at in (1, 3, 4):
        run("killed", kill_at=kill_at)
    resumed, resumed_history, _ = run("killed")
    assert torch.equal(resumed, whole)
    assert without_times(resumed_history) == without_times(history)


def test_a_finished_run_is_not_trained_further(run):
    weights, history, _ = run("done")
    again, same_history, logged = run("done")
    assert torch.equal(weights, again)
    assert same_history == history
    assert len(logged) == len(history)


def test_steps_validations_and_token_counts(run):
    spy = Spy(ONLINE)
    _, history, logged = run("run", spy)
    assert [metrics["step"] for metrics in history] == list(range(len(history)))
    last = len(history) - 1
    for metrics in history:
        step = metrics["step"]
        assert ("validation/regret" in metrics) == (step % 2 == 0 or step == last)
        assert np.all(np.isfinite(list(metrics.values())))
    counts = [metrics["train/sampled_tokens"] for metrics in history[1:]]
    per_step = [sum(item.rollout.n_sampled for item in batch) for batch in spy.batches]
    assert counts == np.cumsum(per_step).tolist()
    assert counts[-2] < SAMPLED_TOKENS <= counts[-1]
    assert history[-1]["train/prover_tokens"] > 0
    for metrics, (step, values) in zip(history[1:], logged[1:], strict=True):
        assert metrics == {"step": step, **values}


def test_the_step_is_not_logged_as_a_metric(run):
    assert not any("step" in metrics for _, metrics in run("run")[2])


def test_the_policy_is_trained_and_validation_is_repeatable(run, warm_policy):
    weights, history, _ = run("run")
    start = torch.cat([p.detach().flatten() for p in warm_policy.model.parameters()])
    assert not torch.equal(weights, start)
    assert 0 <= history[0]["validation/regret"] <= 1
    assert without_times(run("again")[1])[0] == without_times(history)[0]


def test_forced_groups_come_first_and_reach_the_budget(run):
    spy = Spy(ONLINE)
    _, history, _ = run("run", spy)
    for batch, metrics in zip(spy.batches, history[1:], strict=True):
        forced, free = batch[:4], batch[4:]
        assert all(len(item.rollout.thought) == BUDGET for item in forced)
        assert all(np.array_equal(item.rollout.thought_choices, item.rollout.thought) for item in free)
        assert metrics["train/thinking_tokens"] == np.mean([len(item.rollout.thought) for item in free])
        assert metrics["train/reward"] == np.mean([item.rollout.reward for item in free])
        assert metrics["train/reward_forced"] == np.mean([item.rollout.reward for item in forced])
        assert metrics["train/success_start"] == pytest.approx(np.mean([item.success[0] for item in batch]))
        gained = sum(item.success[-1] - item.success[0] for item in batch)
        assert metrics["train/progress"] == pytest.approx(gained / sum(len(item.success) - 1 for item in batch))
        assert metrics["train/unanswered"] == np.mean([item.rollout.grade is Grade.UNPARSED for item in free])
    assert any(len(item.rollout.thought) < BUDGET for batch in spy.batches for item in batch[4:])
    turned = [item.rollout for batch in spy.batches for item in batch[:4]]
    assert any(not np.array_equal(rollout.thought_choices, rollout.thought) for rollout in turned)


def test_the_prover_is_only_asked_if_the_algorithm_needs_it(run):
    spy = Spy(GRPO())
    _, history, _ = run("run", spy)
    assert history[-1]["train/prover_tokens"] == 0
    assert "train/success_start" not in history[-1]
    assert all(len(item.success) == 0 for batch in spy.batches for item in batch)


def test_alpha_zero_trains_exactly_like_grpo(run):
    assert torch.equal(run("a", MRTOnline(alpha=0.0, gamma=0.8, expected_outcome=False))[0], run("b", GRPO())[0])
    assert not torch.equal(run("c", ONLINE)[0], run("d", GRPO())[0])


@pytest.fixture
def trained_on(monkeypatch):
    """The batches that the learner is given."""
    seen, update = [], Learner.update

    def record(self, sequences, *args, **kwargs):
        seen.append(sequences)
        return update(self, sequences, *args, **kwargs)

    monkeypatch.setattr(Learner, "update", record)
    return seen


def test_rollouts_become_training_sequences(run, trained_on):
    spy = Spy(ONLINE)
    run("run", spy)
    for sequences, batch in zip(trained_on, spy.batches, strict=True):
        for sequence, item, weights in zip(sequences, batch, spy.inner.weights(batch), strict=True):
            rollout = item.rollout
            assert np.array_equal(sequence.token_ids, rollout.token_ids())
            assert sequence.prompt_length == len(rollout.prompt)
            assert np.array_equal(sequence.weights, weights)
            assert np.array_equal(sequence.trained, rollout.sampled())
            assert np.array_equal(sequence.logprobs, rollout.logprobs())


def test_star_trains_the_likelihood_of_right_traces_only(run, trained_on):
    spy = Spy(STaR())
    _, history, _ = run("run", spy)
    for sequences, batch in zip(trained_on, spy.batches, strict=True):
        right = [item.rollout for item in batch if item.rollout.reward]
        for sequence, rollout in zip(sequences, right, strict=True):
            assert sequence.logprobs is None
            assert np.array_equal(sequence.token_ids, rollout.token_ids())
            assert np.array_equal(sequence.trained, rollout.sampled())
    assert history[-1]["train/prover_tokens"] == 0
    assert all(metrics["train/ratio_kl"] == 0 for metrics in history[1:])


@pytest.mark.parametrize("start_from", ["base", "current"])
def test_an_iteration_of_star_trains_the_base_or_goes_on(run, trained_on, warm_policy, copy_policy, start_from):
    schedule = {"schedule": "cosine", "warmup": 0.5}
    weights, history, _ = run("run", STaR(start_from=start_from), sampled_tokens=2_000, **schedule)
    last, batch = history[-1], trained_on[-1]
    assert len(trained_on) > 1 and last["train/trained_sequences"] > 0
    base = copy_policy(warm_policy)
    learner = Learner(base.model, LearnerParams(learning_rate=3e-4, minibatches=2, **schedule))
    metrics = learner.update(batch, 0.0, step_seed(0, last["step"] - 1, UPDATE), span=1.0)
    of_last = 0.5 * (1 + np.cos(np.pi * 0.5)) if len(batch) > 1 else 1.0  # the middle of the second half, or of all
    assert metrics["learning_rate"] == pytest.approx(3e-4 * of_last)
    alone = torch.cat([p.detach().flatten() for p in base.model.parameters()])
    assert torch.equal(alone, weights) == (start_from == "base")


def test_mrt_star_imitates_the_policys_own_close_and_never_a_stop_phrase(run, trained_on, warm_policy):
    tokenizer, close = warm_policy.tokenizer, warm_policy.template.close_ids[0]
    phrase = tokenizer.encode("low high 7 </think>", add_special_tokens=False)
    template = replace(warm_policy.template, stop_phrase=tuple(phrase))
    run("run", MRTStar(keep=2), sampled_tokens=4_000, template=template)
    imitated = [sequence for sequences in trained_on for sequence in sequences]
    assert imitated
    for sequence in imitated:
        rest = sequence.token_ids[sequence.prompt_length :].tolist()
        cut = rest.index(close)
        assert rest[max(0, cut - 3) : cut + 1] != phrase and sequence.trained[cut]
        assert sequence.targets[cut] == close


@pytest.mark.parametrize("algorithm", [ONLINE, GRPO()], ids=["mrt_online", "grpo"])
def test_forced_answers_are_trained_with_reward_minus_success(run, trained_on, task, warm_policy, algorithm):
    spy = Spy(WithForcedAnswers(algorithm, 0.25))
    _, history, _ = run("run", spy)
    tokenizer, template = warm_policy.tokenizer, warm_policy.template
    sampled, cuts = 0, []
    for sequences, batch, metrics in zip(trained_on, spy.batches, history[1:], strict=True):
        answers, rewards = sequences[len(batch) :], []
        assert len(answers) == len(batch)
        for sequence, item in zip(answers, batch, strict=True):
            rollout, p = item.rollout, len(item.rollout.prompt)
            assert sequence.token_ids[:p].tolist() == rollout.prompt.tolist()
            answer = sequence.token_ids[p:][sequence.trained]
            context = sequence.token_ids[p : len(sequence.token_ids) - len(answer)]
            cut = len(context) - len(template.stop_phrase)
            assert context.tolist() == [*rollout.thought[:cut], *template.stop_phrase]
            ended = answer[-1] == template.eos_id
            text = tokenizer.decode(answer, skip_special_tokens=True)
            reward = task.grade(rollout.problem, text).reward if ended else 0.0
            weights = sequence.weights[sequence.trained]
            assert len(set(weights)) == 1
            success = reward - weights[0] / 0.25
            assert -1e-9 <= success <= 1 + 1e-9
            if len(item.success) and cut in item.boundaries:  # J is known there
                assert success == pytest.approx(item.success[item.boundaries.tolist().index(cut)], abs=1e-5)
            rewards.append(reward)
            cuts.append(cut)
        sampled += sum(item.rollout.n_sampled for item in batch) + sum(int(s.trained.sum()) for s in answers)
        assert metrics["train/sampled_tokens"] == sampled
        assert metrics["train/reward_forced_answers"] == np.mean(rewards)
    assert len(set(cuts)) > 5 and 0 in cuts


def test_without_validation_problems_there_is_no_validation(run, warm_policy):
    _, history, _ = run("run", validation=False)
    assert not any(name.startswith("validation/") for metrics in history for name in metrics)
    assert validate(None, None, [], 0, None, 0) == {}


def test_groups_without_signal_are_counted(run):
    spy = Spy(GRPO())
    _, history, _ = run("run", spy)
    for batch, metrics in zip(spy.batches, history[1:], strict=True):
        rewards = np.array([item.rollout.reward for item in batch]).reshape(2, 4)
        assert metrics["train/groups_without_signal"] == np.mean(rewards.std(axis=1) == 0)


def test_cuts_are_trained_where_the_policy_sampled_them_including_the_stop(run, trained_on, warm_policy):
    spy, close = Spy(MRTStar(keep=2)), warm_policy.template.close_ids[0]
    run("run", spy, sampled_tokens=4_000)
    n_cuts = 0
    for sequences, batch in zip(trained_on, spy.batches, strict=True):
        thoughts = [item.rollout.thought.tolist() for item in batch]
        for sequence in sequences:
            rest = sequence.token_ids[sequence.prompt_length :].tolist()
            cut = rest.index(close)
            assert sequence.logprobs is None
            assert any(thought[:cut] == rest[:cut] for thought in thoughts)
            assert sequence.trained[cut:].all() and np.array_equal(sequence.weights != 0, np.ones(len(rest), bool))
            n_cuts += 1
    assert n_cuts > 0


def test_branches_start_from_stale_prefixes_that_are_never_trained(run, trained_on):
    spy = Spy(MRT(alpha=1.0, bonus="next_episode", refresh_every=2))
    _, history, _ = run("run", spy)
    fresh = 0
    for sequences, batch, metrics in zip(trained_on, spy.batches, history[1:], strict=True):
        assert [item.direct for item in batch] == [False, False, True, True] * 2
        for sequence, item in zip(sequences, batch, strict=True):
            n, p = len(item.prefix.thought), len(item.rollout.prompt)
            assert np.array_equal(item.rollout.thought[:n], item.prefix.thought)
            assert not sequence.trained[:n].any()
            assert np.array_equal(sequence.token_ids[p : p + n], item.prefix.thought)
            assert 0 <= item.prefix.success <= 1
            after = [b for b in item.boundaries if b > n] or [n]
            assert item.cuts.tolist() == ([] if item.direct else after[:1])  # the end of the next episode
            assert len(item.at_cuts) == len(item.cuts) and len(item.success) == 0
            if item.direct:
                assert len(item.rollout.thought) == n
                assert not sequence.trained[: n + len(item.rollout.close)].any()
            elif item.rollout.group == 0:  # forced on to the budget
                assert len(item.rollout.thought) == BUDGET
        for group in (batch[:4], batch[4:]):
            assert len({item.rollout.problem.problem_id for item in group}) == 1
            assert len({id(item.prefix) for item in group}) == 1
        rewards = np.array([item.rollout.reward for item in batch])
        assert metrics["train/reward_direct"] == rewards[[2, 3, 6, 7]].mean()
        assert metrics["train/reward"] == rewards[[4, 5]].mean()
        fresh += "time/prefixes" in metrics
    assert fresh == -(-len(spy.batches) // 2)
    # The tokens of the prefixes themselves are counted as well.
    branches = sum(item.rollout.n_sampled for batch in spy.batches for item in batch)
    assert history[-1]["train/sampled_tokens"] > branches
    assert history[-1]["train/prover_tokens"] > 0
    assert any(len(item.prefix.thought) for batch in spy.batches for item in batch)


def test_training_ends_where_three_validations_gain_too_little_and_not_before(run):
    """Nothing can gain more than 1, and anything gains more than nothing at all."""
    _, history, _ = run("flat", validate_every=1, stop_when_flat=2.0)
    assert [metrics["step"] for metrics in history] == [0, 1, 2, 3]
    accuracies = [0.1, 0.3, 0.3, 0.305, 0.309, 0.311]
    training = TrainingParams(sampled_tokens=100, stop_when_flat=0.01)
    ends = [
        reinforce_module._is_done(training, 50, [{"validation/accuracy": a} for a in accuracies[:n]] + [{"step": 9}])
        for n in range(1, 7)
    ]
    assert ends == [False, False, False, False, True, False]
    assert reinforce_module._is_done(training, 100, [])
    assert not reinforce_module._is_done(TrainingParams(sampled_tokens=100), 50, [{"validation/accuracy": 0.5}] * 9)
