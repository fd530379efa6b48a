"""Every parameter of the project, typed. One class a Hydra config group; `Parameters` is the whole composed tree.

The values that ship are in `conf/base/parameters/`; a field without a default must be given there.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _CountdownRules(_Group):
    n_numbers: Annotated[int, Field(ge=2, le=5)] = Field(description="numbers given in a problem")
    max_number: PositiveInt = Field(description="numbers are drawn from 1..max_number")
    target_min: PositiveInt = Field(description="smallest target")
    target_max: PositiveInt = Field(description="largest target")
    max_result: PositiveInt = Field(description="largest intermediate result allowed")
    max_solutions: PositiveInt = Field(description="problems with more solving chains are left out")
    n_train: PositiveInt | None = Field(description="training problems; null: all that are left")
    n_validation: PositiveInt = Field(description="problems watched during training and used for every choice")
    n_test: PositiveInt = Field(description="held-out problems of the evaluation")
    seed: int = Field(description="of the split")

    @model_validator(mode="after")
    def _targets(self) -> "_CountdownRules":
        if self.target_min > self.target_max:
            raise ValueError(f"target_min {self.target_min} exceeds target_max {self.target_max}")
        return self


class CountdownTask(_CountdownRules):
    """Countdown with open-ended thinking; see tasks/countdown.py."""

    name: Literal["countdown"]
    cut_fraction: Fraction = Field(description="share of warm-start traces cut at a random symbol")
    long_fraction: Fraction = Field(
        description="share of warm-start traces that go on to max_attempts whatever they find"
    )
    max_attempts: PositiveInt = Field(
        description="most attempts of a warm-start trace; places beyond are new to the policy"
    )

    @property
    def longest_answer(self) -> int:
        """Symbols of an answer, numbers and operators; brackets are part of a number's symbol."""
        return 2 * self.n_numbers - 1


class CountdownBacktrackingTask(_CountdownRules):
    """Countdown as backtracking search; see tasks/countdown_backtracking.py."""

    name: Literal["countdown_backtracking"]
    backtrack: Literal["value", "restart"] = Field(description="where warm-start traces go back to")

    @property
    def longest_answer(self) -> int:
        """Symbols of an attempt: numbers, operators and results."""
        return 3 * self.n_numbers - 2


class ProblemSourceParams(_Group):
    """A file of problems, or a dataset on the hub; a path alone will do. See tasks/problem_files.py."""

    path: str = Field(
        description="a .json, .jsonl, .parquet or .csv file; without such an ending, a dataset on the hub"
    )
    question: str | None = Field(default=None, description="column; null: one of the usual names")
    answer: str | None = Field(default=None, description="column; null: one of the usual names")
    hub_split: str = Field(default="train", description="split of a dataset on the hub")


Source = Annotated[
    ProblemSourceParams, BeforeValidator(lambda source: {"path": source} if isinstance(source, str) else source)
]


class MathTask(_Group):
    """Problems from files, with mathematical answers; see tasks/math_problems.py."""

    name: Literal["math"]
    train: list[Source] = Field(min_length=1, description="sources of training and validation problems")
    evaluation: list[Source] = Field(min_length=1, description="sources of held-out problems")
    n_train: PositiveInt | None = Field(description="training problems; null: all that are left")
    n_validation: PositiveInt = Field(description="problems taken from the training sources for every choice")
    n_test: PositiveInt | None = Field(description="held-out problems; null: all")
    max_unusable: Fraction = Field(description="largest share of a source's rows that may lack a question or an answer")
    grading_seconds: Annotated[float, Field(gt=0)] = Field(description="deadline for comparing one answer")
    seed: int = Field(description="of the split")

    longest_answer: ClassVar[int] = 1  # nothing is known of it


