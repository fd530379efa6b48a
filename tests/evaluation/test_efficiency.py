import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.evaluation.compare import efficiency_table, first_reached, learning_curve
from mrt_pipeline.evaluation.intervals import Arm, Bootstrap
from mrt_pipeline.schemas import COMPARISON_EFFICIENCY


def arm(name, values, histories=()):
    return Arm(name, tuple(range(len(values))), {("accuracy", 96, False): values}, histories=histories)


def history(tokens, accuracy, prover=0):
    return pd.DataFrame(
        {
            "train/sampled_tokens": [np.nan, *tokens[1:]],
            "train/prover_tokens": [np.nan, *[prover] * (len(tokens) - 1)],
            "validation/accuracy": accuracy,
        }
    )


def test_learning_curves_are_running_means_at_the_tokens_of_the_first_seed():
    first, second = history([0, 10, 20], [0.0, 0.3, 0.6]), history([0, 20, 40], [0.0, 0.3, 0.6])
    tokens, accuracy = learning_curve([first, second])
    assert tokens.tolist() == [0, 10, 20]
    assert np.allclose(accuracy, [[0.0, 0.15, 0.3], [0.0, 0.075, 0.15]])


def test_tokens_to_the_level_of_the_baseline():
    slow = arm("grpo", np.zeros((1, 2)), histories=(history([0, 10, 20, 30, 40], [0, 0.1, 0.2, 0.3, 0.4], 7),))
    fast = arm("fast", np.zeros((1, 2)), histories=(history([0, 10, 20, 30, 40], [0, 0.3, 0.3, 0.6, 0.6]),))
    worse = arm("worse", np.zeros((1, 2)), histories=(history([0, 20, 40], [0, 0.1, 0.2]),))
    arms = [arm("base", np.zeros((1, 2))), slow, fast, worse]
    found = COMPARISON_EFFICIENCY.validate(efficiency_table(arms, slow, Bootstrap(arms, 20, 0.95, 0))).set_index("arm")
    assert found.loc["grpo", ["level", "tokens_to_level", "ratio"]].tolist() == pytest.approx([0.3, 40, 1])
    # running means of fast: 0, .15, .2, .4, .5; it gets to .3 half-way between 20 and 30 tokens
    assert found.loc["fast", ["tokens_to_level", "baseline_tokens"]].tolist() == pytest.approx([25, 40])
    assert found.loc["fast", "ratio"] == pytest.approx(40 / 25)
    # the worse one ends at .1, where slow is after 20 tokens
    assert found.loc["worse", ["level", "tokens_to_level", "baseline_tokens"]].tolist() == pytest.approx([0.1, 40, 20])
    assert found.loc["worse", "ratio"] == pytest.approx(0.5)
    assert "base" not in found.index


def test_the_provers_tokens_count_in_a_second_ratio():
    slow = arm("grpo", np.zeros((1, 2)), histories=(history([0, 10, 20], [0, 0.3, 0.6]),))
    proved = arm("proved", np.zeros((1, 2)), histories=(history([0, 10, 20], [0, 0.3, 0.6], prover=20),))
    arms = [slow, proved]
    found = efficiency_table(arms, slow, Bootstrap(arms, 20, 0.95, 0)).set_index("arm")
    assert found.loc["proved", ["ratio", "prover_ratio", "prover_tokens"]].tolist() == pytest.approx([1, 20 / 40, 20])


def test_token_efficiency_has_an_interval_over_seeds():
    def run(rate):
        return history([0, 10, 20, 30, 40, 50], [0, *(rate * n for n in range(1, 6))])

    slow = arm("grpo", np.zeros((3, 2)), histories=(run(0.1), run(0.1), run(0.1)))
    steady = arm("steady", np.zeros((3, 2)), histories=(run(0.2), run(0.2), run(0.2)))
    varied = arm("varied", np.zeros((3, 2)), histories=(run(0.15), run(0.2), run(0.25)))
    arms = [slow, steady, varied]
    found = efficiency_table(arms, slow, Bootstrap(arms, 400, 0.95, 0)).set_index("arm")
    assert found.loc["steady", "ci_low"] == found.loc["steady", "ratio"] == found.loc["steady", "ci_high"] > 1
    assert found.loc["varied", "ci_low"] < found.loc["varied", "ratio"] < found.loc["varied", "ci_high"]


@pytest.mark.parametrize(
    ("level", "expected"), [(0.05, 10), (0.2, 10), (0.3, 15), (0.4, 20), (0.6, 30), (0.61, np.inf)]
)
def test_a_level_is_first_reached_on_straight_lines_between_points(level, expected):
    tokens, accuracy = np.array([10.0, 20, 30, 40]), np.array([0.2, 0.4, 0.6, 0.3])
    assert first_reached(tokens, accuracy, level) == pytest.approx(expected)
    both = first_reached(np.stack([tokens, 2 * tokens]), np.stack([accuracy, accuracy]), np.array([level, level]))
    assert both == pytest.approx([expected, 2 * expected])
