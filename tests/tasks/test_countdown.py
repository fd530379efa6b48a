import time
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.countdown import Chain, Countdown

OPERATIONS = {"+": lambda a, b: a + b, "*": lambda a, b: a * b, "-": lambda a, b: max(a, b) - min(a, b)}


def surfaces(problem):
    """Every answer string over the problem's numbers, with the results of its two steps."""
    for a, b, c in permutations(problem.metadata["numbers"]):
        for first, second in product("+-*", repeat=2):
            inner = OPERATIONS[first](a, b)
            yield f"({a} {first} {b}) {second} {c}", inner, OPERATIONS[second](inner, c)


def test_listed_answers_are_exactly_the_surfaces_that_grade_correct(task, problems):
    for problem in problems:
        correct = {text for text, _, _ in surfaces(problem) if task.grade(problem, text) is Grade.CORRECT}
        assert correct == set(problem.answers)
        by_arithmetic = {
            text
            for text, inner, value in surfaces(problem)
            if value == problem.metadata["target"] and max(inner, value) <= 99
        }
        assert correct == by_arithmetic
        assert len(problem.answers) == len(set(problem.answers)) > 0


def test_four_numbers_are_listed_completely_too():
    task = Countdown(n_numbers=4, max_number=5, n_train=4, n_validation=2, n_test=2)
    for problem in task.problems():
        correct = set()
        for numbers in permutations(problem.metadata["numbers"]):
            for operators in product("+-*", repeat=3):
                text = Chain(numbers, operators).answer()
                if task.grade(problem, text) is Grade.CORRECT:
                    correct.add(text)
        assert correct == set(problem.answers)


@pytest.mark.parametrize(
    "form",
    [
        "{} {} {} {} {}",
        "({} {} {} {} {})",
        "{} {} ({} {} {})",
        "({} {} {}) {} {})",
        "wait ({} {} {}) {} {}",
        "({} {} {}) {} {} yes",
    ],
)
def test_no_other_spelling_in_the_symbols_grades_correct(task, problems, form):
    for problem in problems:
        for a, b, c in permutations(problem.metadata["numbers"]):
            for first, second in product("+-*", repeat=2):
                text = form.format(a, first, b, second, c)
                assert task.grade(problem, text) is not Grade.CORRECT or text in problem.answers


@pytest.mark.parametrize(
    "text",
    [
        "(0x7 - 3) * 12",
        "(7 - 3) * 1_2",
        "(7 - 3) * 12 # so there",
        "((7 - 3)) * (12)",
        "(7 -\n 3) * 12",
    ],
)
def test_only_the_listed_spelling_of_an_answer_is_correct(text):
    task, problem = one_problem()
    assert task.grade(problem, text) is not Grade.CORRECT


def one_problem():
    task = Countdown()
    return task, task._problem((3, 7, 12), 48, [Chain((7, 3, 12), ("-", "*"))], "test")


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("(7 - 3) * 12", Grade.CORRECT),
        ("(3 - 7) * 12", Grade.CORRECT),
        ("  (7 - 3) * 12 \n", Grade.CORRECT),
        ("(7 + 3) * 12", Grade.WRONG),  # 120: not the target, and above the largest result
        ("(12 - 7) * 3", Grade.WRONG),
        ("(7 - 3) * 7", Grade.WRONG),
        ("(8 - 4) * 12", Grade.WRONG),
        ("7 - 3", Grade.UNPARSED),
        ("((7 - 3) * 12) + 0", Grade.UNPARSED),
        ("48", Grade.UNPARSED),
        ("12 * (7 - 3)", Grade.UNPARSED),
        ("(7 - 3) / 12", Grade.UNPARSED),
        ("", Grade.UNPARSED),
        ("(7 - 3) * 12 = 48", Grade.UNPARSED),
        ("(7 - 3) * 12 wait", Grade.UNPARSED),
    ],
)
def test_grades(text, grade):
    task, problem = one_problem()
    assert task.grade(problem, text) is grade
    assert grade.reward == (grade is Grade.CORRECT)


def test_a_step_above_the_largest_result_is_wrong_even_if_the_value_is_right():
    task = Countdown(n_numbers=3)
    problem = task._problem((10, 11, 12), 98, [Chain((12, 11, 10), ("+", "+"))], "test")  # (10 * 11) - 12 = 98
    assert task.grade(problem, "(10 * 11) - 12") is Grade.WRONG


