"""Nodes of `warm_start`."""

import json
import logging
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from mrt_pipeline.config import (
    EvaluationParams,
    LanguageModelPolicy,
    PolicyParams,
    RolloutParams,
    TaskParams,
    TinyPolicy,
    longest_answer,
)
from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.learner.warm_start import warm_start
from mrt_pipeline.pipelines.assemble import (
    find_language_model,
    make_learner_settings,
    make_task,
    make_template,
    new_policy,
)
from mrt_pipeline.pipelines.keys import configuration_key
from mrt_pipeline.pipelines.reuse import made_once
from mrt_pipeline.policy.language_model import context_length, load_tokenizer
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.rollouts.tables import problems_from_table
from mrt_pipeline.tracking.runs import log_metrics

logger = logging.getLogger(__name__)
_FOLDER = Path("data/06_models/warm_start")
_REPORT_EVERY = 200


def warm_start_policy(
    problems: pd.DataFrame, task: TaskParams, policy: PolicyParams, rollout: RolloutParams, evaluation: EvaluationParams
) -> dict[str, str]:
    """Train the base policy on imperfect search traces, or reuse the one that this very configuration made.

    A language model is taken as it is; here it is found and checked, so that what does not fit is refused early.
    """
    key = configuration_key(task=task, policy=policy)
    if isinstance(policy.root, LanguageModelPolicy):
        longest = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)[-1]
        longest += longest_answer(policy.root, rollout)
        path = _find_language_model(policy.root, problems, longest)
        return {"name": "base", "path": path, "base": path, "key": key}
    folder = _FOLDER / key
    made = made_once(folder, partial(_warm_start, problems, task, policy.root))
    logger.info("Base policy: %s", f"written to {folder}" if made else f"reusing {folder}, of the same configuration")
    return {"name": "base", "path": str(folder), "key": key}


def _find_language_model(params: LanguageModelPolicy, problems: pd.DataFrame, longest: int) -> str:
    """Folder or hub id of the model; raises InputError if it is not there or does not fit template and lengths.

    longest: most tokens after a prompt.
    """
    path = find_language_model(params)
    context = context_length(path, params.revision)
    if params.max_length > context:
        raise InputError(
            f"policy.max_length {params.max_length} exceeds the {context} tokens that {path} can take: lower it"
        )
    tokenizer = load_tokenizer(path, params.revision, params.template.chat_template)
    template = make_template(params.template, tokenizer)
    lengths = [len(encode_prompt(tokenizer, template, question)) for question in problems["question"]]
    needed = max(lengths) + len(template.stop_phrase) + longest
    if needed > params.max_length:
        worst = problems["problem_id"].iloc[lengths.index(max(lengths))]
        raise InputError(
            f"a trace can need {needed} tokens, but policy.max_length is {params.max_length}: the prompt of {worst} "
            f"takes {max(lengths)}, stop phrase {len(template.stop_phrase)}, thought and answer at the largest budget "
            f"{longest}. Raise policy.max_length if the model allows it, lower rollout.thinking_budget or the largest "
            "of evaluation.budget_multiples, or leave out long questions"
        )
    logger.info("Base policy: %s, prompts of up to %d tokens", path, max(lengths))
    return path


def _warm_start(problems: pd.DataFrame, task: TaskParams, policy: TinyPolicy, folder: Path) -> None:
    game = make_task(task)
    fresh = new_policy(policy, game)
    params = policy.warm_start
    logger.info("Warm start of a policy of %d parameters", fresh.n_parameters)
    with tqdm(total=params.steps, desc="warm start", unit="step", disable=None) as bar:

        def log(metrics: dict[str, float], step: int) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            if step % _REPORT_EVERY == 0:
                logger.info("Warm start, step %d of %d: loss %.3f", step, params.steps, metrics["loss"])
            log_metrics({f"warm_start/{name}": value for name, value in metrics.items()}, step)

        metrics = warm_start(
            fresh,
            game,
            problems_from_table(problems, "train"),
            make_learner_settings(params.learner),
            params.steps,
            params.batch_size,
            params.seed,
            log,
        )
    fresh.save(folder)
    record = {"task": task.model_dump(), "policy": policy.model_dump(), "metrics": metrics}
    (folder / "warm_start.json").write_text(json.dumps(record, indent=2))
