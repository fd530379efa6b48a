"""Who hands which weights over when several engines share one vLLM; what is sampled is in test_engine.py."""

import pytest

from mrt_pipeline.engines.vllm_engine import Backend, VLLMEngine


class Fake(Backend):
    def __init__(self):
        self.taken, self.fails = [], False

    def take(self, model):
        if self.fails:
            raise RuntimeError
        self.taken.append(model)

    def generate(self, prompts, params):
        return []


@pytest.fixture
def models(make_policy):
    return [make_policy(seed=seed).model for seed in (0, 1)]


def test_an_engine_hands_over_when_it_begins_and_when_another_has_in_between(models):
    backend = Fake()
    base, trained = (VLLMEngine(model, backend) for model in models)
    for engine in (base, base, trained, trained, base):
        engine._generate([], [])
    assert backend.taken == [models[0], models[1], models[0]]
    trained.update_weights()
    trained._generate([], [])
    assert backend.taken[3:] == [models[1]]


def test_a_new_engine_of_the_same_model_hands_over_again_since_the_model_may_have_been_trained(models):
    backend = Fake()
    for _ in range(2):
        VLLMEngine(models[0], backend)._generate([], [])
    assert backend.taken == [models[0]] * 2


def test_after_a_failure_nothing_is_taken_to_be_there(models):
    backend = Fake()
    engine = VLLMEngine(models[0], backend)
    engine._generate([], [])
    backend.fails = True
    with pytest.raises(RuntimeError):
        engine.update_weights()
    assert backend.held is None
