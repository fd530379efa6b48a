from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.mrt import credit
from mrt_pipeline.mrt.baselines import centred_area_to_go
from mrt_pipeline.mrt.regret import step_area

TRACES = {"rewards": [1.0, 0.0, 1.0], "groups": [0, 0, 1], "lengths": [3, 1, 0]}
CURVES = {
    "rewards": [1.0, 0.0, 1.0],
    "groups": [0, 0, 1],
    "boundaries": [[0, 2, 3], [0, 1], [0]],
    "success": [[0.0, 0.5, 0.25], [0.5, 0.5], [0.75]],
}
SLOTS = TRACES | {"success": [[0.0, 1.0], [0.5, 0.5], [0.25, 0.25]], "budgets": [2, 4]}
BRANCHES = {
    "rewards": [1.0, 0.0, 1.0, 0.0],
    "groups": [0, 0, 0, 0],
    "lengths": [5, 3, 1, 1],
    "direct": [False, False, True, True],
    "prefix_lengths": [1, 1, 1, 1],
    "prefix_success": [0.25] * 4,
    "next_ends": [3, 3, 0, 0],
    "next_success": [0.75, 0.5, np.nan, np.nan],
}
CUTS = TRACES | {"success": [0.5, 0.75, 1.0], "start_success": [0.25, 0.25, 1.0]}


@st.composite
def batches(draw):
    """What the functions take of up to six rollouts, by name."""
    n = draw(st.integers(1, 6))
    probability, binary = st.floats(0, 1), st.sampled_from([0.0, 1.0])
    columns = {"rewards": binary, "groups": st.integers(0, 1), "direct": st.booleans(), "prefix_success": probability}
    batch = {name: draw(st.lists(values, min_size=n, max_size=n)) for name, values in columns.items()}
    steps = draw(st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=n, max_size=n))
    batch["boundaries"] = [np.cumsum([0, *episodes]) for episodes in steps]
    batch["success"] = [
        np.array(draw(st.lists(probability, min_size=len(b), max_size=len(b)))) for b in batch["boundaries"]
    ]
    batch["lengths"] = [int(b[-1]) for b in batch["boundaries"]]
    batch["prefix_lengths"] = [draw(st.integers(0, length)) for length in batch["lengths"]]
    batch["next_ends"] = [
        draw(st.integers(p, n)) for p, n in zip(batch["prefix_lengths"], batch["lengths"], strict=True)
    ]
    return batch


def call(function, batch):
    """The credit that a function gives to a batch; J elsewhere than at the boundaries is made of that there."""
    rest = {name: batch[name] for name in ("rewards", "groups", "lengths")}
    curves = {name: batch[name] for name in ("rewards", "groups", "boundaries", "success")}
    start, end = ([float(j[i]) for j in batch["success"]] for i in (0, -1))
    slots = np.array([start, end]).T
    branch = ("direct", "prefix_lengths", "prefix_success", "next_ends")
    return {
        "grpo": lambda: credit.grpo(**rest),
        "length_penalty": lambda: credit.length_penalty(**rest),
        "mrt_online": lambda: credit.mrt_online(**curves, gamma=0.5),
        "regret_to_go": lambda: credit.regret_to_go(**curves, budget=6),
        "anytime": lambda: credit.anytime(**curves, budget=[3, 12]),
        "watermark": lambda: credit.watermark(**curves),
        "saturation": lambda: credit.saturation(**curves),
        "least": lambda: credit.least(**curves),
        "brpo": lambda: credit.brpo(**rest, success=slots, budgets=[2, 4]),
        "mrt": lambda: credit.mrt(**rest, **{name: batch[name] for name in branch}, next_success=end),
        "star": lambda: credit.star(batch["rewards"], batch["lengths"]),
        "mrt_star": lambda: credit.mrt_star(**rest, success=end, start_success=start),
    }[function]()


ALL = [
    *("grpo", "length_penalty", "mrt_online", "regret_to_go", "anytime", "watermark", "saturation", "least", "brpo"),
    *("mrt", "star", "mrt_star"),
]


