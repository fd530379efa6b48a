"""From finished runs to arms: what may be compared, and what each configuration is called."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.compare import BASE, Arm, measure
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.evaluation.majority import majority_by_problem

logger = logging.getLogger(__name__)
_SHARED = ("task", "policy", "engine", "prover", "rollout", "evaluation")  # groups that must agree
_IGNORED = ("seed", "preset", "compare")


class TrainingRun(Protocol):
    """What is needed of a run; see tracking/read_runs.py."""

    run_id: str
    parameters: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]


def check_comparable(runs: Sequence[TrainingRun]) -> None:
    """Raise InputError naming what differs if runs differ in problems, policy, budgets, prover or sampled tokens."""
    first = _flat(runs[0].parameters)
    for run in runs[1:]:
        other = _flat(run.parameters)
        differing = [
            f"{name} ({first.get(name)} and {other.get(name)})"
            for name in sorted(first.keys() | other.keys())
            if first.get(name) != other.get(name)
            and (name.split(".")[0] in _SHARED or name == "training.sampled_tokens")
        ]
        if differing:
            raise InputError(
                f"runs {runs[0].run_id} and {run.run_id} are not comparable, they differ in {', '.join(differing)}: "
                "leave one out, or set compare.allow_different=true"
            )


def make_arms(runs: Sequence[TrainingRun]) -> list[Arm]:
    """The base and an arm for each configuration, named after its algorithm and the parameters that tell arms apart.

    Of several runs with the same configuration and seed the first is taken. Only problems and budgets that all runs
    were measured on are compared.
    """
    by_configuration: dict[tuple, dict[int, TrainingRun]] = {}
    for run in runs:
        seeds = by_configuration.setdefault(_configuration(run), {})
        if run.parameters["seed"] in seeds:
            logger.warning("Run %s is left out: another has the same configuration and seed", run.run_id)
        else:
            seeds[run.parameters["seed"]] = run
    names = _names(list(by_configuration))
    budgets = sorted(
        set.intersection(
            *(
                set(
                    budgets_of(
                        run.parameters["rollout"]["thinking_budget"], run.parameters["evaluation"]["budget_multiples"]
                    )
                )
                for run in runs
            )
        )
    )
    problems = sorted(set.intersection(*(set(run.tables["trained_episodes"]["problem_id"]) for run in runs)))
    if not budgets or not problems:
        raise InputError("the runs have no budget or no held-out problem in common, so there is nothing to compare")
    arms = [_arm(BASE, {0: runs[0]}, "base", budgets, problems)]
    for name, seeds in zip(names, by_configuration.values(), strict=True):
        arms.append(_arm(name, dict(sorted(seeds.items())), "trained", budgets, problems))
    return arms


def _arm(
    name: str, runs: Mapping[int, TrainingRun], policy: str, budgets: Sequence[int], problems: Sequence[str]
) -> Arm:
    measured, tokens, votes = [], [], []
    for run in runs.values():
        tables = {kind: run.tables[f"{policy}_{kind}"] for kind in ("rollouts", "episodes", "anytime", "samples")}
        tables = {kind: table[table["problem_id"].isin(problems)] for kind, table in tables.items()}
        measured.append(measure(tables["episodes"], tables["anytime"], budgets))
        votes.append(majority_by_problem(tables["samples"]))
        natural = tables["rollouts"]["natural_length"]
        tokens.append({budget: float(np.minimum(natural, budget).mean()) for budget in budgets})
    keys = [key for key in measured[0] if all(key in other for other in measured)]
    return Arm(
        name=name,
        seeds=tuple(runs),
        values={key: np.stack([values[key].loc[list(problems)].to_numpy() for values in measured]) for key in keys},
        thinking_tokens={(budget, True): float(budget) for budget in budgets}
        | {(budget, False): float(np.mean([spent[budget] for spent in tokens])) for budget in budgets},
        histories=() if policy == "base" else tuple(run.tables["training_history"] for run in runs.values()),
        votes=tuple(votes),
    )


def _configuration(run: TrainingRun) -> tuple:
    parameters = {name: value for name, value in run.parameters.items() if name not in _IGNORED}
    return tuple(sorted((name, str(value)) for name, value in _flat(parameters).items()))


def _names(configurations: Sequence[tuple]) -> list[str]:
    """The algorithm, and those parameters that tell arms of one algorithm apart."""
    trees = [dict(configuration) for configuration in configurations]
    names = []
    for tree in trees:
        same = [other for other in trees if other["algorithm.name"] == tree["algorithm.name"]]
        keys = sorted(set.union(*(set(other) for other in same)))
        differing = [key for key in keys if len({other.get(key) for other in same}) > 1]
        names.append(" ".join([tree["algorithm.name"], *(f"{key}={tree.get(key)}" for key in differing)]))
    return names


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
