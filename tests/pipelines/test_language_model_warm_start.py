"""A language model is taught a format before anything else: `policy.warm_start`, through the node that does it."""

import json
from pathlib import Path

import pytest
import torch

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.base_policy.nodes import make_base_policy
from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.policy.policy import add_adapters
from mrt_pipeline.policy.template import encode_prompt

CONF = Path(__file__).parents[2] / "conf/base/parameters"
FORMAT = {
    "policy.template.close": "'</think>'",
    "policy.template.opening": '"<think>\n"',
    "policy.template.stop_phrase": '"</think>\n\nThe answer is "',
    "policy.template.natural_answer": "free",
    "policy.template.free_answer_tokens": "40",
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def base_of(**overrides):
    tree = {"policy": "smollm2", "policy.gguf_file": "null", "task": "countdown_words", "prover": "sampled"}
    tree |= {"rollout.thinking_budget": "64", "policy.max_length": "400", "task.n_train": "40", **overrides}
    tree |= {"policy.template.examples": "[]", "rollout.answer_tokens": "16"}
    parameters = Parameters.model_validate(compose_parameters(CONF, tree))
    return make_base_policy(make_problems(parameters.task), parameters.task, parameters.policy), parameters


def taught(**changes):
    size = {"steps": "3", "batch_size": "2", "learning_rate": "0.01", **changes}
    return {f"+policy.warm_start.{key}": value for key, value in size.items()}


def weights(policy):
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def test_all_weights_are_trained_with_new_tokens_once_for_all_runs(language_model, caplog):
    caplog.set_level("INFO")
    how = FORMAT | {"policy.path": language_model} | taught(new_tokens="['<think>','</think>']")
    saved, parameters = base_of(**how)
    assert not saved.has_adapters and saved.card.lora == parameters.policy.lora
    policy = saved.open()
    assert (
        policy.template.close_ids[0] == policy.tokenizer.convert_tokens_to_ids("</think>") == len(policy.tokenizer) - 1
    )
    assert policy.model.get_input_embeddings().num_embeddings == len(policy.tokenizer)
    prompt = encode_prompt(policy.tokenizer, policy.template, "Make 1.")
    assert policy.tokenizer.decode(prompt).endswith("<think>\n")
    again, _ = base_of(**how)
    assert again.folder == saved.folder and "reusing" in caplog.text and again.card.key == saved.card.key
    other, _ = base_of(**{**how, "+policy.warm_start.seed": "1"})
    assert other.folder != saved.folder and other.card.key != saved.card.key


def test_adapters_alone_are_trained_and_training_goes_on_with_them(language_model):
    saved, _ = base_of(**{"policy.path": language_model}, **taught(full="false"))
    assert saved.has_adapters and saved.start == language_model
    moved = {name for name, value in weights(saved.open()).items() if "lora_B" in name and value.abs().max() > 0}
    assert moved
    trained = saved.open_to_train(seed=0)
    ours = weights(trained)
    assert all(torch.equal(value, ours[name]) for name, value in weights(saved.open_apart()).items())


def test_a_file_of_traces_takes_the_place_of_the_tasks_own(language_model, tmp_path):
    trace = {"question": "What is 2 + 3?", "thought": "2 + 3 = 5\n", "answer": " 5"}
    (tmp_path / "traces.jsonl").write_text(json.dumps(trace))
    how = {"policy.path": language_model, "task": "reasoning_gym"} | taught(
        traces="traces.jsonl", steps="60", batch_size="4", learning_rate="0.003"
    )
    saved, _ = base_of(**how)
    policy = saved.open()
    prompt = torch.tensor([encode_prompt(policy.tokenizer, policy.template, trace["question"])])
    with torch.no_grad():
        said = policy.model.generate(prompt, max_new_tokens=30, do_sample=False, eos_token_id=policy.template.eos_id)
    assert policy.tokenizer.decode(said[0, prompt.shape[1] :]) == "2 + 3 = 5\n#### 5<|im_end|>"
    key = saved.card.key
    (tmp_path / "traces.jsonl").write_text(json.dumps(trace | {"answer": " 6"}))
    assert base_of(**how)[0].card.key != key  # what is in the file counts


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"+policy.warm_start.full": "false", "policy.lora": "null"}, "policy.lora, but that is null"),
        ({"+policy.warm_start.steps": "3", "task": "reasoning_gym"}, "writes no traces to warm-start on"),
        ({"+policy.warm_start.steps": "3", "policy.dtype": "bfloat16"}, "needs policy.dtype=float32"),
        ({"+policy.warm_start.full": "false", "+policy.warm_start.new_tokens": "['<a>']"}, "no adapter trains"),
        ({"+policy.warm_start.traces": "nowhere.jsonl"}, "there is no file nowhere.jsonl"),
        (
            {"+policy.warm_start.steps": "1", "rollout.thinking_budget": "16", "policy.max_length": "70"},
            "max_length 70",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_words(language_model, how, said):
    with pytest.raises((InputError, ValueError), match=said):
        base_of(**{"policy.path": language_model, **how})


def test_adapters_are_not_trained_over_as_if_they_were_all_weights(language_model, tmp_path):
    saved, _ = base_of(**{"policy.path": language_model})
    add_adapters(saved.open().model, rank=4, alpha=8, dropout=0.0, seed=0).save_pretrained(tmp_path / "adapters")
    with pytest.raises(InputError, match="holds LoRA adapters"):
        base_of(**{"policy.path": str(tmp_path / "adapters")}, **taught())
