"""The wording of each branch, and the numbers below it."""

import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.algorithms.anytime import Anytime
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.evaluation.diagnosis import COLUMNS
from mrt_pipeline.evaluation.params import DiagnoseParams, credit_name
from mrt_pipeline.reporting.diagnosis import diagnosis_metrics, diagnosis_report
from mrt_pipeline.schemas import DIAGNOSIS

EXPECTED, ONLINE = "mrt_online alpha=0", "mrt_online"


def of_credit(name, own, **targets):
    """Its numbers. targets: cosine, gain and direction."""
    each = {f"{q}_{target}": of for target, three in targets.items() for q, of in zip(QUANTITIES, three, strict=True)}
    return {(quantity, name): number for quantity, number in {"cosine_own": own, **each}.items()}


QUANTITIES = ("cosine", "gain", "direction")
USUAL = {
    "accuracy": 0.4,
    "success_start": 0.1,
    "success_end": 0.4,
    "thinking_tokens": 50,
    "episodes": 5,
    "success_sem": 0,
    "problems": 192,
    "reward_groups": 0.6,
    "success_groups": 0.7,
    "largest_episode": 0.9,
    "large_progress": 0.5,
    "found": (0.6, 0.04, 128),
    "recall": (0.9, 0.01, 80),
    ("recall", "", 5): (0.85, 0.02, 60),
    **of_credit("grpo", own=0.48, outcome=(0.48, (0, 0, 12), 1.0), anytime=(0.3, (0, 0, 12), 0.8)),
    **of_credit(EXPECTED, own=0.56, outcome=(0.56, 0.08, (1, 0, 12)), anytime=(0.32, (0.02, 0.02, 12), 0.8)),
    **of_credit("anytime", own=0.35, outcome=(0.4, -0.08, (0.97, 0.01, 12)), anytime=(0.35, 0.05, (1, 0, 12))),
    **of_credit(ONLINE, own=0.6, outcome=(0.5, 0.02, 0.7), anytime=(0.45, 0.15, 0.9)),
}
NOISY = {("cosine_own", "anytime"): 0.03}
NO_GAIN = {("gain_anytime", "anytime"): (0.05, 0.03, 12), ("gain_anytime", ONLINE): (np.nan, np.nan, 0)}
JUDGED = "judged by being right early and late, at every budget:"


def table(changes=None):
    """Of the numbers above and these; what is given as None is left out."""
    rows = []
    for key, number in {**USUAL, **(changes or {})}.items():
        quantity, *rest = (key,) if isinstance(key, str) else key
        place = (quantity, *rest, *("", 0)[len(rest) :])
        if number is not None:
            rows.append((*place, *(number if isinstance(number, tuple) else (number, 0.02, 12))))
    return DIAGNOSIS.validate(pd.DataFrame(rows, columns=list(COLUMNS)).astype({"mean": float, "sem": float}))


def said(changes=None, algorithm=None):
    """The sentences. algorithm: another one than MRT-online beside GRPO."""
    report = diagnosis_report(table(changes), DiagnoseParams(algorithms=[GRPO(), algorithm or MRTOnline()]), 8, 9)
    return report.split("\n\n")[1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Outcome credit is not scarce: 60% of the groups have right and wrong answers among their 8 rollouts"),
        ({"reward_groups": 0.2, "success_groups": 0.3}, "Outcome credit is scarce: 20% of the groups"),
        ({"reward_groups": 0.2, "success_groups": 0.3}, "a larger training.group_size or a better base"),
        ({"reward_groups": 0.2, "success_groups": 0.8}, "The expected outcome sees differences in more of them."),
        ({}, "The expected outcome should help"),
        ({}, "cosine 0.56 ± 0.02 with the mean of the others, GRPO's 0.48 ± 0.02 (difference +0.08 ± 0.02)"),
        ({}, "(difference +0.08 ± 0.02). To being right at every budget one batch points with no clear difference to"),
        ({("gain_outcome", EXPECTED): (0.08, 0.05, 12)}, "The expected outcome makes no clear difference"),
        ({("gain_outcome", EXPECTED): -0.08}, "The expected outcome does not help"),
        ({("gain_outcome", EXPECTED): (np.nan, np.nan, 0)}, "Nothing can be said of the expected outcome"),
        ({}, "anytime points where the outcome points: the expected gradients have cosine 0.97 ± 0.01. To being right"),
        ({}, "mrt_online points elsewhere than the outcome: the expected gradients have cosine 0.70 ± 0.02. To being"),
        ({("direction_outcome", ONLINE): 0.97}, "mrt_online points where the outcome points"),
        (
            {("direction_outcome", ONLINE): (0.97, 0.1, 12)},
            "mrt_online may point where the outcome points or somewhat else",
        ),
        ({("cosine_outcome", ONLINE): (np.nan, np.nan, 0)}, "Nothing can be said of mrt_online: too few batches"),
        ({("direction_outcome", ONLINE): (np.nan, np.nan, 12)}, "Where mrt_online points cannot be told"),
        (
            {},
            "0.70 ± 0.02. To being right at every budget one batch points better than GRPO's: cosine 0.45 ± 0.02, "
            "GRPO's 0.30 ± 0.02 (difference +0.15 ± 0.02).",
        ),
        ({("gain_anytime", ONLINE): (-0.001, 0.02, 12)}, "with no clear difference to GRPO's: cosine 0.45 ± 0.02"),
        ({("gain_anytime", ONLINE): (-0.001, 0.02, 12)}, "(difference +0.00 ± 0.02)"),
        ({("gain_anytime", ONLINE): -0.2}, "one batch points worse than GRPO's: cosine 0.45 ± 0.02"),
        ({("gain_anytime", ONLINE): (np.nan, np.nan, 0)}, "Too few batches have a gradient to compare it with GRPO at"),
        (
            NOISY,
            "cannot be told: anytime is too noisy for its mean to be told from 0, one batch has cosine 0.03 ± 0.02",
        ),
        (
            {("cosine_own", "anytime"): (np.nan, np.nan, 0)},
            "cannot be told: too few batches have a gradient of anytime",
        ),
        ({}, "Progress is mostly the outcome itself, in one step: a trace's largest episode has 90% of its squared"),
        ({"largest_episode": 0.6}, "Progress comes in a few steps"),
        ({"largest_episode": 0.3}, "There is dense progress"),
        ({"largest_episode": (np.nan, np.nan, 0)}, "There is no progress"),
        ({"episodes": 1.2}, "Whether there is dense progress cannot be seen, as traces have 1.2 episodes"),
        ({}, "The base keeps what it found: J is 0.90 at a find and 0.85 5 episodes later (60 traces)"),
        (
            {("recall", "", 5): (0.5, 0.1, 60)},
            "The base forgets what it found: J is 0.90 at a find and 0.50 5 episodes",
        ),
        ({("recall", "", 5): (0.5, 0.1, 60)}, "train a base that recalls first"),
        ({("recall", "", 5): (0.5, 0.1, 9), ("recall", "", 1): (0.6, 0.1, 30)}, "0.60 1 episode later (30 traces)"),
        ({("recall", "", 5): (0.5, 0.1, 9)}, "Whether the base recalls what it found cannot be told: 80 traces"),
        ({"found": None, "recall": None}, "Recall was not measured: this policy answers in its stream"),
        ({"success_sem": 0.12}, "J is an estimate with a standard error of 0.12."),
        ({"problems": 40}, "The 192 groups are of 40 problems only."),
    ],
)
def test_sentences(changes, sentence):
    assert sentence in said(changes)


