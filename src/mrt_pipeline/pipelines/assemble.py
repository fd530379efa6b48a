"""From typed parameters to the objects that do the work: the one place that knows which name means which class."""

from functools import lru_cache, partial
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

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
    EngineParams,
    FixedSegmentation,
    GRPOParams,
    LanguageModelPolicy,
    LearnerParams,
    LengthPenaltyParams,
    LowProbabilitySegmentation,
    MathTask,
    MRTOnlineParams,
    MRTParams,
    MRTStarParams,
    PolicyParams,
    ProverParams,
    ReasoningGymTask,
    RegretToGoParams,
    RolloutParams,
    SampledProverParams,
    STaRParams,
    TaskParams,
    TextBacktrackTemplateParams,
    TextTemplateParams,
    TinyPolicy,
    VLLMEngineParams,
    VLLMServerEngineParams,
)
from mrt_pipeline.engines.base import Engine
from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.engines.vllm_engine import VLLMEngine
from mrt_pipeline.engines.vllm_server import VLLMServerEngine
from mrt_pipeline.errors import InputError
from mrt_pipeline.learner.learner import LearnerSettings
from mrt_pipeline.pipelines.keys import configuration_key
from mrt_pipeline.pipelines.reuse import made_once
from mrt_pipeline.policy.families import find_family
from mrt_pipeline.policy.language_model import (
    add_adapters,
    load_language_model,
    load_tokenizer,
    locate,
    unpack_gguf,
)
from mrt_pipeline.policy.policy import Policy, build_policy, load_policy
from mrt_pipeline.policy.template import Template
from mrt_pipeline.policy.text_backtrack_template import TextBacktrackTemplate
from mrt_pipeline.policy.text_template import (
    FixedLength,
    LowProbability,
    Paragraphs,
    Segmentation,
    TextTemplate,
    check_tokenizer,
)
from mrt_pipeline.rollouts.prover import ExactProver, Prover, SampledProver
from mrt_pipeline.rollouts.rollout import RolloutSettings
from mrt_pipeline.tasks.base import ScratchTask, Task
from mrt_pipeline.tasks.countdown import Countdown
from mrt_pipeline.tasks.countdown_backtracking import CountdownBacktracking
from mrt_pipeline.tasks.math_problems import MathProblems
from mrt_pipeline.tasks.problem_files import ProblemSource
from mrt_pipeline.tasks.reasoning_gym import ReasoningGym

_UNPACKED = Path("data/06_models/unpacked")


def make_task(params: TaskParams) -> Task:
    """The task."""
    given = params.root.model_dump(exclude={"name"})
    match params.root:
        case MathTask():
            sources = {
                name: [ProblemSource(**source) for source in given.pop(name)] for name in ("train", "evaluation")
            }
            return MathProblems(**sources, **given)
        case ReasoningGymTask():
            return ReasoningGym(**given)
        case CountdownBacktrackingTask():
            return CountdownBacktracking(**given)
    return Countdown(**given)


def make_template(
    params: TextTemplateParams | TextBacktrackTemplateParams, tokenizer: PreTrainedTokenizerBase
) -> Template:
    """How a language model thinks and answers."""
    messages = [{"role": "system", "content": params.system}] if params.system else []
    if isinstance(params, TextBacktrackTemplateParams):
        return TextBacktrackTemplate.from_text(tokenizer, params.back, messages, params.suffix, params.opening)
    check_tokenizer(tokenizer)
    own = params.model_dump(include={"suffix", "opening", "close"}, exclude_none=True)
    parts = (vars(find_family(tokenizer, params.family)) if params.family else {}) | own
    parts.pop("name", None)
    for example in params.examples:
        written = f"{parts['opening']}{example.thought}{parts['close']}{example.answer}"
        messages += [
            {"role": "user", "content": example.question + parts["suffix"]},
            {"role": "assistant", "content": written},
        ]
    given = params.model_dump(include={"stop_phrase", "answer_opening", "answer_end", "extensions"})
    return TextTemplate.from_text(
        tokenizer,
        _make_segmentation(params),
        messages=messages,
        free_answer_tokens=params.free_answer_tokens if params.natural_answer == "free" else None,
        **parts,
        **given,
    )


def _make_segmentation(params: TextTemplateParams) -> Segmentation:
    given = params.segmentation.model_dump(exclude={"kind"})
    match params.segmentation:
        case FixedSegmentation():
            return FixedLength(**given)
        case LowProbabilitySegmentation():
            return LowProbability(**given)
    return Paragraphs(tuple(given.pop("markers")), **given)


