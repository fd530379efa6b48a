"""Wiring of the RL training itself; the registry puts the stages before and after it."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.mrt_rl.nodes import measure_learning_signal, train_policy


def create_pipeline(**kwargs) -> Pipeline:
    """base_policy -> trained_policy, training_history."""
    return Pipeline(
        [
            Node(
                measure_learning_signal,
                [
                    "rollouts",
                    "episodes",
                    "problems",
                    "base_policy",
                    "params:policy",
                    "params:task",
                    "params:engine",
                    "params:prover",
                    "params:rollout",
                ],
                "learning_signal",
                name="measure_learning_signal",
                tags="train",
            ),
            Node(
                train_policy,
                [
                    "problems",
                    "base_policy",
                    "learning_signal",
                    "params:policy",
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
                tags="train",
            ),
        ]
    )
