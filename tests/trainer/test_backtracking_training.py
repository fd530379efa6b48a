"""Backtracking search through the RL loop and the warm start: what is trained, and what is not."""

import numpy as np
import pytest

from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.algorithms.forced_answers import WithForcedAnswers
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.length_penalty import LengthPenalty
from mrt_pipeline.algorithms.mrt import MRT
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.mrt_star import MRTStar
from mrt_pipeline.algorithms.regret_to_go import RegretToGo
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.engines.base import NO_CHOICE
from mrt_pipeline.rollouts.prover import ExactProver
from mrt_pipeline.tasks.base import SearchTrace
from mrt_pipeline.trainer import warm_start as warm_start_module
from mrt_pipeline.trainer.learner import Learner, LearnerParams
from mrt_pipeline.trainer.reinforce import TrainingParams, reinforce

BUDGET = 30
ONLINE = MRTOnline(alpha=0.5, gamma=0.8, expected_outcome=False)
ALGORITHMS = [
    GRPO(),
    ONLINE,
    LengthPenalty(alpha=0.4),
    RegretToGo(alpha=0.5, budget=BUDGET),
    MRT(alpha=1.0, bonus="continue", refresh_every=2),
    BRPO(slots=4, answer_weight=1.0, budget=BUDGET),
    WithForcedAnswers(ONLINE, 0.5),
    STaR(),
    MRTStar(keep=2),
]


class Spy:
    """An algorithm that keeps what it was given."""

    def __init__(self, inner):
        self.inner, self.batches, self.forced = inner, [], []
        self.needs_success, self.likelihood = inner.needs_success, inner.likelihood
        self.prefixes_every, self.from_base = inner.prefixes_every, inner.from_base
        self.cuts, self.answers = inner.cuts, inner.answers

    def weights(self, rollouts):
        self.batches.append(rollouts)
        self.forced.append([])
        return self.inner.weights(rollouts)

    def answer_weights(self, rollouts, answers):
        self.forced[-1] = answers
        return self.inner.answer_weights(rollouts, answers)


@pytest.fixture
def run(tmp_path, monkeypatch, search_policy, copy_policy, make_actor, backtracking, known_searches):
    """Train a copy of the policy: what the learner was given, what the algorithm was given, and the history."""

    def start(algorithm):
        policy, spy, seen, update = copy_policy(search_policy), Spy(algorithm), [], Learner.update

        def record(self, sequences, *args, **kwargs):
            seen.append(sequences)
            return update(self, sequences, *args, **kwargs)

        monkeypatch.setattr(Learner, "update", record)
        training = TrainingParams(
            sampled_tokens=6_000 if algorithm.likelihood else 1_500,
            groups=2,
            group_size=4,
            forced_fraction=0.5,
            learner=LearnerParams(learning_rate=3e-4, minibatches=2),
        )
        history = reinforce(
            make_actor(policy, game=backtracking, thinking_budget=BUDGET, answer_tokens=8),
            spy,
            ExactProver(),
            Learner(policy.model, training.learner),
            known_searches,
            backtracking.problems()[-2:],
            training,
            0,
            tmp_path / algorithm.name,
            lambda metrics, step: None,
        )
        return seen, spy, history

    return start


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
def test_only_sampled_tokens_are_trained_and_every_answer_follows_a_boundary(run, search_policy, algorithm):
    template = search_policy.template
    seen, spy, history = run(algorithm)
    injected = prefixes = trained = 0
    for sequences, batch, answers in zip(seen, spy.batches, spy.forced, strict=True):
        rollouts = [item.rollout for item in batch]
        for item in batch:
            assert np.array_equal(item.boundaries, template.boundaries(item.rollout.thought))
            if algorithm.needs_success:
                assert len(item.success) == len(item.boundaries)
        for answer in answers:
            thought = rollouts[answer.source].thought
            assert answer.cut == template.snap(thought, answer.cut) == len(answer.rollout.thought)
            assert np.array_equal(answer.rollout.thought, thought[: answer.cut])
            assert 0 <= answer.success <= 1
        if not algorithm.likelihood:
            for sequence, rollout in zip(sequences, [*rollouts, *(a.rollout for a in answers)], strict=True):
                assert np.array_equal(sequence.token_ids, rollout.token_ids())
                assert np.array_equal(sequence.trained, rollout.sampled())
                assert np.array_equal(sequence.targets[sequence.trained], rollout.choices()[sequence.trained])
                injected += int((sequence.targets != sequence.token_ids[sequence.prompt_length :]).sum())
                prefixes += len(rollout.thought) if (rollout.thought_choices == NO_CHOICE).all() else 0
        for sequence in sequences:
            rest = sequence.token_ids[sequence.prompt_length :]
            assert len(rest) == len(sequence.weights) == len(sequence.trained)
            trained += int(sequence.trained.sum())
    assert trained > 0
    assert all(np.all(np.isfinite(list(metrics.values()))) for metrics in history)
    if not algorithm.likelihood:
        assert injected > 0  # the first group was forced on: some `back0` stand where stopping was chosen
    if algorithm.name in ("mrt", "brpo"):
        assert prefixes > 0