def same(found, expected, order=None):
    order = range(len(expected.answer)) if order is None else order
    return all(
        np.allclose(getattr(found, part)[k], getattr(expected, part)[i], atol=1e-9)
        for part in ("thought", "stop", "answer")
        for k, i in enumerate(order)
    )


@given(batches())
@pytest.mark.parametrize("function", ALL)
def test_a_number_for_each_thinking_token_the_stop_and_the_answer(function, batch):
    found = call(function, batch)
    assert [thought.shape for thought in found.thought] == [(n,) for n in batch["lengths"]]
    assert found.stop.shape == found.answer.shape == (len(batch["rewards"]),)
    assert all(np.isfinite(values).all() for values in (*found.thought, found.stop, found.answer))


@given(batches(), st.randoms(use_true_random=False))
@pytest.mark.parametrize("function", [name for name in ALL if name != "mrt_star"])
def test_permuting_a_batch_permutes_its_credit(function, batch, random):
    order = random.sample(range(len(batch["rewards"])), len(batch["rewards"]))
    assert same(
        call(function, {name: [v[i] for i in order] for name, v in batch.items()}), call(function, batch), order
    )


@given(batches())
@pytest.mark.parametrize("function", ALL)
def test_groups_may_have_names(function, batch):
    named = batch | {"groups": ["a problem" if group else "another" for group in batch["groups"]]}
    assert same(call(function, named), call(function, batch))


@pytest.mark.parametrize(
    ("function", "given_"),
    [
        (credit.grpo, TRACES),
        (credit.length_penalty, TRACES),
        (credit.mrt_online, CURVES),
        (partial(credit.regret_to_go, budget=4), CURVES),
        (partial(credit.anytime, budget=4), CURVES),
        (credit.watermark, CURVES),
        (credit.saturation, CURVES),
        (credit.least, CURVES),
        (credit.brpo, SLOTS),
        (credit.mrt, BRANCHES),
        (credit.mrt_star, CUTS),
    ],
)
def test_what_is_given_stays_as_it_is_and_no_array_is_handed_out_twice(function, given_):
    arrays = {
        name: [np.array(v) for v in values] if isinstance(values[0], list) else np.array(values)
        for name, values in given_.items()
    }
    before = {name: [v.tolist() for v in values] for name, values in arrays.items()}
    first = function(**arrays)
    for values in (*first.thought, first.stop, first.answer):
        values += 7  # a caller may do that
    assert str({name: [v.tolist() for v in values] for name, values in arrays.items()}) == str(before)
    assert not any(np.shares_memory(first.stop, other) for other in (first.answer, *first.thought))


def test_one_value_may_stand_for_all_rollouts():
    for function, batch, name in ((credit.mrt_online, CURVES, "answered"), (credit.mrt, BRANCHES, "cut")):
        none = function(**batch | {name: [False] * len(batch["rewards"])})
        assert same(function(**batch | {name: False}), none) and not same(function(**batch | {name: True}), none)


def test_no_rollouts_no_credit():
    for found in (
        credit.grpo([], [], []),
        credit.length_penalty([], [], []),
        credit.mrt_online([], [], [], []),
        credit.regret_to_go([], [], [], [], budget=4),
        credit.brpo([], [], [], np.empty((0, 2)), [2, 4]),
        credit.mrt(*[[]] * 8),
        credit.star([], []),
        credit.mrt_star(*[[]] * 5),
    ):
        assert len(found.thought) == len(found.stop) == len(found.answer) == 0


# Each by hand, and by the formula of its module.


def test_grpo_by_hand():
    found = credit.grpo([1, 0, 0, 0], [5, 5, 9, 9], [2, 0, 1, 1])
    assert [thought.tolist() for thought in found.thought] == [[0.5, 0.5], [], [0], [0]]
    assert found.stop.tolist() == found.answer.tolist() == [0.5, -0.5, 0, 0]
    divided = credit.grpo([1, 0, 0, 0], [0] * 4, [1] * 4, divide_by_std=True)
    assert np.allclose(divided.answer, np.array([0.75, -0.25, -0.25, -0.25]) / np.sqrt(3 / 16))