# fmt: off
HOSTILE = [
    "__import__('os').system('x')", "(lambda: 48)()", "exit()", "(7 - 3) * 12; import os", "x := 48",
    "(" * 150, "(" * 100 + "7" + ")" * 100, "-" * 199 + "7", "+".join("7" * 100), "[" * 150, "7" * 199, "~" * 199 + "1",
    "9**9**9", "(9**9)**9", "9 * 9 ** 9", "7 << 99999999", "'a' * 999999999", "(" + "9" * 190 + " - 3) * 12",
    "(7 - 3) * 12" + " " * 1_000_000, "(7 - 3) * 12" + "1" * 1_000_000, "(" * 1_000_000,
    "(７ - ３) * １２", "(٧ - ٣) * ١٢", "(7 − 3) × 12", "(7 - 3) * 12\0", "\ud800", "\x0c" * 10, "\\", "'''",
    "True - 1", "(True + 6 - 3) * 12", "(True - 3) * 12", "(7.0 - 3) * 12", "(7. - 3.) * 12.", "7e0 - 3",
    "(7j - 3) * 12", "(7 - 3) * 12.0", "nan", "inf - inf", "None", "...", "f'{48}'", "(7 - 3) * 12 if True else 0",
    "@", "7 @ 3 @ 12",
    "(7 - -3) * 12", "+7 - 3 * 12", "(-7 - 3) * 12", "(7 - 3, 12)", "[7, 3, 12]", "07 - 3 * 12", "0b111 - 3",
    "await 7", "yield 7", "print((7 - 3) * 12)", "(7 - 3) * 12 == 48", "\N{ROMAN NUMERAL TWELVE}", "²", "#", "\t",
    "\r\n",
]
# fmt: on


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_are_refused_quickly(text):
    task, problem = one_problem()
    started = time.process_time()
    assert task.grade(problem, text) in (Grade.UNPARSED, Grade.WRONG)
    assert time.process_time() - started < 0.5


@given(st.text(max_size=60) | st.text(alphabet="()+-*/0123456789 _x.jeE#\n", max_size=40))
def test_grading_any_text_never_fails(text):
    task, problem = one_problem()
    assert task.grade(problem, text) in (Grade.UNPARSED, Grade.WRONG)


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_share_no_number_multiset_and_have_their_sizes(seed):
    problems = Countdown(n_train=40, n_validation=15, n_test=25, seed=seed).problems()
    by_split = {split: [p for p in problems if p.split == split] for split in ("train", "validation", "test")}
    assert [len(found) for found in by_split.values()] == [40, 15, 25]
    assert [p.split for p in problems] == ["train"] * 40 + ["validation"] * 15 + ["test"] * 25
    multisets = [{tuple(sorted(p.metadata["numbers"])) for p in found} for found in by_split.values()]
    assert not (multisets[0] & multisets[1] or multisets[0] & multisets[2] or multisets[1] & multisets[2])
    assert len({p.problem_id for p in problems}) == len(problems)


def test_problems_keep_the_rules_of_the_game(task, problems):
    for problem in problems:
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        assert len(numbers) == 3 and all(1 <= number <= 12 for number in numbers)
        assert 10 <= target <= 99
        solving = [chain for chain in task.chains(tuple(numbers)) if chain.results()[-1] == target]
        assert 1 <= len(solving) == problem.metadata["n_solutions"] <= 4
        assert problem.question == f"{' '.join(map(str, numbers))} make {target}"


def test_problems_depend_on_the_seed_alone():
    first, again, other = (Countdown(n_train=20, n_validation=5, n_test=5, seed=seed).problems() for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_without_a_train_size_all_problems_are_used():
    few = Countdown(max_number=6, n_validation=2, n_test=2, n_train=5).problems()
    everything = Countdown(max_number=6, n_validation=2, n_test=2).problems()
    assert len(few) == 9 < len(everything)
    assert {p.problem_id for p in few} <= {p.problem_id for p in everything}


def test_too_few_problems_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"task\.max_number.*task\.n_test"):
        Countdown(max_number=4, n_test=10_000).problems()


def test_the_results_of_a_chain():
    assert [Chain((3, 7), (operator,)).results() for operator in "+*-"] == [[10], [21], [4]]
    assert Chain((7, 3, 12), ("-", "*")).results() == [4, 48] and Chain((7, 3, 12), ("-", "*")).value == 48


def test_chains_are_the_distinct_legal_calculations(task):
    chains = task.chains((3, 7, 12))
    assert len(chains) == len(set(chains))
    assert {(frozenset(c.numbers[:2]), c.numbers[2], c.operators) for c in chains} == {
        (frozenset((a, b)), c, (first, second))
        for a, b, c in permutations((3, 7, 12))
        for first, second in product("+-*", repeat=2)
        if OPERATIONS[first](a, b) <= 99 and OPERATIONS[second](OPERATIONS[first](a, b), c) <= 99
    }
    assert len(task.chains((5, 5, 5))) == 8  # of 9, (5 * 5) * 5 is too large


def traces(task, problems, n=15, seed=0):
    rng = np.random.default_rng(seed)
    return [(problem, task.search_trace(problem, rng)) for problem in problems for _ in range(n)]


