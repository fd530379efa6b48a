import time
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.policy.template import build_symbol_tokenizer, encode_prompt
from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.countdown import Chain
from mrt_pipeline.tasks.countdown_backtracking import CountdownBacktracking, _next_attempt, kept_prefix, prefix_values

OPERATIONS = {"+": lambda a, b: a + b, "*": lambda a, b: a * b, "-": lambda a, b: abs(a - b)}


@pytest.fixture(scope="module")
def four():
    return CountdownBacktracking(n_numbers=4, max_number=5, n_train=6, n_validation=2, n_test=2)


@pytest.fixture(scope="module")
def problem(backtracking):
    return backtracking._problem((3, 7, 12), 48, [Chain((7, 3, 12), ("-", "*"))], "train")


def parsed(trace):
    """Attempts and steps gone back to of a whole trace, read symbol by symbol."""
    attempts, steps, current = [], [], []
    for symbol in [*trace.thought.split(), *trace.answer.split()]:
        if symbol.startswith("back"):
            attempts.append(current)
            steps.append(int(symbol.removeprefix("back")))
            current = []
        else:
            current.append(symbol)
    return [*attempts, current], steps


def computed(attempt):
    """The results of an attempt, each computed from what was written before it."""
    value, found = int(attempt[0]), []
    for i in range(1, len(attempt), 3):
        value = OPERATIONS[attempt[i]](value, int(attempt[i + 1]))
        found.append(f"={value}")
    return found


def test_listed_answers_are_exactly_the_attempts_that_grade_correct(backtracking):
    for problem in backtracking.problems():
        right = set()
        for a, b, c in permutations(problem.metadata["numbers"]):
            for first, second in product("+-*", repeat=2):
                inner = OPERATIONS[first](a, b)
                value = OPERATIONS[second](inner, c)
                text = f"{a} {first} {b} ={inner} {second} {c} ={value}"
                solves = value == problem.metadata["target"] and max(inner, value) <= 99
                assert (backtracking.grade(problem, text) is Grade.CORRECT) == solves
                right |= {text} if solves else set()
        assert right == set(problem.answers)


def test_four_numbers_are_listed_completely_too(four):
    for problem in four.problems():
        right = set()
        for numbers in permutations(problem.metadata["numbers"]):
            for operators in product("+-*", repeat=3):
                text = Chain(numbers, operators).written_out()
                right |= {text} if four.grade(problem, text) is Grade.CORRECT else set()
        assert right == set(problem.answers) and right


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("7 - 3 =4 * 12 =48", Grade.CORRECT),
        ("3 - 7 =4 * 12 =48", Grade.CORRECT),
        ("12 * 7 =84 - 3 =81", Grade.WRONG),
        ("12 + 7 =19 * 3 =48", Grade.WRONG),  # the last result is a wish
        ("7 - 3 =5 * 12 =48", Grade.WRONG),  # a wrong result in between
        ("7 - 3 =4 * 12 =47", Grade.WRONG),
        ("8 - 4 =4 * 12 =48", Grade.WRONG),  # numbers that are not given
        ("12 - 12 =0 + 48 =48", Grade.WRONG),
        ("7 - 3 =4", Grade.UNPARSED),
        ("7 - 3 =4 * 12 =48 + 0 =48", Grade.UNPARSED),
        ("(7 - 3) * 12", Grade.UNPARSED),
        ("7 - 3 =4 * 12", Grade.UNPARSED),
        ("07 - 3 =4 * 12 =48", Grade.UNPARSED),
        ("7 - 3 =4 * 12 =048", Grade.UNPARSED),
        ("7 - 3  =4 * 12 =48", Grade.UNPARSED),
        ("7 - 3 =4 * 12 =48 back0", Grade.UNPARSED),
        ("back1 7 - 3 =4 * 12 =48", Grade.UNPARSED),
        ("7 / 3 =4 * 12 =48", Grade.UNPARSED),
        ("\u0667 - 3 =4 * 12 =48", Grade.UNPARSED),
        ("7 - 3 =+4 * 12 =48", Grade.UNPARSED),
        ("__import__('os').abort()", Grade.UNPARSED),
        ("", Grade.UNPARSED),
    ],
)
def test_grading(backtracking, problem, text, grade):
    assert backtracking.grade(problem, text) is grade


