"""Parameters of evaluating, comparing and diagnosing."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.errors import InputError
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
    arms: dict[str, dict[str, Any]] = Field(
        default={},
        description="arms by the name that is shown: values of parameters, by dotted name, that its runs have; other "
        "runs are left out; empty: an arm for each configuration",
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


class DiagnoseParams(Params):
    """A look at the base policy before anything is trained; see evaluation/diagnosis.py. Nothing else depends on it."""

    algorithms: list[SerializeAsAny[Algorithm]] = Field(
        min_length=1,
        description="whose gradients are compared: names, or names with parameters ({name: anytime, alpha: 2}); grpo, "
        "grpo with the expected outcome (mrt_online with alpha 0) and anytime always are",
    )
    batches: Annotated[int, Field(ge=3)] = Field(
        default=12, description="batches of rollouts; each is compared with the mean of the others"
    )
    groups: PositiveInt = Field(default=16, description="problems of a batch, with training.group_size rollouts each")
    n_recall: PositiveInt = Field(
        default=128,
        description="training problems with one trace each that is forced on, to see what is kept of a find",
    )

    @field_validator("algorithms")
    @classmethod
    def _comparable(cls, algorithms: list[Algorithm]) -> list[Algorithm]:
        for algorithm in algorithms:
            if algorithm.prefixes_every:
                raise InputError(
                    f"{algorithm.name} starts from stale prefixes, and all are compared on the same whole traces: "
                    "leave it out"
                )
        names = [credit_name(algorithm) for algorithm in algorithms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"'{twice[0]}' is there twice: leave one out")
        return algorithms


def chosen_values(algorithm: Algorithm) -> list[str]:
    """The parameters of an algorithm that differ from its class's, as key=value; without those taken from elsewhere."""
    fields = type(algorithm).model_fields
    return [
        f"{key}={_written(value)}"
        for key, value in algorithm.model_dump(mode="json").items()
        if not fields[key].is_required() and value != fields[key].get_default(call_default_factory=True)
    ]


def credit_name(algorithm: Algorithm) -> str:
    """What the credit of an algorithm is called: its name and the values that differ from its class's."""
    return " ".join([algorithm.name, *chosen_values(algorithm)])


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, separators=(",", ":"))
