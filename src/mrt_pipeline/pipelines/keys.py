"""Keys of configurations: what may be reused is named after everything that made it."""

import hashlib
import json

from pydantic import BaseModel

from mrt_pipeline.config import Parameters
from mrt_pipeline.errors import InputError

# Raise when a change of the code changes what the same configuration produces.
CODE_VERSION = 1


def configuration_key(**parts: BaseModel | int | str) -> str:
    """Twelve hexadecimal digits that change with any value of any part."""
    plain = {name: part.model_dump() if isinstance(part, BaseModel) else part for name, part in parts.items()}
    text = json.dumps({"code_version": CODE_VERSION, **plain}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def policy_key(name: str, parameters: Parameters) -> str:
    """The key of the `base` or `trained` policy that `parameters` make."""
    base = configuration_key(task=parameters.task, policy=parameters.policy)
    if name == "base":
        return base
    groups = ("engine", "prover", "algorithm", "rollout", "training", "seed")
    return configuration_key(base=base, **{group: getattr(parameters, group) for group in groups})


def check_policy(ref: dict[str, str], parameters: Parameters) -> None:
    """Refuse a policy on disk that another configuration made. Raises InputError."""
    if ref["key"] != policy_key(ref["name"], parameters):
        stage = {"base": "warm_start", "trained": "train"}[ref["name"]]
        raise InputError(
            f"the {ref['name']} policy in data/ ({ref['path']}) was made by another configuration than this run's: run "
            f"`kedro run --pipelines={stage}` with the same --params first, or the whole pipeline"
        )