class ReasoningGymTask(_Group):
    """Problems of a reasoning-gym generator; see tasks/reasoning_gym.py."""

    name: Literal["reasoning_gym"]
    generator: str = Field(description="name of a reasoning-gym dataset")
    config: dict[str, Any] = Field(description="its settings")
    n_train: PositiveInt = Field(description="training problems")
    n_validation: PositiveInt = Field(description="problems watched during training and used for every choice")
    n_test: PositiveInt = Field(description="held-out problems")
    grading_seconds: Annotated[float, Field(gt=0)] = Field(description="deadline for comparing one answer")
    seed: int = Field(description="of the generator")

    longest_answer: ClassVar[int] = 1  # nothing is known of it


AnyTask = CountdownTask | CountdownBacktrackingTask | MathTask | ReasoningGymTask


class TaskParams(RootModel[Annotated[AnyTask, Field(discriminator="name")]]):
    """What is asked, and in which form it is thought about."""


class LearnerParams(_Group):
    """The optimiser; see learner/learner.py."""

    optimizer: Literal["adamw", "muon"] = Field(description="muon uses AdamW for embeddings and norms")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate of AdamW")
    muon_learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate of Muon")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="decoupled weight decay")
    beta1: Fraction = Field(description="AdamW beta1")
    beta2: Fraction = Field(description="AdamW beta2")
    warmup: Fraction = Field(description="share of training with rising learning rate")
    schedule: Literal["constant", "cosine"] = Field(description="learning rate after the warm-up")
    minibatches: PositiveInt = Field(description="optimiser steps on one batch")
    micro_batch_tokens: PositiveInt = Field(description="padded tokens of one forward pass")
    clip_low: Fraction = Field(description="importance ratio is clipped below at 1 - clip_low")
    clip_high: Annotated[float, Field(ge=0)] = Field(description="importance ratio is clipped above at 1 + clip_high")
    kl_beta: Annotated[float, Field(ge=0)] = Field(description="weight of the KL to the base policy")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(description="gradient clipping")
    share_prompts: bool = Field(
        description="compute the prompt that rollouts of a problem share once: pays for long prompts and short thoughts"
    )
    mixed_precision: Literal["no", "bf16"] = Field(description="bf16: compute in bfloat16 on float32 weights")


class WarmStartParams(_Group):
    """Likelihood training on the task's search traces; see learner/warm_start.py."""

    steps: PositiveInt = Field(description="optimiser steps")
    batch_size: PositiveInt = Field(description="traces of a step")
    seed: int = Field(description="of weights and traces; independent of the run's seed, so that runs share the result")
    learner: LearnerParams


