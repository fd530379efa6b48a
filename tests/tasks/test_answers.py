import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.tasks.answers import as_number, find_answer, last_boxed, normalize_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("first \\boxed{1}, so \\boxed{\\frac{1}{2}}. Done", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\fbox{7}", "7"),
        ("thus \\boxed 7 holds", "7"),
        ("a broken one \\boxed{3, after \\boxed{4}", "4"),
        ("the last is broken: \\boxed{5} \\boxed{6", "5"),
        ("48 + 24 = 72\n#### 72\n", "72"),
        ("The answer is 12. I am sure.", "12"),
        ("the answer is 1.5.", "1.5"),
        ("**Answer:** $x+1$\nQuestion: next", "$x+1$"),
        (" 42 ", "42"),
        ("First there are 3 apples, then 5 more come, and in the end one counts all of 8 of them here", "8"),
        ("", None),
        ("\\boxed{}", None),
        ("no number here, just a sentence that goes on for longer than any short answer ever would", None),
        ("\\boxed{" + "1" * 600 + "}", None),
    ],
)
def test_the_answer_that_a_text_ends_with(text, answer):
    assert find_answer(text) == answer


@given(st.text(alphabet="ab{} \\1", max_size=30).filter(lambda s: "\\" not in s and s.count("{") == s.count("}")))
def test_a_box_gives_back_what_was_put_in_if_its_braces_are_balanced(content):
    depth = [content[:i].count("{") - content[:i].count("}") for i in range(len(content))]
    if all(d >= 0 for d in depth):
        assert last_boxed(f"so \\boxed{{{content}}} then") == content


@pytest.mark.parametrize("text", ["\\boxed{" * 150_000, "1," * 500_000, "answer is " * 100_000, "{" * 1_000_000])
def test_a_megabyte_is_looked_at_from_its_end_only(text):
    assert find_answer("\\boxed{1}" + text) == find_answer(text)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("27.0", "27"),
        ("1,234", "1234"),
        ("\\$5", "5"),
        ("$.5$", ".5"),
        ("-3", "-3"),
        ("1/2", None),
        ("x", None),
        ("", None),
    ],
)
def test_plain_numbers_are_read(answer, number):
    assert (None if as_number(answer) is None else str(as_number(answer).normalize())) == (
        None if number is None else str(as_number(number).normalize())
    )


def test_spellings_that_mean_the_same_are_normalised():
    assert normalize_answer("$\\left( 3, \\dfrac{\\pi}{2} \\right)$.") == normalize_answer("(3,\\frac{\\pi}{2})")
