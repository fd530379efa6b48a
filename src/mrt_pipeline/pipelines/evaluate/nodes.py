"""Nodes of `evaluate` and `evaluate_trained`; traces are sampled and labelled by the nodes of `rollout` and `progress`.

Functions of one or two policies: the tables of the trained one come last, and may be left out.
"""

import hashlib

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.config import (
    AlgorithmParams,
    EngineParams,
    EvaluationParams,
    PolicyParams,
    RolloutParams,
    TaskParams,
)
from mrt_pipeline.evaluation.evaluate import (
    accuracy_by_budget,
    budgets_of,
    regret_by_all_tokens,
    regret_by_budget,
)
from mrt_pipeline.evaluation.majority import majority_by_policy
from mrt_pipeline.evaluation.regret_sources import regret_sources, summarize_sources
from mrt_pipeline.evaluation.stop_and_vote import shown_episodes, stopping_regret, vote_accuracy
from mrt_pipeline.pipelines.assemble import (
    make_engine,
    make_rollout_settings,
    make_task,
    open_policy,
    open_tokenizer,
)
from mrt_pipeline.pipelines.reuse import once_for_base
from mrt_pipeline.reporting.figures import (
    budget_figure,
    majority_figure,
    progress_figure,
    sources_figure,
    vote_figure,
)
from mrt_pipeline.reporting.summary import analysis_metrics, budget_metrics, majority_metrics, markdown_report
from mrt_pipeline.rollouts.prover import force_answers
from mrt_pipeline.rollouts.tables import natural_queries, problems_from_table
from mrt_pipeline.rollouts.votes import votes_table
from mrt_pipeline.tracking.runs import log_metrics
from mrt_pipeline.tracking.traces import log_traces, thoughts


def sample_forced_votes(
    rollouts: pd.DataFrame,
    problems: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Several answers forced at every episode boundary of one trace of each problem, up to its natural end."""
    chosen = rollouts.drop_duplicates("problem_id").head(evaluation.n_vote_problems)
    seed = int(rollouts["seed"].iloc[0]) + 1

    def sample() -> tuple[pd.DataFrame]:
        game = make_task(task)
        opened = open_policy(policy, policy_params, game)
        queries = natural_queries(chosen, problems_from_table(problems), opened.template)
        sampler, settings = make_engine(engine, opened, policy, policy_params), make_rollout_settings(rollout)
        found = force_answers(sampler, opened.template, queries, settings, evaluation.n_votes, seed)
        return (votes_table(chosen, queries, found, game, opened.tokenizer, opened.template),)

    traces = hashlib.sha256("\n".join(chosen["text"]).encode()).hexdigest()
    (table,) = once_for_base(
        policy, sample, votes=traces, engine=engine, rollout=rollout, n=evaluation.n_votes, seed=seed
    )
    return table


def measure_budgets(
    rollout: RolloutParams,
    evaluation: EvaluationParams,
    base_rollouts: pd.DataFrame,
    base_episodes: pd.DataFrame,
    base_anytime: pd.DataFrame,
    base_votes: pd.DataFrame,
    trained_rollouts: pd.DataFrame | None = None,
    trained_episodes: pd.DataFrame | None = None,
    trained_anytime: pd.DataFrame | None = None,
    trained_votes: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Regret and accuracy of each policy at every budget, and trained minus base, with bootstrap intervals."""
    budgets = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)
    bootstrap = (evaluation.confidence, evaluation.n_resamples, evaluation.seed)
    rollouts = _both(base_rollouts, trained_rollouts)
    regret = pd.concat(
        [
            regret_by_budget(_both(base_episodes, trained_episodes), budgets, *bootstrap),
            regret_by_all_tokens(_both(base_votes, trained_votes), rollouts, budgets, *bootstrap),
        ],
        ignore_index=True,
    )
    return regret, accuracy_by_budget(_both(base_anytime, trained_anytime), rollouts, budgets, *bootstrap)