class TinyPolicy(_Group):
    """A Llama-style model from scratch over the task's symbols; see policy/policy.py."""

    name: Literal["tiny"]
    hidden_size: PositiveInt = Field(description="width")
    n_layers: PositiveInt = Field(description="layers")
    n_heads: PositiveInt = Field(description="attention heads")
    intermediate_size: PositiveInt = Field(description="width of the MLP")
    max_length: PositiveInt = Field(description="context length")
    warm_start: WarmStartParams

    @model_validator(mode="after")
    def _heads(self) -> "TinyPolicy":
        if self.hidden_size % (2 * self.n_heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of n_heads {self.n_heads}")
        return self


class ParagraphSegmentation(_Group):
    """The paper's rule; see `paragraph_boundaries` in mrt/episodes.py."""

    kind: Literal["paragraphs"]
    markers: list[str] = Field(min_length=1, description="a paragraph that starts with one may open an episode")
    separator: str = Field(min_length=1, description="what stands between paragraphs")
    min_paragraphs: PositiveInt = Field(description="least paragraphs from one episode's start to the next")
    max_episodes: PositiveInt | None = Field(
        description="most episodes; the rest belongs to the last; null: any number"
    )
    merge: PositiveInt = Field(description="neighbouring episodes that count as one")
    drop_unfinished: bool = Field(
        description="a thought that is cut loses the paragraph that the cut is in, unless it is the first"
    )


class FixedSegmentation(_Group):
    """Episodes of equal length, for models without markers."""

    kind: Literal["tokens"]
    every: PositiveInt = Field(description="tokens of an episode")


class LowProbabilitySegmentation(_Group):
    """Episodes between improbable tokens; see `low_probability_boundaries` in mrt/episodes.py."""

    kind: Literal["low_probability"]
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(description="a token less probable is a cut point")
    cuts_per_episode: PositiveInt = Field(description="cut points of an episode")


class ExampleParams(_Group):
    """A worked example, shown in the chat before the question."""

    question: str
    thought: str
    answer: str


class _ChatParams(_Group):
    chat_template: str | None = Field(description="Jinja, in place of the tokenizer's own; null: that one")
    system: str | None = Field(description="system prompt")


class TextTemplateParams(_ChatParams):
    """How the model thinks and answers in text; see policy/text_template.py."""

    kind: Literal["think"]
    family: Literal["auto", "r1", "qwen3", "think"] | None = Field(
        description="gives suffix, opening and close where they are null; auto: found from the chat template"
    )
    suffix: str | None = Field(
        description="put after every question, examples included; null: the family's instruction"
    )
    opening: str | None = Field(
        description="text after the generation prompt that opens the thought; null: the family's, if the chat template "
        "has none"
    )
    examples: list[ExampleParams] = Field(description="worked examples before the question")
    close: str | None = Field(description="marker that ends a thought: one token; null: the family's")
    stop_phrase: str = Field(description="put after a thought that is cut short; contains the marker")
    natural_answer: Literal["opened", "free"] = Field(
        description="after a marker that the model wrote itself: opened puts the end of the stop phrase in, as where "
        "it is stopped; free lets it write, and the last complete box counts"
    )
    free_answer_tokens: PositiveInt = Field(description="most tokens of an answer that is written freely")
    answer_opening: str = Field(description="end of the stop phrase that is part of the answer, as \\boxed{")
    answer_end: str = Field(description="what the exact prover expects after an answer; empty: the end token")
    extensions: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, description="put in place of the marker when the thought is forced on, in turn"
    )
    segmentation: Annotated[
        ParagraphSegmentation | FixedSegmentation | LowProbabilitySegmentation, Field(discriminator="kind")
    ]

    @model_validator(mode="after")
    def _family(self) -> "TextTemplateParams":
        lacking = [name for name in ("suffix", "opening", "close") if getattr(self, name) is None]
        if self.family is None and lacking:
            raise ValueError(f"without a family, template.{lacking[0]} must be given; or set template.family=auto")
        return self


class TextBacktrackTemplateParams(_ChatParams):
    """Backtracking search in text; see policy/text_backtrack_template.py."""

    kind: Literal["backtrack"]
    suffix: str = Field(description="put after every question")
    opening: str = Field(description="text after the generation prompt")
    back: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, description="sentences that go back, the first one to the start; <n> stands for a number"
    )


class LoRAParams(_Group):
    """Low-rank adapters on all linear layers, by peft; the base policy is the model without them."""

    rank: PositiveInt = Field(description="rank of the adapters")
    alpha: Annotated[float, Field(gt=0)] = Field(description="scale: adapters are multiplied by alpha / rank")
    dropout: Fraction = Field(description="dropout on the adapters' input")


class LanguageModelPolicy(_Group):
    """A causal language model by path or hub id; see policy/language_model.py."""

    name: Literal["language_model"]
    path: str = Field(
        min_length=1, description="folder, hub id, or package:<name> for weights that a Python package ships"
    )
    gguf_file: str | None = Field(description="weights in this GGUF file of the folder; they are unpacked once")
    revision: str | None = Field(description="of a model on the hub")
    dtype: Literal["float32", "bfloat16"] = Field(
        description="of the weights; float32 if all of them are trained, since bfloat16 rounds small steps away"
    )
    lora: LoRAParams | None = Field(description="null: all weights are trained")
    gradient_checkpointing: bool = Field(description="recompute activations in the backward pass to save memory")
    max_length: PositiveInt = Field(description="most tokens of a trace, prompt and answer included")
    template: Annotated[TextTemplateParams | TextBacktrackTemplateParams, Field(discriminator="kind")]


