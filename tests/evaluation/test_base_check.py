import pandas as pd
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.base_check import check_base, look_at_base, natural_rollouts

GOOD = {"natural_answers": 640, "cut_at_budget": 0.2, "groups_without_signal": 0.5, "unreadable": 0.05}
GOOD |= {"reward_natural": 0.4, "success_stopped": 0.3}


def table(rows):
    """rows: (problem, stop_reason, grade) of each trace."""
    traces = pd.DataFrame(rows, columns=["problem_id", "stop_reason", "grade"])
    stopped_at = traces["stop_reason"].map({"eos": 3.0})
    group = traces.groupby("problem_id").ngroup()
    return traces.assign(reward=(traces["grade"] == "correct").astype(float), stopped_at=stopped_at, group=group)


def test_what_is_looked_at():
    found = look_at_base(
        table(
            [
                ("a", "stop", "correct"),
                ("a", "stop", "unparsed"),
                ("b", "eos", "unparsed"),
                ("b", "length", "wrong"),
                ("c", "stop", "wrong"),
                ("c", "length", "correct"),
                ("d", "stop", "wrong"),
                ("d", "stop", "failed"),
            ]
        )
    )
    assert found == {
        "train_reward": 2 / 8,
        "cut_at_budget": 2 / 8,
        "groups_without_signal": 2 / 4,  # b and d
        "natural_answers": 6,
        "unreadable": 2 / 6,
        "ended_in_thought": 1 / 6,
    }


def test_stopping_is_compared_with_being_stopped_at_the_same_place():
    traces = table([*[("a", "stop", "correct"), ("a", "stop", "wrong")] * 10, ("a", "length", "correct")])
    found = look_at_base(traces, [0.9, 0.8] * 10)
    assert (found["reward_natural"], found["success_stopped"]) == (0.5, pytest.approx(0.85))
    assert "reward_natural" not in look_at_base(traces)  # the same text in both cases
    assert "reward_natural" not in look_at_base(traces[:10], [0.9] * 10)  # too few to be compared


def test_what_no_trace_shows_is_left_out():
    alone = look_at_base(table([("a", "length", "wrong")]))
    assert "unreadable" not in alone and "groups_without_signal" not in alone  # one trace of a problem has no group
    assert look_at_base(table([])) == {} and check_base({}) == []  # all were forced on
    assert check_base(look_at_base(table([("a", "stop", "correct"), ("a", "stop", "wrong")]))) == []


def test_a_good_base_is_not_warned_of():
    assert check_base(GOOD) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"unreadable": 0.11}, ["11%", "cannot be read", "policy.template.natural_answer", "rollout.answer_tokens"]),
        ({"cut_at_budget": 0.26}, ["26%", "cut at the budget", "rollout.thinking_budget"]),
        ({"groups_without_signal": 0.76}, ["76%", "training.group_size"]),
        ({"reward_natural": 0.1, "success_stopped": 0.31}, ["0.10", "0.31", "never to stop", "policy.template"]),
        ({"reward_natural": 0.6, "success_stopped": 0.3}, ["0.60", "0.30", "to stop early", "policy.template"]),
    ],
)
def test_each_warning_names_its_figure_and_the_parameter_to_change(change, named):
    (warning,) = check_base(GOOD | change)
    assert all(part in warning for part in named), warning


@pytest.mark.parametrize(
    "change",
    [
        {"unreadable": 0.1},
        {"cut_at_budget": 0.25},
        {"groups_without_signal": 0.75},
        {"reward_natural": 0.5, "success_stopped": 0.3},
    ],
)
def test_nothing_is_said_at_the_limits(change):
    assert check_base(GOOD | change) == []


def test_a_base_that_cannot_be_read_is_refused():
    with pytest.raises(InputError, match=r"99% .* never to stop.*natural_answer=opened"):
        check_base(GOOD | {"unreadable": 0.99})
    check_base(GOOD | {"unreadable": 0.98})
    check_base(GOOD | {"unreadable": 1.0, "natural_answers": 19})  # too few to tell


def test_traces_that_were_forced_on_are_left_out():
    traces = table([("a", "stop", "correct"), ("a", "length", "wrong")]).assign(min_thinking=[0, 96])
    assert natural_rollouts(traces)["stop_reason"].tolist() == ["stop"]
