"""The vLLM server engine's refusals; what it computes is in test_engine.py."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import pytest

from mrt_pipeline.engines.vllm_engine import VLLMEngine
from mrt_pipeline.engines.vllm_server import Server, VLLMServerEngineParams
from mrt_pipeline.errors import InputError


@pytest.fixture
def fake():
    """A server that gives prepared answers by path: (status, body), or what gives one. Its address, and what it was
    asked."""
    answers, asked = {"/v1/models": (200, {"data": [{"max_model_len": 64}]})}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.path, json.loads(body) if body else None))
            found = answers[self.path]
            found = found() if callable(found) else found
            if found is None:  # the connection is lost
                self.close_connection = True
                return
            status, answer = found
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


def reach(url, max_length=64, **given):
    return Server(max_length, VLLMServerEngineParams(url=url, **given))


def test_where_no_server_answers_it_says_how_to_start_one():
    with pytest.raises(InputError, match=r"no vLLM server answers at http://127.0.0.1:9 .*mrt_pipeline.serve"):
        reach("http://127.0.0.1:9")


def test_a_server_for_shorter_traces_is_refused(fake):
    with pytest.raises(InputError, match=r"64 tokens, policy\.max_length is 65"):
        reach(fake[0], max_length=65)


def test_a_server_that_is_no_such_server_is_refused_in_words(fake, tiny_policy, tmp_path):
    address, answers, _ = fake
    engine = VLLMEngine(tiny_policy.model, reach(address, weights_folder=str(tmp_path / "new")))
    answers["/collective_rpc"] = (404, {"detail": "Not Found"})
    with pytest.raises(InputError, match=r"refuses /collective_rpc \(404\).*mrt_pipeline.serve"):
        engine.update_weights()


def test_a_server_that_samples_for_others_is_refused(fake, tiny_policy, tmp_path):
    address, answers, asked = fake
    engine = VLLMEngine(tiny_policy.model, reach(address, weights_folder=str(tmp_path / "new")))
    answers["/collective_rpc"] = (200, {"results": [None]})
    answers["/reset_prefix_cache"] = (200, {"success": False})
    with pytest.raises(InputError, match="a server of its own"):
        engine.update_weights()
    path, body = asked[1]
    assert path == "/collective_rpc" and body["method"] == "read_weights"
    assert body["args"][0].startswith(str(tmp_path / "new"))


def test_a_request_whose_connection_is_lost_is_made_again(fake):
    """A server ends connections that have been idle for a while, perhaps just when one of them is used again."""
    address, answers, asked = fake
    server = reach(address)
    found = {"token_id": 7, "logprob": -0.5, "top_logprobs": []}
    lost = iter([True, False, True, False])
    answers["/inference/v1/generate"] = lambda: (
        None if next(lost) else (200, {"choices": [{"logprobs": {"content": [found]}}]})
    )
    for _ in range(2):
        assert [generated.token_ids for generated in server.generate([[1, 2]], [{"n": 1}])] == [[7]]
    assert len(asked) == 1 + 4


def test_the_command_names_parallelism_and_the_worker_that_reads_weights():
    command = VLLMServerEngineParams(tensor_parallel_size=2, data_parallel_size=3).command("folder", 99)
    options = dict(pairwise(command))
    assert options["--tensor-parallel-size"] == "2" and options["--data-parallel-size"] == "3"
    assert (options["--model"], options["--host"], options["--port"]) == ("folder", "127.0.0.1", "8100")
    assert options["--max-model-len"] == "99" and options["--logprobs-mode"] == "processed_logprobs"
    assert options["--worker-extension-cls"].endswith("WeightReader")
    assert "--no-enforce-eager" in command
