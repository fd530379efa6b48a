"""What is measured, by hand; and all of it on small policies."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mrt_pipeline.algorithms.anytime import Anytime
from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt import MRT
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.mrt_star import MRTStar
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.evaluation import diagnosis
from mrt_pipeline.evaluation.diagnosis import (
    QUANTITIES,
    TARGETS,
    diagnose,
    first_find,
    largest_share,
    mean_and_error,
    measured,
    recall,
    rows_of_gradients,
    rows_of_recall,
    rows_of_rollouts,
    spread,
)
from mrt_pipeline.evaluation.params import DiagnoseParams, credit_name
from mrt_pipeline.rollouts.prover import ExactProver, SampledProver
from mrt_pipeline.schemas import DIAGNOSIS
from mrt_pipeline.trainer import draw
from mrt_pipeline.trainer.learner import Learner
from mrt_pipeline.trainer.params import LearnerParams


def by_quantity(rows):
    return {(quantity, credit, later): number for quantity, credit, later, *number in rows}


def test_a_find_is_the_first_boundary_at_which_j_is_half():
    assert first_find(np.array([0.1, 0.49, 0.5, 0.2])) == 2
    assert first_find(np.array([0.7, 0.1])) == 0
    assert first_find(np.array([0.1, 0.4])) is None


def test_recall_is_j_so_many_episodes_after_the_find_of_traces_that_go_on():
    curves = [np.array([0.1, 0.9, 0.8, 0.3]), np.array([0.6, 0.2]), np.array([0.1, 0.2, 0.3])]
    found = recall(curves, [1, 0, None], (0, 1, 2, 5))
    assert found == {0: [0.9, 0.6], 1: [0.8, 0.2], 2: [0.3], 5: []}


def test_the_rows_of_recall_say_how_many_traces_find_and_go_on(make_labelled):
    traces = [make_labelled(curve) for curve in ((0.1, 0.9, 0.8), (0.6, 0.2), (0.1, 0.2, 0.3))]
    rows = by_quantity(rows_of_recall(traces))
    assert rows["found", "", 0] == pytest.approx([2 / 3, np.std([1, 1, 0], ddof=1) / np.sqrt(3), 3])
    assert rows["recall", "", 0][::2] == pytest.approx([0.75, 2])
    assert rows["recall", "", 1] == pytest.approx([0.5, 0.3, 2])
    assert rows["recall", "", 5][2] == 0 and np.isnan(rows["recall", "", 5][0])


def test_the_share_of_the_largest_episode():
    assert largest_share(np.array([0.1, -0.3, 0.0])) == pytest.approx(0.9)
    assert largest_share(np.array([0.2, 0.2, -0.2, 0.2])) == pytest.approx(0.25)
    assert np.isnan(largest_share(np.zeros(3))) and np.isnan(largest_share(np.empty(0)))


def test_the_spread_of_groups_whose_rollouts_are_anywhere():
    assert spread(np.array([0.1, 0.5, 0.3, 0.5]), np.array([7, 2, 7, 2])).tolist() == pytest.approx([0, 0.2])


def test_standard_errors_know_of_groups():
    values = [1.0, 2.0, 4.0, np.nan]
    assert mean_and_error(values) == pytest.approx((7 / 3, np.std(values[:3], ddof=1) / np.sqrt(3), 3))
    twice = mean_and_error(np.repeat(values, 5), np.repeat([0, 1, 2, 3], 5))  # five times the same is no new evidence
    assert twice == pytest.approx((7 / 3, np.std(values[:3], ddof=1) / np.sqrt(3), 15))
    assert mean_and_error([2.0, 3.0], [1, 1])[0] == 2.5 and np.isnan(mean_and_error([2.0, 3.0], [1, 1])[1])
    assert np.isnan(mean_and_error([np.nan])[0]) and mean_and_error([np.nan])[2] == 0


def test_what_rollouts_show(make_labelled):
    batch = [
        make_labelled((0.0, 0.0, 0.6), reward=1, group=0, problem_id="p"),
        make_labelled((0.0, 0.1, 0.1), reward=0, group=0, problem_id="p"),
        make_labelled((0.2, 0.2, 0.2), reward=1, group=1, problem_id="q"),
        make_labelled((0.2, 0.21, 0.22), reward=1, group=1, problem_id="q"),
    ]
    rows = by_quantity(rows_of_rollouts([batch, batch]))
    means = {quantity: number[0] for (quantity, _, _), number in rows.items()}
    assert means == pytest.approx(
        {
            "accuracy": 0.75,
            "success_start": 0.1,
            "success_end": (0.6 + 0.1 + 0.2 + 0.22) / 4,
            "thinking_tokens": 2,
            "episodes": 2,
            "success_sem": 0,
            "largest_episode": (1 + 1 + 0.5) / 3,
            "large_progress": 0.25,
            "problems": 2,
            "reward_groups": 0.5,
            "success_groups": 0.5,
        }
    )
    assert rows["largest_episode", "", 0][2] == 6 and rows["reward_groups", "", 0][2] == 4


def test_where_no_answer_follows_the_outcome_is_the_reward(make_labelled):
    """As in the expected outcome: a trace that ended inside its thought has no answer to expect anything of."""
    batch = [make_labelled((0.0, 0.9), stop_reason="eos"), make_labelled((0.0, 0.0), stop_reason="stop")]
    rows = by_quantity(rows_of_rollouts([batch]))
    assert rows["success_end", "", 0][0] == 0 and rows["success_groups", "", 0][0] == 0


def test_cosines_of_credits_by_their_names():
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 2.0]])  # of each credit, the same on all batches
    gram = np.broadcast_to((vectors @ vectors.T)[:, None, :, None], (4, 5, 4, 5))
    rows = by_quantity(rows_of_gradients(measured([GRPO(), MRTOnline()], 9), gram))
    assert {credit for _, credit, _ in rows} == {"grpo", "mrt_online alpha=0", "anytime", "mrt_online"}
    assert {quantity for quantity, *_ in rows} == {*QUANTITIES[QUANTITIES.index("cosine_own") :]}
    expected = {
        ("cosine_own", "mrt_online"): 1,
        ("cosine_outcome", "mrt_online"): 0,
        ("gain_outcome", "mrt_online"): -1,
        ("direction_outcome", "mrt_online"): 0,
        ("cosine_anytime", "mrt_online"): 0.8,
        ("gain_anytime", "mrt_online"): 0.2,
        ("direction_anytime", "mrt_online"): 0.8,
        ("direction_outcome", "anytime"): 0.6,
        ("gain_anytime", "anytime"): 0.4,
        ("direction_outcome", "grpo"): 1,
        ("cosine_anytime", "grpo"): 0.6,
    }
    for key, mean in expected.items():
        assert rows[*key, 0] == pytest.approx([mean, 0, 5], abs=1e-6)


def test_a_gain_is_paired_batch_by_batch():
    """The targets do not vary; GRPO has one component off them on two of four batches, MRT-online on all."""
    vectors = np.zeros((4, 4, 2))
    vectors[1:3, :, 0] = 1
    vectors[0] = [[1, 0], [1, 0], [0.6, 0.8], [0.6, 0.8]]
    vectors[3] = [[0.6, 0.8]] * 4
    rows = by_quantity(rows_of_gradients(measured([MRTOnline()], 9), np.einsum("ijd,kld->ijkl", vectors, vectors)))
    differences = [-0.4, -0.4, 0, 0]
    expected = [np.mean(differences), np.std(differences, ddof=1) / 2, 4]
    assert rows["gain_outcome", "mrt_online", 0] == pytest.approx(expected)
    assert rows["gain_anytime", "mrt_online", 0] == pytest.approx(expected)


def test_the_targets_are_always_measured_and_nothing_twice():
    given = [MRTOnline(), MRTOnline(alpha=0), Anytime(budget=9)]
    assert measured(given, 9) == [GRPO(), MRTOnline(alpha=0), Anytime(budget=9), MRTOnline()]
    assert measured([GRPO()], 9) == [GRPO(), MRTOnline(alpha=0), Anytime(budget=9)]
    assert [credit_name(measured([GRPO()], 9)[place]) for place in TARGETS.values()] == [
        "mrt_online alpha=0",
        "anytime",
    ]


def test_a_target_with_a_budget_of_its_own_is_that_one():
    assert measured([MRTOnline(), Anytime(budget=5)], 9)[2:] == [Anytime(budget=5), MRTOnline()]
    assert len(measured([Anytime(budget=9, alpha=2)], 9)) == 4


def test_credits_are_called_by_what_differs_from_their_class():
    names = map(credit_name, (GRPO(), GRPO(divide_by_std=True), Anytime(budget=9, alpha=2, budget_multiples=[1, 2])))
    assert [*names] == ["grpo", "grpo divide_by_std=true", "anytime alpha=2 budget_multiples=[1.0,2.0]"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"algorithms": [MRT()]}, "mrt starts from stale prefixes"),
        ({"algorithms": [GRPO(), GRPO()]}, "'grpo' is there twice"),
        ({"algorithms": []}, "at least 1"),
        ({"algorithms": [GRPO()], "batches": 2}, "batches"),
        ({"algorithms": ["nonsense"]}, "algorithms"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, named):
    with pytest.raises(ValueError, match=named):
        DiagnoseParams(**given)


def learner_of(actor):
    return Learner(actor.policy.model, LearnerParams(), temperature=actor.limits.temperature)


def look(actor, problems, algorithms, prover=None, **params):
    params = DiagnoseParams(algorithms=algorithms, **{"batches": 3, "groups": 2, "n_recall": 4} | params)
    table = diagnose(actor, learner_of(actor), prover or ExactProver(), problems, 4, params, seed=1)
    return DIAGNOSIS.validate(table).set_index(["quantity", "credit", "episodes_later"])


def test_a_policy_is_diagnosed_with_every_kind_of_credit(warm_policy, copy_policy, make_actor, known_problems):
    policy = copy_policy(warm_policy)
    before = [parameter.clone() for parameter in policy.model.parameters()]
    algorithms = [MRTOnline(), Anytime(budget=24), BRPO(budget=24), STaR(), MRTStar()]
    found = look(make_actor(policy), known_problems, algorithms)
    assert all((a == b).all() for a, b in zip(before, policy.model.parameters(), strict=True))
    names = ["grpo", "mrt_online alpha=0", "anytime", "mrt_online", "brpo", "star", "mrt_star"]
    assert [*dict.fromkeys(found.loc["direction_anytime"].index.get_level_values("credit"))] == names
    assert found.loc[("problems", "", 0), "mean"] == 2
    assert found.loc[("accuracy", "", 0), "n"] == 3 * 2 * 4
    cosines = found.loc[["cosine_own", "cosine_outcome", "cosine_anytime"], "mean"].dropna()
    assert len(cosines) >= 15 and cosines.between(-1.001, 1.001).all()
    assert found.loc[("found", "", 0), "n"] == 2
    again = look(make_actor(copy_policy(warm_policy)), known_problems, algorithms)
    assert np.allclose(found["mean"], again["mean"], equal_nan=True)


def test_the_gradients_are_those_of_training(warm_policy, copy_policy, make_actor, known_problems, monkeypatch):
    """Of GRPO's: what a step of training on the same rollouts gives, made here by hand."""
    kept = []
    monkeypatch.setattr(diagnosis, "gram_matrix", lambda gradients: kept.append(gradients) or np.ones((3, 3, 3, 3)))
    actor = make_actor(copy_policy(warm_policy))
    look(actor, known_problems, [GRPO()])
    size, seed_for = draw.DrawSize(2, 4, 0.0), partial(draw.step_seed, 1, 2)
    drawn = draw.draw_step(actor, draw.choose_problems(known_problems, 4, 2, 1), (), size, seed_for(draw.SAMPLE))
    drawn = [replace(item, success=np.zeros(len(item.boundaries))) for item in drawn]
    from mrt_pipeline.evaluation.gradients import keep
    from mrt_pipeline.trainer.reinforce import training_sequences

    sequences = training_sequences(GRPO(), drawn, [], actor.template.eos_id)
    expected = keep(learner_of(actor).gradient(sequences))
    assert expected.any() and np.allclose(kept[0][0][2], expected, atol=1e-6)


def test_no_recall_where_the_policy_answers_in_its_stream(
    search_policy, copy_policy, make_actor, backtracking, known_searches
):
    actor = make_actor(copy_policy(search_policy), game=backtracking, answer_tokens=8)
    found = look(actor, known_searches, [GRPO()], SampledProver(n_answers=2))
    quantities = {*found.index.get_level_values("quantity")}
    assert "cosine_own" in quantities and not quantities & {"found", "recall"}
    assert found.loc[("success_sem", "", 0), "mean"] > 0


def test_traces_are_forced_on_as_far_as_the_context_allows(warm_policy, make_actor, known_problems):
    n_prompt = max(len(make_actor(warm_policy).prompt(problem)) for problem in known_problems)
    for max_length, expected in ((256, 48), (n_prompt + 40, 24 + 40)):
        card = warm_policy.card.model_copy(update={"max_length": max_length})
        actor = make_actor(replace(warm_policy, card=card))
        if max_length != 256:
            expected = max_length - n_prompt - len(actor.template.stop_phrase) - actor.limits.answer_tokens
            assert 24 < expected < 48
        traces = diagnosis._forced_on(actor, ExactProver(), known_problems, 0)
        assert {item.rollout.stream_length for item in traces} == {expected}