@pytest.mark.parametrize("part", ["7 - 3 =4 * 12 =48 ", "9", " ", "- 3 =4 "])
def test_a_megabyte_is_refused_at_once(backtracking, problem, part):
    start = time.perf_counter()
    assert backtracking.grade(problem, part * (1_000_000 // len(part))) is Grade.UNPARSED
    assert time.perf_counter() - start < 0.5


@given(st.one_of(st.text(), st.lists(st.sampled_from(["7", "3", "12", "=4", "=48", "-", "*", "back1"])).map(" ".join)))
def test_only_listed_answers_are_right_whatever_the_text(text):
    task = CountdownBacktracking(n_train=1, n_validation=1, n_test=1)
    asked = task._problem((3, 7, 12), 48, [Chain((7, 3, 12), ("-", "*"))], "train")
    assert (task.grade(asked, text) is Grade.CORRECT) == (text.strip() in asked.answers)


def brute_force_values(attempt, numbers, target):
    """The share of legal chains, up to the order of the first two numbers, that solve among those with the prefix."""
    values = []
    for step in range(len(attempt) // 3):
        kept = attempt[: 1 + 3 * step] if step else []
        solved = []
        for order in set(permutations(numbers)):
            for operators in product("+-*", repeat=len(numbers) - 1):
                text = Chain(order, operators).written_out().split()
                legal = all(int(symbol[1:]) <= 99 for symbol in text if symbol[0] == "=")
                if order[0] >= order[1] and legal and text[: len(kept)] == kept:
                    solved.append(text[-1] == f"={target}")
        values.append(np.mean(solved))
    return values


@pytest.mark.parametrize("game", ["backtracking", "four"])
def test_the_value_of_a_prefix_is_its_share_of_solving_completions(game, request):
    task = request.getfixturevalue(game)
    rng = np.random.default_rng(0)
    for problem in task.problems()[:4]:
        numbers, target = tuple(problem.metadata["numbers"]), problem.metadata["target"]
        chains = task.chains(numbers)
        for i in rng.integers(len(chains), size=3):
            expected = brute_force_values(chains[i].written_out().split(), numbers, target)
            assert np.allclose(prefix_values(chains[i], chains, target), expected)


def test_value_goes_back_to_the_step_of_highest_value_and_restart_to_the_start(problem):
    tasks = {how: CountdownBacktracking(backtrack=how) for how in ("value", "restart")}
    chains = tasks["value"].chains((3, 7, 12))
    rng = np.random.default_rng(0)
    promising, hopeless = Chain((7, 3, 12), ("-", "+")), Chain((12, 7, 3), ("+", "*"))
    assert prefix_values(promising, chains, 48)[1] > prefix_values(promising, chains, 48)[0] > 0
    assert prefix_values(hopeless, chains, 48)[1] == 0
    for chain, step in ((promising, 1), (hopeless, 0)):
        assert tasks["value"]._step_back(chain, chains, 48, rng, astray=0.0) == step
        assert tasks["restart"]._step_back(chain, chains, 48, rng, astray=0.0) == 0
    assert {tasks["value"]._step_back(promising, chains, 48, rng, astray=1.0) for _ in range(40)} == {0, 1}
    with pytest.raises(ValueError, match="backtrack"):
        CountdownBacktracking(backtrack="somewhere")


def test_going_back_takes_untried_completions_until_none_is_left_and_then_starts_again(backtracking):
    chains, rng = backtracking.chains((3, 7, 12)), np.random.default_rng(0)
    last = Chain((7, 3, 12), ("-", "+"))
    same = {chain for chain in chains if chain.numbers == (7, 3, 12) and chain.operators[0] == "-"}
    tried = [last]
    for _ in range(len(same) - 1):
        step, chain = _next_attempt(last, 1, tried, chains, rng, repeat=0.0)
        assert step == 1 and chain in same and chain not in tried
        tried.append(chain)
    step, chain = _next_attempt(last, 1, tried, chains, rng, repeat=0.0)
    assert step == 0 and chain not in tried
    assert _next_attempt(last, 1, chains, chains, rng, repeat=0.0)[0] == 0  # all were tried: anything goes
    step, chain = _next_attempt(last, 1, tried, chains, rng, repeat=1.0)
    assert step == 1 and chain in same


@pytest.mark.parametrize("game", ["backtracking", "four"])
@pytest.mark.parametrize("how", ["value", "restart"])
def test_traces_have_the_form_and_keep_the_step_that_they_name(game, how, request):
    task = request.getfixturevalue(game)
    task = CountdownBacktracking(
        backtrack=how, n_numbers=task.n_numbers, max_number=task.max_number, n_validation=2, n_test=2
    )
    rng, problems, named = np.random.default_rng(1), task.problems(), []
    vocabulary = set(task.symbols())
    for i in rng.integers(len(problems), size=150):
        problem, trace = problems[i], task.search_trace(problems[i], rng)
        attempts, steps = parsed(trace)
        assert set(f"{trace.thought} {trace.answer}".split()) <= vocabulary
        assert trace.thought == "" or trace.thought.split()[-1].startswith("back")
        assert all(0 <= step <= task.n_numbers - 2 for step in steps) and len(attempts) <= 26
        for attempt in attempts:
            assert len(attempt) == 3 * task.n_numbers - 2
            assert attempt[3::3] == computed(attempt)
            assert sorted([attempt[0], *attempt[2::3]], key=int) == [str(n) for n in problem.metadata["numbers"]]
        for before, step, after in zip(attempts[:-1], steps, attempts[1:], strict=True):
            kept = 1 + 3 * step if step else 0
            assert after[:kept] == before[:kept]
        assert all(kept_prefix(f"<bos> x : {trace.thought} {trace.answer} <eos>"))
        named += steps
    assert set(named) == (set(range(task.n_numbers - 1)) if how == "value" else {0})


def test_traces_are_imperfect_but_mostly_go_on_until_they_find(backtracking):
    rng, problems = np.random.default_rng(0), backtracking.problems()
    traces = [(problems[i], backtracking.search_trace(problems[i], rng)) for i in rng.integers(len(problems), size=600)]
    ended = [backtracking.grade(problem, trace.answer).reward for problem, trace in traces if not trace.cut]
    assert 0.6 < np.mean(ended) < 0.9
    assert 0.05 < np.mean([trace.cut for _, trace in traces]) < 0.3
    went_on = [problem for problem, trace in traces if set(map(" ".join, parsed(trace)[0][:-1])) & set(problem.answers)]
    repeats = [trace for _, trace in traces if len(set(map(tuple, parsed(trace)[0]))) < len(parsed(trace)[0])]
    assert len(went_on) > 30 and len(repeats) > 60
    lengths = [len(trace.thought.split()) for _, trace in traces]
    assert np.mean(np.array(lengths) <= 96) > 0.7


def test_the_same_generator_gives_the_same_trace(backtracking):
    problem = backtracking.problems()[0]
    first, again, other = (backtracking.search_trace(problem, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again != other


@pytest.mark.parametrize(
    ("trace", "kept"),
    [
        ("12 + 7 =19 * 3 =57 back1 12 + 7 =19 - 3 =16", [True]),
        ("12 + 7 =19 * 3 =57 back1 12 + 7 =18 - 3 =16", [False]),
        ("12 + 7 =19 * 3 =57 back0 12 + 7 =18 - 3 =16", []),
        ("12 + 7 =19 back2 12 + 7 =19 * 3 =57 back1 12 + 7", [False, False]),
        ("3 back1 back1 3", [False, False]),
        ("12 + 7 =19 * 3 =57 back1 12 + 7 =19 - 3 =16 back1", [True]),  # ended by going back: there is no attempt yet
        ("", []),
    ],
)
def test_kept_prefix(trace, kept):
    assert kept_prefix(f"<bos> 3 7 12 make 48 : {trace} <eos>") == kept


def test_trace_metrics(backtracking, task):
    traces = ["<bos> q : 1 + 2 =3 back1 1 + 2 =3 back1 1 + 1 =2 <eos>", "<bos> q : 1 <eos>"]
    assert backtracking.trace_metrics(traces) == {"kept_prefix": 0.5}
    assert backtracking.trace_metrics(traces[1:]) == {} == task.trace_metrics(traces)


def test_every_symbol_is_a_token_and_the_prompt_ends_with_the_opening(backtracking):
    tokenizer = build_symbol_tokenizer(backtracking.symbols(), backtracking.markers)
    template = backtracking.template.bind(tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(template.back_ids)) == ["back0", "back1"]
    rng = np.random.default_rng(0)
    for problem in backtracking.problems()[:20]:
        prompt = encode_prompt(tokenizer, template, problem.question)
        assert tokenizer.decode(prompt) == f"<bos> {problem.question} :"
        trace = backtracking.search_trace(problem, rng)
        for text in (trace.thought, *problem.answers):
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.unk_token_id not in ids and len(ids) == len(text.split())
