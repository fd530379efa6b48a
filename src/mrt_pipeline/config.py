"""The whole tree of parameters, typed. Each group's class stands beside the code that it configures.

Algorithms, tasks, provers, engines and policies are found by name (`registry.py`), so that the tree has room for those
of other packages and of `plugins`. The values that ship are in `conf/base/parameters/`.
"""

import math
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, model_validator

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.evaluation.params import CompareParams, EvaluationParams
from mrt_pipeline.planning import PlanParams
from mrt_pipeline.policy.configured import PolicyParams, longest_answer
from mrt_pipeline.registry import INCIDENTAL, Params, Registered, import_plugins
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.trainer.reinforce import TrainingParams

FAMILIES: dict[str, type[Registered]] = {
    family.kind: family for family in (Task, PolicyParams, EngineParams, Prover, Algorithm)
}
"""The groups whose members are found by name."""


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

    @model_validator(mode="before")
    @classmethod
    def _with_plugins(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        given = tree.get("plugins") or []
        tree = {**tree, "plugins": [given] if isinstance(given, str) else given}
        import_plugins(tree["plugins"])
        return tree

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        for group in FAMILIES:
            getattr(self, group).check(self)
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
        template = self.policy.given_template or (task.template if task.from_scratch else None)
        if (self.policy.given_template is None) != task.from_scratch:
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
