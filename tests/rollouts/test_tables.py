import dataclasses

import numpy as np
import pandas as pd
import pytest
from pandera.errors import SchemaError, SchemaErrors

from mrt_pipeline.evaluation.evaluate import accuracy_by_budget, regret_by_budget
from mrt_pipeline.rollouts import tables
from mrt_pipeline.rollouts.prover import ExactProver, Success
from mrt_pipeline.rollouts.rollout import RolloutSettings, sample_rollouts

BUDGETS = [4, 8, 12, 24]


@pytest.fixture(scope="module")
def sampled(warm_engine, warm_policy, task, known_problems):
    """The tables of rollouts that are forced on to 24 thinking tokens."""
    rollouts = sample_rollouts(
        warm_engine,
        task,
        warm_policy.tokenizer,
        warm_policy.template,
        known_problems,
        RolloutSettings(24, 6),
        4,
        seed=0,
        min_thinking=24,
    )
    table = tables.rollouts_table(rollouts, "base", warm_policy.tokenizer.decode, seed=3)
    queries = tables.queries_from_table(table, known_problems, warm_policy.template, BUDGETS)
    found = ExactProver(warm_policy.tokenizer, warm_policy.template).success(warm_engine, queries)
    episodes = tables.episodes_table(table, queries, found, warm_policy.template, "exact")
    return {
        "rollouts": table,
        "episodes": episodes,
        "anytime": tables.anytime_table(table, queries, found, warm_policy.template, BUDGETS),
        "raw": rollouts,
    }


def through_parquet(table, folder):
    table.to_parquet(folder / "table.parquet")
    return pd.read_parquet(folder / "table.parquet")


def test_problems_come_back_from_their_table(problems, tmp_path):
    table = tables.PROBLEMS.validate(tables.problems_table(problems))
    assert tables.problems_from_table(table) == problems
    assert tables.problems_from_table(tables.PROBLEMS.validate(through_parquet(table, tmp_path))) == problems
    for split in ("train", "validation", "test"):
        assert tables.problems_from_table(table, split) == [p for p in problems if p.split == split]


def test_rollouts_come_back_from_parquet(sampled, tmp_path):
    table = tables.ROLLOUTS.validate(through_parquet(tables.ROLLOUTS.validate(sampled["rollouts"]), tmp_path))
    assert table["rollout_id"].tolist() == [0, 1, 2, 3] * 2
    for row, rollout in zip(table.itertuples(index=False), sampled["raw"], strict=True):
        assert (row.policy, row.problem_id, row.seed) == ("base", rollout.problem.problem_id, 3)
        parts = [row.prompt_token_ids, row.thought_token_ids, row.close_token_ids, row.answer_token_ids]
        assert np.array_equal(np.concatenate(parts), rollout.token_ids())
        assert row.text.startswith("<bos> " + rollout.problem.question)
        assert (row.reward, row.grade, row.stop_reason, row.natural_length, row.answer_text) == (
            rollout.reward,
            rollout.grade.value,
            rollout.stop_reason,
            rollout.natural_length,
            rollout.answer_text,
        )


def test_schemas_accept_what_the_functions_make(sampled, tmp_path):
    for name, schema in (("episodes", tables.EPISODES), ("anytime", tables.ANYTIME)):
        schema.validate(through_parquet(schema.validate(sampled[name]), tmp_path))
    regret = regret_by_budget(sampled["episodes"], BUDGETS, 0.95, 50, 0)
    accuracy = accuracy_by_budget(sampled["anytime"], sampled["rollouts"], BUDGETS, 0.95, 50, 0)
    tables.REGRET.validate(regret)
    tables.ACCURACY.validate(accuracy)
    assert len(regret) == 2 * len(accuracy) == 4 * len(BUDGETS)  # two definitions of regret


@pytest.mark.parametrize("name", ["rollouts", "episodes", "anytime"])
def test_schemas_refuse_wrong_columns_and_repeated_rows(sampled, name):
    schema, table = getattr(tables, name.upper()), sampled[name]
    for wrong in (
        table.drop(columns="problem_id"),
        table.assign(extra=1),
        table.rename(columns={"policy": "model"}),
        pd.concat([table, table.iloc[:1]], ignore_index=True),
    ):
        with pytest.raises((SchemaError, SchemaErrors)):
            schema.validate(wrong)


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("episodes", "success", 1.2),
        ("episodes", "success", -0.1),
        ("episodes", "success", float("nan")),
        ("episodes", "progress", 1.5),
        ("episodes", "episode", -2),
        ("episodes", "success_sem", -0.1),
        ("anytime", "success", 1.2),
        ("anytime", "n_tokens", -1),
        ("rollouts", "reward", 2.0),
        ("rollouts", "grade", "fine"),
        ("rollouts", "stop_reason", "tired"),
        ("rollouts", "natural_length", -1),
    ],
)
def test_schemas_refuse_impossible_values(sampled, name, column, value):
    table = sampled[name].copy()
    table.loc[0, column] = value
    with pytest.raises((SchemaError, SchemaErrors)):
        getattr(tables, name.upper()).validate(table)


