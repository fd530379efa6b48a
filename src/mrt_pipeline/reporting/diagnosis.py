"""A diagnosis in words, by the rules of thumb of docs/diagnose.md, and its numbers."""

import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pandas as pd

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.evaluation.diagnosis import EXPECTED_OUTCOME, LATER, OUTCOME, TARGETS, measured
from mrt_pipeline.evaluation.params import DiagnoseParams, chosen_values, credit_name
from mrt_pipeline.reporting.cells import aligned

SCARCE = 0.25
"""Share of groups with right and wrong answers below which the outcome is scarce, as in the look before training."""
HOPELESS = 0.05
"""Share of groups below which there is no outcome to learn from."""
CLEAR = 2.0
"""Standard errors that a difference must have."""
ELSEWHERE = 0.9
"""Cosine of expected gradients below which a credit points elsewhere than the outcome."""
ONE_STEP, DENSE = 0.8, 0.5
"""Share of squared progress in a trace's largest episode from which on it is one step, and below which it is dense."""
KEPT, KEPT_FOR = 0.8, 5
"""Share of J at a find that is to be left so many episodes later."""
ENOUGH = 20
"""Traces that recall needs."""

_COLUMNS = {
    "cosine_own": "own mean",
    "cosine_outcome": "outcome",
    "cosine_anytime": "every budget",
    "direction_outcome": "direction: outcome",
    "direction_anytime": "direction: every budget",
}


class _Number(NamedTuple):
    mean: float
    sem: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sem:.2f}"

    @property
    def sign(self) -> int:
        """Of a difference; 0 where it is within two standard errors of 0, or not known."""
        return int(self.mean > CLEAR * self.sem) - int(self.mean < -CLEAR * self.sem)


class _Found:
    """The numbers of a `diagnosis` table; what is not there is NaN."""

    def __init__(self, table: pd.DataFrame):
        rows = table[["quantity", "credit", "episodes_later", "mean", "sem", "n"]].itertuples(index=False, name=None)
        self._rows = {(quantity, credit, later): _Number(*number) for quantity, credit, later, *number in rows}

    def __call__(self, quantity: str, credit: str = "", later: int = 0) -> _Number:
        return self._rows.get((quantity, credit, later), _Number(np.nan, np.nan, 0))


def diagnosis_report(diagnosis: pd.DataFrame, params: DiagnoseParams, group_size: int, budget: int) -> str:
    """What the table means, sentence by sentence, and what to run; then its numbers.

    group_size, budget: of training.
    """
    found, algorithms = _Found(diagnosis), measured(params.algorithms, budget)
    names = [credit_name(algorithm) for algorithm in algorithms]
    target = names[TARGETS["anytime"]]
    told = found("cosine_own", target).sign > 0
    every_budget = {name: f" {_every_budget(found, name)}" if told else "" for name in names}
    forgets, recall = _recall(found)
    sentences = [
        _outcome(found, group_size),
        _expected_outcome(found) + every_budget[names[1]],
        _density(found),
        *([] if told else [_too_noisy(found, target)]),
        *(_elsewhere(found, name) + every_budget[name] for name in names[2:]),
        recall,
        *_caveats(found, params),
        _recommendation(found, algorithms, forgets, told),
    ]
    per_credit = [[name, *(_cell(found(quantity, name)) for quantity in _COLUMNS)] for name in names]
    later = [[str(n), f"{at.mean:.2f}" if at.n else "", str(at.n)] for n in LATER for at in [found("recall", later=n)]]
    others = [
        [text, _cell(number) if number.n else "", str(number.n)]
        for quantity, text in _OTHERS.items()
        for number in [found(quantity)]
    ]
    lines = [
        f"# Diagnosis of the base policy, {params.batches} batches of {params.groups} x {group_size} rollouts",
        "",
        *(f"- {sentence}" for sentence in sentences),
        "",
        *aligned(["credit", *_COLUMNS.values()], per_credit),
        "",
        "The columns of the table: cosine of one batch's gradient with the mean gradient of the other batches, of the "
        f"same credit, of the expected outcome, and of {target}, whose objective is to be right at every budget, "
        "± the standard error over batches. Directions: cosine of the expected gradients of the credit and of the "
        "outcome, or every budget, freed of noise, which may exceed 1 by its error.",
        "",
        "Recall, traces forced on:",
        "",
        *aligned(["episodes after the find", "J", "traces"], later),
        "",
        "The base policy on training problems:",
        "",
        *aligned(["", "mean", "of"], others),
    ]
    return "\n".join(lines) + "\n"


