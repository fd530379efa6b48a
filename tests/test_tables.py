import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.validation.exceptions import DataValidationError, ValidationConfigurationError
from pandera.errors import SchemaError, SchemaErrors

from mrt_pipeline import schemas, tables
from mrt_pipeline.evaluation.evaluate import accuracy_by_budget, regret_by_budget
from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.prover import ExactProver, Success

CATALOG = Path(__file__).parents[1] / "conf/base/catalog.yml"
BUDGETS = [4, 8, 12, 24]


def measure(actor, prover, rollouts, budgets):
    """Labels for measuring at these budgets, as `evaluate` asks for them."""
    cuts = [np.minimum(budgets, len(rollout.thought)) for rollout in rollouts]
    return label_rollouts(actor, prover, rollouts, 0, cuts, at_natural_end=True)


@pytest.fixture(scope="module")
def sampled(warm_actor, known_problems):
    """The tables of rollouts that are forced on to 24 thinking tokens."""
    rollouts = warm_actor.sample(known_problems, 4, seed=0, min_thinking=24)
    labelled = measure(warm_actor, ExactProver(), rollouts, BUDGETS)
    return {
        "rollouts": tables.rollouts_table(rollouts, "base", warm_actor.tokenizer.decode, seed=3),
        "episodes": tables.episodes_table(labelled, "base", "exact"),
        "anytime": tables.anytime_table(labelled, "base", BUDGETS),
        "labels": tables.labels_table(labelled, "base"),
        "raw": rollouts,
    }


def through_parquet(table, folder):
    table.to_parquet(folder / "table.parquet")
    return pd.read_parquet(folder / "table.parquet")


def test_problems_come_back_from_their_table(problems, tmp_path):
    table = schemas.PROBLEMS.validate(tables.problems_table(problems))
    assert tables.problems_from_table(table) == problems
    assert tables.problems_from_table(schemas.PROBLEMS.validate(through_parquet(table, tmp_path))) == problems
    for split in ("train", "validation", "test"):
        assert tables.problems_from_table(table, split) == [p for p in problems if p.split == split]


def test_rollouts_come_back_from_parquet(sampled, tmp_path):
    table = schemas.ROLLOUTS.validate(through_parquet(schemas.ROLLOUTS.validate(sampled["rollouts"]), tmp_path))
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
    for name in ("episodes", "anytime", "labels"):
        schema = getattr(schemas, name.upper())
        schema.validate(through_parquet(schema.validate(sampled[name]), tmp_path))
    regret = regret_by_budget(sampled["episodes"], BUDGETS, Intervals(0.95, 50, 0))
    accuracy = accuracy_by_budget(sampled["anytime"], sampled["rollouts"], BUDGETS, Intervals(0.95, 50, 0))
    schemas.REGRET.validate(regret)
    schemas.ACCURACY.validate(accuracy)
    assert len(regret) == 2 * len(accuracy) == 4 * len(BUDGETS)  # two definitions of regret


@pytest.mark.parametrize("name", ["rollouts", "episodes", "anytime", "labels"])
def test_schemas_refuse_wrong_columns_and_repeated_rows(sampled, name):
    schema, table = getattr(schemas, name.upper()), sampled[name]
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
        ("labels", "prover_tokens", -1),
    ],
)
def test_schemas_refuse_impossible_values(sampled, name, column, value):
    table = sampled[name].copy()
    table.loc[0, column] = value
    with pytest.raises((SchemaError, SchemaErrors)):
        getattr(schemas, name.upper()).validate(table)


@pytest.mark.parametrize("policy", ["base", "trained"])
def test_the_catalog_knows_the_schema_of_what_is_measured_of_a_policy(sampled, tmp_path, policy):
    entries = yaml.safe_load(CATALOG.read_text().replace("${data:}", str(tmp_path)))
    catalog = DataCatalog.from_config({name: entry for name, entry in entries.items() if not name.startswith("_")})
    for name, table in (("rollouts", "rollouts"), ("samples", "rollouts"), ("episodes", "episodes")):
        dataset, made = f"{policy}_{name}", sampled[table]
        catalog.save(dataset, made)
        assert catalog.load(dataset).columns.tolist() == made.columns.tolist()
        assert (tmp_path / "07_model_output" / f"{dataset}.parquet").exists()
        with pytest.raises(DataValidationError):
            catalog.save(dataset, made.drop(columns="problem_id"))
    with pytest.raises(ValidationConfigurationError, match="tabel"):
        catalog.save(f"{policy}_tabel", sampled["labels"])


