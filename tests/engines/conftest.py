import numpy as np
import pytest


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 16, size=length).tolist() for length in (5, 2, 9, 1, 4, 7)]
