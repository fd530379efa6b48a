"""Pipelines `evaluate` and `evaluate_trained`: budget extrapolation, and where regret comes from."""

from mrt_pipeline.pipelines.evaluate.pipeline import create_pipeline, create_trained_pipeline, held_out

__all__ = ["create_pipeline", "create_trained_pipeline", "held_out"]
