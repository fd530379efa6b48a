"""maj@k: how often the most frequent of k sampled answers is right, and the tokens that the k samples cost.

Of a problem's n samples, k are drawn without replacement and vote; ties share the credit equally (what breaking them at
random gives on average). The expectation over all k-subsets is computed exactly, by counting subsets.

An answer is its text without the blanks around it. Two spellings of the same chain are two answers: what a user sees
is text, and nothing here knows the task. Empty and unparsed answers never win, but cost tokens like the others; if
all of a subset are such, the vote is lost.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from math import comb

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.intervals import DIFFERENCE, Intervals
from mrt_pipeline.tasks.base import Grade


def majority_accuracy(answers: Sequence[str | None], rewards: Sequence[float]) -> np.ndarray:
    """Expected reward of the majority answer of k of n samples, for k = 1..n: (n,).

    answers: what each sample votes for; None: no vote. rewards: in [0, 1], 0 where there is no vote; that of an answer
    is the mean over its samples. Raises ValueError if there are none, or if the lengths differ.
    """
    if not answers or len(answers) != len(rewards):
        raise ValueError(f"need an answer and a reward of each sample, got {len(answers)} and {len(rewards)}")
    counts = Counter(answer for answer in answers if answer is not None)
    reward = {
        answer: float(np.mean([r for a, r in zip(answers, rewards, strict=True) if a == answer])) for answer in counts
    }
    groups = tuple(sorted((count, reward[answer]) for answer, count in counts.items()))
    return np.array(_expected(groups, len(answers) - sum(counts.values())))


def majority_by_problem(samples: pd.DataFrame) -> dict[tuple[str, int], pd.Series]:
    """maj@k of a `rollouts` table of one policy: "accuracy" and "tokens" of each problem, by (quantity, k).

    tokens: what k samples cost on average: thinking, the end of the thought, the answer, and what was sampled and then
    dropped where the budget cut it. The prompt is not counted, nor is reading anything again.
    Raises ValueError if the problems have different numbers of samples.
    """
    by_problem = samples.assign(tokens=_tokens(samples)).groupby("problem_id")
    if by_problem.size().nunique() != 1:
        raise ValueError("maj@k needs the same number of samples of every problem")
    accuracy = {}
    for problem, rows in by_problem:
        votes = [
            text.strip() or None if grade != Grade.UNPARSED.value else None
            for text, grade in zip(rows["answer_text"], rows["grade"], strict=True)
        ]
        accuracy[problem] = majority_accuracy(votes, rows["reward"].tolist())
    by_k = pd.DataFrame(accuracy, index=range(1, len(rows) + 1))
    tokens = by_problem["tokens"].mean()
    return {("accuracy", k): row for k, row in by_k.iterrows()} | {("tokens", k): k * tokens for k in by_k.index}


def majority_by_policy(samples: pd.DataFrame, linearised: pd.DataFrame, intervals: Intervals) -> pd.DataFrame:
    """The table `majority`: maj@k and its tokens for each policy of these `rollouts` tables, over problems.

    samples: ordinary ones. linearised: those with a window over the last episodes; may have no rows.
    """
    values, tokens = {}, []
    for windowed, table in ((False, samples), (True, linearised)):
        for policy, traces in table.groupby("policy", sort=False):
            for (quantity, k), found in majority_by_problem(traces).items():
                if quantity == "accuracy":
                    values[policy, windowed, k] = found
                else:
                    tokens.append(found.mean())
    majority = intervals.table("accuracy", ["policy", "linearised", "k"], values)
    return majority.drop(columns=list(DIFFERENCE)).assign(tokens=tokens)


def _tokens(samples: pd.DataFrame) -> pd.Series:
    thought, close, answer = (samples[f"{part}_token_ids"].map(len) for part in ("thought", "close", "answer"))
    kept = thought + close + answer
    if "stream_length" not in samples:  # a run from before backtracking search, where nothing was ever dropped
        return kept
    return kept + (samples["stream_length"] - thought).where(samples["stop_reason"] == "length", 0)


@cache
def _expected(groups: tuple[tuple[int, float], ...], n_silent: int) -> tuple[float, ...]:
    """maj@k for k = 1..n. groups: (samples, reward) of each answer. n_silent: samples without a vote.

    For every possible top count t, subsets are counted by (size, answers at t, reward summed over these).
    """
    n = sum(count for count, _ in groups) + n_silent
    credit = np.zeros(n + 1)
    for top in range(1, max((count for count, _ in groups), default=0) + 1):
        ways = {(taken, 0, 0.0): comb(n_silent, taken) for taken in range(n_silent + 1)}
        for count, reward in groups:
            longer: Counter[tuple[int, int, float]] = Counter()
            for (size, tied, total), number in ways.items():
                for taken in range(min(count, top) + 1):
                    wins = taken == top
                    longer[size + taken, tied + wins, total + reward * wins] += number * comb(count, taken)
            ways = longer
        for (size, tied, total), number in ways.items():
            if tied:
                credit[size] += number * total / tied
    return tuple(float(credit[k] / comb(n, k)) for k in range(1, n + 1))
