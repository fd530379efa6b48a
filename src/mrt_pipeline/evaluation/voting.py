"""Votes of several answers: of whole samples (maj@k), and of answers forced at the boundaries of a trace ([maj@p]_j).

maj@k: of a problem's n samples, k are drawn without replacement and vote; ties share the credit equally (what breaking
them at random gives on average). The expectation over all k-subsets is computed exactly, by counting subsets. An answer
is its text without the blanks around it. Two spellings of the same chain are two answers: what a user sees is text, and
nothing here knows the task. Empty and unparsed answers never win, but cost tokens like the others; if all of a subset
are such, the vote is lost.

[maj@p]_j: after j episodes stop, and let p answers vote (arXiv 2503.07572, section 5). The paper compares it with
answering directly: pass@k of answers without any thought, an oracle's number, since one right answer of k is enough.

`stopping regret` is the second regret of the paper (appendix E, released notebook `regret_additional.ipynb`), with a
comparator that is measured instead of assumed to be perfect: at each episode, going on costs one and stopping to
vote over more answers costs as much. In steps of one episode, over x = 1, 2, 4, 6 units of tokens,

    stop(x)  = maj@1, maj@2, maj@4, (maj@4 + maj@8) / 2   at the boundary before the episode
    think(x) = straight line from maj@1 before the episode to maj@1 after it
    regret   = sum over episodes of area(max(stop, think) - think) / sum of area(max(stop, think)).

Not reproduced from the notebook: there an answer's vote weighs 2 to its mean log-probability, here all count the same;
there 100,000 subsets are drawn, here all are counted exactly.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from math import comb

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.intervals import DIFFERENCE, Intervals, problem_means
from mrt_pipeline.tasks.base import Grade

_TRACE = ["problem_id", "rollout_id"]
_UNITS = np.array([1.0, 2.0, 4.0, 6.0])
_MOST_EPISODES = 10  # of [maj@p]_j and of stopping regret, shown
_LEAST_VOTES = 8  # answers at a boundary that stopping regret needs


def majority_accuracy(answers: Sequence[str | None], rewards: Sequence[float]) -> np.ndarray:
    """Expected reward of the majority answer of k of n samples, for k = 1..n: (n,).

    answers: what each sample votes for; empty or None: no vote. rewards: in [0, 1], 0 where there is no vote; that of
    an answer is the mean over its samples. Raises ValueError if there are none, or if the lengths differ.
    """
    if not len(answers) or len(answers) != len(rewards):
        raise ValueError(f"need an answer and a reward of each sample, got {len(answers)} and {len(rewards)}")
    earned: dict[str, list[float]] = {}
    for answer, reward in zip(answers, rewards, strict=True):
        if answer:
            earned.setdefault(answer, []).append(reward)
    groups = tuple(sorted((len(each), float(np.mean(each))) for each in earned.values()))
    return np.array(_expected(groups, len(answers) - sum(count for count, _ in groups)))


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


def majority_by_problem(samples: pd.DataFrame) -> dict[tuple[str, int], pd.Series]:
    """maj@k of a `rollouts` table of one policy: "accuracy" and "tokens" of each problem, by (quantity, k).

    tokens: what k samples cost on average: thinking, the end of the thought, the answer, and what was sampled and then
    dropped where the budget cut it. The prompt is not counted, nor is reading anything again.
    Raises ValueError if the problems have different numbers of samples.
    """
    votes = samples["answer_text"].str.strip().where(samples["grade"] != Grade.UNPARSED.value, "")
    by_problem = samples.assign(vote=votes, tokens=_tokens(samples)).groupby("problem_id")
    if by_problem.size().nunique() != 1:
        raise ValueError("maj@k needs the same number of samples of every problem")
    accuracy = pd.DataFrame({name: majority_accuracy(rows["vote"], rows["reward"]) for name, rows in by_problem})
    tokens = by_problem["tokens"].mean()
    ks = range(1, len(accuracy) + 1)
    return {("accuracy", k): accuracy.loc[k - 1] for k in ks} | {("tokens", k): k * tokens for k in ks}


def _tokens(samples: pd.DataFrame) -> pd.Series:
    thought, close, answer = (samples[f"{part}_token_ids"].map(len) for part in ("thought", "close", "answer"))
    kept = thought + close + answer
    if "stream_length" not in samples:  # a run from before backtracking search, where nothing was ever dropped
        return kept
    return kept + (samples["stream_length"] - thought).where(samples["stop_reason"] == "length", 0)


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


def shown_episodes(votes: pd.DataFrame) -> range:
    """The first episodes of which [maj@p]_j and stopping regret are shown."""
    return range(1, min(_MOST_EPISODES, int(votes["episode"].max()) + 1) + 1)


def vote_accuracy(votes: pd.DataFrame, intervals: Intervals) -> pd.DataFrame:
    """[maj@p]_j and pass@k of direct answers, by policy: a `stop_and_vote` table.

    A trace with fewer than j episodes votes where it ended. `n_tokens` is what is spent on average, thinking and p
    answers. Rows with `method` direct have episode 0 and p = k.
    """
    right, spent = {}, []
    for policy, table in votes.groupby("policy", sort=False):
        boundaries, direct = _majorities(table), table[table["episode"] == -1]
        ps = range(1, len(direct["answers"].iloc[0]) + 1)
        for j in (0, *shown_episodes(votes)):
            at = boundaries[boundaries["episode"] < j].groupby(_TRACE, sort=False, as_index=False).last()
            for p in ps:
                right[policy, "vote", j, p] = problem_means(at[f"maj@{p}"], at["problem_id"])
                spent.append(np.mean((at["n_tokens"] + p * at["answer_tokens"]).to_numpy()))
        for p in ps:
            passes = [pass_at_k(rewards, p) for rewards in direct["rewards"]]
            right[policy, "direct", 0, p] = problem_means(passes, direct["problem_id"])
            spent.append(np.mean([p * np.mean(tokens) for tokens in direct["answer_tokens"]]))
    return intervals.table("accuracy", ["policy", "method", "episode", "p"], right).assign(n_tokens=spent)


def _majorities(votes: pd.DataFrame) -> pd.DataFrame:
    """The boundaries of one policy's traces in the order of episodes, with columns maj@1, maj@2 and so on."""
    votes = votes.sort_values("episode", ignore_index=True)
    majority = map(majority_accuracy, votes["answers"], votes["rewards"])
    table = votes[[*_TRACE, "episode", "n_tokens"]].assign(answer_tokens=votes["answer_tokens"].map(np.mean))
    return table.join(pd.DataFrame(majority).rename(columns=lambda i: f"maj@{i + 1}"))


