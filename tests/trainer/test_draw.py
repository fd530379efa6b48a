"""What training begins with, drawn before it; and which problems a step has."""

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline import tables
from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.algorithms.forced_answers import WithForcedAnswers
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt import MRT
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.mrt_star import MRTStar
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.rollouts.prover import ExactProver, Success
from mrt_pipeline.trainer.draw import choose_problems, draw_first, label_first, prefix_of, prove_prefixes
from mrt_pipeline.trainer.learner import Learner, LearnerParams
from mrt_pipeline.trainer.reinforce import TrainingParams, reinforce

SEED, BUDGET = 5, 12
TRAINING = TrainingParams(
    sampled_tokens=700,
    groups=3,  # more than there are problems, so that one of them is drawn twice
    group_size=4,
    forced_fraction=0.34,
    learner=LearnerParams(learning_rate=3e-4, minibatches=2),
)
ALGORITHMS = [
    GRPO(),
    MRTOnline(alpha=0.5, gamma=0.8),
    BRPO(slots=4, answer_weight=1.0, budget=BUDGET),
    WithForcedAnswers(GRPO(), 0.5),
    STaR(),
    MRTStar(keep=1),
    MRT(refresh_every=2),
]


@pytest.fixture
def train(tmp_path, warm_policy, copy_policy, make_actor, known_problems, problems):
    """Train a copy of the warm policy: its weights, and the history without times.

    begin: gives what training begins with.
    """

    def run(algorithm, begin=lambda actor: (), learner=TRAINING.learner):
        actor = make_actor(copy_policy(warm_policy), thinking_budget=BUDGET)
        first = begin(actor)
        history = reinforce(
            actor,
            algorithm,
            ExactProver(),
            Learner(actor.policy.model, learner),
            known_problems,
            problems[-2:],
            TRAINING,
            SEED,
            tmp_path / str(len(list(tmp_path.iterdir()))),
            lambda metrics, step: None,
            first=first,
        )
        weights = torch.cat([p.detach().flatten() for p in actor.policy.model.parameters()])
        return weights, [{k: v for k, v in metrics.items() if not k.startswith("time/")} for metrics in history]

    return run


@pytest.fixture
def directly(known_problems):
    def begin(actor, algorithm):
        drawn = draw_first(actor, algorithm, known_problems, TRAINING.size, SEED)
        return label_first(actor, algorithm, ExactProver(), drawn, SEED)

    return begin


@pytest.fixture
def through_files(tmp_path_factory, known_problems):
    """As the stages `rollout`, `progress` and `train` hand it on."""
    folder = tmp_path_factory.mktemp("tables")

    def stored(name, table):
        table.to_parquet(folder / name)
        return pd.read_parquet(folder / name)

    def begin(actor, algorithm):
        drawn = draw_first(actor, algorithm, known_problems, TRAINING.size, SEED)
        rollouts = stored("rollouts", tables.rollouts_table(drawn, "base", actor.tokenizer.decode, SEED))
        drawn = tables.rollouts_from_table(rollouts, known_problems)
        labelled = label_first(actor, algorithm, ExactProver(), drawn, SEED)
        episodes = stored("episodes", tables.episodes_table(labelled, "base", "exact"))
        labels = stored("labels", tables.labels_table(labelled, "base"))
        return tables.labelled_from_tables(rollouts, episodes, labels, known_problems)

    return begin


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{type(a).__name__}-{a.name}")
def test_a_training_that_begins_with_its_first_draw_is_the_training_that_draws_it_itself(
    train, directly, through_files, algorithm
):
    weights, history = train(algorithm)
    begun_weights, begun = train(algorithm, lambda actor: directly(actor, algorithm))
    stored_weights, stored = train(algorithm, lambda actor: through_files(actor, algorithm))
    assert len(history) > 3
    assert torch.equal(begun_weights, stored_weights) and begun == stored  # files lose nothing
    assert torch.equal(begun_weights, weights) and begun == history


def test_the_first_draw_is_the_rollouts_of_the_first_step_and_is_counted(train, directly, warm_policy, make_actor):
    first = directly(make_actor(warm_policy, thinking_budget=BUDGET), GRPO())
    assert [item.rollout.group for item in first] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(len(item.rollout.thought) == BUDGET for item in first[: 4 * TRAINING.size.n_forced])
    assert all(len(item.success) == len(item.boundaries) for item in first)
    _, history = train(GRPO(), lambda actor: first)
    assert history[1]["train/sampled_tokens"] == sum(item.rollout.n_sampled for item in first)
    assert history[1]["train/prover_tokens"] == 0  # GRPO had no need of what it cost to label them