class PolicyParams(RootModel[Annotated[TinyPolicy | LanguageModelPolicy, Field(discriminator="name")]]):
    """The policy."""


def writes_freely(policy: TinyPolicy | LanguageModelPolicy) -> bool:
    """Whether the policy's natural answers are written freely, with a limit of their own."""
    return getattr(getattr(policy, "template", None), "natural_answer", None) == "free"


class TorchEngineParams(_Group):
    """The embedded engine; see engines/torch_engine.py."""

    name: Literal["torch"]
    batch_size: PositiveInt = Field(description="rows sampled at once")
    score_tokens: PositiveInt = Field(description="most padded tokens of a scoring pass")


class _VLLMParams(_Group):
    dtype: Literal["float32", "bfloat16"] = Field(description="of its copy of the weights")
    cpu_cache_gib: PositiveInt = Field(description="memory for the cache on a CPU")
    tensor_parallel_size: PositiveInt = Field(description="GPUs that share a copy of the weights")
    enforce_eager: bool = Field(description="do not compile: starts sooner, samples slower")


class VLLMEngineParams(_VLLMParams):
    """vLLM, for language models; see engines/vllm_engine.py."""

    name: Literal["vllm"]
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        description="share of a GPU's memory for its weights and cache; the trainer needs the rest"
    )


class VLLMServerEngineParams(_VLLMParams):
    """vLLM in processes of its own, started by `python -m mrt_pipeline.serve`; see engines/vllm_server.py."""

    name: Literal["vllm_server"]
    url: str = Field(
        pattern=r"^https?://[^/:]+:\d+/?$", description="where the trainer reaches it, with the port it listens at"
    )
    host: str = Field(description="address that it listens at; keep strangers away from any but the default")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        description="share of each of its GPUs' memory for weights and cache"
    )
    data_parallel_size: PositiveInt = Field(description="copies that share the requests, each on GPUs of its own")
    weights_folder: str | None = Field(
        description="folder through which weights are handed over, by the same name for trainer and server; null: one "
        "for temporary files, if both are on one machine"
    )


class EngineParams(
    RootModel[Annotated[TorchEngineParams | VLLMEngineParams | VLLMServerEngineParams, Field(discriminator="name")]]
):
    """Samples and scores."""


class ExactProverParams(_Group):
    """Sum of the accepted answers' probabilities; see rollouts/prover.py."""

    name: Literal["exact"]


class SampledProverParams(_Group):
    """Mean reward of forced answers; see rollouts/prover.py."""

    name: Literal["sampled"]
    n_answers: PositiveInt = Field(description="forced answers at each boundary (m in the paper)")


class ProverParams(RootModel[Annotated[ExactProverParams | SampledProverParams, Field(discriminator="name")]]):
    """The meta-prover."""


class GRPOParams(_Group):
    """See algorithms/grpo.py."""

    name: Literal["grpo"]
    divide_by_std: bool = Field(description="divide group-centred rewards by the group's standard deviation")


class LengthPenaltyParams(_Group):
    """See algorithms/length_penalty.py."""

    name: Literal["length_penalty"]
    alpha: Fraction = Field(description="largest share of the reward that length can cost; 0 is GRPO")


class RegretToGoParams(_Group):
    """See algorithms/regret_to_go.py."""

    name: Literal["regret_to_go"]
    alpha: Annotated[float, Field(ge=0)] = Field(description="weight of the regret-to-go credit; 0 is GRPO")


