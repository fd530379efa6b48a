"""From typed parameters to the objects that do the work: the one place that knows which name means which class."""

from pathlib import Path

import torch

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.algorithms.forced_answers import WithForcedAnswers
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.length_penalty import LengthPenalty
from mrt_pipeline.algorithms.mrt import MRT
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.mrt_star import MRTStar
from mrt_pipeline.algorithms.regret_to_go import RegretToGo
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.config import (
    AlgorithmParams,
    BRPOParams,
    CountdownBacktrackingTask,
    GRPOParams,
    LearnerParams,
    LengthPenaltyParams,
    MathTask,
    MRTOnlineParams,
    MRTParams,
    MRTStarParams,
    ProverParams,
    RegretToGoParams,
    RolloutParams,
    SampledProverParams,
    STaRParams,
    TaskParams,
    TinyPolicy,
    TorchEngineParams,
)
from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.errors import InputError
from mrt_pipeline.learner.learner import LearnerSettings
from mrt_pipeline.policy.policy import Policy, build_policy, load_policy
from mrt_pipeline.rollouts.prover import ExactProver, Prover, SampledProver
from mrt_pipeline.rollouts.rollout import RolloutSettings
from mrt_pipeline.tasks.base import ScratchTask, Task
from mrt_pipeline.tasks.countdown import Countdown
from mrt_pipeline.tasks.countdown_backtracking import CountdownBacktracking
from mrt_pipeline.tasks.math_problems import MathProblems
from mrt_pipeline.tasks.problem_files import ProblemSource


def make_task(params: TaskParams) -> Task:
    """The task."""
    given = params.root.model_dump(exclude={"name"})
    match params.root:
        case MathTask():
            sources = {
                name: [ProblemSource(**source) for source in given.pop(name)] for name in ("train", "evaluation")
            }
            return MathProblems(**sources, **given)
        case CountdownBacktrackingTask():
            return CountdownBacktracking(**given)
    return Countdown(**given)


def new_policy(params: TinyPolicy, task: ScratchTask) -> Policy:
    """A policy with fresh weights."""
    sizes = params.model_dump(exclude={"name", "warm_start"})
    return build_policy(task.symbols(), task.markers, task.template, seed=params.warm_start.seed, **sizes)


def open_policy(ref: dict[str, str], task: ScratchTask) -> Policy:
    """The policy that a `*_policy` dataset points to, with its task's template; on the GPU if there is one."""
    if not Path(ref["path"]).is_dir():
        raise InputError(f"the {ref['name']} policy's folder {ref['path']} is gone: run all stages")
    policy = load_policy(ref["path"], task.template)
    policy.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return policy


def make_engine(params: TorchEngineParams, policy: Policy) -> TorchEngine:
    """The engine, on the policy."""
    return TorchEngine(policy.model, params.batch_size, params.score_tokens)


def make_prover(params: ProverParams, policy: Policy, task: ScratchTask, rollout: RolloutParams) -> Prover:
    """The meta-prover."""
    if isinstance(params.root, SampledProverParams):
        return SampledProver(
            policy.tokenizer, policy.template, task, params.root.n_answers, rollout.answer_tokens, rollout.temperature
        )
    return ExactProver(policy.tokenizer, policy.template, rollout.temperature)


def make_algorithm(params: AlgorithmParams, rollout: RolloutParams, answer_weight: float = 0.0) -> Algorithm:
    """The credit assignment, with answers forced at random places beside it if `answer_weight` is positive."""
    algorithm = _make_algorithm(params, rollout)
    return WithForcedAnswers(algorithm, answer_weight) if answer_weight else algorithm


def _make_algorithm(params: AlgorithmParams, rollout: RolloutParams) -> Algorithm:
    match params.root:
        case GRPOParams() as p:
            return GRPO(p.divide_by_std)
        case STaRParams():
            return STaR()
        case MRTStarParams() as p:
            return MRTStar(p.keep)
        case LengthPenaltyParams() as p:
            return LengthPenalty(p.alpha)
        case RegretToGoParams() as p:
            return RegretToGo(p.alpha, rollout.thinking_budget)
        case BRPOParams() as p:
            return BRPO(p.slots, p.answer_weight, rollout.thinking_budget)
        case MRTParams() as p:
            return MRT(p.alpha, p.bonus, p.refresh_every)
        case MRTOnlineParams() as p:
            return MRTOnline(p.alpha, p.gamma, p.normalize_progress, p.divide_by_std, p.expected_outcome)
    raise TypeError(f"no algorithm for {params.root!r}")


def make_learner_settings(params: LearnerParams, temperature: float = 1.0) -> LearnerSettings:
    """The optimiser's settings, and the temperature that the traces were sampled at."""
    return LearnerSettings(**params.model_dump(), temperature=temperature)


def make_rollout_settings(params: RolloutParams, thinking_budget: int | None = None) -> RolloutSettings:
    """Limits of a rollout; another thinking budget if given."""
    return RolloutSettings(thinking_budget or params.thinking_budget, params.answer_tokens, params.temperature)