def test_the_length_penalty_by_hand():
    # Right ones of 2 and 6 tokens: one deviation below and above the mean; the wrong one is not penalised.
    short, long = (1 - 0.5 / (1 + np.exp(-z)) for z in (-1, 1))
    mean = (short + long) / 3
    found = credit.length_penalty([1, 1, 0], [0, 0, 0], [2, 6, 9], alpha=0.5)
    assert np.allclose(found.answer, [short - mean, long - mean, -mean])
    assert np.allclose(found.thought[1], long - mean) and len(found.thought[1]) == 6


@given(batches())
def test_a_length_penalty_of_nothing_is_grpo(batch):
    traces = {name: batch[name] for name in TRACES}
    assert np.array_equal(credit.length_penalty(**traces, alpha=0.0).answer, credit.grpo(**traces).answer)


def test_mrt_online_by_hand():
    # Episodes of 2 and 1 tokens with progress .5 and -.25, one of 1 token with progress 0; a group of one has A = 0.
    plain = credit.mrt_online(**CURVES, normalize_progress=False, expected_outcome=False)
    assert [thought.tolist() for thought in plain.thought] == [[1.0, 1.0, 0.25], [-0.5], []]
    assert plain.stop.tolist() == plain.answer.tolist() == [0.5, -0.5, 0]
    # J at the ends is .25 and .5, their mean .375.
    expected = credit.mrt_online(**CURVES, normalize_progress=False)
    assert [thought.tolist() for thought in expected.thought] == [[0.375, 0.375, -0.375], [0.125], []]
    assert expected.stop.tolist() == [-0.125, 0.125, 0]
    assert expected.answer.tolist() == [0.75, -0.5, 0.25]
    # The second one did not answer, and keeps its reward of 0: the mean of .25 and 0.
    some = credit.mrt_online(**CURVES, alpha=0.0, answered=[True, False, True])
    assert some.stop.tolist() == [0.125, -0.125, 0] and some.answer.tolist() == [0.75, -0.125, 0.25]


@given(batches(), st.floats(0, 2), st.floats(0, 1), st.booleans())
def test_mrt_online_is_the_double_sum(batch, alpha, gamma, normalize):
    curves = {name: batch[name] for name in CURVES}
    found = credit.mrt_online(**curves, alpha=alpha, gamma=gamma, normalize_progress=normalize, expected_outcome=False)
    sums = [
        [sum(gamma ** (i - j) * (s[i + 1] - s[i]) for i in range(j, len(s) - 1)) for j in range(len(s) - 1)]
        for s in batch["success"]
    ]
    flat = [value for values in sums for value in values]
    scale = max(np.sqrt(np.mean(np.square(flat))) if flat else 0, 1e-6) if normalize else 1.0
    outcome = credit.grpo(batch["rewards"], batch["groups"], batch["lengths"])
    for thought, a, values, b in zip(found.thought, outcome.answer, sums, batch["boundaries"], strict=True):
        for token, value in enumerate(thought):
            episode = int(np.searchsorted(b, token, side="right")) - 1
            assert value == pytest.approx(a + alpha / scale * values[episode], abs=1e-7)
    assert np.array_equal(found.stop, outcome.stop) and np.array_equal(found.answer, outcome.answer)


def test_regret_to_go_by_hand():
    # C = 4: progress 1 after one token is held for 3/4, or 1/4 after three; the others' G is the baseline.
    curves = [[0, 1], [0, 3]], [[0.0, 1.0], [0.0, 1.0]]
    found = centred_area_to_go([0, 0], *curves, budget=4)
    assert np.allclose(found[0], [0.5, -0.25]) and np.allclose(found[1], [-0.5, 0.25, 0.25, 0])
    scale = np.sqrt((0.25 * 2 + 0.0625 * 3 + 0) / 6)
    scaled = credit.regret_to_go([1, 0], [0, 0], *curves, budget=4, alpha=2.0)
    assert np.allclose(scaled.thought[0], [0.5 + 2 * 0.5 / scale])
    assert np.allclose(scaled.stop, [0.5 - 2 * 0.25 / scale, -0.5])
    assert scaled.answer.tolist() == [0.5, -0.5]