_OTHERS = {
    "accuracy": "accuracy",
    "success_start": "J at the start",
    "success_end": "J at the end",
    "thinking_tokens": "thinking tokens",
    "episodes": "episodes of a trace",
    "reward_groups": "groups with right and wrong answers",
    "success_groups": "groups whose J at the end differs by more than .05",
    "largest_episode": "squared progress in a trace's largest episode",
    "large_progress": "traces with any progress beyond .2",
    "found": "traces that find, forced on",
}


def diagnosis_metrics(diagnosis: pd.DataFrame) -> dict[int, dict[str, float]]:
    """The means that are known, by step: `recall` by the episodes after the find, all others at 0."""
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    for row in diagnosis[np.isfinite(diagnosis["mean"])].itertuples():
        credit = re.sub(r"[^\w.\- ]", " ", row.credit)  # MLflow takes no other characters
        by_step[int(row.episodes_later)][f"{row.quantity}/{credit}".rstrip("/")] = float(row.mean)
    return dict(by_step)


def _outcome(found: _Found, group_size: int) -> str:
    share, expected = found("reward_groups").mean, found("success_groups").mean
    what = f"{share:.0%} of the groups have right and wrong answers among their {group_size} rollouts, and in "
    what += f"{expected:.0%} J at the end differs by more than .05."
    if share >= SCARCE:
        return f"Outcome credit is not scarce: {what}"
    cure = "Easier problems, a larger training.group_size or a better base come before the choice of a credit."
    if expected > share + SCARCE:
        cure = "The expected outcome sees differences in more of them."
    return f"Outcome credit is scarce: {what} {cure}"


def _expected_outcome(found: _Found) -> str:
    name, grpo = credit_name(EXPECTED_OUTCOME), credit_name(OUTCOME)
    ours, theirs, gain = found("cosine_outcome", name), found("cosine_outcome", grpo), found("gain_outcome", name)
    if np.isnan(gain.mean):
        return "Nothing can be said of the expected outcome: too few batches have a gradient of the outcome."
    said = {
        1: "The expected outcome should help, as it is less noisy than the sampled reward",
        0: "The expected outcome makes no clear difference to the sampled reward",
        -1: "The expected outcome does not help",
    }[gain.sign]
    cosines = f"one batch has cosine {ours} with the mean of the others, GRPO's {theirs}"
    return f"{said}: {cosines} (difference {gain.mean:+z.2f} ± {gain.sem:.2f})."


def _density(found: _Found) -> str:
    share, large = found("largest_episode").mean, found("large_progress").mean
    if np.isnan(share):
        return "There is no progress: no episode of any trace changes J."
    what = f"a trace's largest episode has {share:.0%} of its squared progress, and {large:.0%} of the traces have "
    what += "an episode that changes J by more than .2"
    if found("episodes").mean < 1.5:
        return (
            f"Whether there is dense progress cannot be seen, as traces have {found('episodes').mean:.1f} episodes: "
            f"{what}. See policy.template.segmentation."
        )
    if share >= ONE_STEP:
        return f"Progress is mostly the outcome itself, in one step: {what}. It adds where that happened, no more."
    if share >= DENSE:
        return f"Progress comes in a few steps: {what}."
    return f"There is dense progress, which says more than the outcome: {what}."


def _elsewhere(found: _Found, name: str) -> str:
    points = found("direction_outcome", name)
    if np.isnan(found("cosine_outcome", name).mean):
        return f"Nothing can be said of {name}: too few batches have a gradient."
    if np.isnan(points.sem):
        noise = f"one batch has cosine {found('cosine_own', name)} with its own mean"
        return f"Where {name} points cannot be told from so few batches, it is too noisy: {noise}."
    direction = f"the expected gradients have cosine {points}"
    if points.mean + CLEAR * points.sem < ELSEWHERE:
        return f"{name} points elsewhere than the outcome: {direction}."
    if points.mean - CLEAR * points.sem > ELSEWHERE:
        return f"{name} points where the outcome points: {direction}."
    return f"{name} may point where the outcome points or somewhat elsewhere: {direction}."


