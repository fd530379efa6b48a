import torch

from mrt_pipeline.policy.policy import load_policy
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.tasks.countdown import EPISODE_MARKER


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def test_the_seed_makes_the_weights_and_leaves_the_global_generator_alone(make_policy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = make_policy(seed=0), make_policy(seed=0), make_policy(seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_tied_weights_are_counted_once(tiny_policy):
    vocabulary, width, inner = len(tiny_policy.tokenizer), 32, 64
    layer = 4 * width * width + 3 * width * inner + 2 * width
    assert tiny_policy.n_parameters == vocabulary * width + 2 * layer + width


def test_the_template_fits_the_tokenizer(tiny_policy):
    tokenizer, template = tiny_policy.tokenizer, tiny_policy.template
    assert tokenizer.convert_ids_to_tokens(template.close_id) == "</think>"
    assert template.stop_phrase == (template.close_id,)
    assert template.marker_ids == {tokenizer.convert_tokens_to_ids(EPISODE_MARKER)} == set(template.extensions[0])
    assert template.eos_id == tokenizer.eos_token_id == tiny_policy.model.config.eos_token_id


def test_a_saved_policy_comes_back_the_same(tmp_path, task, warm_policy, problems, all_logprobs):
    warm_policy.save(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy", task.template)
    assert loaded.template == warm_policy.template
    assert loaded.n_parameters == warm_policy.n_parameters
    assert torch.equal(weights(loaded), weights(warm_policy))
    assert next(loaded.model.parameters()).dtype is torch.float32
    for problem in problems[:3]:
        prompt = encode_prompt(warm_policy.tokenizer, warm_policy.template, problem.question)
        assert encode_prompt(loaded.tokenizer, loaded.template, problem.question) == prompt
        assert (all_logprobs(loaded.model.eval(), prompt) == all_logprobs(warm_policy.model, prompt)).all()
        answer = loaded.tokenizer.encode(problem.answers[0], add_special_tokens=False)
        assert loaded.tokenizer.decode(answer, skip_special_tokens=True) == problem.answers[0]


def test_weights_are_saved_as_safetensors_only(tmp_path, tiny_policy):
    tiny_policy.save(tmp_path)
    names = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".safetensors" in names
    assert names <= {".safetensors", ".json", ".jinja"}