class MRTParams(_Group):
    """See algorithms/mrt.py."""

    name: Literal["mrt"]
    alpha: Annotated[float, Field(ge=0)] = Field(description="weight of the progress bonus")
    bonus: Literal["next_episode", "continue", "all", "termination"] = Field(
        description="what thinking on earns besides the outcome; only the first one is more than a scale"
    )
    refresh_every: PositiveInt = Field(description="steps after which new prefixes are sampled")


class BRPOParams(_Group):
    """See algorithms/brpo.py."""

    name: Literal["brpo"]
    slots: PositiveInt = Field(
        description="budgets at which a thought is stopped, evenly spaced up to the training budget"
    )
    answer_weight: Annotated[float, Field(ge=0)] = Field(description="weight of training the answers")


class MRTOnlineParams(_Group):
    """See algorithms/mrt_online.py."""

    name: Literal["mrt_online"]
    alpha: Annotated[float, Field(ge=0)] = Field(description="weight of the progress bonus; 0 is GRPO")
    gamma: Fraction = Field(description="discount of later episodes' progress; 0 is raw progress")
    normalize_progress: bool = Field(description="divide discounted progress by its root mean square over the batch")
    divide_by_std: bool = Field(description="as in grpo")
    expected_outcome: bool = Field(description="credit the thought with J at its end instead of the sampled 0/1 reward")


class _IteratedParams(_Group):
    start_from: Literal["base", "current"] = Field(
        description="each iteration trains the base policy anew, or goes on from the current one"
    )


class STaRParams(_IteratedParams):
    """See algorithms/star.py."""

    name: Literal["star"]


class MRTStarParams(_IteratedParams):
    """See algorithms/mrt_star.py."""

    name: Literal["mrt_star"]
    keep: PositiveInt = Field(description="cuts kept of each problem")


LIKELIHOOD_ALGORITHMS = ("star", "mrt_star")
AnyAlgorithm = (
    STaRParams
    | MRTStarParams
    | GRPOParams
    | LengthPenaltyParams
    | MRTParams
    | MRTOnlineParams
    | BRPOParams
    | RegretToGoParams
)


class AlgorithmParams(RootModel[Annotated[AnyAlgorithm, Field(discriminator="name")]]):
    """The credit assignment."""


class RolloutParams(_Group):
    """Sampling traces; see rollouts/rollout.py."""

    thinking_budget: PositiveInt = Field(description="training budget: most thinking tokens of a rollout")
    answer_tokens: PositiveInt = Field(description="most tokens of an answer, but for one that is written freely")
    temperature: Annotated[float, Field(gt=0)] = Field(description="of thought and answer")
    n_problems: PositiveInt = Field(description="training problems in the table of base rollouts")
    n_rollouts: PositiveInt = Field(description="rollouts of each of these")


def longest_answer(policy: TinyPolicy | LanguageModelPolicy, rollout: RolloutParams) -> int:
    """Most tokens of any answer."""
    return max(rollout.answer_tokens, policy.template.free_answer_tokens if writes_freely(policy) else 0)


class TrainingParams(_Group):
    """The RL loop; see learner/reinforce.py."""

    sampled_tokens: PositiveInt = Field(description="training ends when the policy has sampled this many tokens")
    groups: PositiveInt = Field(description="problems of a step")
    group_size: Annotated[int, Field(ge=2)] = Field(description="rollouts of each problem of a step")
    n_validation: Annotated[int, Field(ge=0)] = Field(description="validation problems watched during training")
    forced_fraction: Fraction = Field(description="share of groups whose thoughts are forced on to the budget")
    answer_weight: Annotated[float, Field(ge=0)] = Field(
        description="weight of training answers that are forced at a random token of each thought; 0: none"
    )
    ratio_cap: Annotated[float, Field(ge=1)] = Field(
        description="most that a weight is multiplied by for the engine's probabilities differing from the trainer's"
    )
    validate_every: PositiveInt = Field(description="steps between validations")
    checkpoint_every: PositiveInt = Field(description="steps between checkpoints")
    log_checkpoints: bool = Field(description="log the policy of every validation to MLflow, as a LoggedModel")
    register_as: str | None = Field(
        description="registered model in MLflow that the trained policy becomes the next version of; null: none"
    )
    learner: LearnerParams