def find_language_model(params: LanguageModelPolicy) -> str:
    """Folder or hub id of the base model; weights in a GGUF file are unpacked into a folder once."""
    path = locate(params.path)
    if not params.gguf_file:
        return path
    folder = _UNPACKED / configuration_key(path=params.path, gguf_file=params.gguf_file, dtype=params.dtype)
    made_once(folder, partial(unpack_gguf, path, params.gguf_file, params.dtype))
    return str(folder)


def new_policy(params: TinyPolicy, task: ScratchTask) -> Policy:
    """A policy with fresh weights."""
    sizes = params.model_dump(exclude={"name", "warm_start"})
    return build_policy(task.symbols(), task.markers, task.template, seed=params.warm_start.seed, **sizes)


def open_policy(ref: dict[str, str], params: PolicyParams, task: Task, train_seed: int | None = None) -> Policy:
    """The policy that a `*_policy` dataset points to; on the GPU if there is one.

    train_seed: it is to be trained, and this is the seed of what is added for that (LoRA adapters).
    """
    from_hub = ref["path"] == ref.get("base")  # a language model as it is, so perhaps no folder of ours
    if not from_hub and not Path(ref["path"]).is_dir():
        raise InputError(f"the {ref['name']} policy's folder {ref['path']} is gone: run all stages")
    if isinstance(params.root, LanguageModelPolicy):
        policy = _open_language_model(ref, params.root, train_seed)
    else:
        policy = load_policy(Path(ref["path"]), task.template)
    policy.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return policy


def open_template(ref: dict[str, str], params: PolicyParams, task: Task) -> Template:
    """The template of the policy that a `*_policy` dataset points to, without its weights."""
    tokenizer = open_tokenizer(ref, params)
    if isinstance(params.root, LanguageModelPolicy):
        return make_template(params.root.template, tokenizer)
    return task.template(tokenizer)


def open_tokenizer(ref: dict[str, str], params: PolicyParams) -> PreTrainedTokenizerBase:
    """The tokenizer of the policy that a `*_policy` dataset points to, without its weights."""
    if isinstance(params.root, LanguageModelPolicy):
        return load_tokenizer(ref["base"], params.root.revision, params.root.template.chat_template)
    return AutoTokenizer.from_pretrained(ref["path"])


def _open_language_model(ref: dict[str, str], params: LanguageModelPolicy, train_seed: int | None) -> Policy:
    base = ref["base"]
    model = load_language_model(base, params.revision, params.dtype, None if ref["path"] == base else ref["path"])
    if params.lora and train_seed is not None:
        model = add_adapters(model, **params.lora.model_dump(), seed=train_seed)
    if params.gradient_checkpointing and train_seed is not None:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    tokenizer = load_tokenizer(base, params.revision, params.template.chat_template)
    return Policy(model, tokenizer, make_template(params.template, tokenizer))


def make_engine(params: EngineParams, policy: Policy, ref: dict[str, str], policy_params: PolicyParams) -> Engine:
    """The engine, on the policy that `ref` points to."""
    if isinstance(params.root, VLLMEngineParams | VLLMServerEngineParams):
        engine = _vllm_engine(ref["base"], policy_params.root.max_length, params.root)
        engine.model = policy.model
        engine.update_weights()
        return engine
    return TorchEngine(policy.model, params.root.batch_size, params.root.score_tokens)


@lru_cache(maxsize=1)
def _vllm_engine(
    path: str, max_length: int, params: VLLMEngineParams | VLLMServerEngineParams
) -> VLLMEngine | VLLMServerEngine:
    """One engine for all nodes of a run: starting it takes longer than giving it other weights."""
    if isinstance(params, VLLMServerEngineParams):
        return VLLMServerEngine(params.url, max_length, params.dtype, params.weights_folder)
    return VLLMEngine(path, max_length, **params.model_dump(exclude={"name"}))


def make_prover(params: ProverParams, policy: Policy, task: ScratchTask, rollout: RolloutParams) -> Prover:
    """The meta-prover."""
    if isinstance(params.root, SampledProverParams):
        return SampledProver(
            policy.tokenizer, policy.template, task, params.root.n_answers, make_rollout_settings(rollout)
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
        case STaRParams() as p:
            return STaR(p.start_from)
        case MRTStarParams() as p:
            return MRTStar(p.keep, p.start_from)
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
