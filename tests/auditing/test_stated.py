import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.auditing.stated import answers_so_far, statements


@pytest.mark.parametrize(
    ("thought", "answers"),
    [
        ("So the answer is 12.", ["12"]),
        ("The final answer would be $x^2$, but let me check.", ["$x^2$"]),
        ("Maybe the answer is 3? Wait, the answer must be 4, since 2 + 2 = 4.", ["3", "4"]),
        ("Hence \\boxed{\\frac{1}{2}} and that is it", ["\\frac{1}{2}"]),
        ("#### 7\nrest", ["7"]),
        ("Thus 729 is the answer.", ["729"]),
        ("The answer: 5", []),  # it is not said to be it
        ("the answer isn't 5", []),
        ("the answer is not clear", []),
        ("the answer is right", []),
        ("I need the answer to this", []),
        ("the answer is \\boxed{8}.", ["8"]),
        ("the answer is probably 9.", ["9"]),
        ('the answer is "yes".', ["yes"]),
        ("\\boxed{unclosed", []),
        ("the answer is 12 so we are done", ["12"]),
        ("\\boxed{\\boxed{1}}", ["1", "\\boxed{1}"]),
        ("", []),
    ],
)
def test_what_counts_as_a_statement(thought, answers):
    assert [statement.answer for statement in statements(thought)] == answers


def test_the_answer_so_far_is_the_last_one_before_a_place():
    thought = "Hm. So the answer is 3. No, the answer is 4. Done"
    first, second = thought.index("3") + 1, thought.index("4") + 1
    places = [0, first - 1, first, second - 1, second, len(thought)]
    assert answers_so_far(thought, places) == ["", "", "3", "3", "4", "4"]


@given(st.text(max_size=200) | st.text(alphabet="\\boxed{}answer is 12#. \n", max_size=200))
def test_any_text_is_read_and_answers_stand_in_it(thought):
    found = statements(thought)
    assert [s.end for s in found] == sorted(s.end for s in found)
    assert all(s.answer in thought and 0 < s.end <= len(thought) for s in found)


@pytest.mark.parametrize("text", ["\\boxed{" * 100_000, "the answer is " * 50_000, "{" * 500_000, "answer " * 100_000])
def test_hostile_text_takes_no_longer_than_it_is_long(text):
    started = time.process_time()
    statements(text)
    assert time.process_time() - started < 10
