"""Wiring of the training itself; the registry puts the stages before and after it."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.train.nodes import look_before_training, train_policy


def create_pipeline(**kwargs) -> Pipeline:
    """base_policy and its labelled rollouts -> trained_policy, training_history."""
    return Pipeline(
        [
            Node(
                look_before_training,
                [
                    "rollouts",
                    "episodes",
                    "problems",
                    "base_policy",
                    "params:task",
                    "params:engine",
                    "params:prover",
                    "params:rollout",
                ],
                "learning_signal",
                name="look_before_training",
            ),
            Node(
                train_policy,
                [
                    "problems",
                    "base_policy",
                    "learning_signal",
                    "rollouts",
                    "episodes",
                    "labels",
                    "params:task",
                    "params:engine",
                    "params:prover",
                    "params:algorithm",
                    "params:rollout",
                    "params:training",
                    "params:seed",
                ],
                ["trained_policy", "training_history"],
                name="train_policy",
            ),
        ],
        tags="train",
    )
