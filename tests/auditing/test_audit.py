import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.auditing.audit import audit, needed, settled
from mrt_pipeline.auditing.trace import Trace
from mrt_pipeline.mrt.regret import regret
from mrt_pipeline.schemas import AUDIT_CURVE, AUDIT_PROBLEMS
from mrt_pipeline.tasks.base import Grade

STEP = 10  # words of a paragraph


def equal(problems, answers):
    return [Grade.CORRECT if a in p.answers else Grade.WRONG for p, a in zip(problems, answers, strict=True)]


def thought(answers):
    """A paragraph of ten words for each: it states this answer, or nothing."""
    said = [f"well well well well well well the answer is {a}." if a else "well " * 9 + "well." for a in answers]
    return "\n\n".join(said)


def trace(question, answers, gold="5", final=None, finished=True):
    last = final if final is not None else (answers[-1] or "0")
    return Trace(
        question, (gold,) if gold else (), thought(answers), f"\\boxed{{{last}}}" if finished else "", finished
    )


@pytest.fixture
def random_traces():
    rng = np.random.default_rng(0)
    return [
        trace(
            f"q{i % 12}",
            [str(rng.choice(["", "5", "7"])) for _ in range(rng.integers(1, 8))],
            final=rng.choice(["5", "7"]),
        )
        for i in range(36)
    ]


def test_numbers_are_those_of_a_calculation_by_hand():
    traces = [trace("a", ["", "5", "5", "5"]), trace("a", ["7", "7"]), trace("b", ["5", "7", "5"], finished=False)]
    found = audit(traces, equal, n_resamples=50)
    numbers = {name: value[0] for name, value in found.numbers.items()}
    assert (found.budget, found.graded, found.unit) == (40, 3, "words")
    assert numbers["length"] == np.mean([30, 30]) and numbers["cut_share"] == 0.5
    assert numbers["accuracy"] == np.mean([0.5, 1])
    curves = [([0, 10, 20, 30, 40], [0, 0, 1, 1, 1]), ([0, 10, 20], [0, 0, 0]), ([0, 10, 20, 30], [0, 1, 0, 1])]
    first, second, third = (regret(np.array(x), np.array(y), 40) for x, y in curves)
    assert numbers["regret"] == pytest.approx(np.mean([(first + second) / 2, third]))
    assert numbers["after_share"] == pytest.approx((20 + 20) / 90)
    # After the final answer was first stated: 20 of 40, 10 of 20, 20 of 30.
    assert numbers["settled_share"] == pytest.approx(np.mean([(0.5 + 0.5) / 2, 2 / 3]))
    at = found.curve.set_index("budget")
    assert at.loc[10, "accuracy"] == pytest.approx(np.mean([0, 1])) and at.loc[40, "accuracy"] == pytest.approx(0.75)
    assert at.loc[20, "accuracy"] == pytest.approx(np.mean([0.5, 0])) and at.loc[20, "spent"] == 20


def test_sources_sum_to_regret_and_stopping_keeps_what_it_says(random_traces):
    found = audit(random_traces, equal, n_resamples=50)
    parts = [found.numbers[name][0] for name in ("never_found", "found_late", "lost", "unsure")]
    assert sum(parts) == pytest.approx(found.numbers["regret"][0])
    whole = found.curve["accuracy"].iloc[-1]
    assert whole == pytest.approx(found.numbers["accuracy"][0])
    for row in found.stopping.itertuples():
        assert row.accuracy >= row.kept * whole - 1e-9
        assert (found.curve[found.curve["budget"] < row.budget]["accuracy"] < row.kept * whole).all()
        assert 0 <= row.saved < 1
    for value in found.numbers.values():
        assert np.isnan(value[0]) or value[1] - 1e-9 <= value[0] <= value[2] + 1e-9
    AUDIT_PROBLEMS.validate(found.problems)
    AUDIT_CURVE.validate(found.curve)


def test_votes_are_of_as_many_traces_as_every_problem_has(random_traces):
    voting = audit(random_traces, equal, n_resamples=50).voting
    assert voting["k"].tolist() == [1, 2, 3] and voting["accuracy"].iloc[0] == pytest.approx(voting["accuracy"].iloc[1])
    assert audit(random_traces[:13], equal, n_resamples=50).voting.empty
    right = [trace("a", ["5"]), trace("a", ["5"]), trace("a", ["7"])]
    assert audit(right, equal, n_resamples=50).voting["accuracy"].tolist() == pytest.approx([2 / 3, 2 / 3, 1])


def test_without_gold_answers_it_says_what_it_can():
    found = audit([trace("a", ["", "5", "5"], gold=""), trace("b", ["3"], gold="", finished=False)], n_resamples=50)
    assert found.graded == 0 and found.curve.empty and found.voting.empty
    assert not {"accuracy", "regret", "after_share"} & found.numbers.keys()
    assert "whether that is right is not known" in found.verdict and "50% of the thoughts were cut off" in found.verdict
    AUDIT_PROBLEMS.validate(found.problems)
    AUDIT_CURVE.validate(found.curve)


def test_the_verdict_says_what_stopping_earlier_would_save():
    traces = [trace(f"q{i}", ["5"] * 10) for i in range(20)] + [trace("x", ["", "7"])]
    found = audit(traces, equal, n_resamples=50)
    assert found.verdict.startswith(
        "89% of the thinking words come after the right answer was found; accuracy is 0.952"
    )
    assert "Stopping at 10 words would keep 100% of the accuracy and save 90% of the words." in found.verdict
    late = audit([trace("a", ["", "", "5"])], equal, n_resamples=50)
    assert late.verdict.endswith("Stopping earlier would cost accuracy at once.")


def test_where_no_answer_is_right_it_says_so():
    found = audit([trace("a", ["7", "7"]), trace("b", ["8"])], equal, n_resamples=50)
    assert found.verdict.startswith("No thought ends with a right answer") and found.numbers["after_share"][0] == 0


def test_some_traces_with_gold_answers_and_some_without():
    found = audit([trace("a", ["5"]), trace("b", ["5"], gold="")], equal, n_resamples=50)
    assert found.graded == 1 and len(found.problems) == 2 and found.numbers["accuracy"][0] == 1
    assert found.problems["accuracy"].isna().tolist() == [False, True]


def test_narrower_intervals_need_more_problems():
    assert needed((0.5, 0.46, 0.54), 100) == 400 and needed((0.5, 0.49, 0.51), 100) == 100


def test_share_after_the_final_answer():
    found = audit([trace("a", ["5", "7", "5", "5"]), trace("b", ["", ""], final="5")], equal, n_resamples=50)
    assert settled(found.thoughts[0]) == pytest.approx(0.75) and settled(found.thoughts[1]) == 0


def test_a_file_is_audited_as_its_traces_are(tmp_path, random_traces):
    rows = [
        {"question": t.question, "gold": t.golds[0], "thought": t.thought, "answer": t.answer} for t in random_traces
    ]
    pd.DataFrame(rows).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    found = audit(str(tmp_path / "t.jsonl"), n_resamples=50)
    assert found.numbers == audit(random_traces, equal, n_resamples=50).numbers
