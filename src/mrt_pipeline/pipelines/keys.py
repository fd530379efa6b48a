"""Keys of configurations: what may be reused is named after everything that made it."""

import hashlib
import json

from pydantic import BaseModel

# Raise when a change of the code changes what the same configuration produces.
CODE_VERSION = 1


def configuration_key(**parts: BaseModel | dict | int | str) -> str:
    """Twelve hexadecimal digits that change with any value of any part."""
    plain = {name: part.model_dump() if isinstance(part, BaseModel) else part for name, part in parts.items()}
    text = json.dumps({"code_version": CODE_VERSION, **plain}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
