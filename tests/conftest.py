import contextlib
import copy
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from hypothesis import settings
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mrt_pipeline.engines.base import NO_CHOICE, Completion
from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.policy.policy import Policy, build_policy
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout
from mrt_pipeline.rollouts.rollout import Rollout, RolloutParams
from mrt_pipeline.tasks.base import Grade, Problem, SearchTrace
from mrt_pipeline.tasks.countdown import EPISODE_MARKER, Countdown
from mrt_pipeline.tasks.countdown_backtracking import CountdownBacktracking
from mrt_pipeline.trainer.learner import LearnerParams
from mrt_pipeline.trainer.warm_start import warm_start

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start; there are as many test processes as cores
settings.register_profile("project", deadline=None, max_examples=60, derandomize=True, database=None)
settings.load_profile("project")


@pytest.hookimpl(tryfirst=True)  # before tests are left out by their marks
def pytest_collection_modifyitems(items):
    """Whole jobs are slow, and come first, so that the processes that share the tests end at about the same time."""
    for item in items:
        if "copy_project" in item.fixturenames or {"browser", "long"} & {mark.name for mark in item.iter_markers()}:
            item.add_marker("slow")
    items.sort(key=lambda item: "copy_project" not in item.fixturenames)


@pytest.fixture(autouse=True)
def own_tracking_address():
    """mlflow.set_tracking_uri also sets the environment variable, which would reach the commands that tests start."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session")
def copy_project(tmp_path_factory):
    """Makes a copy of the project, as a user has it, in which jobs can run."""

    def copied():
        folder = tmp_path_factory.mktemp("project")
        for name in ("conf", "src", "pyproject.toml", "README.md", ".telemetry"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        return folder

    return copied


@pytest.fixture(scope="session")
def free_port():
    """Finds a port that nobody listens at, below those that the system gives out: Kedro-Viz takes none of these."""

    def find():
        for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
            with socket.socket() as found, contextlib.suppress(OSError):
                found.bind(("127.0.0.1", port))
                return port
        raise AssertionError("there is no free port")

    return find


@pytest.fixture(scope="session")
def served():
    """Runs a server while a test needs it: a context manager that gives its address once it answers."""

    @contextmanager
    def serve(command, url, folder, environment=None, seconds=300, cwd=None):
        log = folder / "server.log"
        with open(log, "w") as file:
            server = subprocess.Popen(
                command,
                cwd=cwd or folder,
                stdout=file,
                stderr=file,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        try:
            for _ in range(seconds):
                try:
                    requests.get(url, timeout=2)
                    break
                except requests.RequestException:
                    assert server.poll() is None, log.read_text()[-3000:]
                    time.sleep(1)
            else:
                raise AssertionError(log.read_text()[-3000:])
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=60)

    return serve


@pytest.fixture(scope="session")
def task():
    return Countdown(n_train=32, n_validation=8, n_test=8)


@pytest.fixture(scope="session")
def problems(task):
    return task.problems()


@pytest.fixture(scope="session")
def backtracking():
    return CountdownBacktracking(n_train=32, n_validation=8, n_test=8)


@pytest.fixture(scope="session")
def make_policy(task):
    def make(seed=0, symbols=None, game=task, hidden_size=32):
        return build_policy(
            symbols or game.symbols(),
            game.markers,
            game.template,
            hidden_size=hidden_size,
            n_layers=2,
            n_heads=2,
            intermediate_size=64,
            max_length=256,
            seed=seed,
        )

    return make


@pytest.fixture(scope="session")
def tiny_policy(make_policy):
    """Random weights over the task's vocabulary. Never trained: tests that train make their own."""
    return make_policy()


@pytest.fixture(scope="session")
def letters_policy(make_policy):
    """Random weights over 16 tokens, large enough that the next token depends on the whole context."""
    policy = make_policy(seed=1, symbols=[EPISODE_MARKER, *"abcdefghi"], hidden_size=64)  # vLLM needs heads of 32
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if parameter.ndim == 2:
                parameter *= 12 if "embed" in name else 15
    policy.model.eval()
    return policy


@pytest.fixture(scope="session")
def known_problems(problems):
    """The two problems that `warm_policy` was trained on."""
    return problems[:2]


@pytest.fixture(scope="session")
def warm_policy(task, known_problems, make_policy):
    """Trained on a few short traces of two problems, so that J is away from 0 and 1 there. Never trained further."""
    return _warm_started(make_policy(), _ShortTraces(task), known_problems, steps=100)


