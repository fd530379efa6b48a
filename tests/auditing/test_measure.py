import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.auditing.measure import as_mathematics, measure, tokens_of, words
from mrt_pipeline.auditing.trace import Trace
from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.base import Grade

THOUGHT = "Let me add.\n\nSo the answer is 4.\n\nWait, I forgot one.\n\nThe answer is 5.\n\nLet me check it once more."
PARTS = THOUGHT.split("\n\n")


def trace(thought=THOUGHT, golds=("5",), answer="\\boxed{5}", finished=True, question="What is 2 + 3?"):
    return Trace(question, golds, thought, answer, finished)


def equal(problems, answers):
    return [Grade.CORRECT if a in p.answers else Grade.WRONG for p, a in zip(problems, answers, strict=True)]


@given(st.text(max_size=200))
def test_words_make_up_the_text(text):
    assert "".join(words(text)) == text
    assert all(words(text))


def test_j_after_each_paragraph_is_that_of_the_answer_so_far():
    (found,) = measure([trace()], equal)
    n = np.cumsum([0, *(len(part.split()) for part in PARTS)])
    assert found.steps.tolist() == n.tolist() and found.n_pieces == n[-1]
    assert found.answers == ["", "", "4", "4", "5", "5"]
    assert found.success.tolist() == [0, 0, 0, 0, 1, 1]
    assert [THOUGHT[:end] for end in found.ends][2].rstrip() == "\n\n".join(PARTS[:2])


@pytest.mark.parametrize(
    ("answer", "finished", "last", "success"),
    [
        ("The answer is \\boxed{7}.", True, "7", 0),
        ("The answer is \\boxed{7}.", False, "5", 1),  # a thought that was cut has what it states
        ("", True, "5", 1),
        ("It is done.\nGood bye", True, "5", 1),  # an answer in which none is found
    ],
)
def test_the_end_counts_by_the_final_answer(answer, finished, last, success):
    (found,) = measure([trace(answer=answer, finished=finished)], equal)
    assert (found.answers[-1], found.success[-1]) == (last, success)


def test_a_text_without_a_separate_answer_ends_in_it():
    (found,) = measure([trace(thought="2 + 3\n\nis, I think, 5", answer="")], equal)
    assert found.answers == ["", "", "5"]


def test_without_gold_answers_nothing_is_graded_and_the_rest_is_there():
    def never(problems, answers):
        raise AssertionError

    (found,) = measure([trace(golds=())], never)
    assert np.isnan(found.success).all() and found.answers[-1] == "5" and found.n_pieces


def test_each_different_answer_of_a_problem_is_graded_once():
    asked = []

    def counted(problems, answers):
        asked.extend(zip((p.question for p in problems), answers, strict=True))
        return equal(problems, answers)

    measure([trace(), trace(), trace(question="What is 2 +  3?"), trace(question="And 4 + 1?")], counted)
    assert sorted(asked) == sorted([(q, a) for q in ("What is 2 + 3?", "And 4 + 1?") for a in ("4", "5")])


def test_questions_that_differ_in_spelling_only_are_one_problem():
    found = measure([trace(), trace(question="what is $2 + 3$"), trace(question="What is 2 + 4?")], equal)
    assert [item.problem for item in found] == [0, 0, 1]


def test_answers_are_compared_as_mathematics():
    found = measure([trace(golds=("\\frac{10}{2}",)), trace(golds=("1/2",), answer="\\boxed{0.5}")], as_mathematics())
    assert [item.success[-1] for item in found] == [1, 1]


def test_repeated_paragraphs_and_episodes_are_counted():
    thought = "\n\n".join(["a", "b", "c", "Wait, d", "b", "a"])
    (found,) = measure([trace(thought=thought)], equal)
    assert found.repeated == pytest.approx(2 / 6)
    assert found.episodes.tolist() == [0, 3, 7]  # words; "Wait, d" opens the second


def test_thousands_of_paragraphs_are_merged_evenly():
    (found,) = measure([trace(thought="a b\n\n" * 5_000)], equal)
    assert len(found.steps) == 401 and found.steps[-1] == 10_000
    assert np.ptp(np.diff(found.steps)) <= 4


def test_an_empty_thought_has_its_answer():
    (found,) = measure([trace(thought="")], equal)
    assert found.steps.tolist() == [0] and found.success.tolist() == [1] and found.n_pieces == 0


def test_a_tokenizer_counts_tokens(language_model):
    cut = tokens_of(language_model)
    for text in (THOUGHT, "", " a  b\n", "äöü ∑ 漢字"):
        assert "".join(cut(text)) == text
    (found,) = measure([trace()], equal, cut)
    assert found.n_pieces == len(cut(THOUGHT)) > len(words(THOUGHT))
    with pytest.raises(InputError, match=r"audit\.tokenizer=/nowhere cannot be loaded"):
        tokens_of("/nowhere")
