"""Pipeline `evaluate`: a policy on held-out problems, alone or beside its base, at every budget."""

from mrt_pipeline.pipelines.evaluate.pipeline import create_pipeline, held_out, measures

__all__ = ["create_pipeline", "held_out", "measures"]
