"""A look at the base policy's rollouts before anything is trained on it: can its answers be read, is there a signal?"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.errors import InputError

_HOPELESS = 0.99  # share of natural answers that cannot be read, from which on training is refused
_ENOUGH = 20  # natural answers: with fewer nothing is refused, and they are not compared with forced ones


def closed_by_the_policy(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The rows of a `rollouts` table whose thought the policy closed itself, to answer after that."""
    return rollouts[(rollouts["stop_reason"] == "stop") & rollouts["stopped_at"].isna()]


def natural_rollouts(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The rows of a `rollouts` table whose attempts to stop were not suppressed."""
    return rollouts[rollouts["min_thinking"] == 0]


def look_at_base(rollouts: pd.DataFrame, success_stopped: Sequence[float] | None = None) -> dict[str, float]:
    """Shares and mean rewards of a `rollouts` table of natural traces.

    success_stopped: for each of `closed_by_the_policy`, J if it is stopped right there instead; None where that is the
        same text.
    Returns train_reward: of all. natural_answers: traces that stop by themselves. unreadable: of these, the share whose
        answer cannot be read. ended_in_thought: of these, the share that has none, as the trace ends in its thought.
        cut_at_budget: thoughts that are cut. groups_without_signal: groups of several traces, all right or all wrong.
        reward_natural and success_stopped: means over `closed_by_the_policy`. What no trace shows is left out.
    """
    if rollouts.empty:
        return {}
    natural = rollouts["stop_reason"] != "length"
    found = {"train_reward": rollouts["reward"].mean(), "cut_at_budget": 1 - natural.mean()}
    groups = rollouts.groupby("group")["reward"]
    if groups.size().max() > 1:
        found["groups_without_signal"] = ((groups.mean() == 0) | (groups.mean() == 1)).mean()
    if natural.any():
        found["natural_answers"] = natural.sum()
        found["unreadable"] = (rollouts.loc[natural, "grade"] == "unparsed").mean()
        found["ended_in_thought"] = (rollouts.loc[natural, "stop_reason"] == "eos").mean()
    closed = closed_by_the_policy(rollouts)
    if success_stopped is not None and len(closed) >= _ENOUGH:
        found |= {"reward_natural": closed["reward"].mean(), "success_stopped": np.mean(success_stopped)}
    return {name: float(value) for name, value in found.items()}


def check_base(found: Mapping[str, float]) -> list[str]:
    """What to warn of, each with the parameter to change. found: from `look_at_base`.

    Raises InputError where training could only teach the policy never to stop: its own answers cannot be read.
    """
    shares = defaultdict(float, found)
    unreadable, natural, stopped = shares["unreadable"], shares["reward_natural"], shares["success_stopped"]
    finding = f"{unreadable:.0%} of the answers that the base policy gives by itself cannot be read"
    cure = (
        f"{shares['ended_in_thought']:.0%} end inside the thought: see policy.template.family, opening and close. "
        "Others may need policy.template.natural_answer=opened, a larger policy.template.free_answer_tokens or "
        "rollout.answer_tokens, or a policy.template.suffix that asks for the answer's form; the tiny policy, more "
        "policy.warm_start.steps"
    )
    if unreadable >= _HOPELESS and shares["natural_answers"] >= _ENOUGH:
        raise InputError(
            f"{finding}, so training would teach it never to stop. {cure}. The traces are in "
            "data/02_intermediate/rollouts.parquet"
        )
    cut, without_signal = shares["cut_at_budget"], shares["groups_without_signal"]
    teaches = "to stop early" if natural > stopped else "never to stop"
    warnings = {
        f"{finding}. {cure}.": unreadable > 0.1,
        f"{cut:.0%} of its thoughts are cut at the budget. Raise rollout.thinking_budget.": cut > 0.25,
        f"{without_signal:.0%} of the problems have only right or only wrong ones among their training.group_size "
        "traces, so that outcome rewards teach little. Choose easier problems (task), raise training.group_size, or "
        "begin with a better policy (tiny: policy.warm_start.steps).": without_signal > 0.75,
        f"Traces that stop by themselves earn {natural:.2f}, but {stopped:.2f} if they are stopped at the same place. "
        f"So the way answers are read would teach it {teaches}: look at policy.template (natural_answer, "
        "free_answer_tokens, stop_phrase, answer_opening) and rollout.answer_tokens.": abs(natural - stopped) > 0.2,
    }
    return [warning for warning, deserved in warnings.items() if deserved]