def test_problems_of_an_unknown_split_are_refused(problems):
    table = tables.problems_table(problems)
    table.loc[0, "split"] = "exam"
    with pytest.raises((SchemaError, SchemaErrors)):
        schemas.PROBLEMS.validate(table)


def test_regret_and_accuracy_schemas_refuse_impossible_values(sampled):
    regret = regret_by_budget(sampled["episodes"], BUDGETS, Intervals(0.95, 50, 0))
    accuracy = accuracy_by_budget(sampled["anytime"], sampled["rollouts"], BUDGETS, Intervals(0.95, 50, 0))
    for schema, table, column, value in (
        (schemas.REGRET, regret, "regret", 1.2),
        (schemas.REGRET, regret, "budget", 0),
        (schemas.ACCURACY, accuracy, "accuracy", -0.2),
    ):
        table.loc[0, column] = value
        with pytest.raises((SchemaError, SchemaErrors)):
            schema.validate(table)


class Known:
    """J is the number of thinking tokens / 10."""

    def __init__(self):
        self.asked = []

    def success(self, actor, queries, seed):
        self.asked += queries
        return [Success(query.cuts / 10, query.cuts / 100, 0) for query in queries]


@pytest.fixture
def by_hand(make_rollout, warm_actor):
    """Thought of 10 tokens, forced on at token 4 by a marker; another marker at 7. Labelled, and what was asked."""
    template = warm_actor.template
    marker = next(iter(template.marker_ids))
    thought = [marker, 8, 9, 8, marker, 8, 9, marker, 8, 9]
    sampled = [i != 4 for i in range(10)]
    forced_on = make_rollout(thought=thought, thought_sampled=sampled, natural_length=4, template=template)
    free = make_rollout(thought=[marker, 8, 9], problem_id="q", template=template)
    prover = Known()
    return measure(warm_actor, prover, [forced_on, free], [2, 4, 6, 10]), prover.asked


def test_queries_ask_at_boundaries_natural_ends_and_budgets(by_hand):
    _, queries = by_hand
    assert queries[0].cuts.tolist() == [0, 2, 4, 6, 7, 10]
    assert queries[1].cuts.tolist() == [0, 2, 3]


def test_episodes_by_hand(by_hand):
    labelled, _ = by_hand
    episodes = schemas.EPISODES.validate(tables.episodes_table(labelled, "base", "known"))
    first, second = (rows for _, rows in episodes.groupby("problem_id"))
    assert first["episode"].tolist() == [-1, 0, 1, 2]
    assert first["n_tokens"].tolist() == [0, 4, 7, 10]
    assert np.allclose(first["success"], [0, 0.4, 0.7, 1])
    assert np.allclose(first["success_sem"], [0, 0.04, 0.07, 0.1])
    assert np.isnan(first["progress"].iloc[0]) and np.allclose(first["progress"].iloc[1:], [0.4, 0.3, 0.3])
    assert first["forced"].tolist() == [False, False, True, True]
    assert second["n_tokens"].tolist() == [0, 3] and not second["forced"].any()
    assert set(episodes["prover"]) == {"known"}


def test_anytime_by_hand(by_hand):
    labelled, _ = by_hand
    anytime = schemas.ANYTIME.validate(tables.anytime_table(labelled, "base", [2, 4, 6, 10]))

    def curve(problem, forced):
        rows = anytime[(anytime["problem_id"] == problem) & (anytime["forced"] == forced)]
        return list(zip(rows["n_tokens"], rows["success"].round(6), strict=True))

    # The natural curve is held from the natural end (4) on; the forced one goes on. They agree up to it.
    assert curve("p", False) == [(2, 0.2), (4, 0.4), (6, 0.4), (10, 0.4)]
    assert curve("p", True) == [(2, 0.2), (4, 0.4), (6, 0.6), (10, 1.0)]
    # Never forced: held from its end (3) on, and forced only where the thought got to.
    assert curve("q", False) == [(2, 0.2), (4, 0.3), (6, 0.3), (10, 0.3)]
    assert curve("q", True) == [(2, 0.2)]