class EvaluationParams(_Group):
    """Budget extrapolation; see evaluation/evaluate.py."""

    split: Literal["test", "validation"] = Field(
        description="where the held-out problems come from; choose settings on validation, so that test stays unseen"
    )
    n_problems: PositiveInt = Field(description="held-out problems used")
    n_rollouts: PositiveInt = Field(description="budget-forced traces of each problem")
    n_samples: PositiveInt = Field(
        description="traces of each problem that stop where the model stops, within the training budget: for maj@k"
    )
    n_sample_problems: PositiveInt = Field(description="most held-out problems used for these; the first of n_problems")
    window: Annotated[int, Field(ge=0)] | None = Field(
        description="episodes that the policy still sees when it samples the next one (linearised evaluation), for "
        "policies that answer in their stream; 0: none; null: no such samples"
    )
    window_budget_multiple: Annotated[float, Field(gt=0)] = Field(
        description="most thinking tokens of a linearised sample, in multiples of the training budget; they need not "
        "fit into the context"
    )
    n_vote_problems: PositiveInt = Field(
        description="held-out problems, the first of n_problems, with answers forced at every boundary of one trace"
    )
    n_votes: Annotated[int, Field(ge=8)] = Field(
        description="answers forced at such a boundary: for [maj@p]_j, and stopping regret, which needs eight"
    )
    n_traces: Annotated[int, Field(ge=0)] = Field(
        description="held-out rollouts of each policy shown as MLflow traces, an episode a span"
    )
    budget_multiples: list[Annotated[float, Field(gt=0)]] = Field(
        min_length=1, description="budgets, in multiples of the training budget"
    )
    n_resamples: PositiveInt = Field(description="bootstrap resamples over problems")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(description="level of the intervals")
    seed: int = Field(description="of the traces; the same for all policies, which makes comparisons paired")


class CompareParams(_Group):
    """Comparing finished runs; see evaluation/compare.py. Nothing else depends on it."""

    runs: str | list[str] = Field(description="a sweep's parent run, an experiment, run ids, or a list of these")
    baseline: str = Field(description="the arm that gains are measured against: its name, or how it begins")
    allow_different: bool = Field(description="compare runs of other problems, budgets or numbers of tokens as well")
    n_resamples: PositiveInt = Field(description="bootstrap resamples over seeds and problems")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(description="level of the intervals")
    seed: int = Field(description="of the resampling")


class PlanParams(_Group):
    """What a run is planned for; see planning/estimate.py. Nothing else depends on it."""

    device: Literal["h100", "a100", "l40s"] = Field(description="kind of accelerator")
    n_devices: PositiveInt = Field(description="how many")
    mean_thinking: PositiveInt = Field(description="thinking tokens of a rollout on average")