def measure_majority(
    evaluation: EvaluationParams,
    base_samples: pd.DataFrame,
    base_linearised: pd.DataFrame,
    trained_samples: pd.DataFrame | None = None,
    trained_linearised: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """maj@k against the tokens of k samples, of each policy, ordinary samples and linearised ones."""
    return majority_by_policy(
        _both(base_samples, trained_samples),
        _both(base_linearised, trained_linearised),
        evaluation.confidence,
        evaluation.n_resamples,
        evaluation.seed,
    )


def analyse_thinking(
    rollout: RolloutParams,
    evaluation: EvaluationParams,
    base_samples: pd.DataFrame,
    base_episodes: pd.DataFrame,
    base_votes: pd.DataFrame,
    trained_episodes: pd.DataFrame | None = None,
    trained_votes: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Where regret comes from, trace by trace and in the mean; [maj@p]_j against direct answers; stopping regret."""
    votes = _both(base_votes, trained_votes)
    shown = shown_episodes(votes)
    bootstrap = (evaluation.confidence, evaluation.n_resamples, evaluation.seed)
    sources = regret_sources(_both(base_episodes, trained_episodes), base_samples, rollout.thinking_budget)
    return (
        sources,
        summarize_sources(sources, *bootstrap),
        vote_accuracy(votes, [0, *shown], *bootstrap),
        stopping_regret(votes, shown, *bootstrap),
    )


def draw_progress(base_episodes: pd.DataFrame, trained_episodes: pd.DataFrame | None = None) -> go.Figure:
    """Histogram of the progress of episodes."""
    return progress_figure(_both(base_episodes, trained_episodes))


def show_thoughts(
    problems: pd.DataFrame,
    rollouts: pd.DataFrame,
    episodes: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    evaluation: EvaluationParams,
) -> None:
    """Log a few held-out rollouts as MLflow traces with a span for each episode."""
    log_traces(
        thoughts(rollouts, episodes, problems, evaluation.n_traces), open_tokenizer(policy, policy_params).decode
    )


def report(
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    summary: pd.DataFrame,
    stop_and_vote: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    task: TaskParams,
    algorithm: AlgorithmParams,
    rollout: RolloutParams,
    seed: int,
    base_samples: pd.DataFrame,
    trained_samples: pd.DataFrame | None = None,
) -> tuple[str, go.Figure, go.Figure, go.Figure, go.Figure, go.Figure]:
    """The closing tables and the figures; the numbers go to MLflow, with the budget as the step, or k of maj@k."""
    measured = make_task(task).trace_metrics
    by_step: dict[int, dict[str, float]] = {}
    for points in (
        budget_metrics(regret, accuracy),
        analysis_metrics(summary, stopping, rollout.thinking_budget),
        majority_metrics(majority),
    ):
        for name, history in points.items():
            for point in history:
                by_step.setdefault(int(point["step"]), {})[f"evaluation/{name}"] = point["value"]
    for step, metrics in by_step.items():
        log_metrics(metrics, step)
    for suffix, samples in (("", trained_samples), ("_base", base_samples)):
        if samples is None:
            continue
        found = measured(samples["text"].tolist())
        log_metrics({f"evaluation/{name}{suffix}": value for name, value in found.items()}, rollout.thinking_budget)
    what = f"{algorithm.root.name}, seed {seed}" if trained_samples is not None else "base policy"
    title = f"{what}, training budget {rollout.thinking_budget} thinking tokens"
    return (
        markdown_report(regret, accuracy, summary, stopping, majority, title),
        budget_figure(accuracy, "accuracy", rollout.thinking_budget),
        budget_figure(regret[regret["definition"] == "paper"], "regret", rollout.thinking_budget),
        sources_figure(summary, rollout.thinking_budget),
        vote_figure(stop_and_vote),
        majority_figure(majority),
    )


def _both(base: pd.DataFrame, trained: pd.DataFrame | None) -> pd.DataFrame:
    return base if trained is None else pd.concat([base, trained], ignore_index=True)
