"""Nodes of `base_policy`: it is made from scratch, or found."""

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mrt_pipeline.bars import bar
from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.evaluation.params import EvaluationParams
from mrt_pipeline.keys import configuration_key, reads
from mrt_pipeline.policy.configured import (
    LanguageModelPolicy,
    PolicyParams,
    TextWarmStartParams,
    is_saved,
    locate,
    longest_answer,
    unpack_gguf,
)
from mrt_pipeline.policy.policy import ADAPTERS, Policy, SavedPolicy, shipped_base
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.reuse import made_once
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tables import problems_from_table
from mrt_pipeline.tasks.base import Problem, ScratchTask, Searcher, SearchTask, Task
from mrt_pipeline.tasks.trace_file import GivenTraces
from mrt_pipeline.tracking.find_policies import fetch_policy
from mrt_pipeline.tracking.runs import log_metrics
from mrt_pipeline.trainer.params import LearnerParams, TinyPolicy, WarmStartParams

logger = logging.getLogger(__name__)
_FOLDER = Path("data/06_models/warm_start")
_UNPACKED = Path("data/06_models/unpacked")
_REPORT_EVERY = 200
_FIRST = 20  # steps whose losses are recorded one by one


@reads(prover=[], rollout=[], evaluation=[])
def provide_base_policy(
    problems: pd.DataFrame,
    task: Task,
    policy: PolicyParams,
    prover: Prover,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> SavedPolicy:
    """The base policy, made or found; what the problems and the policy turn out not to allow is refused here."""
    there, split = int((problems["split"] == evaluation.split).sum()), evaluation.split
    if evaluation.n_problems > there:  # how many a file holds is not known earlier
        raise InputError(
            f"evaluation.n_problems is {evaluation.n_problems}, but there are {there} {split} problems: lower it"
        )
    saved = make_base_policy(problems, task, policy)
    check_fit(problems, saved, task, policy, prover, rollout, evaluation)
    return saved


def make_base_policy(problems: pd.DataFrame, task: Task, policy: PolicyParams) -> SavedPolicy:
    """Train the base policy on imperfect search traces, or take the one that this very configuration made before.

    That of the default configuration ships with the package; with `policy.warm_start.remake` it is trained anew.
    With `policy.path` it is found and checked instead, so that what does not fit is refused early.
    """
    if policy.path is not None:
        saved = find_policy(policy)
        _look_at_adapters(saved, policy)
        key = configuration_key(policy=policy, place=str(saved.folder or saved.start))
        logger.info("Base policy: %s", policy.path)
        if isinstance(policy, LanguageModelPolicy) and policy.warm_start:
            return _teach(problems, task, policy, saved)
        if policy.given_template is not None and saved.card.template != policy.given_template:
            logger.info("How it thinks and answers is what it was saved with, not policy.template")
        return saved.called(name="base", key=key)
    assert isinstance(task, ScratchTask) and isinstance(policy, TinyPolicy)  # others have a path
    key = configuration_key(task=task, policy=policy)
    if shipped := shipped_base(key):
        logger.info(
            "Base policy: the one that ships for this configuration; policy.warm_start.remake=true trains it anew"
        )
        return shipped
    folder = _FOLDER / key
    made = made_once(folder, partial(_warm_start, problems, task, policy, key))
    logger.info("Base policy: %s", f"written to {folder}" if made else f"reusing {folder}, of the same configuration")
    return SavedPolicy.read(folder)


def find_policy(policy: PolicyParams) -> SavedPolicy:
    """The policy that `policy.path` points to. Raises InputError in words if there is none, or if it is of other kind.

    It may be a run or a registered model of MLflow, a folder, an id on the hub, or weights in a Python package.
    """
    assert policy.path is not None
    place = fetch_policy(policy.path) or locate(policy.path)
    if isinstance(policy, LanguageModelPolicy) and policy.gguf_file and not is_saved(place):
        folder = _UNPACKED / configuration_key(path=policy.path, gguf_file=policy.gguf_file, dtype=policy.dtype)
        made_once(folder, partial(unpack_gguf, place, policy.gguf_file, policy.dtype))
        place = str(folder.resolve())
    return policy.saved(place)


def _look_at_adapters(saved: SavedPolicy, policy: PolicyParams) -> None:
    """Adapters keep their rank, whatever the configuration says."""
    if not (saved.has_adapters and saved.folder and isinstance(policy, LanguageModelPolicy) and policy.lora):
        return
    rank = json.loads((saved.folder / ADAPTERS).read_text()).get("r")
    if rank != policy.lora.rank:
        logger.warning("The adapters in %s keep their rank of %s; policy.lora.rank is not used", saved.folder, rank)


def check_fit(
    problems: pd.DataFrame,
    base_policy: SavedPolicy,
    task: Task,
    policy: PolicyParams,
    prover: Prover,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> None:
    """Refuse before anything is sampled what the problems and the policy turn out not to allow.

    Raises InputError: traces longer than the model was made for; a policy that does not know the task's symbols, or
    that the prover cannot judge; prompts that leave no room in its context.
    """
    asked, context = base_policy.card.max_length, base_policy.context_length
    if asked > context:
        raise InputError(
            f"policy.max_length {asked} exceeds the {context} tokens that {base_policy.start} can take: lower it"
        )
    tokenizer, template = base_policy.tokenizer, base_policy.template
    try:
        prover.check_template(base_policy.card.template)
    except ValueError as error:
        raise InputError(f"the policy in {policy.path}, by what it was saved with: {error}") from error
    if evaluation.window is not None and not template.streams_answer:
        raise InputError(
            f"evaluation.window is {evaluation.window}, but the policy in {policy.path} does not answer in its stream: "
            "set it to null"
        )
    if isinstance(task, ScratchTask):
        for symbol in task.symbols():
            if symbol not in tokenizer.get_vocab():
                raise InputError(
                    f"the policy in {policy.path} does not know the symbol '{symbol}' of task={task.name}: it was "
                    "made for another task"
                )
    longest = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)[-1]
    longest += longest_answer(base_policy.card.template, rollout)
    lengths = [len(encode_prompt(tokenizer, template, question)) for question in problems["question"]]
    needed = max(lengths) + len(template.stop_phrase) + longest
    if needed > policy.max_length:
        worst = problems["problem_id"].iloc[lengths.index(max(lengths))]
        raise InputError(
            f"a trace can need {needed} tokens, but policy.max_length is {policy.max_length}: the prompt of {worst} "
            f"takes {max(lengths)}, stop phrase {len(template.stop_phrase)}, thought and answer at the largest budget "
            f"{longest}. Raise policy.max_length if the model allows it, lower rollout.thinking_budget or the largest "
            "of evaluation.budget_multiples, or leave out long questions"
        )
    logger.info("Prompts have up to %d tokens", max(lengths))


def _teach(problems: pd.DataFrame, task: Task, policy: LanguageModelPolicy, saved: SavedPolicy) -> SavedPolicy:
    """Warm-start a language model, or take what this very configuration has made before."""
    settings = policy.warm_start
    assert settings
    if settings.full and saved.has_adapters:
        raise InputError(
            f"policy.warm_start trains all weights, but {policy.path} holds LoRA adapters: merge them into their model "
            "and give that, or set policy.warm_start.full=false"
        )
    place = str(saved.folder or saved.start)
    source: Searcher
    if settings.traces:
        source = given = GivenTraces(settings.traces)
        asked, key = given.problems, configuration_key(policy=policy, place=place)
    else:
        assert isinstance(task, SearchTask)  # the configuration was checked
        source, asked = task, problems_from_table(problems, "train")
        key = configuration_key(policy=policy, place=place, task=task)
    folder = _FOLDER / key

    def make(folder: Path) -> None:
        learner = LearnerParams(
            learning_rate=settings.learning_rate,
            warmup=0.05,
            schedule="cosine",
            micro_batch_tokens=settings.micro_batch_tokens,
        )
        lora = None if settings.full else policy.lora
        fresh = saved.called(key=key, lora=lora).open_to_train(settings.seed, settings.new_tokens)
        _imitate(fresh, source, asked, learner, settings, folder)

    made = made_once(folder, make)
    logger.info("Warm start: %s", f"written to {folder}" if made else f"reusing {folder}, of the same configuration")
    return SavedPolicy.read(folder).called(name="base", lora=policy.lora)


def _warm_start(problems: pd.DataFrame, task: ScratchTask, policy: TinyPolicy, key: str, folder: Path) -> None:
    params, train = policy.warm_start, problems_from_table(problems, "train")
    fresh = policy.build(task, key)
    made_of = {"key": key, "task": task.model_dump(), "policy": policy.model_dump()}
    record = made_of | _imitate(fresh, task, train, params.learner, params, folder)
    (folder / "warm_start.json").write_text(json.dumps(record, indent=2))


def _imitate(
    fresh: Policy,
    source: Searcher,
    problems: Sequence[Problem],
    learner: LearnerParams,
    size: WarmStartParams | TextWarmStartParams,
    folder: Path,
) -> dict[str, Any]:
    """Train a policy on traces and save it in a folder; its last metrics and first losses are returned."""
    from mrt_pipeline.trainer.warm_start import warm_start

    first_losses: list[float] = []
    logger.info("Warm start of a policy of %d parameters", fresh.model.num_parameters())
    with bar(total=size.steps, desc="warm start", unit="step") as steps:

        def log(metrics: dict[str, float], step: int) -> None:
            steps.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
            steps.update(step - steps.n)
            if step <= _FIRST:
                first_losses.append(metrics["loss"])
            if step % _REPORT_EVERY == 0:
                logger.info("Warm start, step %d of %d: loss %.3f", step, size.steps, metrics["loss"])
            log_metrics({f"warm_start/{name}": value for name, value in metrics.items()}, step)

        sizes = (size.steps, size.batch_size, size.seed)
        metrics = warm_start(fresh, source, problems, learner, *sizes, log, log_first=_FIRST)
    fresh.save(folder)
    return {"metrics": metrics, "first_losses": first_losses}
