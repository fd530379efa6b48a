"""From finished runs to arms: what may be compared, and what each configuration is called."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.evaluate import budgets_of, measure
from mrt_pipeline.evaluation.intervals import BASE, Arm
from mrt_pipeline.evaluation.regret_sources import regret_sources, source_values
from mrt_pipeline.evaluation.voting import majority_by_problem, shown_episodes, trace_regrets
from mrt_pipeline.registry import flatten
from mrt_pipeline.rollouts.rollout import GONE

logger = logging.getLogger(__name__)
_SHARED = ("task.", "policy.", "engine.", "prover.", "rollout.", "evaluation.", "training.sampled_tokens")
"""How the names of the parameters begin that must agree."""
_IGNORED = ("seed", "preset", "plugins", "compare", "plan", "diagnose")
_NAMED = 5  # differences that a refusal names


class TrainingRun(Protocol):
    """What is needed of a run; see tracking/read_runs.py."""

    run_id: str
    started: int
    parameters: Mapping[str, Any]

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """By dataset name."""


def check_comparable(runs: Sequence[TrainingRun]) -> None:
    """Raise InputError naming what differs if runs differ in problems, policy, budgets, prover or sampled tokens."""
    first, *others = runs
    ours = _flat(first.parameters)
    for run in others:
        theirs = _flat(run.parameters)
        differing = [
            f"{name} ({ours.get(name)} and {theirs.get(name)})"
            for name in sorted(ours | theirs)
            if name.startswith(_SHARED) and ours.get(name) != theirs.get(name)
        ]
        if differing:
            more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
            raise InputError(
                f"runs {first.run_id} and {run.run_id} are not comparable, they differ in "
                f"{', '.join(differing[:_NAMED])}{more}: leave one out, or set compare.allow_different=true"
            )


def group_runs(runs: Sequence[TrainingRun]) -> dict[str, dict[int, TrainingRun]]:
    """The runs of each configuration, by the name of its arm and by seed; needs no tables.

    An arm is named after its algorithm and the parameters that tell arms apart. Of several runs with the same
    configuration and seed the newest is taken.
    """
    by_configuration: dict[tuple, dict[int, TrainingRun]] = {_configuration(run): {} for run in runs}
    for run in sorted(runs, key=lambda run: run.started):
        seeds, seed = by_configuration[_configuration(run)], run.parameters["seed"]
        if seed in seeds:
            logger.warning(
                "Run %s is left out: %s is newer, with the same configuration and seed", seeds[seed].run_id, run.run_id
            )
        seeds[seed] = run
    names = _names(list(by_configuration))
    return {name: dict(sorted(by_seed.items())) for name, by_seed in zip(names, by_configuration.values(), strict=True)}


def find_baseline(arms: Sequence[str], wanted: str) -> str:
    """The arm that has this name, or else the only one whose name begins so; InputError if that is not one."""
    arms = [arm for arm in arms if arm != BASE]
    found = [arm for arm in arms if arm == wanted] or [arm for arm in arms if arm.startswith(wanted)]
    if len(found) != 1:
        names = ", ".join(f"'{arm}'" for arm in arms)
        fits = "more than one" if found else "none"
        raise InputError(f"compare.baseline '{wanted}' fits {fits} of the arms {names}: set it to one of them")
    return found[0]


def shared_budgets(runs: Sequence[TrainingRun]) -> list[int]:
    """The budgets that all runs were measured at, ascending; InputError if there is none."""
    each = [
        budgets_of(run.parameters["rollout"]["thinking_budget"], run.parameters["evaluation"]["budget_multiples"])
        for run in runs
    ]
    shared = sorted(set.intersection(*map(set, each)))
    if not shared:
        raise InputError("the runs have no budget in common, so there is nothing to compare")
    return shared


def make_arms(groups: Mapping[str, Mapping[int, TrainingRun]]) -> list[Arm]:
    """The base and an arm for each of `group_runs`, with their tables.

    Only problems and budgets that all runs were measured on are compared; where regret comes from is looked at at the
    smallest training budget. The base, and how difficult a problem is for it, are of the first run.
    """
    runs = [run for by_seed in groups.values() for run in by_seed.values()]
    measured = [set(run.tables[f"{policy}_episodes"]["problem_id"]) for run in runs for policy in (BASE, "trained")]
    problems = sorted(set.intersection(*measured))
    if not problems:
        raise InputError("the runs have no held-out problem in common, so there is nothing to compare")
    budgets = shared_budgets(runs)
    training_budget = min(run.parameters["rollout"]["thinking_budget"] for run in runs)
    samples = runs[0].tables["base_samples"]

    def own(run: TrainingRun, name: str) -> pd.DataFrame:
        return run.tables[name][run.tables[name]["problem_id"].isin(problems)]

    def measure_run(run: TrainingRun, policy: str) -> dict[str, Mapping[tuple, pd.Series]]:
        episodes = own(run, f"{policy}_episodes")
        return {
            "values": measure(episodes, own(run, f"{policy}_anytime"), budgets),
            "votes": majority_by_problem(own(run, f"{policy}_samples")),
            "sources": source_values(regret_sources(episodes, samples, training_budget)),
            "stopping": _stopping(run, f"{policy}_votes"),
        }

    def measure_arm(name: str, by_seed: Mapping[int, TrainingRun], policy: str) -> Arm:
        seeds = [measure_run(run, policy) for run in by_seed.values()]
        lengths = [own(run, f"{policy}_rollouts")["natural_length"] for run in by_seed.values()]
        return Arm(
            name=name,
            seeds=tuple(by_seed),
            thinking_tokens={b: float(np.mean([natural.clip(upper=b).mean() for natural in lengths])) for b in budgets},
            histories=() if policy == BASE else tuple(run.tables["training_history"] for run in by_seed.values()),
            **{part: _stack([seed[part] for seed in seeds], problems) for part in seeds[0]},
        )

    base = measure_arm(BASE, {0: runs[0]}, BASE)
    return [base, *(measure_arm(name, by_seed, "trained") for name, by_seed in groups.items())]


def _stack(seeds: Sequence[Mapping[tuple, pd.Series]], problems: Sequence[str]) -> dict[tuple, np.ndarray]:
    """What all seeds have, as arrays (s, n_problems); NaN where a problem has no value."""
    keys = [key for key in seeds[0] if all(key in other for other in seeds)]
    return {key: np.stack([values[key].reindex(problems).to_numpy(np.float64) for values in seeds]) for key in keys}


def _stopping(run: TrainingRun, table: str) -> dict[tuple, pd.Series]:
    votes = run.tables.get(table)
    if votes is None:
        logger.warning("Run %s has no table '%s': its arm is compared without stopping regret", run.run_id, table)
        return {}
    regrets = trace_regrets(votes, shown_episodes(votes))
    return {(b,): values.groupby(level=0).mean() for b, values in regrets.items()}


def _configuration(run: TrainingRun) -> tuple[tuple[str, str], ...]:
    parameters = {name: value for name, value in run.parameters.items() if name not in _IGNORED}
    return tuple(sorted((name, str(value)) for name, value in _flat(parameters).items()))


def _names(configurations: Sequence[tuple]) -> list[str]:
    """The algorithm, and those parameters that tell arms of one algorithm apart."""
    trees = [dict(configuration) for configuration in configurations]
    names = []
    for tree in trees:
        same = pd.DataFrame([other for other in trees if other["algorithm.name"] == tree["algorithm.name"]])
        differing = [key for key in sorted(same) if same[key].nunique(dropna=False) > 1]
        names.append(" ".join([tree["algorithm.name"], *(f"{key}={tree.get(key)}" for key in differing)]))
    return names


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Names joined by dots, without what parameters no longer have."""
    return {name: value for name, value in flatten(tree).items() if name not in GONE}
