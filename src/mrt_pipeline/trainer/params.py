"""Parameters of training, apart from the code that they configure: it needs torch, which takes seconds to import."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mrt_pipeline.policy.configured import PolicyParams
from mrt_pipeline.policy.policy import Policy, build_policy
from mrt_pipeline.registry import INCIDENTAL, Fraction, NonNegative, Params, PositiveFloat, PositiveInt
from mrt_pipeline.tasks.base import ScratchTask
from mrt_pipeline.trainer.draw import DrawSize


class LearnerParams(Params):
    """How to optimise; see trainer/learner.py."""

    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw",
        description="muon (Jordan et al. 2024) for the hidden matrices, with AdamW for embeddings and norms",
    )
    learning_rate: PositiveFloat = Field(default=3e-4, description="peak learning rate of AdamW")
    muon_learning_rate: PositiveFloat = Field(default=0.02, description="peak learning rate of Muon")
    weight_decay: NonNegative = Field(default=0.01, description="decoupled weight decay")
    beta1: Fraction = Field(default=0.9, description="AdamW beta1")
    beta2: Fraction = Field(default=0.98, description="AdamW beta2")
    warmup: Fraction = Field(default=0.0, description="share of training with rising learning rate")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="learning rate after the warm-up; cosine: to 0"
    )
    minibatches: PositiveInt = Field(default=1, description="optimiser steps on one batch")
    micro_batch_tokens: PositiveInt = Field(
        default=4_096,
        description="padded tokens of one forward pass; the default fits a CPU's caches, a fifth faster than 16384",
    )
    clip_low: Fraction = Field(default=0.2, description="importance ratio is clipped below at 1 - clip_low")
    clip_high: NonNegative = Field(default=0.28, description="importance ratio is clipped above at 1 + clip_high")
    kl_beta: NonNegative = Field(default=0.0, description="weight of the KL to the policy that training starts from")
    max_grad_norm: PositiveFloat = Field(default=1.0, description="gradient clipping")
    share_prompts: bool = Field(
        default=False,
        description="compute the prompt that rollouts of a problem share once: pays for long prompts and short "
        "thoughts",
    )
    mixed_precision: Literal["no", "bf16"] = Field(
        default="no", description="bf16: compute in bfloat16 on float32 weights"
    )


class TrainingParams(Params):
    """The RL loop: size and rhythm; see trainer/reinforce.py. It also validates and saves a checkpoint at its end."""

    sampled_tokens: PositiveInt = Field(
        default=800_000, description="training ends when the policy has sampled this many tokens"
    )
    stop_when_flat: PositiveFloat | None = Field(
        default=None,
        description="training ends earlier if three validations in a row gain less accuracy than this over the best "
        "before them; null: it does not",
    )
    groups: PositiveInt = Field(default=32, description="problems of a step")
    group_size: Annotated[int, Field(ge=2)] = Field(default=8, description="rollouts of each problem of a step")
    n_validation: Annotated[int, Field(ge=0)] = Field(
        default=200, description="validation problems watched during training"
    )
    forced_fraction: Fraction = Field(
        default=0.25, description="share of groups whose thoughts are forced on to the budget, past their natural end"
    )
    answer_weight: NonNegative = Field(
        default=0.0, description="weight of training answers that are forced at a random token of each thought; 0: none"
    )
    ratio_cap: Annotated[float, Field(ge=1)] = Field(
        default=2.0,
        description="most that a weight is multiplied by for the engine's probabilities differing from the trainer's",
    )
    validate_every: PositiveInt = Field(default=10, description="steps between validations")
    checkpoint_every: PositiveInt = Field(default=10, description="steps between checkpoints")
    log_checkpoints: bool = Field(
        default=True,
        description="log the policy of every validation to MLflow, as a LoggedModel",
        json_schema_extra=INCIDENTAL,
    )
    register_as: str | None = Field(
        default=None,
        description="registered model in MLflow that the trained policy becomes the next version of; null: none",
        json_schema_extra=INCIDENTAL,
    )
    # docs/LOG.md, 2026-11-24
    learner: LearnerParams = LearnerParams(minibatches=2, learning_rate=6e-4, schedule="cosine")

    @property
    def size(self) -> DrawSize:
        """Of a step's draw."""
        return DrawSize(self.groups, self.group_size, self.forced_fraction)


class WarmStartParams(Params):
    """Likelihood training on the task's search traces; see trainer/warm_start.py."""

    steps: PositiveInt = Field(default=2000, description="optimiser steps")
    batch_size: PositiveInt = Field(default=32, description="traces of a step")
    seed: int = Field(
        default=0, description="of weights and traces; independent of the run's seed, so that runs share the result"
    )
    remake: bool = Field(
        default=False, description="train, although a base of this configuration ships with the package"
    )
    # Muon reaches AdamW's loss in about half of the steps here.
    learner: LearnerParams = LearnerParams(optimizer="muon", learning_rate=3e-3, warmup=0.03, schedule="cosine")


class TinyPolicy(PolicyParams):
    """A Llama-style model from scratch over the task's symbols; see policy/policy.py."""

    name: Literal["tiny"] = "tiny"
    hidden_size: PositiveInt = Field(default=96, description="width")
    n_layers: PositiveInt = Field(default=3, description="layers")
    n_heads: PositiveInt = Field(default=3, description="attention heads")
    intermediate_size: PositiveInt = Field(default=256, description="width of the MLP")
    max_length: PositiveInt = Field(
        default=704, description="context length; 48 attempts of three numbers that all succeed have 672 symbols"
    )
    warm_start: WarmStartParams = WarmStartParams()

    @model_validator(mode="after")
    def _heads(self) -> "TinyPolicy":
        if self.hidden_size % (2 * self.n_heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of n_heads {self.n_heads}")
        return self

    def check(self, tree) -> None:
        """See `Registered.check`."""
        if self.warm_start.learner.kl_beta > 0:
            raise ValueError(
                "policy.warm_start.learner.kl_beta must be 0: there is no base policy before the warm start"
            )

    def build(self, task: ScratchTask, key: str = "") -> Policy:
        """A policy with fresh weights. key: of its card."""
        sizes = self.model_dump(exclude={"name", "path", "warm_start"})
        return build_policy(task.symbols(), task.markers, task.template, seed=self.warm_start.seed, key=key, **sizes)