def stopping_regret(votes: pd.DataFrame, intervals: Intervals) -> pd.DataFrame:
    """The paper's second regret over the first b episodes, for each b: a `stopping_regret` table.

    Mean over the traces that have an area, then over problems. Raises ValueError if there are fewer than eight
    answers at a boundary.
    """
    regrets = {
        (policy, b): each
        for policy, table in votes.groupby("policy", sort=False)
        for b, each in trace_regrets(table, shown_episodes(votes)).items()
        if each.notna().any()
    }
    means = {place: each.groupby(level=0).mean() for place, each in regrets.items()}
    table = intervals.table("regret", ["policy", "episodes"], means).astype({"policy": str, "episodes": int})
    table.insert(5, "n_traces", np.array([each.count() for each in regrets.values()], dtype=int))
    return table


def trace_regrets(votes: pd.DataFrame, episodes: Sequence[int]) -> dict[int, pd.Series]:
    """Stopping regret of one policy's traces over the first b episodes, by b and problem; NaN without an area."""
    by_trace = _majorities(votes).groupby(_TRACE, sort=False)
    traces = {trace: boundaries.filter(like="maj@").to_numpy() for trace, boundaries in by_trace}
    problems = [problem for problem, _ in traces]
    return {
        b: pd.Series([trace_stopping_regret(majority, b) for majority in traces.values()], problems, dtype=np.float64)
        for b in episodes
    }


def trace_stopping_regret(majority: np.ndarray, n_episodes: int) -> float | None:
    """Of one trace. majority: maj@k at its boundaries, (n_boundaries, at least 8); None without any area."""
    if majority.shape[1] < _LEAST_VOTES:
        raise ValueError(f"stopping regret needs {_LEAST_VOTES} answers at each boundary, got {majority.shape[1]}")
    optimal = missed = 0.0
    for before, after in zip(majority[:-1][:n_episodes], majority[1:][:n_episodes], strict=True):
        stop = np.array([before[0], before[1], before[3], (before[3] + before[7]) / 2])
        think = np.interp(_UNITS, [_UNITS[0], _UNITS[-1]], [before[0], after[0]])
        best = np.trapezoid(np.maximum(stop, think), _UNITS)
        optimal += best
        missed += best - np.trapezoid(think, _UNITS)
    return float(missed / optimal) if optimal > 0 else None


def pass_at_k(rewards: Sequence[float], k: int) -> float:
    """Probability that at least one of k of the n answers is right: 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374)."""
    n, right = len(rewards), round(float(np.sum(rewards)))
    return 1.0 - comb(n - right, k) / comb(n, k)
