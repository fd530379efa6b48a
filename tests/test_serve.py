from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.serve import server_command


@pytest.fixture(scope="module")
def project(copy_project):
    return copy_project()


@pytest.fixture(autouse=True)
def in_the_project(project, monkeypatch):
    monkeypatch.chdir(project)


def test_the_server_is_started_with_what_the_run_will_ask_for(project, language_model, monkeypatch):
    monkeypatch.setattr("mrt_pipeline.serve.find_spec", lambda name: True)
    given = [
        "preset=smollm2",
        "policy.gguf_file=null",
        f"policy.path={language_model}",
        "engine=vllm_server",
        "engine.url=http://127.0.0.1:8234",
        "engine.data_parallel_size=3",
    ]
    command, environment = server_command(project, given)
    options = dict(pairwise(command))
    assert options["--model"] == language_model
    assert options["--port"] == "8234" and options["--data-parallel-size"] == "3"
    assert options["--dtype"] == "float32" and "--enforce-eager" in command  # from the preset
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["preset=smollm2", "engine=vllm"], "engine=vllm_server"),
        (["smollm2"], "key=value"),
        (["preset=smollm2", "engine=vllm_server", "engine.url=somewhere"], "engine.url"),
        (["engine=vllm_server"], "policy=tiny takes engine=torch"),
    ],
)
def test_what_needs_no_server_or_makes_no_sense_is_refused(project, given, named):
    with pytest.raises(InputError, match=named):
        server_command(project, given)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_says_what_to_install(project, language_model):
    given = ["preset=smollm2", "policy.gguf_file=null", f"policy.path={language_model}", "engine=vllm_server"]
    with pytest.raises(InputError, match=r"mrt-pipeline\[vllm"):
        server_command(Path(project), given)
