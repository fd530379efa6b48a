"""The whole tree of parameters, typed. Each group's class stands beside the code that it configures.

Algorithms, tasks, provers, engines and policies are found by name (`registry.py`), so that the tree has room for those
of other packages and of `plugins`. What a class has as defaults can be chosen as it is; the files in
`conf/base/parameters/` say what differs.
"""

import math
from collections.abc import Mapping
from functools import reduce
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.auditing.params import AuditParams
from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.evaluation.params import CompareParams, DiagnoseParams, EvaluationParams
from mrt_pipeline.planning import PlanParams
from mrt_pipeline.policy.configured import PolicyParams, longest_answer
from mrt_pipeline.registry import INCIDENTAL, Params, Registered, import_plugins
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tasks.base import ScratchTask, Task
from mrt_pipeline.trainer.params import TrainingParams


class Parameters(Params):
    """The whole tree."""

    seed: Annotated[int, Field(ge=0)] = Field(description="of rollouts and training; the warm start has its own")
    preset: str | None = Field(description="name of the preset in use", json_schema_extra=INCIDENTAL)
    plugins: list[str] = Field(
        default=[],
        description="Python modules of your own that define algorithms, tasks, provers, engines or policies",
        json_schema_extra=INCIDENTAL,
    )
    task: SerializeAsAny[Task]
    policy: SerializeAsAny[PolicyParams]
    engine: SerializeAsAny[EngineParams]
    prover: SerializeAsAny[Prover]
    algorithm: SerializeAsAny[Algorithm]
    rollout: RolloutParams
    training: TrainingParams
    evaluation: EvaluationParams
    compare: CompareParams = Field(json_schema_extra=INCIDENTAL)
    plan: PlanParams = Field(json_schema_extra=INCIDENTAL)
    diagnose: DiagnoseParams = Field(json_schema_extra=INCIDENTAL)
    audit: AuditParams = Field(json_schema_extra=INCIDENTAL)

    @field_validator("plugins", mode="before")  # before the fields below it are looked at
    @classmethod
    def _imported(cls, given: Any) -> Any:
        modules = [given] if isinstance(given, str) else given or []
        import_plugins(modules)
        return modules

    @field_validator("diagnose", mode="before")  # after the fields above it are known
    @classmethod
    def _completed(cls, given: Any, info: ValidationInfo) -> Any:
        entries = given.get("algorithms") if isinstance(given, dict) else None
        if not isinstance(entries, list | tuple):
            return given
        return {**given, "algorithms": [_complete(entry, info.data) for entry in entries]}

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        for member in (
            *(self.task, self.policy, self.engine, self.prover, self.algorithm),
            *self.diagnose.algorithms,
        ):
            member.check(self)
        task, evaluation = self.task, self.evaluation
        if self.rollout.answer_tokens < task.longest_answer:
            raise ValueError(
                f"rollout.answer_tokens is {self.rollout.answer_tokens}, but an answer of task={task.name} can need "
                f"{task.longest_answer}: raise it"
            )
        for key, wanted, name in (
            ("evaluation.n_problems", evaluation.n_problems, f"n_{evaluation.split}"),
            ("training.n_validation", self.training.n_validation, "n_validation"),
        ):
            there = getattr(task, name, None)  # None: all there are, however many
            if wanted > (there or math.inf):
                raise ValueError(f"{key} {wanted} exceeds task.{name} {there}")
        if self.rollout.temperature == 0:
            raise ValueError("rollout.temperature is 0, but greedy traces are all alike: give a temperature above 0")
        template = self.policy.given_template or (task.template if isinstance(task, ScratchTask) else None)
        if template is None or (self.policy.given_template is None) != isinstance(task, ScratchTask):
            raise ValueError(
                f"policy={self.policy.name} does not fit task={task.name}: policy=tiny is made for Countdown's "
                "symbols, language models take tasks in words, as task=math or task=reasoning_gym"
            )
        if evaluation.window is not None and not template.streams_answer:
            raise ValueError(
                f"evaluation.window is {evaluation.window}, but only a policy that answers in its stream can be "
                "sampled with a window over its last episodes: task=countdown_backtracking, or "
                "policy=language_model_backtracking; for others set evaluation.window=null"
            )
        longest = self.rollout.thinking_budget * max(1, *evaluation.budget_multiples)
        if round(longest) + longest_answer(template, self.rollout) + 16 > self.policy.max_length:
            raise ValueError(
                f"a trace of {round(longest)} thinking tokens (rollout.thinking_budget x the largest of "
                f"evaluation.budget_multiples) and its answer do not fit into policy.max_length "
                f"{self.policy.max_length}: raise that, or lower the budget"
            )
        return self


def _complete(entry: Any, groups: Mapping[str, Any]) -> Any:
    """An algorithm of a list, with what its class takes from other parameters, as the group `algorithm` has it.

    entry: its name, or its parameters with the name; anything else is left for the class to refuse.
    """
    given = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or "name" not in given:
        return entry
    taken = {}
    for key, field in Algorithm.member(str(given["name"])).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "from" in extra:
            group, *path = str(extra["from"]).split(".")
            if group in groups:  # else it is refused itself
                taken[key] = reduce(getattr, path, groups[group])
    return {**taken, **given}


CLASSES: dict[str, Any] = {
    name: field.annotation
    for name, field in Parameters.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Params)
}
"""The class of each group; of the groups whose members are found by name, the family."""


def class_names(group: str) -> list[str]:
    """What a group's classes are chosen by."""
    kind = CLASSES[group]
    return kind.names() if issubclass(kind, Registered) else ["default"]


def class_defaults(group: str, name: str) -> dict[str, Any]:
    """The defaults of that class."""
    kind = CLASSES[group]
    return defaults_of(kind.member(name) if issubclass(kind, Registered) else kind)


def defaults_of(model: type[Any]) -> dict[str, Any]:
    """The defaults of a class of parameters; "???", which Hydra wants to be given, where there is none."""
    values = model.model_construct().model_dump(mode="json", warnings=False)
    for key, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "from" in extra:
            values[key] = f"${{{extra['from']}}}"
        elif field.is_required():
            values[key] = "???"
    return values
