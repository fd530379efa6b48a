"""From finished runs to arms: what may be compared, and what each configuration is called.

Runs of one arm differ in their seed, and may differ in their base: its name is made of the parameters that
`compare.bases` lists. All arms are compared on the same bases. `compare.arms` chooses arms and names them.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.evaluation.intervals import BASE, Arm
from mrt_pipeline.evaluation.run_summary import Measures, TrainingRun
from mrt_pipeline.registry import flatten
from mrt_pipeline.rollouts.rollout import GONE

logger = logging.getLogger(__name__)
_SHARED = ("task.", "policy.", "engine.", "prover.", "rollout.", "evaluation.", "training.sampled_tokens")
"""How the names of the parameters begin that must agree."""
_IGNORED = ("seed", "preset", "plugins", "compare", "plan", "diagnose", "audit")
_NAMED = 5  # differences that a refusal names


Replicate = tuple[str, int]
"""Base and seed of a run."""
Group = Mapping[Replicate, TrainingRun]
"""The runs of an arm."""


def check_comparable(runs: Sequence[TrainingRun], bases: Sequence[str] = ()) -> None:
    """Raise InputError naming what differs if runs differ in problems, policy, budgets, prover or sampled tokens.

    bases: parameters that may differ.
    """
    first, *others = runs
    ours = _flat(first.parameters)
    for run in others:
        theirs = _flat(run.parameters)
        differing = {
            name: (ours.get(name), theirs.get(name))
            for name in sorted(ours | theirs)
            if name.startswith(_SHARED) and name not in bases and ours.get(name) != theirs.get(name)
        }
        if differing:
            raise InputError(
                f"runs {first.run_id} and {run.run_id} are not comparable, they differ in {_listed(differing)}: "
                "leave one out, name what tells bases apart in compare.bases, or set compare.allow_different=true"
            )


def _listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """The first few differences in words."""
    named = [f"{name} ({ours} and {theirs})" for name, (ours, theirs) in sorted(differing.items())]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def group_runs(
    runs: Sequence[TrainingRun], bases: Sequence[str] = (), wanted: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Group]:
    """The runs of each arm, by its name, then by base and seed; needs no tables.

    An arm for each configuration, named after its algorithm and the parameters that tell arms apart; or those of
    `choose_arms` if they are given. Of several runs with the same configuration, base and seed the newest is taken.
    bases: the parameters that tell bases apart. Bases that an arm lacks are left out of all arms, with a line;
    InputError if none is left.
    """
    named = choose_arms(runs, bases, wanted) if wanted else _by_configuration(runs, bases)
    arms = {name: _newest(own, bases) for name, own in named.items()}
    known = {name: {base for base, _ in own} for name, own in arms.items()}
    shared, every = set.intersection(*known.values()), set.union(*known.values())
    if not shared:
        raise InputError(f"the arms have no base in common: {'; '.join(f'{n}: {sorted(b)}' for n, b in known.items())}")
    if every - shared:
        logger.warning("Left out, as not all arms have runs on them: the bases %s", ", ".join(sorted(every - shared)))
    return {
        name: {replicate: own[replicate] for replicate in sorted(own) if replicate[0] in shared}
        for name, own in arms.items()
    }


def choose_arms(
    runs: Sequence[TrainingRun], bases: Sequence[str], wanted: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[TrainingRun]]:
    """The runs of each wanted arm: those whose parameters have the values of `compare.arms`. Others are left out.

    InputError for an arm without runs, for a run that fits two arms, and for runs of one arm that differ in more than
    seed and base. A parameter that was not there yet when one of two runs was made is no difference.
    """
    arms: dict[str, list[TrainingRun]] = {name: [] for name in wanted}
    for run in runs:
        ours = _flat(run.parameters)
        fits = [name for name, values in wanted.items() if all(ours.get(key) == v for key, v in values.items())]
        if len(fits) > 1:
            raise InputError(f"run {run.run_id} fits the arms '{fits[0]}' and '{fits[1]}': give one more parameters")
        for name in fits:
            arms[name].append(run)
    for name, own in arms.items():
        if not own:
            raise InputError(f"no run fits the arm '{name}' ({_written(wanted[name])}): mend it in compare.arms")
        first, *others = (dict(_configuration(run, bases)) for run in own)
        for run, theirs in zip(own[1:], others, strict=True):
            differing = {
                key: (first[key], theirs[key]) for key in first.keys() & theirs.keys() if first[key] != theirs[key]
            }
            if differing:
                raise InputError(
                    f"runs {own[0].run_id} and {run.run_id} both fit the arm '{name}', but differ in "
                    f"{_listed(differing)}: give it more parameters in compare.arms"
                )
    if left := len(runs) - sum(map(len, arms.values())):
        logger.info("%d runs fit none of compare.arms and are left out", left)
    return arms


def _by_configuration(runs: Sequence[TrainingRun], bases: Sequence[str]) -> dict[str, list[TrainingRun]]:
    by_configuration: dict[tuple, list[TrainingRun]] = {}
    for run in runs:
        by_configuration.setdefault(_configuration(run, bases), []).append(run)
    return dict(zip(_names(list(by_configuration)), by_configuration.values(), strict=True))


def _newest(runs: Sequence[TrainingRun], bases: Sequence[str]) -> dict[Replicate, TrainingRun]:
    """One run a base and seed."""
    own: dict[Replicate, TrainingRun] = {}
    for run in sorted(runs, key=lambda run: run.started):
        replicate = _base(run, bases), run.parameters["seed"]
        if replicate in own:
            logger.warning(
                "Run %s is left out: %s is newer, with the same configuration and seed",
                own[replicate].run_id,
                run.run_id,
            )
        own[replicate] = run
    return own


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


def make_arms(groups: Mapping[str, Group]) -> list[Arm]:
    """The base and an arm for each of `group_runs`.

    Only problems and budgets that all runs were measured on are compared. Of each base policy the measures are those of
    the first run on it.
    """
    runs = [run for own in groups.values() for run in own.values()]
    first_on: dict[str, TrainingRun] = {}
    for own in groups.values():
        for (base, _), run in own.items():
            first_on.setdefault(base, run)
    measured = {(run.run_id, "trained"): run.measures("trained") for run in runs}
    measured |= {(run.run_id, BASE): run.measures(BASE) for run in first_on.values()}
    problems = sorted(set.intersection(*map(_problems, measured.values())))
    if not problems:
        raise InputError("the runs have no held-out problem in common, so there is nothing to compare")
    budgets = shared_budgets(runs)

    def make_arm(name: str, own: Group, policy: str) -> Arm:
        each = [measured[run.run_id, policy] for run in own.values()]
        parts = {part: _stack([run[part] for run in each], problems) for part in each[0]}
        parts["values"] = {key: values for key, values in parts["values"].items() if key[1] in budgets}
        histories = () if policy == BASE else tuple(run.history for run in own.values())
        bases, seeds = zip(*own, strict=True)
        return Arm(name, seeds, bases=bases, histories=histories, **parts)

    untrained = make_arm(BASE, {(base, 0): first_on[base] for base in sorted(first_on)}, BASE)
    return [untrained, *(make_arm(name, own, "trained") for name, own in groups.items())]


def _problems(measures: Measures) -> set[str]:
    """Those on which a policy was measured."""
    return set().union(*(values.index for values in measures["values"].values()))


def _stack(runs: Sequence[Mapping[tuple, pd.Series]], problems: Sequence[str]) -> dict[tuple, np.ndarray]:
    """What all runs have, as arrays (s, n_problems); NaN where a problem has no value."""
    keys = [key for key in runs[0] if all(key in other for other in runs)]
    return {key: np.stack([values[key].reindex(problems).to_numpy(np.float64) for values in runs]) for key in keys}


def _base(run: TrainingRun, bases: Sequence[str]) -> str:
    """What tells its base from others, in words."""
    flat = _flat(run.parameters)
    return _written({name: flat[name] for name in bases if name in flat})


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _configuration(run: TrainingRun, bases: Sequence[str]) -> tuple[tuple[str, str], ...]:
    parameters = {name: value for name, value in run.parameters.items() if name not in _IGNORED}
    return tuple(sorted((name, str(value)) for name, value in _flat(parameters).items() if name not in bases))


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