def _every_budget(found: _Found, name: str) -> str:
    grpo = credit_name(OUTCOME)
    ours, theirs, gain = found("cosine_anytime", name), found("cosine_anytime", grpo), found("gain_anytime", name)
    if np.isnan(gain.mean):
        return "Too few batches have a gradient to compare it with GRPO at every budget."
    how = {1: "better than GRPO's", 0: "with no clear difference to GRPO's", -1: "worse than GRPO's"}[gain.sign]
    cosines = f"cosine {ours}, GRPO's {theirs} (difference {gain.mean:+z.2f} ± {gain.sem:.2f})"
    return f"To being right at every budget one batch points {how}: {cosines}."


def _too_noisy(found: _Found, target: str) -> str:
    own = found("cosine_own", target)
    why = f"{target} is too noisy for its mean to be told from 0, one batch has cosine {_cell(own)} with its own mean"
    if np.isnan(own.mean):
        why = f"too few batches have a gradient of {target}"
    return (
        f"What it takes to be right at every budget cannot be told: {why}. Raise diagnose.batches or diagnose.groups."
    )


def _recall(found: _Found) -> tuple[bool, str]:
    """Whether the base forgets, and the sentence."""
    first = found("recall")
    if np.isnan(found("found").mean):
        return False, "Recall was not measured: this policy answers in its stream, so no thought holds an answer."
    far = max((n for n in LATER if 0 < n <= KEPT_FOR and found("recall", later=n).n >= ENOUGH), default=0)
    if not far:
        return False, (
            f"Whether the base recalls what it found cannot be told: {first.n} traces found anything, and hardly any "
            "went on after that. Raise diagnose.n_recall."
        )
    later = found("recall", later=far)
    what = (
        f"J is {first.mean:.2f} at a find and {later.mean:.2f} {far} episode{'s' * (far > 1)} later ({later.n} traces)"
    )
    if later.mean < KEPT * first.mean:
        return True, (
            f"The base forgets what it found: {what}. Regret when forced on is then mostly forgetting, which credit "
            "for finding does not mend: train a base that recalls first."
        )
    return False, f"The base keeps what it found: {what}."


def _caveats(found: _Found, params: DiagnoseParams) -> list[str]:
    noise, problems, groups = found("success_sem").mean, found("problems").mean, params.batches * params.groups
    caveats = {
        f"J is an estimate with a standard error of {noise:.2f}. That noise counts as progress, so that it looks "
        "denser than it is, and as forgetting after a find.": noise > 0,
        f"The {groups} groups are of {problems:.0f} problems only. Batches that share problems agree more than "
        "batches of new ones would.": problems < groups,
    }
    return [caveat for caveat, holds in caveats.items() if holds]


def _recommendation(found: _Found, algorithms: list[Algorithm], forgets: bool, told: bool) -> str:
    """The credit that points best to being right at every budget, if that is told and it is clearly above GRPO."""
    if max(found("reward_groups").mean, found("success_groups").mean) < HOPELESS:
        return "Recommended: train nothing yet. No credit has anything to work with before the problems are easier."
    clear = [algorithm for algorithm in algorithms if told and found("gain_anytime", credit_name(algorithm)).sign > 0]
    best = max(clear, key=lambda algorithm: found("cosine_anytime", credit_name(algorithm)).mean, default=OUTCOME)
    why = "no other credit measured here points there clearly better"
    if clear:
        why = "of what was measured here it points there best, and clearly better than GRPO"
    elif not told:
        why = "what that takes cannot be told from these batches"
    chosen = ",".join([f"algorithm={best.name}", *(f"algorithm.{value}" for value in chosen_values(best))])
    pipeline = "mrt_star" if best.likelihood else "mrt_rl"
    first = "a base that recalls; on this one " if forgets else ""
    return (
        f"Recommended: {first}`{chosen}`, judged by being right early and late, at every budget: {why}. "
        "A look and no result, runs decide: "
        f'`kedro run --pipeline={pipeline} --params "{chosen}"`, with the other parameters as here.'
    )


def _cell(number: _Number) -> str:
    return "" if np.isnan(number.mean) else f"{number.mean:.2f}" if np.isnan(number.sem) else str(number)
