from pathlib import Path

import pytest

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import HydraConfigLoader, choices, compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "conf" / "base" / "parameters"
GROUPS = [(group, name) for group, names in choices(ROOT).items() for name in names]
MATH = {"task": "math", "task.train": "[a.json]", "task.evaluation": "[{path: b.csv, answer: gold}]"}
MODEL = {"policy": "language_model", "policy.path": "some/model"}
NEEDED = {
    ("task", "math"): MATH | MODEL,
    ("task", "reasoning_gym"): MODEL,
    ("policy", "language_model"): MATH | MODEL,
    ("policy", "r1_distill"): MATH,
    ("policy", "language_model_backtracking"): MATH | MODEL | {"prover": "sampled"},
    ("engine", "vllm"): MATH | MODEL,
    ("engine", "vllm_server"): MATH | MODEL,
    ("policy", "smollm2"): {"task": "reasoning_gym"},
    ("policy", "small_reasoner"): {"task": "countdown_words", "prover": "sampled"},
    ("task", "countdown_words"): MODEL,
}


@pytest.mark.parametrize(("group", "choice"), GROUPS)
def test_every_shipped_config_composes_and_validates(group, choice):
    Parameters.model_validate(compose_parameters(FOLDER, {group: choice} | NEEDED.get((group, choice), {})))


def test_a_group_is_chosen_and_its_value_overridden_in_either_form():
    dotted = compose_parameters(FOLDER, {"algorithm": "grpo", "algorithm.divide_by_std": "true", "seed": "3"})
    assert dotted["algorithm"] == {
        "name": "grpo",
        "divide_by_std": True,
    }
    assert dotted["seed"] == 3
    nested = compose_parameters(FOLDER, {"algorithm": {"alpha": 0.125}, "task": {"n_train": None}})
    assert nested["algorithm"]["alpha"] == 0.125
    assert nested["task"]["n_train"] is None


@pytest.mark.parametrize(
    "text", ["\nWait", "é", "\\boxed{", 'say "so"', 'a\\"b', "ends with \\", "it's, [really] {so}", ""]
)
def test_strings_inside_lists_arrive_as_they_are(text):
    given = {"compare.runs": [text, "second"]}
    assert compose_parameters(FOLDER, given)["compare"]["runs"] == [text, "second"]


def test_lists_of_sources_may_be_given_as_python_values():
    source = {"path": "a folder/b.csv", "answer": "gold"}
    given = MODEL | {"task": "math", "task.train": ["a.json"], "task.evaluation": [source, "c.json"]}
    found = Parameters.model_validate(compose_parameters(FOLDER, given)).task
    assert [source.path for source in found.evaluation] == ["a folder/b.csv", "c.json"]
    assert found.evaluation[0].answer == "gold" and found.train[0].path == "a.json"


def test_backtracking_is_chosen_by_one_override_and_brings_what_it_needs():
    tree = compose_parameters(FOLDER, {"preset": "smoke", "task": "countdown_backtracking"})
    found = (tree["task"]["name"], tree["task"]["backtrack"], tree["training"]["group_size"])
    assert found == ("countdown_backtracking", "value", 4)
    assert tree["rollout"]["answer_tokens"] == 8
    assert tree["evaluation"]["window"] == 4 and compose_parameters(FOLDER, {})["evaluation"]["window"] is None
    assert compose_parameters(FOLDER, {})["rollout"]["answer_tokens"] == 6
    longer = {"task": "countdown_backtracking", "task.n_numbers": "4", "rollout.answer_tokens": "10"}
    assert compose_parameters(FOLDER, longer)["rollout"]["answer_tokens"] == 10


def test_the_papers_presets_drop_unfinished_paragraphs_and_the_others_do_not():
    def drops(overrides):
        return compose_parameters(FOLDER, overrides)["policy"]["template"]["segmentation"]["drop_unfinished"]

    assert drops({"preset": "r1_distill_numina"}) and drops({"preset": "deepscaler_aime"})
    assert not drops({"preset": "smollm2"}) and not drops(MATH | MODEL)


