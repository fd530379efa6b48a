"""Meta Reinforcement Fine-Tuning (MRT, arXiv 2503.07572): a library, and around it an orchestrated, tracked pipeline.

`import mrt_pipeline as mrt` loads nothing heavy: each of the public names below is imported when it is first used. What
is behind them needs torch, transformers, peft, accelerate, safetensors, numpy and pydantic; the method on arrays
(`regret`, `progress`, `credit`) needs numpy alone.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    # The method on arrays.
    "credit": "mrt",
    "progress": "mrt.progress",
    "regret": "mrt.regret",
    # A policy at work: open, sample, label.
    "open_policy": "policy.configured",
    "Policy": "policy.policy",
    "SavedPolicy": "policy.policy",
    "PolicyParams": "policy.configured",
    "LanguageModelPolicy": "policy.configured",
    "LoRAParams": "policy.policy",
    "Actor": "rollouts.actor",
    "RolloutParams": "rollouts.rollout",
    "Rollout": "rollouts.rollout",
    "LabelledRollout": "rollouts.label",
    "label_rollouts": "rollouts.label",
    # What is chosen by name, and what to derive one's own from.
    "Task": "tasks.base",
    "Problem": "tasks.base",
    "Grade": "tasks.base",
    "Countdown": "tasks.countdown",
    "CountdownBacktracking": "tasks.countdown_backtracking",
    "CountdownParts": "tasks.countdown_parts",
    "CountdownWords": "tasks.countdown_words",
    "MathProblems": "tasks.math_problems",
    "ReasoningGym": "tasks.reasoning_gym",
    "Prover": "rollouts.prover",
    "Query": "rollouts.prover",
    "Success": "rollouts.prover",
    "ExactProver": "rollouts.prover",
    "SampledProver": "rollouts.prover",
    "Engine": "engines.base",
    "EngineParams": "engines.base",
    "TorchEngineParams": "engines.base",
    "VLLMEngineParams": "engines.vllm_engine",
    "VLLMServerEngineParams": "engines.vllm_server",
    "Algorithm": "algorithms.base",
    "Anytime": "algorithms.anytime",
    "BRPO": "algorithms.brpo",
    "GRPO": "algorithms.grpo",
    "Least": "algorithms.least",
    "LengthPenalty": "algorithms.length_penalty",
    "MRT": "algorithms.mrt",
    "MRTOnline": "algorithms.mrt_online",
    "MRTStar": "algorithms.mrt_star",
    "RegretToGo": "algorithms.regret_to_go",
    "Saturation": "algorithms.saturation",
    "STaR": "algorithms.star",
    "Watermark": "algorithms.watermark",
    # Traces of any model.
    "audit": "auditing.audit",
    "Audit": "auditing.audit",
    "read_traces": "auditing.readers",
    "Trace": "auditing.trace",
    # Training.
    "LearnerParams": "trainer.params",
    "Learner": "trainer.learner",
    "TrainingParams": "trainer.params",
    "reinforce": "trainer.reinforce",
    "TinyPolicy": "trainer.params",
    "warm_start": "trainer.warm_start",
    # Errors whose message is meant for the user.
    "InputError": "errors",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mrt_pipeline' has no attribute {name!r}")
    place = f"{__name__}.{_MODULES[name]}"
    module = importlib.import_module(f"{place}.{name}" if name == "credit" else place)
    found = module if name == "credit" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