def _warm_started(policy, traces, problems, steps):
    warm_start(
        policy,
        traces,
        problems,
        LearnerParams(learning_rate=1e-2, optimizer="muon", muon_learning_rate=0.05, schedule="cosine"),
        steps=steps,
        batch_size=16,
        seed=0,
        log=lambda metrics, step: None,
    )
    policy.model.eval()
    return policy


class _ShortTraces:
    def __init__(self, task):
        self.task = task

    def search_trace(self, problem, rng):
        chains = self.task.chains(tuple(problem.metadata["numbers"]))
        target = problem.metadata["target"]
        tried = [chains[i] for i in rng.integers(len(chains), size=rng.integers(0, 4))]
        right = rng.random() < 0.5 or any(chain.results()[-1] == target for chain in tried)
        answer = str(rng.choice(problem.answers)) if right else chains[rng.integers(len(chains))].answer()
        return SearchTrace(" ".join(chain.attempt(target) for chain in tried), answer, cut=False)


class _ShortSearches:
    """At most four attempts, each more often right than the one before; a trace stops at the first right one."""

    def __init__(self, task):
        self.task = task

    def search_trace(self, problem, rng):
        chains = [chain.written_out() for chain in self.task.chains(tuple(problem.metadata["numbers"]))]
        symbols = []
        for i in range(4):
            answer = str(rng.choice(problem.answers if rng.random() < 0.05 + 0.25 * i else chains))
            if answer in problem.answers:
                break
            symbols += [answer, f"back{rng.integers(2)}"]
        return SearchTrace(" ".join(symbols[: 2 * 3]), answer, cut=False)


@pytest.fixture(scope="session")
def known_searches(backtracking):
    """The two problems that `search_policy` was trained on."""
    return backtracking.problems()[:2]


@pytest.fixture(scope="session")
def search_policy(make_policy, backtracking, known_searches):
    """A backtracking policy that stops where it is right, on two problems. Never trained further."""
    return _warm_started(make_policy(game=backtracking), _ShortSearches(backtracking), known_searches, steps=160)


@pytest.fixture(scope="session")
def warm_engine(warm_policy):
    return TorchEngine(warm_policy.model)


@pytest.fixture(scope="session")
def copy_policy():
    def copied(policy: Policy) -> Policy:
        return replace(policy, model=copy.deepcopy(policy.model))

    return copied


@pytest.fixture(scope="session")
def make_actor(task):
    """A policy at work: by default on its own module, on Countdown, with short thoughts and answers."""

    def make(policy, engine=None, game=task, template=None, **limits):
        if template is not None:
            policy = replace(policy, template=template)
        limits = RolloutParams(**{"thinking_budget": 24, "answer_tokens": 6} | limits)
        return Actor(policy, TorchEngine(policy.model) if engine is None else engine, game, limits)

    return make


@pytest.fixture(scope="session")
def warm_actor(make_actor, warm_policy):
    """`warm_policy` on Countdown."""
    return make_actor(warm_policy)


@pytest.fixture(scope="session")
def all_logprobs():
    """Log-probabilities (length, vocabulary) after each token of one sequence, by a plain forward pass."""

    @torch.no_grad()
    def compute(model, token_ids, temperature=1.0):
        ids = torch.as_tensor(np.asarray(token_ids, dtype=np.int64))[None]
        return torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float() / temperature, dim=-1).numpy()

    return compute


@pytest.fixture(scope="session")
def continuation_logprob(all_logprobs):
    """log p(continuation | context) by one plain forward pass."""

    def compute(model, context, continuation):
        logprobs = all_logprobs(model, [*context, *continuation])
        return sum(float(logprobs[len(context) - 1 + i, token]) for i, token in enumerate(continuation))

    return compute


@pytest.fixture(scope="session")
def make_rollout():
    """A hand-made rollout: two prompt tokens, a thought, one close token, an answer of two tokens.

    Its episodes are those of `template`, if one is given, or end at `boundaries`, by default after every token.
    """

    def make(
        thought=(7, 8, 9),
        reward=0.0,
        group=0,
        stop_reason="stop",
        thought_sampled=None,
        problem_id="p",
        natural_length=None,
        choices=None,
        natural_close=(),
        boundaries=None,
        template=None,
    ):
        thought = np.asarray(thought, dtype=np.int64)
        if template is not None:
            boundaries = template.boundaries(thought)
        elif boundaries is None:
            boundaries = range(len(thought) + 1)
        return Rollout(
            problem=Problem(problem_id, "hand", "train", "1 2 3 make 10", ("a",), {}),
            group=group,
            prompt=np.array([1, 4]),
            thought=thought,
            thought_choices=_choices(thought, choices, thought_sampled),
            thought_logprobs=-0.1 * np.arange(1, len(thought) + 1, dtype=np.float32),
            boundaries=np.array(boundaries, dtype=np.int64),
            natural_close=np.array(natural_close, dtype=np.int64),
            natural_length=len(thought) if natural_length is None else natural_length,
            stop_reason=stop_reason,
            close=np.array([5]),
            close_logprob=-0.5,
            answer=np.array([10, 2]),
            answer_logprobs=np.array([-0.7, -0.9], dtype=np.float32),
            answer_text="a",
            grade=Grade.CORRECT if reward else Grade.WRONG,
        )

    return make