def test_an_override_wins_over_the_preset():
    tree = compose_parameters(FOLDER, {"preset": "smoke", "training.groups": "8"})
    assert tree["preset"] == "smoke"
    assert tree["training"]["groups"] == 8
    assert tree["training"]["group_size"] == 4


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"algorithm.alhpa": "1"}, ["algorithm.alhpa", "alpha", "gamma"]),
        ({"algorithm": "grpo", "algorithm.alpha": "1"}, ["algorithm.alpha", "divide_by_std"]),
        ({"algoritm": "grpo"}, ["algoritm", "algorithm", "prover"]),
        ({"algorithm": "ppo"}, ["algorithm/ppo", "grpo", "mrt_online"]),
        ({"algorithm.alpha": "much"}, ["alpha", "much"]),
        ({"seed": "-1"}, ["seed", "-1"]),
        ({"training.group_size": "1"}, ["training.group_size"]),
        ({"rollout.thinking_budget": "4000"}, ["policy.max_length", "rollout.thinking_budget"]),
        ({"policy.hidden_size": "97"}, ["hidden_size", "n_heads"]),
        ({"task.n_numbers": "5"}, ["rollout.answer_tokens"]),
        ({"task": "countdown_backtracking", "rollout.answer_tokens": "6"}, ["rollout.answer_tokens", "7"]),
        ({"task": "countdown_backtracking", "task.n_numbers": "4"}, ["rollout.answer_tokens", "10"]),
        ({"task": "countdown_backtracking", "task.cut_fraction": "0.1"}, ["task.cut_fraction", "backtrack"]),
        ({"task": "countdown_backtracking", "task.backtrack": "far"}, ["backtrack", "far", "restart"]),
        ({"evaluation.n_problems": "601"}, ["evaluation.n_problems", "task.n_test"]),
        (
            {"evaluation.split": "validation", "evaluation.n_problems": "201"},
            ["evaluation.n_problems", "task.n_validation"],
        ),
        ({"training.n_validation": "201"}, ["training.n_validation", "task.n_validation"]),
        ({"algorithm": "star", "training.answer_weight": "1"}, ["training.answer_weight"]),
        ({"a b": "x=y"}, ["a b"]),
        ({"task": "math"}, ["task.train", "task.evaluation", "give a value"]),
        (MATH | MODEL | {"task.train": "[]"}, ["task.train", "[]"]),
        ({"policy": "language_model"}, ["policy.path", "give a value"]),
        ({"compare.runs": "[a"}, ["compare.runs"]),
        (MATH, ["policy=tiny", "task=math"]),
        (MATH | MODEL | {"policy.lora": "null"}, ["policy.lora", "float32", "mixed_precision"]),
        ({"engine": "vllm"}, ["engine=vllm", "engine=torch"]),
        ({"engine": "vllm_server"}, ["engine=vllm_server", "engine=torch"]),
        ({"evaluation.window": "2"}, ["evaluation.window", "task=countdown_backtracking", "null"]),
        (MATH | MODEL | {"evaluation.window": "2"}, ["evaluation.window", "policy=language_model_backtracking"]),
        ({"task": "countdown_backtracking", "evaluation.window": "-1"}, ["evaluation.window", "-1"]),
        ({"task": "countdown_backtracking", "evaluation.window_budget_multiple": "0"}, ["window_budget_multiple"]),
        (MODEL | MATH | {"policy.path": "''"}, ["policy.path"]),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_key_and_the_allowed_ones(overrides, named):
    with pytest.raises(InputError) as error:
        compose_parameters(FOLDER, overrides)
    for part in named:
        assert part in str(error.value)


def test_the_loader_composes_parameters_and_leaves_the_rest_to_kedro():
    loader = HydraConfigLoader(conf_source=str(ROOT / "conf"), runtime_params={"seed": "7"}, **CONFIG_LOADER_ARGS)
    assert loader["parameters"]["seed"] == 7
    assert loader["catalog"]["problems"]["filepath"] == "data/01_raw/problems.parquet"


def test_the_shipped_files_alone_are_an_environment_too():
    loader = HydraConfigLoader(conf_source=str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS)
    assert loader["parameters"] == compose_parameters(FOLDER, {})


def test_tables_can_be_kept_elsewhere(monkeypatch):
    monkeypatch.setenv("MRT_PIPELINE_DATA", "data/sweep/3/data")
    loader = HydraConfigLoader(conf_source=str(ROOT / "conf"), **CONFIG_LOADER_ARGS)
    assert loader["catalog"]["problems"]["filepath"] == "data/sweep/3/data/01_raw/problems.parquet"