def test_several_tokens_may_end_a_stream_or_none():
    several = credit.regret_to_go([1, 0], [0, 0], [[0, 1], [0, 3]], [[0, 1], [0, 1]], budget=4, n_stop=[2, 0])
    assert [stop.shape for stop in several.stop] == [(2,), (0,)]
    assert [len(thought) for thought in several.thought] == [1, 3]
    curves = {name: CURVES[name] for name in ("groups", "boundaries", "success")}
    one = credit.regret_to_go(**CURVES, budget=4, n_stop=[1, 1, 1])
    assert np.concatenate(one.stop).tolist() == credit.regret_to_go(**CURVES, budget=4).stop.tolist()
    assert [len(bonus) for bonus in centred_area_to_go(**curves, budget=4, n_stop=[0, 3, 2])] == [3, 4, 2]


@given(batches(), st.integers(1, 12))
def test_the_area_to_go_of_the_first_token_is_the_area_above_j_of_the_start(batch, budget):
    for group in set(batch["groups"]):
        chosen = [i for i, g in enumerate(batch["groups"]) if g == group and batch["lengths"][i]]
        areas = [
            step_area(batch["boundaries"][i], batch["success"][i], budget) - batch["success"][i][0] for i in chosen
        ]
        found = centred_area_to_go(
            [0] * len(chosen), [batch["boundaries"][i] for i in chosen], [batch["success"][i] for i in chosen], budget
        )
        for k, area in enumerate(areas):
            others = [other for i, other in enumerate(areas) if i != k]
            assert found[k][0] == pytest.approx(area - (np.mean(others) if others else 0), abs=1e-9)


def test_brpo_by_hand():
    # Two budgets, 2 and 4. R is .5, .5 and .5, .25; the group's means .5 and .375; J so far is 0 and .5.
    found = credit.brpo([1, 0], [0, 0], [3, 1], [[0.0, 1.0], [0.5, 0.5]], [2, 4], answer_weight=0.5)
    first, second = [0.0, 0.5 - 0.5 * 0.375], [0.0, 0.25 - (0.5 * 0.25 + 0.5 * 0.375)]
    assert np.allclose(found.thought[0], [first[0], first[0], first[1]]) and np.allclose(found.thought[1], [0])
    assert np.allclose(found.stop, [first[1], second[0]])
    assert found.answer.tolist() == [0.0, -0.25]


@given(batches())
def test_constant_success_gives_brpo_nothing_for_a_thought(batch):
    level = np.full((len(batch["rewards"]), 3), 0.4)
    found = credit.brpo(*(batch[name] for name in TRACES), level, [1, 2, 3])
    assert np.allclose(np.concatenate([*found.thought, found.stop]), 0)
    assert np.allclose(found.answer, np.array(batch["rewards"]) - 0.4)


def test_mrt_by_hand():
    # Each half has A = .5, -.5. After a prefix of one token J rose by .5 and .25; the prefix itself is not trained.
    found = credit.mrt(**BRANCHES, alpha=2.0)
    assert found.thought[0].tolist() == [0.5, 1.5, 1.5, 1.5, 0.5]  # the token after the episode opens the next one
    assert found.thought[1].tolist() == [-0.5, 0.0, 0.0]
    assert found.stop.tolist() == [0.5, 0.0, 0.5, -0.5]  # the second one's episode is its last
    assert found.answer.tolist() == [0.5, -0.5, 0.5, -0.5]
    cut = credit.mrt(**BRANCHES, cut=[False, True, True, True], alpha=2.0)
    assert cut.stop.tolist() == [0.5, -0.5, 0.5, -0.5]
    # As a whole trace the second one is worth its reward of 0, .25 less than J.
    whole = credit.mrt(**BRANCHES, ends_trace=[False, True, False, False], alpha=2.0)
    assert whole.thought[1].tolist() == [-0.5, -1.0, -1.0]
    assert whole.stop.tolist() == [0.5, -1.0, 0.5, -0.5] and whole.answer.tolist() == [0.5, -1.0, 0.5, -0.5]