def natural_regret(rollout, actor):
    episodes = tables.episodes_table(measure(actor, Known(), [rollout], [10]), "base", "known")
    regret = regret_by_budget(episodes, [10], Intervals(0.95, 10, 0))
    return regret[~regret["forced"] & (regret["definition"] == "paper")]["regret"].item()


@pytest.mark.parametrize(
    "continuation",
    [
        (1,),
        (8, 1),
    ],
)
def test_forcing_a_trace_on_does_not_change_its_natural_regret(make_rollout, make_actor, warm_policy, continuation):
    template = dataclasses.replace(warm_policy.template, marker_ids=frozenset({1}), extensions=(continuation,))
    start, more = [1, 8, 9, 1, 8], [9, 9]
    actor = make_actor(warm_policy, template=template)
    free = make_rollout(thought=start, template=template)
    forced = make_rollout(thought=[*start, *continuation, *more], natural_length=5, template=template)
    assert natural_regret(forced, actor) == pytest.approx(natural_regret(free, actor))


@pytest.fixture(scope="module")
def search_actor(make_actor, search_policy, backtracking):
    return make_actor(search_policy, game=backtracking, thinking_budget=30, answer_tokens=8)


@pytest.fixture(scope="module", params=["thinking", "backtracking"])
def drawn(request):
    """An actor, its problems, and rollouts of them, forced on or not; one of them was drawn twice."""
    name, known = {
        "thinking": ("warm_actor", "known_problems"),
        "backtracking": ("search_actor", "known_searches"),
    }[request.param]
    actor, problems = request.getfixturevalue(name), request.getfixturevalue(known)
    asked = [problems[0], problems[1], problems[0], problems[1]]
    forced = [actor.limits.thinking_budget] * 2 + [0] * 2
    return actor, problems, actor.sample(asked, 16, seed=0, min_thinking=forced)


def same(one, other):
    """Equal field by field, with the types of arrays and of values."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.tolist()) == (b.dtype, b.tolist()), field.name
        elif dataclasses.is_dataclass(a):
            same(a, b)
        else:
            assert (type(a), a) == (type(b), b), field.name


def test_rollouts_come_back_field_by_field(drawn, tmp_path):
    actor, problems, rollouts = drawn
    ends = {rollout.stopped_at is None for rollout in rollouts}
    assert ends == {True, False} and {"stop", "length"} <= {rollout.stop_reason for rollout in rollouts}
    assert any(rollout.natural_length < len(rollout.thought) for rollout in rollouts)
    table = schemas.ROLLOUTS.validate(tables.rollouts_table(rollouts, "base", actor.tokenizer.decode, seed=0))
    for stored in (table, schemas.ROLLOUTS.validate(through_parquet(table, tmp_path))):
        for one, other in zip(rollouts, tables.rollouts_from_table(stored, problems), strict=True):
            same(one, other)


@pytest.mark.parametrize("at_natural_end", [False, True])
def test_labelled_rollouts_come_back_field_by_field(drawn, tmp_path, at_natural_end):
    actor, problems, rollouts = drawn
    cuts = [range(0, len(rollout.thought) + 1, 3) if i % 2 else () for i, rollout in enumerate(rollouts)]
    labelled = label_rollouts(actor, ExactProver(), rollouts, 0, cuts, at_natural_end=at_natural_end)
    labelled = [dataclasses.replace(item, success_sem=item.success / 7) for item in labelled]  # the exact one has none
    made = {
        "rollouts": tables.rollouts_table(rollouts, "base", actor.tokenizer.decode, seed=0),
        "episodes": tables.episodes_table(labelled, "base", "exact"),
        "labels": tables.labels_table(labelled, "base"),
    }
    assert made["episodes"]["stopped"].any()
    stored = {}
    for name, table in made.items():
        schema = getattr(schemas, name.upper())
        stored[name] = schema.validate(through_parquet(schema.validate(table), tmp_path))
    for found in (made, stored):
        back = tables.labelled_from_tables(found["rollouts"], found["episodes"], found["labels"], problems)
        for one, other in zip(labelled, back, strict=True):
            same(one, other)


def test_no_rollouts_make_a_table_of_none(tmp_path):
    for table, schema in (
        (tables.rollouts_table([], "base", str, 0), schemas.ROLLOUTS),
        (tables.labels_table([], "base"), schemas.LABELS),
    ):
        assert schema.validate(through_parquet(table, tmp_path)).empty
    assert tables.rollouts_from_table(tables.rollouts_table([], "base", str, 0), []) == []