def test_the_first_draw_is_the_thoughts_of_the_first_prefixes_and_is_counted(
    train, directly, warm_policy, make_actor, monkeypatch
):
    algorithm, batches, weights = MRT(refresh_every=2), [], MRT.weights
    monkeypatch.setattr(MRT, "weights", lambda self, batch: batches.append(batch) or weights(self, batch))
    first = directly(make_actor(warm_policy, thinking_budget=BUDGET), algorithm)
    assert [item.rollout.group for item in first] == list(range(2 * TRAINING.groups))
    _, history = train(algorithm, lambda actor: first)
    drawn = sum(item.rollout.n_sampled for item in first)
    for step in (1, 2):
        branches = sum(item.rollout.n_sampled for batch in batches[:step] for item in batch)
        assert history[step]["train/sampled_tokens"] == drawn + branches
    assert history[1]["train/prover_tokens"] > sum(item.prover_tokens for item in first)
    for batch, begun in zip(batches[:2], (first[:3], first[3:]), strict=True):  # each prefix is of its own thought
        for i, item in enumerate(batch):
            thought = begun[i // 4].rollout.thought
            assert item.rollout.problem == begun[i // 4].rollout.problem
            assert np.array_equal(item.prefix.thought, thought[: len(item.prefix.thought)])
            assert item.prefix.success == begun[i // 4].success_at(len(item.prefix.thought))


@pytest.fixture
def other_precision():
    """A process has one precision, as accelerate sees it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_first_draw_in_another_precision_than_the_trainers_is_corrected_for(other_precision, train, directly):
    """It was sampled before mixed precision changed how the trainer's module computes."""
    mixed = TRAINING.learner.model_copy(update={"mixed_precision": "bf16"})
    corrected = []
    for begin in (lambda actor: directly(actor, GRPO()), lambda actor: ()):
        _, history = train(GRPO(), begin, mixed)
        corrected.append([metrics["step"] for metrics in history if metrics.get("train/mismatch_max", 0) > 0])
    assert corrected == [[1], []]


class TwoWays:
    """J is .7 after the policy's own close, and .3 where it is stopped."""

    def success(self, actor, queries, seed):
        return [Success(np.where(q.forced, 0.3, 0.7), np.zeros(len(q.cuts)), 0) for q in queries]


@pytest.mark.parametrize("thought", [(), (8, 9)])
def test_the_success_of_a_prefix_is_that_of_being_stopped_there(
    warm_policy, make_actor, scripted_engine, make_completion, known_problems, thought
):
    """Also where the policy closed its thought at once, so that the empty prefix is its natural end, too."""
    template = warm_policy.template
    thinking, answer = make_completion(thought, template.close_ids[0]), make_completion([8], template.eos_id)

    def actor():
        return make_actor(warm_policy, scripted_engine([thinking], [answer]), thinking_budget=BUDGET)

    thoughts = actor().sample(known_problems[:1], 1, 0)
    (proved,) = prove_prefixes(actor(), TwoWays(), thoughts, 0)
    assert prefix_of(proved).success == 0.3
    (rollout,) = actor().sample(known_problems[:1], 1, 0)
    labelled = label_first(actor(), MRT(), TwoWays(), [rollout], 0)
    assert labelled[0].rollout is rollout and rollout.n_sampled == len(thought) + 3
    assert prefix_of(labelled[0]).success == 0.3


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 3))
def test_problem_order_visits_every_problem_once_an_epoch(n_problems, n, seed):
    n_epochs = 3
    steps = -(-n_epochs * n_problems // n)
    visited = [i for step in range(steps) for i in choose_problems(range(n_problems), step * n, n, seed)]
    assert len(visited) == steps * n
    for epoch in range(n_epochs):
        part = visited[epoch * n_problems : (epoch + 1) * n_problems]
        assert sorted(part) == list(range(n_problems))


def test_problem_order_is_shuffled_by_epoch_and_seed():
    orders = {tuple(choose_problems(range(20), 20 * step, 20, seed)) for seed in (0, 1) for step in (0, 1)}
    assert len(orders) == 4
    assert choose_problems(range(20), 20, 20, 0) == choose_problems(range(20), 20, 20, 0)


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 40), st.integers(1, 4))
def test_what_is_chosen_at_once_is_what_is_chosen_step_by_step(n_problems, n, start, steps):
    """So that the first draw of an algorithm with prefixes holds the problems of its first steps."""
    at_once = choose_problems(range(n_problems), start, steps * n, 0)
    assert at_once == [i for k in range(steps) for i in choose_problems(range(n_problems), start + k * n, n, 0)]
