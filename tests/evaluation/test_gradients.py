import numpy as np
import pytest
import torch

from mrt_pipeline.evaluation import gradients
from mrt_pipeline.evaluation.gradients import direction, gram_matrix, keep, leave_one_out


def gram(*credits):
    """Of hand-made gradients: for each credit a list of vectors, one a batch."""
    return gram_matrix([[torch.tensor(vector, dtype=torch.float32) for vector in batches] for batches in credits])


def noisy(rng, mean, n, noise):
    return [[*(mean + noise * rng.normal(size=len(mean)))] for _ in range(n)]


def test_a_gram_matrix_has_every_inner_product():
    found = gram([[1, 0], [0, 2]], [[3, 4], [5, 6]])
    assert found.shape == (2, 2, 2, 2)
    assert found[0, 1, 1, 0] == 8 and found[1, 0, 1, 1] == 39 and found[0, 0, 0, 1] == 0


def test_each_batch_is_compared_with_the_mean_of_the_others():
    found = leave_one_out(gram([[1, 0], [1, 1], [0, 1]]), 0, 0)
    # [1, 0] with [.5, 1]; [1, 1] with [.5, .5]; [0, 1] with [1, .5]
    assert found == pytest.approx([0.5 / np.sqrt(1.25), 1.0, 0.5 / np.sqrt(1.25)])
    found = leave_one_out(gram([[1, 0], [1, 1], [0, 1]], [[0, 2], [0, 1], [-4, 0]]), 0, 1)
    # [1, 0] with [-4, 1]; [1, 1] with [-4, 2]; [0, 1] with [0, 3]
    assert found == pytest.approx([-4 / np.sqrt(17), -2 / np.sqrt(2 * 20), 1.0])


def test_a_batch_without_a_gradient_has_no_cosine_and_counts_in_the_mean_of_the_others():
    found = leave_one_out(gram([[0, 0], [1, 0], [0, 1]]), 0, 0)
    assert np.isnan(found[0]) and found[1:] == pytest.approx([0, 0])
    assert np.isnan(leave_one_out(gram([[0, 0]] * 3), 0, 0)).all()


def test_noise_alone_does_not_look_like_agreement():
    """The cosine with the mean of all batches would be 1 / sqrt(12)."""
    rng = np.random.default_rng(0)
    found = leave_one_out(gram(noisy(rng, np.zeros(4000), 12, 1.0)), 0, 0)
    assert abs(found.mean()) < 0.02


def test_the_direction_is_that_of_the_expected_gradients_whatever_the_noise():
    rng, one, two = np.random.default_rng(1), np.zeros(500), np.zeros(500)
    one[:100], two[50:150] = 0.3, 0.3  # cosine .5
    shared = rng.normal(size=(12, 500))  # noise of a batch, common to both credits, is no agreement either
    credits = [[[*(mean + 0.2 * noise)] for noise in shared] for mean in (one, two)]
    table = gram(*credits)
    value, sem = direction(table, 0, 1)
    assert value == pytest.approx(0.5, abs=3 * sem) and 0.001 < sem < 0.1
    assert direction(table, 0, 0) == pytest.approx((1.0, 0.0), abs=1e-6)
    assert leave_one_out(table, 0, 1).mean() < 0.35


def test_a_direction_that_noise_hides_is_none():
    assert np.isnan(direction(gram([[1, 0], [-1, 0], [0, 1]], [[1, 0], [1, 0], [1, 0]]), 0, 1)[0])


def test_a_small_gradient_is_kept_as_it_is():
    parts = {"a": torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), "b": torch.tensor([3.0])}
    assert keep(parts).tolist() == [1, 2, 3] and keep(parts).dtype == torch.float32


def test_a_large_gradient_is_sketched_with_the_error_that_is_said(monkeypatch):
    monkeypatch.setattr(gradients, "MOST_KEPT", 2**12)
    monkeypatch.setattr(gradients, "_PIECE", 2**13)
    rng = torch.Generator().manual_seed(0)
    a = {"x": torch.randn(50, 400, generator=rng), "y": torch.randn(9000, generator=rng)}
    b = {name: value + torch.randn(value.shape, generator=rng) for name, value in a.items()}  # cosine 1 / sqrt(2)
    flat = [torch.cat([value.flatten() for value in one.values()]) for one in (a, b)]
    errors = []
    for seed in range(20):
        sketches = [keep(one, seed) for one in (a, b)]
        assert {len(sketch) for sketch in sketches} == {2**12}
        errors.append(torch.cosine_similarity(*sketches, dim=0) - torch.cosine_similarity(*flat, dim=0))
    assert np.std(errors) < np.sqrt(2 / 2**12) and abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(20)
    assert torch.equal(keep(a, 3), keep(a, 3)) and not torch.equal(keep(a, 3), keep(a, 4))
    added = keep({name: a[name] + b[name] for name in a}, 3)
    torch.testing.assert_close(added, keep(a, 3) + keep(b, 3), rtol=1e-3, atol=1e-3)
