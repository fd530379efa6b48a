from pathlib import Path

from mrt_pipeline.reference import parameter_reference

ROOT = Path(__file__).parents[1]


def test_the_reference_is_that_of_the_typed_models():
    """If this fails: python -m mrt_pipeline.reference > docs/parameters.md"""
    made = parameter_reference(ROOT / "conf/base/parameters")
    assert (ROOT / "docs/parameters.md").read_text() == made


def test_every_parameter_has_a_meaning():
    for line in parameter_reference(ROOT / "conf/base/parameters").splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), line
