"""Keys of configurations: what may be reused is named after everything that made it."""

import hashlib
import json

from pydantic import BaseModel

# Raise when a change of the code changes what the same configuration produces.
CODE_VERSION = 2
# Parameters that change nothing in a table: what is shown of it, and where an engine finds room.
_NOT_MADE_OF = frozenset(
    {"log_checkpoints", "register_as", "n_traces"}
    | {"url", "host", "weights_folder", "gpu_memory_utilization", "cpu_cache_gib"}
)


def configuration_key(**parts: BaseModel | dict | int | str) -> str:
    """Twelve hexadecimal digits that change with any value of any part that decides what is made."""
    plain = {name: part.model_dump() if isinstance(part, BaseModel) else part for name, part in parts.items()}
    plain = _without(plain, _NOT_MADE_OF)
    text = json.dumps({"code_version": CODE_VERSION, **plain}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without(tree, names: frozenset[str]):
    if not isinstance(tree, dict):
        return tree
    return {name: _without(part, names) for name, part in tree.items() if name not in names}