def test_problems_of_an_unknown_split_are_refused(problems):
    table = tables.problems_table(problems)
    table.loc[0, "split"] = "exam"
    with pytest.raises((SchemaError, SchemaErrors)):
        tables.PROBLEMS.validate(table)


def test_regret_and_accuracy_schemas_refuse_impossible_values(sampled):
    regret = regret_by_budget(sampled["episodes"], BUDGETS, 0.95, 50, 0)
    accuracy = accuracy_by_budget(sampled["anytime"], sampled["rollouts"], BUDGETS, 0.95, 50, 0)
    for schema, table, column, value in (
        (tables.REGRET, regret, "regret", 1.2),
        (tables.REGRET, regret, "budget", 0),
        (tables.ACCURACY, accuracy, "accuracy", -0.2),
    ):
        table.loc[0, column] = value
        with pytest.raises((SchemaError, SchemaErrors)):
            schema.validate(table)


@pytest.fixture
def by_hand(make_rollout, warm_policy):
    """Thought of 10 tokens, forced on at token 4 by a marker; another marker at 7. J is its number of tokens / 10."""
    marker = next(iter(warm_policy.template.marker_ids))
    thought = [marker, 8, 9, 8, marker, 8, 9, marker, 8, 9]
    forced_on = make_rollout(thought=thought, thought_sampled=[i != 4 for i in range(10)], natural_length=4)
    free = make_rollout(thought=[marker, 8, 9], problem_id="q")
    table = tables.rollouts_table([forced_on, free], "base", str, seed=0)
    queries = tables.queries_from_table(table, [forced_on.problem, free.problem], warm_policy.template, [2, 4, 6, 10])
    return table, queries, [Success(query.cuts / 10, query.cuts / 100, 0) for query in queries]


def test_queries_ask_at_boundaries_natural_ends_and_budgets(by_hand):
    _, queries, _ = by_hand
    assert queries[0].cuts.tolist() == [0, 2, 4, 6, 7, 10]
    assert queries[1].cuts.tolist() == [0, 2, 3]


def test_episodes_by_hand(by_hand, warm_policy):
    table, queries, found = by_hand
    episodes = tables.EPISODES.validate(tables.episodes_table(table, queries, found, warm_policy.template, "known"))
    first, second = (rows for _, rows in episodes.groupby("problem_id"))
    assert first["episode"].tolist() == [-1, 0, 1, 2]
    assert first["n_tokens"].tolist() == [0, 4, 7, 10]
    assert np.allclose(first["success"], [0, 0.4, 0.7, 1])
    assert np.allclose(first["success_sem"], [0, 0.04, 0.07, 0.1])
    assert np.isnan(first["progress"].iloc[0]) and np.allclose(first["progress"].iloc[1:], [0.4, 0.3, 0.3])
    assert first["forced"].tolist() == [False, False, True, True]
    assert second["n_tokens"].tolist() == [0, 3] and not second["forced"].any()
    assert set(episodes["prover"]) == {"known"}


def test_anytime_by_hand(by_hand, warm_policy):
    table, queries, found = by_hand
    anytime = tables.ANYTIME.validate(tables.anytime_table(table, queries, found, warm_policy.template, [2, 4, 6, 10]))

    def curve(problem, forced):
        rows = anytime[(anytime["problem_id"] == problem) & (anytime["forced"] == forced)]
        return list(zip(rows["n_tokens"], rows["success"].round(6), strict=True))

    # The natural curve is held from the natural end (4) on; the forced one goes on. They agree up to it.
    assert curve("p", False) == [(2, 0.2), (4, 0.4), (6, 0.4), (10, 0.4)]
    assert curve("p", True) == [(2, 0.2), (4, 0.4), (6, 0.6), (10, 1.0)]
    # Never forced: held from its end (3) on, and forced only where the thought got to.
    assert curve("q", False) == [(2, 0.2), (4, 0.3), (6, 0.3), (10, 0.3)]
    assert curve("q", True) == [(2, 0.2)]


def natural_regret(rollout, template, problem):
    table = tables.rollouts_table([rollout], "base", str, seed=0)
    queries = tables.queries_from_table(table, [problem], template, [10])
    found = [Success(query.cuts / 10, np.zeros(len(query.cuts)), 0) for query in queries]
    episodes = tables.episodes_table(table, queries, found, template, "known")
    regret = regret_by_budget(episodes, [10], 0.95, 10, 0)
    return regret[~regret["forced"] & (regret["definition"] == "paper")]["regret"].item()


@pytest.mark.parametrize(
    "continuation",
    [
        (1,),
        (8, 1),
    ],
)
def test_forcing_a_trace_on_does_not_change_its_natural_regret(make_rollout, warm_policy, continuation):
    template = dataclasses.replace(warm_policy.template, marker_ids=frozenset({1}), extensions=(continuation,))
    start, more = [1, 8, 9, 1, 8], [9, 9]
    free = make_rollout(thought=start)
    forced = make_rollout(thought=[*start, *continuation, *more], natural_length=5)
    expected = natural_regret(free, template, free.problem)
    assert natural_regret(forced, template, forced.problem) == pytest.approx(expected)