def test_a_stop_is_trained_as_a_part_of_the_trace(run, search_policy):
    eos = search_policy.template.eos_id
    seen, spy, _ = run(GRPO())
    stopped = 0
    for sequences, batch in zip(seen, spy.batches, strict=True):
        for sequence, item in zip(sequences, batch, strict=True):
            if item.rollout.stop_reason == "stop":
                stopped += 1
                assert sequence.token_ids[-1] == eos and sequence.trained[-1]
                assert sequence.logprobs[-1] < 0
    assert stopped > 3


def test_mrt_star_imitates_stopping_after_the_right_attempt(run, search_policy, backtracking):
    tokenizer, template = search_policy.tokenizer, search_policy.template
    seen, spy, _ = run(MRTStar(keep=2))
    imitated = went_back = 0
    for sequences, batch, answers in zip(seen, spy.batches, spy.forced, strict=True):
        for sequence in sequences:
            rest = sequence.token_ids[sequence.prompt_length :].tolist()
            cut = template.snap(rest, len(rest))
            assert any(i.rollout.thought[:cut].tolist() == rest[:cut] for i in batch)
            prompt = sequence.token_ids[: sequence.prompt_length].tolist()
            problem = next(i.rollout.problem for i in batch if i.rollout.prompt.tolist() == prompt)
            assert rest[-1] == template.eos_id and sequence.trained[cut:].all()
            assert backtracking.grade(problem, tokenizer.decode(rest[cut:-1])).reward == 1
            imitated += 1
        went_back += len(answers)
    assert imitated > 0 and went_back > imitated


def test_a_dropped_attempt_counts_as_sampled(run):
    seen, spy, history = run(GRPO())
    counted = np.cumsum([sum(item.rollout.n_sampled for item in batch) for batch in spy.batches])
    trained = np.cumsum([sum(int(s.trained.sum()) for s in sequences) for sequences in seen])
    assert [metrics["train/sampled_tokens"] for metrics in history[1:]] == counted.tolist()
    assert counted[-1] > trained[-1]


class FixedTraces:
    """Traces that are cut or not, turn by turn."""

    def __init__(self):
        self.n = 0

    def search_trace(self, problem, rng):
        self.n += 1
        return SearchTrace("1 + 1 =2 back1" if self.n % 3 else "", problem.answers[0], cut=bool(self.n % 2))


def test_the_warm_start_trains_whole_streams_but_not_the_stop_of_a_search_that_was_cut(
    monkeypatch, make_policy, backtracking, known_searches
):
    batches = []

    class Recorder(Learner):
        def update(self, sequences, fraction_done, seed):
            batches.append(sequences)
            return {"loss": 0.0}

    monkeypatch.setattr(warm_start_module, "Learner", Recorder)
    policy = make_policy(game=backtracking)
    warm_start_module.warm_start(
        policy, FixedTraces(), known_searches, LearnerParams(learning_rate=1e-3), 4, 6, 0, lambda metrics, step: None
    )
    cut = 0
    for item in (item for batch in batches for item in batch):
        text = policy.tokenizer.decode(item.token_ids)
        question, _, stream = text.partition(" : ")
        problem = next(p for p in known_searches if question == f"<bos> {p.question}")
        assert stream in [f"{thought}{problem.answers[0]} <eos>" for thought in ("", "1 + 1 =2 back1 ")]
        assert item.trained[:-1].all()
        cut += not item.trained[-1]
    assert 0 < cut < sum(map(len, batches))