@pytest.mark.parametrize(
    ("bonus", "expected"),
    [
        ("continue", [1.5, -1.5, 0.5, -0.5]),
        ("all", [1.5, -1.5, 1.5, -1.5]),
        ("termination", [2.25, -0.75, 2.25, -0.75]),
    ],
)
def test_bonuses_on_the_whole_rollout_by_hand(bonus, expected):
    given_ = {name: values for name, values in BRANCHES.items() if not name.startswith("next")}
    found = credit.mrt(**given_, alpha=2.0, bonus=bonus)
    assert found.stop.tolist() == found.answer.tolist() == expected
    assert [thought.tolist() for thought in found.thought] == [[v] * n for v, n in zip(expected, given_["lengths"])]


@given(batches())
@pytest.mark.parametrize("bonus", ["next_episode", "continue", "all"])
def test_without_a_bonus_mrt_is_grpo_within_each_half(bonus, batch):
    branch = {name: batch[name] for name in BRANCHES if name != "next_success"}
    found = credit.mrt(**branch, next_success=batch["prefix_success"], alpha=0.0, bonus=bonus)
    halves = [f"{group} {direct}" for group, direct in zip(batch["groups"], batch["direct"], strict=True)]
    assert same(found, credit.grpo(batch["rewards"], halves, batch["lengths"]))


def test_star_by_hand():
    found = credit.star([1, 0], [2, 1])
    assert [thought.tolist() for thought in found.thought] == [[1, 1], [0]]
    assert found.stop.tolist() == found.answer.tolist() == [1, 0]


@pytest.mark.parametrize(("success", "cut"), [([0.1, 0.9, 0.9], 2), ([0.9, 0.1, 0.2], 0), ([0.1, 0.2, 0.3], 5)])
def test_a_trace_is_cut_where_it_was_best_first(success, cut):
    assert credit.best_cut([0, 2, 5], success) == cut


def test_mrt_star_by_hand():
    rewards, groups, lengths = [1, 1, 1, 0, 1], [0, 0, 0, 0, 1], [4, 3, 2, 1, 1]
    success, start = [0.75, 0.75, 0.5, 1.0, 0.5], [0.25, 0.25, 0.25, 0.0, 0.5]
    for keep, kept in ((1, [0, 1, 0, 0, 0]), (2, [1, 1, 0, 0, 0]), (9, [1, 1, 1, 0, 0])):  # the last makes no progress
        found = credit.mrt_star(rewards, groups, lengths, success, start, keep)
        assert found.stop.tolist() == found.answer.tolist() == kept
        assert [thought.tolist() for thought in found.thought] == [[k] * n for k, n in zip(kept, lengths, strict=True)]


@given(batches(), st.integers(1, 3))
def test_mrt_star_keeps_no_worse_cut_than_it_leaves(batch, keep):
    start, end = (np.array([j[i] for j in batch["success"]]) for i in (0, -1))
    kept = credit.mrt_star(*(batch[name] for name in TRACES), end, start, keep).answer.astype(bool)
    groups, rewards = np.array(batch["groups"]), np.array(batch["rewards"])
    eligible = (rewards > 0) & (end > start)
    assert not np.any(kept & ~eligible)
    for group in set(batch["groups"]):
        members = groups == group
        assert np.sum(kept & members) == min(keep, np.sum(eligible & members))
        left = (end - start)[members & eligible & ~kept]
        assert not len(left) or min((end - start)[members & kept]) >= max(left)


def test_forced_answers_by_hand():
    assert credit.forced_answers([1, 0], [0.25, 0.25], 0.5).tolist() == [0.375, -0.125]


# What does not fit together is refused.


