"""Wiring of the training itself; the registry puts the stages before and after it."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import ACTING, stage
from mrt_pipeline.pipelines.train.nodes import look_before_training, train_policy


def create_pipeline(**kwargs) -> Pipeline:
    """base_policy and its labelled rollouts -> trained_policy, training_history."""
    acting = ["problems", "base_policy", *ACTING, "params:prover"]
    learning = ["params:algorithm", "params:training", "params:seed"]
    begun = ["rollouts", "episodes", "labels", "learning_signal"]
    return stage(
        "train",
        (look_before_training, ["rollouts", "episodes", *acting], "learning_signal"),
        (train_policy, [*begun, *acting, *learning], ["trained_policy", "training_history"]),
    )
