"""Parameters of evaluating and comparing."""

from typing import Annotated, Literal

from pydantic import Field

from mrt_pipeline.registry import INCIDENTAL, Params, PositiveFloat, PositiveInt

Confidence = Annotated[float, Field(gt=0, lt=1)]


class EvaluationParams(Params):
    """Budget extrapolation; see evaluation/evaluate.py."""

    split: Literal["test", "validation"] = Field(
        default="test",
        description="where the held-out problems come from; choose settings on validation, so that test stays unseen",
    )
    n_problems: PositiveInt = Field(default=600, description="held-out problems used")
    n_rollouts: PositiveInt = Field(default=2, description="budget-forced traces of each problem")
    n_samples: PositiveInt = Field(
        default=8,
        description="traces of each problem that stop where the model stops, within the training budget: for maj@k",
    )
    n_sample_problems: PositiveInt = Field(
        default=200, description="most held-out problems used for these; the first of n_problems"
    )
    window: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="episodes that the policy still sees when it samples the next one (linearised evaluation), for "
        "policies that answer in their stream; 0: none; null: no such samples; task=countdown_backtracking sets it",
    )
    window_budget_multiple: PositiveFloat = Field(
        default=4.0,
        description="most thinking tokens of a linearised sample, in multiples of the training budget; they need not "
        "fit into the context",
    )
    n_vote_problems: PositiveInt = Field(
        default=100,
        description="held-out problems, the first of n_problems, with answers forced at every boundary of one trace",
    )
    n_votes: Annotated[int, Field(ge=8)] = Field(
        default=8,
        description="answers forced at such a boundary: for [maj@p]_j, and stopping regret, which needs eight",
    )
    n_traces: Annotated[int, Field(ge=0)] = Field(
        default=20,
        description="held-out rollouts of each policy shown as MLflow traces, an episode a span",
        json_schema_extra=INCIDENTAL,
    )
    budget_multiples: list[PositiveFloat] = Field(
        default=[0.25, 0.5, 1.0, 1.5, 2.0], min_length=1, description="budgets, in multiples of the training budget"
    )
    n_resamples: PositiveInt = Field(default=2000, description="bootstrap resamples over problems")
    confidence: Confidence = Field(default=0.95, description="level of the intervals")
    seed: int = Field(default=0, description="of the traces; the same for all policies, which makes comparisons paired")


class CompareParams(Params):
    """Comparing finished runs; see evaluation/compare.py. Nothing else depends on it."""

    runs: str | list[str] = Field(
        default=[],
        description="a sweep's parent run, an experiment, run ids, a folder of kept runs, or a list of these",
    )
    bases: list[str] = Field(
        default=["policy.warm_start.seed"],
        description="parameters whose values tell bases apart: runs that differ in them alone are of one arm, and only "
        "bases that all arms have are compared",
    )
    keep: str | None = Field(
        default=None,
        description="folder where a summary of each run is kept, some 50 KB; `runs` can name it; null: nowhere",
    )
    baseline: str = Field(
        default="grpo", description="the arm that gains are measured against: its name, or how it begins"
    )
    allow_different: bool = Field(
        default=False, description="compare runs of other problems, budgets or numbers of tokens as well"
    )
    n_resamples: PositiveInt = Field(default=2000, description="bootstrap resamples over seeds and problems")
    confidence: Confidence = Field(default=0.95, description="level of the intervals")
    seed: int = Field(default=0, description="of the resampling")
