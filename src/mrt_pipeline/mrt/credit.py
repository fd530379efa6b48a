"""The credit that each algorithm gives, as pure functions on arrays: for this project's training loop, or any other.

A function takes what was measured of the rollouts of a batch, and returns a `Credit`: a number for each thinking token,
for what ends the thinking, and for the answer, by which the gradient of a token's log-probability is multiplied. Where
the formula comes from, what it depends on and its degenerate cases are in the module of `algorithms/` that a docstring
names; the classes there call these functions and place the credit on the tokens of a rollout.

What the functions have in common:

    rewards      (rollouts,) outcome reward r of each, 0 or 1
    groups       (rollouts,) the problem of each, by number or name: rollouts of one problem are compared
    lengths      (rollouts,) thinking tokens n_i
    boundaries   for each rollout (k_i + 1,) thinking tokens at the boundaries of its k_i episodes: 0 first, then
                 increasing, the whole thought last, so that n_i is the last one; [0] for an empty thought
    success      for each rollout (k_i + 1,) J of the meta-prover at these boundaries, in [0, 1]

Lists or arrays will do, and one value where all rollouts have the same; nothing that is given is changed. Arrays that
do not fit together raise ValueError.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mrt_pipeline.mrt.baselines import (
    budget_relative_advantages,
    center_by_group,
    centred_anytime,
    centred_area_to_go,
    centred_least,
)
from mrt_pipeline.mrt.columns import as_columns, as_curves, members_of
from mrt_pipeline.mrt.episodes import token_episodes
from mrt_pipeline.mrt.progress import discounted_progress, progress

Bonus = Literal["next_episode", "continue", "all", "termination"]
BONUSES: tuple[str, ...] = get_args(Bonus)
"""What thinking on can earn in `mrt`."""


@dataclass(frozen=True)
class Credit:
    """What the choices of each rollout get.

    thought: for each rollout (n_i,), a number a thinking token.
    stop: for each rollout a number, the credit of what ends its thinking; where `n_stop` is given an array, a number
        for each token that does.
    answer: (rollouts,) credit of the tokens of its answer.
    """

    thought: Sequence[np.ndarray]
    stop: np.ndarray | Sequence[np.ndarray]
    answer: np.ndarray


def grpo(rewards: ArrayLike, groups: ArrayLike, lengths: ArrayLike, divide_by_std: bool = False) -> Credit:
    """Reward minus the mean of the group, for all choices of a rollout; see algorithms/grpo.py.

    divide_by_std: also divide by the group's standard deviation.
    """
    rewards, groups, lengths = as_columns(rewards=rewards, groups=groups, lengths=lengths)
    return _everywhere(center_by_group(rewards, groups, divide_by_std), lengths)


def length_penalty(rewards: ArrayLike, groups: ArrayLike, lengths: ArrayLike, alpha: float = 0.4) -> Credit:
    """`grpo`, of rewards that a long thought lowers; see algorithms/length_penalty.py.

    alpha: the largest share of a reward that length can cost.
    """
    rewards, groups, lengths = as_columns(rewards=rewards, groups=groups, lengths=lengths)
    penalised = rewards.copy()
    for members in members_of(groups):
        right = members[rewards[members] > 0]
        if len(right):
            tokens = lengths[right].astype(np.float64)
            relative = (tokens - tokens.mean()) / max(float(tokens.std()), 1e-6)
            penalised[right] *= 1 - alpha / (1 + np.exp(-relative))
    return _everywhere(center_by_group(penalised, groups), lengths)


def mrt_online(
    rewards: ArrayLike,
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    alpha: float = 1.0,
    gamma: float = 0.0,
    normalize_progress: bool = True,
    divide_by_std: bool = False,
    expected_outcome: bool = True,
    answered: ArrayLike = True,
) -> Credit:
    """The outcome, and on the thinking tokens the progress of their episode; see algorithms/mrt_online.py.

    alpha, gamma, normalize_progress, divide_by_std, expected_outcome: as there.
    answered: (rollouts,) bool, whose answer is sampled after its thought has ended, so that J there is the expectation
        of its reward. Others keep their reward; it matters with `expected_outcome` only.
    ValueError also for a gamma outside [0, 1].
    """
    expected = expected_outcome & np.asarray(answered)
    advantages, answer, boundaries, success = _outcome(rewards, groups, boundaries, success, expected, divide_by_std)
    credits = [discounted_progress(j, gamma) for j in success]
    scale = _root_mean_square(credits) if normalize_progress else 1.0
    return Credit(_on_episodes(advantages, credits, alpha / scale, boundaries), advantages, answer)


def watermark(
    rewards: ArrayLike,
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    alpha: float = 1.0,
    expected_outcome: bool = True,
    answered: ArrayLike = True,
) -> Credit:
    """The outcome, and on thinking tokens what their episode adds to the best J so far; see algorithms/watermark.py.

    Arguments as for `mrt_online`.
    """
    expected = expected_outcome & np.asarray(answered)
    advantages, answer, boundaries, success = _outcome(rewards, groups, boundaries, success, expected)
    gains = [progress(np.maximum.accumulate(j)) for j in success]
    thought = _on_episodes(advantages, gains, alpha / _root_mean_square(gains), boundaries)
    return Credit(thought, advantages, answer)


def saturation(
    rewards: ArrayLike,
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    expected_outcome: bool = True,
    answered: ArrayLike = True,
) -> Credit:
    """The outcome, by as much as J has left to gain before each choice; see algorithms/saturation.py.

    Arguments as for `mrt_online`.
    """
    expected = expected_outcome & np.asarray(answered)
    advantages, answer, boundaries, success = _outcome(rewards, groups, boundaries, success, expected)
    rooms = [1 - j for j in success]
    thought = [
        advantage * room[token_episodes(b)] for advantage, room, b in zip(advantages, rooms, boundaries, strict=True)
    ]
    return Credit(thought, advantages * np.array([room[-1] for room in rooms]), answer)


def least(
    rewards: ArrayLike,
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    alpha: float = 1.0,
    expected_outcome: bool = True,
    answered: ArrayLike = True,
    n_stop: ArrayLike | None = None,
) -> Credit:
    """The outcome, and the least J from the end of an episode on; see algorithms/least.py.

    Arguments as for `mrt_online`. n_stop: as for `regret_to_go`.
    """
    expected = expected_outcome & np.asarray(answered)
    advantages, answer, boundaries, success = _outcome(rewards, groups, boundaries, success, expected)
    credits = centred_least(groups, boundaries, success, 1 if n_stop is None else n_stop)
    return _over_time(advantages, credits, alpha / _root_mean_square(credits), boundaries, answer, n_stop is None)


def regret_to_go(
    rewards: ArrayLike,
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    budget: ArrayLike,
    alpha: float = 1.0,
    n_stop: ArrayLike | None = None,
    expected_outcome: bool = False,
    answered: ArrayLike = True,
) -> Credit:
    """The outcome, and what each choice can still change of the anytime area; see algorithms/regret_to_go.py.

    budget: C there, in thinking tokens; of several the mean area. alpha: weight of the second part.
    n_stop: (rollouts,) how many tokens end each stream of thinking, 0 where it was cut; `stop` is then an array for
        each rollout. By default one token each, and `stop` is a number.
    expected_outcome, answered: as for `mrt_online`.
    ValueError also for a budget that is not positive.
    """
    expected = expected_outcome & np.asarray(answered)
    advantages, answer, boundaries, success = _outcome(rewards, groups, boundaries, success, expected)
    credits = centred_area_to_go(groups, boundaries, success, budget, 1 if n_stop is None else n_stop)
    return _over_time(advantages, credits, alpha / _root_mean_square(credits), boundaries, answer, n_stop is None)


def anytime(
    rewards: ArrayLike,
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    budget: ArrayLike,
    alpha: float = 1.0,
    answered: ArrayLike = True,
    n_stop: ArrayLike | None = None,
) -> Credit:
    """What each choice can still change of J at the end and of the anytime area; see algorithms/anytime.py.

    budget, n_stop and errors as for `regret_to_go`. alpha: weight of the area. answered: as for `mrt_online`; the
    others end with their reward in place of J.
    """
    rewards, answered = as_columns(rewards=rewards, answered=answered)
    tokens, measured = as_curves(boundaries, success, len(rewards))
    worth = [
        j if known else np.append(j[:-1], reward) for j, known, reward in zip(measured, answered, rewards, strict=True)
    ]
    credits = centred_anytime(groups, tokens, worth, budget, alpha, 1 if n_stop is None else n_stop)
    answer = rewards - np.array([j[-1] for j in worth])
    weight = 1 / _root_mean_square(credits)
    return _over_time(np.zeros(len(rewards)), credits, weight, tokens, answer, n_stop is None)


def brpo(
    rewards: ArrayLike,
    groups: ArrayLike,
    lengths: ArrayLike,
    success: ArrayLike,
    budgets: ArrayLike,
    answer_weight: float = 1.0,
) -> Credit:
    """What the tokens of each budget slot can still change of the mean success; see algorithms/brpo.py.

    success: (rollouts, slots) J of each trace stopped at each budget, or at its own end if that is earlier.
    budgets: (slots,) in thinking tokens, increasing. A token beyond the last belongs to the last slot.
    answer_weight: of the answer's own credit, r minus J at the last budget.
    """
    rewards, groups, lengths = as_columns(rewards=rewards, groups=groups, lengths=lengths)
    budgets, q = np.asarray(budgets), np.asarray(success, dtype=np.float64)
    if budgets.ndim != 1 or not len(budgets) or np.any(np.diff(budgets) <= 0):
        raise ValueError(f"budgets must be increasing numbers of thinking tokens, got {budgets.tolist()}")
    if q.shape != (len(rewards), len(budgets)):
        raise ValueError(f"success has shape {q.shape}; expected {(len(rewards), len(budgets))}: rollouts, budgets")
    advantages = np.empty_like(q)
    for members in members_of(groups):
        advantages[members] = budget_relative_advantages(q[members])
    slots = [np.searchsorted(budgets, np.arange(1, n + 2)).clip(max=len(budgets) - 1) for n in lengths]
    credits = [advantage[own] for advantage, own in zip(advantages, slots, strict=True)]  # the stop is the last place
    stop = np.array([credit[-1] for credit in credits])
    return Credit([credit[:-1] for credit in credits], stop, forced_answers(rewards, q[:, -1], answer_weight))


def mrt(
    rewards: ArrayLike,
    groups: ArrayLike,
    lengths: ArrayLike,
    direct: ArrayLike,
    prefix_lengths: ArrayLike,
    prefix_success: ArrayLike,
    next_ends: ArrayLike = 0,
    next_success: ArrayLike = np.nan,
    cut: ArrayLike = False,
    ends_trace: ArrayLike = False,
    alpha: float = 1.0,
    bonus: Bonus = "next_episode",
) -> Credit:
    """Thinking on from a given prefix against answering at once; see algorithms/mrt.py.

    lengths: thinking tokens with the prefix. What is returned for the prefix's tokens is not to be trained.
    direct: (rollouts,) bool, who answered at once. alpha, bonus: as in the module.
    prefix_lengths, prefix_success: (rollouts,) thinking tokens of the prefix, and J after it.

    The others matter with `bonus="next_episode"` only, which needs the first two; what they say of direct rollouts is
    ignored:
    next_ends, next_success: (rollouts,) thinking tokens at the end of the first episode after the prefix, and J there.
        The token after it ends that episode and shares its credit: the one that opens the next, or what ends the
        thinking.
    cut: (rollouts,) bool, whose thought the budget has cut, so that nobody chose to end it.
    ends_trace: (rollouts,) bool, where that episode ends the whole trace: its answer is a part of it, and its worth is
        the reward in place of J.
    """
    rewards, groups, lengths = as_columns(rewards=rewards, groups=groups, lengths=lengths)
    direct, starts, before = as_columns(
        len(rewards), direct=direct, prefix_lengths=prefix_lengths, prefix_success=prefix_success
    )
    if bonus not in BONUSES:
        raise ValueError(f"unknown bonus {bonus!r}; expected one of {', '.join(BONUSES)}")
    if np.any(starts > lengths):
        raise ValueError("prefix_lengths exceeds lengths: a rollout's thinking tokens are counted with its prefix")
    advantages = center_by_group(rewards, 2 * np.unique(groups, return_inverse=True)[1] + direct)
    whole = {
        "next_episode": advantages,
        "continue": np.where(direct, 1.0, 1 + alpha) * advantages,
        "all": (1 + alpha) * advantages,
        "termination": (1 + alpha) * (rewards - before),
    }
    credit = _everywhere(whole[bonus], lengths)
    if bonus != "next_episode":
        return credit
    ends, after, cut, ends_trace = as_columns(
        len(rewards), next_ends=next_ends, next_success=next_success, cut=cut, ends_trace=ends_trace
    )
    on = ~direct
    if np.any(on & ~ends_trace & np.isnan(after)):
        needed = f"bonus={bonus!r} needs next_ends and next_success"
        raise ValueError(f"{needed}: next_success is missing (NaN) for a rollout that thinks on")
    if np.any(on & ((ends < starts) | (ends > lengths))):
        raise ValueError("next_ends must be between prefix_lengths and lengths")
    if np.any(on & ends_trace & (cut | (ends < lengths))):
        raise ValueError("ends_trace is true of an episode that the budget has cut, or after which thinking goes on")
    gains = np.where(on, alpha * (np.where(ends_trace, rewards, after) - before), 0.0)
    for thought, start, end, gain in zip(credit.thought, starts, ends, gains, strict=True):
        thought[start : end + 1] += gain
    return Credit(credit.thought, credit.stop + gains * ((ends == lengths) & ~cut), credit.answer + gains * ends_trace)


def star(rewards: ArrayLike, lengths: ArrayLike) -> Credit:
    """The reward, as a weight of the log-likelihood of all choices of a rollout; see algorithms/star.py."""
    return _everywhere(*as_columns(rewards=rewards, lengths=lengths))


def best_cut(boundaries: ArrayLike, success: ArrayLike) -> int:
    """Where `mrt_star` cuts a trace, in thinking tokens: the first boundary at which J is highest.

    boundaries, success: (k + 1,), of this trace.
    """
    (tokens,), (curve,) = as_curves([boundaries], [success], 1)
    return int(tokens[int(np.argmax(curve))])


def mrt_star(
    rewards: ArrayLike,
    groups: ArrayLike,
    lengths: ArrayLike,
    success: ArrayLike,
    start_success: ArrayLike,
    keep: int = 2,
) -> Credit:
    """1 for the cuts to imitate and 0 for others, as weights of log-likelihood; see algorithms/mrt_star.py.

    Everything is of cuts here, not of whole rollouts: `rewards` are those of the answers sampled after them, `lengths`
    the thinking tokens before them, which is where `best_cut` says.
    success, start_success: (cuts,) J at the cut, and J of the empty prefix.
    keep: most cuts of each problem.
    """
    rewards, groups, lengths, success, start = as_columns(
        rewards=rewards, groups=groups, lengths=lengths, success=success, start_success=start_success
    )
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    gains, kept = success - start, np.zeros(len(rewards))
    for members in members_of(groups):
        good = members[(gains[members] > 0) & (rewards[members] > 0)]
        kept[good[np.lexsort((lengths[good], -gains[good]))][:keep]] = 1.0
    return _everywhere(kept, lengths)


def forced_answers(rewards: ArrayLike, success: ArrayLike, answer_weight: float = 1.0) -> np.ndarray:
    """Credit of answers forced inside a thought, (answers,); see algorithms/forced_answers.py and brpo.py.

    rewards: (answers,) of these. success: (answers,) J where each was forced.
    """
    rewards, success = as_columns(rewards=rewards, success=success)
    return answer_weight * (rewards - success)


def _outcome(
    rewards: ArrayLike,
    groups: ArrayLike,
    boundaries: Sequence[ArrayLike],
    success: Sequence[ArrayLike],
    expected: ArrayLike,
    divide_by_std: bool = False,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """A of each rollout and the credit of its answer, (rollouts,) each; and the curves, checked.

    expected: whose outcome is J at its end.
    """
    rewards, groups, answered = as_columns(rewards=rewards, groups=groups, answered=expected)
    tokens, curves = as_curves(boundaries, success, len(rewards))
    outcomes = np.where(answered, [j[-1] for j in curves], rewards)
    advantages = center_by_group(outcomes, groups, divide_by_std)
    return advantages, np.where(answered, rewards - outcomes, advantages), tokens, curves


def _on_episodes(
    advantages: np.ndarray, credits: Sequence[np.ndarray], weight: float, boundaries: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """For each rollout (n_i,): its advantage, and by this weight the credit of the token's episode."""
    return [
        advantage + weight * credit[token_episodes(b)]
        for advantage, credit, b in zip(advantages, credits, boundaries, strict=True)
    ]


def _over_time(
    advantages: np.ndarray,
    credits: Sequence[np.ndarray],
    weight: float,
    boundaries: Sequence[np.ndarray],
    answer: np.ndarray,
    one_stop: bool,
) -> Credit:
    """The advantage, and by this weight the credit of each choice of thinking and stopping."""
    both = [advantage + weight * credit for advantage, credit in zip(advantages, credits, strict=True)]
    stop = [credit[b[-1] :] for credit, b in zip(both, boundaries, strict=True)]
    thought = [credit[: b[-1]] for credit, b in zip(both, boundaries, strict=True)]
    return Credit(thought, np.array([values[0] for values in stop]) if one_stop else stop, answer)


def _everywhere(values: np.ndarray, lengths: np.ndarray) -> Credit:
    """The same for all choices of a rollout."""
    return Credit([np.full(n, value) for value, n in zip(values, lengths, strict=True)], values.copy(), values.copy())


def _root_mean_square(arrays: Sequence[np.ndarray]) -> float:
    """Over the numbers of all arrays together; never 0, so that it can be divided by."""
    pooled = np.concatenate([np.empty(0), *arrays])
    return max(float(np.sqrt(np.mean(pooled**2))) if len(pooled) else 0.0, 1e-6)