@pytest.mark.parametrize(
    ("function", "given_", "changed", "message"),
    [
        (credit.grpo, TRACES, {"groups": [0, 0]}, r"groups has shape \(2,\); expected \(3,\)"),
        (credit.grpo, TRACES, {"lengths": [3, 1]}, "lengths has shape"),
        (credit.grpo, TRACES, {"lengths": [3, 1, -1]}, "lengths must be numbers of tokens"),
        (credit.grpo, TRACES, {"lengths": [3, 1, 0.5]}, "lengths must be numbers of tokens"),
        (credit.grpo, TRACES, {"rewards": [[1.0, 0.0, 1.0]]}, r"rewards has shape \(1, 3\)"),
        (credit.length_penalty, TRACES, {"rewards": [1.0]}, "groups has shape"),
        (credit.mrt_online, CURVES, {"success": CURVES["success"][:2]}, "success is of 2; expected 3 of both"),
        (credit.mrt_online, CURVES, {"success": [[0.0, 0.5], [0.5, 0.5], [0.75]]}, "rollout 0 .* J at each boundary"),
        (
            credit.mrt_online,
            CURVES,
            {"boundaries": [[0, 3, 2], [0, 1], [0]]},
            "rollout 0 must begin with 0 and increase",
        ),
        (
            credit.mrt_online,
            CURVES,
            {"boundaries": [[0, 2, 3], [1, 2], [0]]},
            "rollout 1 must begin with 0 and increase",
        ),
        (
            credit.mrt_online,
            CURVES,
            {"boundaries": [[0, 2, 3], [0, 1], []], "success": [[0] * 3, [0] * 2, []]},
            "rollout 2",
        ),
        (credit.mrt_online, CURVES, {"gamma": 1.5}, "gamma must be in"),
        (credit.mrt_online, CURVES, {"answered": [True]}, "answered has shape"),
        (credit.regret_to_go, CURVES, {"budget": 0}, "budget must be positive"),
        (credit.regret_to_go, CURVES, {"budget": 4, "n_stop": [1]}, "n_stop has shape"),
        (credit.brpo, SLOTS, {"budgets": [4, 2]}, "budgets must be increasing"),
        (credit.brpo, SLOTS, {"budgets": []}, "budgets must be increasing"),
        (credit.brpo, SLOTS, {"budgets": [1, 2, 4]}, r"success has shape \(3, 2\); expected \(3, 3\)"),
        (credit.mrt, BRANCHES, {"direct": [True]}, "direct has shape"),
        (credit.mrt, BRANCHES, {"prefix_lengths": [6, 1, 1, 1]}, "prefix_lengths exceeds lengths"),
        (credit.mrt, BRANCHES, {"next_ends": [6, 3, 0, 0]}, "next_ends must be between"),
        (credit.mrt, BRANCHES, {"next_ends": [0, 3, 0, 0]}, "next_ends must be between"),
        (credit.mrt, BRANCHES, {"next_success": None}, "needs next_ends and next_success"),
        (credit.mrt, BRANCHES, {"next_success": [0.75, np.nan, 0.5, 0.5]}, "next_success is missing"),
        (credit.mrt, BRANCHES, {"ends_trace": [True, False, False, False]}, "ends_trace is true of an episode"),
        (credit.mrt, BRANCHES, {"ends_trace": [False, True] * 2, "cut": [False, True] * 2}, "ends_trace is true of"),
        (credit.mrt, BRANCHES, {"bonus": "some"}, "unknown bonus 'some'; expected one of next_episode"),
        (credit.mrt_star, CUTS, {"start_success": [0.0]}, "start_success has shape"),
        (credit.mrt_star, CUTS, {"keep": 0}, "keep must be at least 1"),
        (credit.star, {"rewards": [1], "lengths": [1]}, {"lengths": [1, 2]}, "lengths has shape"),
        (credit.best_cut, {"boundaries": [0, 2], "success": [0.5, 1.0]}, {"success": [0.5]}, "J at each boundary"),
        (credit.forced_answers, {"rewards": [1], "success": [0.5]}, {"success": [0.5, 0.5]}, "success has shape"),
    ],
)
def test_what_does_not_fit_together_is_refused(function, given_, changed, message):
    with pytest.raises(ValueError, match=message):
        function(**(given_ | changed))