def _choices(token_ids, choices, sampled):
    """The tokens themselves, but for `choices` if given; NO_CHOICE where `sampled` is False."""
    chosen = np.asarray(token_ids if choices is None else choices, dtype=np.int64)
    return chosen if sampled is None else np.where(sampled, chosen, NO_CHOICE)


@pytest.fixture(scope="session")
def make_labelled(make_rollout):
    """A hand-made labelled rollout; `success` at `boundaries`, which default to one token an episode."""

    def make(success=(0.0, 0.5, 0.25, 1.0), boundaries=None, **kwargs):
        boundaries = np.arange(len(success)) if boundaries is None else np.asarray(boundaries)
        rollout = make_rollout(thought=np.arange(6, 6 + boundaries[-1]), boundaries=boundaries, **kwargs)
        success = np.asarray(success, dtype=np.float64)
        return LabelledRollout(rollout, boundaries, success, np.zeros_like(success))

    return make


class _ScriptedEngine:
    def __init__(self, *replies):
        self.replies, self.calls = list(replies), []

    def sample(self, prompts, params, seed, min_tokens=0, max_tokens=None):
        prompts = [list(map(int, prompt)) for prompt in prompts]
        self.calls.append({"prompts": prompts, "params": params, "seed": seed, "min": min_tokens, "max": max_tokens})
        return self.replies.pop(0)

    def update_weights(self):
        pass


@pytest.fixture(scope="session")
def scripted_engine():
    """An engine that gives prepared lists of completions, one list a call, and records what it was asked."""
    return _ScriptedEngine


@pytest.fixture(scope="session")
def make_completion():
    def make(token_ids, stop_token_id=None, sampled=None, natural_length=None, choices=None):
        n = len(token_ids)
        return Completion(
            token_ids=np.asarray(token_ids, dtype=np.int64),
            choices=_choices(np.asarray(token_ids, dtype=np.int64), choices, sampled),
            logprobs=-np.arange(1, n + 1, dtype=np.float32),
            stop_token_id=stop_token_id,
            stop_logprob=0.0 if stop_token_id is None else -0.25,
            natural_length=n if natural_length is None else natural_length,
        )

    return make


_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def real_thoughts():
    """A few thoughts and answers of DeepSeek-R1-Distill-Qwen-1.5B (thaotnguyen/thinking-llms-interp), without golds."""
    return [json.loads(line) for line in (FIXTURES / "r1_distill_answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def browser():
    """A headless chromium; the tests that need one are skipped where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    """Folder of a small language model with random weights, a byte-level tokenizer and a chat template."""
    texts = ["12 + 7 = 19\n19 - 30 = -11\n", "State the final answer to: 45 - 8 ="] * 3
    special = ["<|im_start|>", "<|im_end|>", "####"]
    return _language_model(tmp_path_factory.mktemp("language_model"), texts, special, "<|im_end|>", 400, _CHATML)


@pytest.fixture(scope="session")
def reasoner(tmp_path_factory, real_thoughts):
    """The same with the markers of DeepSeek-R1's distillates, and their chat template (from ggml-org/llama.cpp)."""
    template = (FIXTURES / "deepseek_r1_distill_qwen.jinja").read_text()
    begin, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    special = [begin, end, "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
    texts = [text for item in real_thoughts for text in (item["question"], item["thought"], item["answer"])]
    folder = tmp_path_factory.mktemp("reasoner")
    return _language_model(folder, texts, special, end, 1_500, template, bos_token=begin)


def _language_model(folder, texts, special, end, n_tokens, chat_template, **tokens):
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=n_tokens, special_tokens=special, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, pad_token=end, clean_up_tokenization_spaces=False, **tokens
    )
    tokenizer.chat_template = chat_template
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM's CPU attention needs heads of 32 or more
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