class Parameters(_Group):
    """The whole tree."""

    seed: Annotated[int, Field(ge=0)] = Field(description="of rollouts and training; the warm start has its own")
    preset: str | None = Field(description="name of the preset in use")
    task: TaskParams
    policy: PolicyParams
    engine: EngineParams
    prover: ProverParams
    algorithm: AlgorithmParams
    rollout: RolloutParams
    training: TrainingParams
    evaluation: EvaluationParams
    compare: CompareParams
    plan: PlanParams

    @model_validator(mode="after")
    def _fits_task(self) -> "Parameters":
        task = self.task.root
        if self.rollout.answer_tokens < task.longest_answer:
            raise ValueError(
                f"rollout.answer_tokens is {self.rollout.answer_tokens}, an answer of {task.name} with "
                f"task.n_numbers={task.n_numbers} needs {task.longest_answer}: raise it"
            )
        split = f"n_{self.evaluation.split}"
        if self.evaluation.n_problems > (getattr(task, split) or math.inf):
            raise ValueError(
                f"evaluation.n_problems {self.evaluation.n_problems} exceeds task.{split} {getattr(task, split)}"
            )
        if self.training.n_validation > task.n_validation:
            raise ValueError(
                f"training.n_validation {self.training.n_validation} exceeds task.n_validation {task.n_validation}"
            )
        policy = self.policy.root
        if isinstance(policy, LanguageModelPolicy) != isinstance(task, MathTask | ReasoningGymTask):
            raise ValueError(
                f"policy={policy.name} does not fit task={task.name}: policy=tiny is made for Countdown's symbols, "
                "language models take task=math or task=reasoning_gym"
            )
        backtracks = isinstance(policy, LanguageModelPolicy) and policy.template.kind == "backtrack"
        if backtracks and self.prover.root.name == "exact":
            raise ValueError(
                "policy.template.kind=backtrack needs prover=sampled: an attempt is a text with its answer somewhere "
                "in it, so the probability of the answer alone says nothing"
            )
        if writes_freely(policy) and self.prover.root.name == "exact":
            raise ValueError(
                "policy.template.natural_answer=free needs prover=sampled: what is written freely has no list of "
                "accepted answers whose probability could be summed; or set natural_answer=opened"
            )
        if self.evaluation.window is not None and not (backtracks or isinstance(task, CountdownBacktrackingTask)):
            raise ValueError(
                f"evaluation.window is {self.evaluation.window}, but only a policy that answers in its stream can be "
                "sampled with a window over its last episodes: task=countdown_backtracking, or "
                "policy=language_model_backtracking; for others set evaluation.window=null"
            )
        if isinstance(policy, LanguageModelPolicy) and policy.lora is None and policy.dtype == "bfloat16":
            raise ValueError(
                "policy.lora=null trains all weights, and in policy.dtype=bfloat16 small steps are rounded away: set "
                "policy.dtype=float32 and training.learner.mixed_precision=bf16"
            )
        if isinstance(policy, TinyPolicy) and self.engine.root.name != "torch":
            raise ValueError(f"engine={self.engine.root.name} is for language models; policy=tiny takes engine=torch")
        if isinstance(policy, TinyPolicy) and policy.warm_start.learner.kl_beta > 0:
            raise ValueError(
                "policy.warm_start.learner.kl_beta must be 0: there is no base policy before the warm start"
            )
        if self.algorithm.root.name in LIKELIHOOD_ALGORITHMS and self.training.answer_weight > 0:
            raise ValueError(
                "training.answer_weight must be 0 for star and mrt_star: likelihood takes no negative weight"
            )
        anew = getattr(self.algorithm.root, "start_from", "current") == "base"
        if anew and self.training.learner.minibatches < 2:
            raise ValueError(
                "algorithm.start_from=base trains the base policy anew in every iteration, in "
                "training.learner.minibatches optimiser steps: one step teaches nothing. Raise that, or set "
                "algorithm.start_from=current"
            )
        if self.algorithm.root.name == "mrt" and self.training.group_size % 2:
            raise ValueError(
                f"training.group_size {self.training.group_size} must be even for algorithm=mrt: half of a group "
                "thinks on, half answers at once"
            )
        return self

    @model_validator(mode="after")
    def _fits_context(self) -> "Parameters":
        longest = max(
            self.rollout.thinking_budget,
            *(round(multiple * self.rollout.thinking_budget) for multiple in self.evaluation.budget_multiples),
        )
        if longest + longest_answer(self.policy.root, self.rollout) + 16 > self.policy.root.max_length:
            raise ValueError(
                f"a trace of {longest} thinking tokens (rollout.thinking_budget x the largest of "
                f"evaluation.budget_multiples) and its answer do not fit into policy.max_length "
                f"{self.policy.root.max_length}: raise that, or lower the budget"
            )
        return self
