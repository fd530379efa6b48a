"""A look at the base policy's rollouts before anything is trained on it: can its answers be read, is there a signal?"""

from collections.abc import Mapping

import pandas as pd

from mrt_pipeline.errors import InputError

MOST_UNREADABLE, MOST_CUT, MOST_WITHOUT_SIGNAL, MOST_REWARD_GAP = 0.1, 0.25, 0.75, 0.2
HOPELESS = 0.99  # share of natural answers that cannot be read, from which on training is refused
_ENOUGH = 20  # traces of each kind, to compare their rewards


def look_at_base(rollouts: pd.DataFrame) -> dict[str, float]:
    """Shares and mean rewards of a `rollouts` table of natural traces, several of each problem.

    train_reward: of all. unreadable: of the traces that stop by themselves, those whose answer cannot be read.
    cut_at_budget: thoughts that are cut. groups_without_signal: problems whose traces are all right or all wrong.
    reward_natural, reward_cut: of the two kinds. What no trace shows is left out.
    """
    natural = rollouts["stop_reason"] != "length"
    rewards = rollouts.groupby("problem_id")["reward"].mean()
    found = {
        "train_reward": rollouts["reward"].mean(),
        "cut_at_budget": 1 - natural.mean(),
        "groups_without_signal": ((rewards == 0) | (rewards == 1)).mean(),
    }
    if natural.any():
        found["unreadable"] = (rollouts.loc[natural, "grade"] == "unparsed").mean()
        found["reward_natural"] = rollouts.loc[natural, "reward"].mean()
    if not natural.all():
        found["reward_cut"] = rollouts.loc[~natural, "reward"].mean()
    return {name: float(value) for name, value in found.items()}


def check_base(found: Mapping[str, float], n_rollouts: int) -> list[str]:
    """What to warn of, each with the parameter to change. found: from `look_at_base`, of so many rollouts.

    Raises InputError where training could only teach the policy never to stop: its own answers cannot be read.
    """
    unreadable, cut = found.get("unreadable", 0.0), found["cut_at_budget"]
    cure = (
        "A language model: policy.template.natural_answer=opened, or a larger policy.template.free_answer_tokens, and "
        "policy.template.suffix asks for the answer's form. Any: a larger rollout.answer_tokens. The tiny policy: "
        "more policy.warm_start.steps"
    )
    if unreadable >= HOPELESS:
        raise InputError(
            f"{unreadable:.0%} of the answers that the base policy gives by itself cannot be read, so training would "
            f"teach it never to stop. {cure}. The traces are in data/02_intermediate/rollouts.parquet"
        )
    warnings = []
    if unreadable > MOST_UNREADABLE:
        warnings.append(f"{unreadable:.0%} of the answers that the base policy gives by itself cannot be read. {cure}.")
    if cut > MOST_CUT:
        warnings.append(f"{cut:.0%} of its thoughts are cut at the budget. Raise rollout.thinking_budget.")
    if found["groups_without_signal"] > MOST_WITHOUT_SIGNAL:
        warnings.append(
            f"{found['groups_without_signal']:.0%} of the problems have only right or only wrong traces, so that "
            "outcome rewards teach little. Choose easier problems (task), raise training.group_size, or begin with a "
            "better policy (tiny: policy.warm_start.steps)."
        )
    enough = min(cut, 1 - cut) * n_rollouts >= _ENOUGH
    gap = found.get("reward_natural", 0.0) - found.get("reward_cut", 0.0)
    if enough and abs(gap) > MOST_REWARD_GAP:
        teaches = "to stop early" if gap > 0 else "never to stop"
        warnings.append(
            f"Traces that stop by themselves earn {found['reward_natural']:.2f}, those that are cut at the budget "
            f"{found['reward_cut']:.2f}. If that is how answers are read and not how hard the problems are, training "
            f"will teach the policy {teaches}: compare both kinds in data/02_intermediate/rollouts.parquet, and see "
            "policy.template (natural_answer, stop_phrase) and rollout.thinking_budget."
        )
    return warnings
