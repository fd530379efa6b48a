"""Nodes of `plan`."""

import pandas as pd

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.engines.vllm_server import VLLMServerEngineParams
from mrt_pipeline.errors import InputError
from mrt_pipeline.planning.estimate import PlanParams, estimate
from mrt_pipeline.planning.shapes import ACCELERATORS, MODELS
from mrt_pipeline.policy.configured import LanguageModelPolicy, PolicyParams
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.trainer.reinforce import TrainingParams

_CHARACTERS = 3.0  # of a mathematical question to a token, roughly


def plan_training(
    problems: pd.DataFrame,
    policy: PolicyParams,
    engine: EngineParams,
    algorithm: Algorithm,
    rollout: RolloutParams,
    training: TrainingParams,
    plan: PlanParams,
) -> str:
    """Markdown: the problems, the memory of a device, rollouts, steps and hours. Raises InputError without a shape."""
    if not isinstance(policy, LanguageModelPolicy) or policy.path not in MODELS:
        name = getattr(policy, "path", policy.name)
        raise InputError(
            f"the sizes of '{name}' are not known to planning; known are {', '.join(MODELS)}: add it to "
            "src/mrt_pipeline/planning/shapes.py"
        )
    shape, device = MODELS[policy.path], ACCELERATORS[plan.device]
    found = estimate(shape, policy, engine, rollout, training, plan)
    needed = sum(found.memory.values())
    splits = problems["split"].value_counts()
    longest = problems["question"].str.len().max() / _CHARACTERS
    steps = found.n_rollouts / (training.groups * training.group_size)
    passes = found.n_rollouts / training.group_size / splits.get("train", 1)
    fits = "It fits" if needed <= device.memory_gib else "It does not fit: lower policy.max_length, or train adapters"
    hours = ", ".join(f"{hours:.2g} hours of {name}" for name, hours in found.hours.items())
    sampled_on = ""
    if isinstance(engine, VLLMServerEngineParams):
        sampled_on = f", sampled by a server on {engine.tensor_parallel_size * engine.data_parallel_size} more"
    lines = [
        f"# {algorithm.name} on {policy.path}, {plan.n_devices} x {plan.device}{sampled_on}",
        "",
        f"{fits}: {needed:.1f} of the {device.memory_gib:.0f} GiB of each device are needed; the work takes {hours}.",
        "",
        "| memory of each device | GiB |",
        "| --- | ---: |",
        *(f"| {name} | {gib:.1f} |" for name, gib in found.memory.items()),
        f"| all, of {device.memory_gib:.0f} | {needed:.1f} |",
        "",
        "| work | |",
        "| --- | ---: |",
        f"| sampled tokens | {training.sampled_tokens:,} |",
        f"| rollouts, at {plan.mean_thinking} thinking tokens | {found.n_rollouts:,.0f} |",
        f"| steps of {training.groups} x {training.group_size} rollouts | {steps:,.0f} |",
        f"| passes over the training problems | {passes:.2f} |",
        *(f"| hours of {name} | {hours:.2g} |" for name, hours in found.hours.items()),
        "",
        f"Problems: {', '.join(f'{n} {split}' for split, n in splits.items())}; the longest question takes about "
        f"{longest:.0f} tokens. Parameters: {shape.parameters / 1e9:.2f} billion.",
        "Estimated from sizes, not measured. The prover's forced answers, validation and evaluation come on top.",
    ]
    return "\n".join(lines) + "\n"
