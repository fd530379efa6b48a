"""The vLLM server engine's refusals; what it computes is in test_engine.py."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import pytest

from mrt_pipeline.engines.vllm_server import VLLMServerEngine, serve_command
from mrt_pipeline.errors import InputError


@pytest.fixture
def fake():
    """A server that gives prepared answers by path: (status, body). Its address, and what it was asked."""
    answers, asked = {"/v1/models": (200, {"data": [{"max_model_len": 64}]})}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.path, json.loads(body) if body else None))
            status, answer = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers, asked
    server.shutdown()
    server.server_close()


def test_where_no_server_answers_it_says_how_to_start_one():
    with pytest.raises(InputError, match=r"no vLLM server answers at http://127.0.0.1:9 .*mrt_pipeline.serve"):
        VLLMServerEngine("http://127.0.0.1:9", max_length=64)


def test_a_server_for_shorter_traces_is_refused(fake):
    with pytest.raises(InputError, match=r"64 tokens, policy\.max_length is 65"):
        VLLMServerEngine(fake[0], max_length=65)


def test_a_server_that_is_no_such_server_is_refused_in_words(fake, tiny_policy, tmp_path):
    address, answers, _ = fake
    engine = VLLMServerEngine(address, max_length=64, weights_folder=str(tmp_path / "new"))
    engine.model = tiny_policy.model
    answers["/collective_rpc"] = (404, {"detail": "Not Found"})
    with pytest.raises(InputError, match=r"refuses /collective_rpc \(404\).*mrt_pipeline.serve"):
        engine.update_weights()


def test_a_server_that_samples_for_others_is_refused(fake, tiny_policy, tmp_path):
    address, answers, asked = fake
    engine = VLLMServerEngine(address, max_length=64, weights_folder=str(tmp_path / "new"))
    engine.model = tiny_policy.model
    answers["/collective_rpc"] = (200, {"results": [None]})
    answers["/reset_prefix_cache"] = (200, {"success": False})
    with pytest.raises(InputError, match="a server of its own"):
        engine.update_weights()
    path, body = asked[1]
    assert path == "/collective_rpc" and body["method"] == "read_weights"
    assert body["args"][0].startswith(str(tmp_path / "new"))


def test_the_command_names_parallelism_and_the_worker_that_reads_weights():
    command = serve_command("folder", 99, "bfloat16", "127.0.0.1", 8100, 0.9, 2, 3, enforce_eager=False)
    options = dict(pairwise(command))
    assert options["--tensor-parallel-size"] == "2" and options["--data-parallel-size"] == "3"
    assert options["--max-model-len"] == "99" and options["--logprobs-mode"] == "processed_logprobs"
    assert options["--worker-extension-cls"].endswith("WeightReader")
    assert "--no-enforce-eager" in command