@pytest.mark.parametrize(
    ("changes", "recommended"),
    [
        ({}, f"`algorithm=mrt_online`, {JUDGED} of what was measured here it points there best, and clearly better"),
        ({("cosine_anytime", "anytime"): 0.5}, "`algorithm=anytime`"),
        ({("cosine_anytime", EXPECTED): 0.9}, "`algorithm=mrt_online`"),
        ({("cosine_outcome", ONLINE): 0.01, ("gain_outcome", ONLINE): -0.5}, "`algorithm=mrt_online`"),
        (NO_GAIN, f"`algorithm=grpo`, {JUDGED} no other credit measured here points there clearly better."),
        (NO_GAIN | {("gain_anytime", EXPECTED): 0.08}, "`algorithm=mrt_online,algorithm.alpha=0`"),
        (NOISY, f"`algorithm=grpo`, {JUDGED} what that takes cannot be told from these batches."),
        ({("recall", "", 5): (0.5, 0.1, 60)}, "a base that recalls; on this one `algorithm=mrt_online`"),
        ({"reward_groups": 0.01, "success_groups": 0.04}, "train nothing yet"),
    ],
)
def test_the_last_sentence_recommends(changes, recommended):
    last = said(changes).splitlines()[-1]
    assert last.startswith(f"- Recommended: {recommended}")
    assert "train nothing" in last or "runs decide" in last


def test_the_command_is_of_the_algorithms_pipeline_and_parameters():
    best = {"own": 0.9, "outcome": (0.9, 0.9, 0.9), "anytime": (0.9, 0.9, 0.9)}
    assert '`kedro run --pipeline=mrt_star --params "algorithm=star"`' in said(of_credit("star", **best), STaR())
    credit = Anytime(budget=9, alpha=2, budget_multiples=[1, 2])
    command = "algorithm=anytime,algorithm.alpha=2,algorithm.budget_multiples=[1.0,2.0]"
    assert f'`kedro run --pipeline=mrt_rl --params "{command}"`' in said(of_credit(credit_name(credit), **best), credit)


def test_the_numbers_stand_below_and_the_first_table_is_that_of_the_credits():
    report = diagnosis_report(table(), DiagnoseParams(algorithms=[MRTOnline()]), 8, 9)
    title, _, credits, *_ = report.split("\n\n")
    assert title == "# Diagnosis of the base policy, 12 batches of 16 x 8 rollouts"
    assert [line.split("|")[1].strip() for line in credits.splitlines()[2:]] == ["grpo", EXPECTED, "anytime", ONLINE]
    assert all(len(line) <= 120 for line in credits.splitlines())
    assert "0.70 ± 0.02" in credits
    assert "| 0.85 |" in report and "thinking tokens" in report and "nan" not in report


def test_nothing_is_compared_with_a_target_that_cannot_be_told():
    sentences = said(NOISY)
    assert "To being right" not in sentences and "mrt_online points elsewhere than the outcome" in sentences
    assert "cannot be told" not in said()


def test_metrics_are_finite_and_recall_has_the_episodes_as_its_step():
    found = diagnosis_metrics(table({("direction_outcome", ONLINE): (np.nan, np.nan, 12)}))
    assert found[0]["recall"] == 0.9 and found[5] == {"recall": 0.85}
    assert found[0]["cosine_outcome/mrt_online alpha 0"] == 0.56
    assert "direction_outcome/mrt_online" not in found[0]
    assert all(np.isfinite(value) for metrics in found.values() for value in metrics.values())