def test_a_users_own_group_file_is_found(tmp_path):
    own = tmp_path / "parameters" / "algorithm"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("defaults: [grpo]\ndivide_by_std: true\n")
    found = compose_parameters(FOLDER, {"algorithm": "mine"}, own.parent)["algorithm"]
    assert found == {"name": "grpo", "divide_by_std": True}
    with pytest.raises(InputError, match=r"there is no algorithm/yours; there are: .*grpo.*mine"):
        compose_parameters(FOLDER, {"algorithm": "yours"}, own.parent)
    with pytest.raises(InputError, match="there is no algorithm/mine"):  # it was another project's
        compose_parameters(FOLDER, {"algorithm": "mine"})


def test_a_users_file_of_the_name_of_a_class_takes_its_place(tmp_path):
    own = tmp_path / "algorithm"
    own.mkdir()
    (own / "grpo.yaml").write_text("defaults: [/class/algorithm@_here_: grpo]\ndivide_by_std: true\n")
    assert compose_parameters(FOLDER, {"algorithm": "grpo"}, tmp_path)["algorithm"]["divide_by_std"] is True


def test_a_users_file_that_would_be_ignored_is_refused(tmp_path):
    own = tmp_path / "algorithm"
    own.mkdir()
    (own / "mrt.yaml").write_text("name: grpo\n")
    with pytest.raises(InputError, match="another name"):
        compose_parameters(FOLDER, {}, tmp_path)


def test_what_can_be_chosen_are_files_and_classes(tmp_path):
    own = tmp_path / "conf/local/parameters/prover"
    own.mkdir(parents=True)
    (own / "many.yaml").write_text("defaults: [sampled]\nn_answers: 64\n")
    found = choices(tmp_path)
    assert found["prover"] == ["exact", "many", "sampled"]
    assert {"grpo", "mrt_online"} <= {*found["algorithm"]} and "rollout" not in found


def test_the_release_of_june_2026_normalises_nothing():
    algorithm = compose_parameters(FOLDER, {"algorithm": "mrt_online_v0_1"})["algorithm"]
    assert algorithm["normalize_progress"] is algorithm["divide_by_std"] is algorithm["expected_outcome"] is False


def test_the_papers_form_forces_no_groups_on_unless_it_is_asked_to():
    tree = compose_parameters(FOLDER, {"algorithm": "mrt", "algorithm.alpha": "0.5"})
    assert (tree["algorithm"]["bonus"], tree["training"]["forced_fraction"]) == ("next_episode", 0.0)
    assert tree["training"]["learner"] == compose_parameters(FOLDER, {})["training"]["learner"]
    asked = compose_parameters(FOLDER, {"algorithm": "mrt", "training.forced_fraction": "0.25"})
    assert asked["training"]["forced_fraction"] == 0.25


def test_the_embedded_default_is_measured_where_attempts_end_and_within_what_its_warm_start_saw():
    tree = compose_parameters(FOLDER, {})
    attempt, budget = 3 * tree["task"]["n_numbers"], tree["rollout"]["thinking_budget"]
    budgets = [budget * multiple for multiple in tree["evaluation"]["budget_multiples"]]
    assert budgets == [27, 54, 108, 162, 216, 432] and not any(b % attempt for b in budgets)
    assert attempt * tree["task"]["max_attempts"] >= max(budgets) and tree["task"]["long_fraction"] > 0
    right = attempt + 2 * tree["task"]["n_numbers"] - 1  # an attempt that succeeds states the answer
    assert right * tree["task"]["max_attempts"] + tree["rollout"]["answer_tokens"] + 16 < tree["policy"]["max_length"]


def test_an_iteration_from_the_base_in_one_step_is_refused():
    given = {"algorithm": "star", "training": "star"}
    assert compose_parameters(FOLDER, given)["algorithm"]["start_from"] == "base"
    given["training.learner.minibatches"] = "1"
    with pytest.raises(InputError, match="start_from=current"):
        compose_parameters(FOLDER, given)
    assert compose_parameters(FOLDER, given | {"algorithm.start_from": "current"})