def split_episodes(thought):
    """Symbols of each episode; an attempt that was right is followed by the answer it states."""
    episodes = []
    for symbol in thought.split():
        if symbol == "wait":
            episodes.append([])
        episodes[-1].append(symbol)
    return episodes


def is_whole(episode):
    return len(episode) == (14 if "yes" in episode else 9)


def test_complete_episodes_are_true_calculations(task, problems):
    n_checked = 0
    for problem, trace in traces(task, problems):
        target = problem.metadata["target"]
        for episode in split_episodes(trace.thought):
            if len(episode) < 9:
                continue
            marker, a, first, b, inner, second, c, value, verdict, *stated = episode
            assert marker == "wait"
            assert sorted(map(int, (a, b, c))) == sorted(problem.metadata["numbers"])
            assert inner == f"={OPERATIONS[first](int(a), int(b))}"
            assert value == f"={OPERATIONS[second](int(inner[1:]), int(c))}"
            assert verdict == ("yes" if int(value[1:]) == target else "low" if int(value[1:]) < target else "high")
            if is_whole(episode) and verdict == "yes":
                assert " ".join(stated) == f"({a} {first} {b}) {second} {c}" in problem.answers
            else:
                assert verdict == "yes" or not stated
            n_checked += 1
    assert n_checked > 1000


def test_cut_traces_are_flagged(task, problems):
    found = traces(task, problems)
    for _, trace in found:
        episodes = split_episodes(trace.thought)
        assert trace.cut or (episodes and all(map(is_whole, episodes)))
    assert any(trace.cut and trace.thought and not is_whole(split_episodes(trace.thought)[-1]) for _, trace in found)
    assert any(trace.cut and not trace.thought for _, trace in found)
    share = np.mean([trace.cut for _, trace in found])
    expected = 1 - (1 - task.cut_fraction) * (1 - task.long_fraction)
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / len(found))


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, {False}), (1.0, {True})])
def test_cut_fraction_at_its_ends(problems, fraction, expected):
    task = Countdown(cut_fraction=fraction, long_fraction=0.0)
    assert {trace.cut for _, trace in traces(task, problems[:10], n=5)} == expected


def test_warm_start_traces_reach_the_largest_budget_that_is_evaluated(problems):
    lengths = [len(trace.thought.split()) for _, trace in traces(Countdown(), problems, n=10)]
    assert np.mean([length >= 432 for length in lengths]) > 0.02


def test_long_traces_go_on_whatever_they_find_and_their_end_is_not_imitated(problems):
    task = Countdown(cut_fraction=0.0, long_fraction=1.0, max_attempts=30)
    found = [trace for _, trace in traces(task, problems[:10], n=5)]
    assert {len(split_episodes(trace.thought)) for trace in found} == {30} and all(trace.cut for trace in found)
    assert any("yes" in trace.thought.split()[:100] for trace in found)
    few = Countdown(cut_fraction=0.0, long_fraction=0.0, max_attempts=3)
    lengths = {len(split_episodes(trace.thought)) for _, trace in traces(few, problems[:10], n=5)}
    assert max(lengths) == 3 and not any(trace.cut for _, trace in traces(few, problems[:10], n=5))


def test_the_answer_of_a_trace_is_a_legal_chain(task, problems):
    for problem, trace in traces(task, problems):
        found = {text: (inner, value) for text, inner, value in surfaces(problem)}
        assert trace.answer in found
        assert max(found[trace.answer]) <= 99
        assert task.grade(problem, trace.answer) in (Grade.CORRECT, Grade.WRONG)


def test_a_trace_answers_with_what_it_found_or_else_with_its_last_attempt(task, problems):
    n_checked = {True: 0, False: 0}
    for problem, trace in traces(task, problems):
        tried = [episode for episode in split_episodes(trace.thought) if len(episode) >= 9]
        if not tried:
            continue
        right = [episode for episode in tried if "yes" in episode]
        _, a, first, b, _, second, c, *_ = (right or tried)[-1]
        assert trace.answer == f"({a} {first} {b}) {second} {c}"
        assert (task.grade(problem, trace.answer) is Grade.CORRECT) == bool(right)
        n_checked[bool(right)] += 1
    assert min(n_checked.values()) > 30


def test_traces_repeat_with_the_generator(task, problems):
    assert traces(task, problems[:5], seed=7) == traces(task, problems[:5], seed=7)
    assert traces(task, problems[:5], seed=7) != traces(task, problems[:5], seed=8)


@pytest.mark.parametrize("n_numbers", [2, 3, 4])
def test_symbols_cover_everything_the_task_writes(n_numbers):
    task = Countdown(n_numbers=n_numbers, max_number=6, n_train=6, n_validation=2, n_test=2)
    symbols = task.symbols()
    assert len(symbols) == len(set(symbols))
    for problem, trace in traces(task, task.problems(), n=5):
        for text in (problem.question, trace.thought, trace.answer, *problem.answers):
            assert set(text.split()) <= set(symbols)
