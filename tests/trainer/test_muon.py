import pytest
import torch

from mrt_pipeline.trainer.muon import Muon, orthogonalize


def test_steps_are_those_of_torchs_muon_but_for_its_rounding():
    torch.manual_seed(0)
    for shape in ((24, 24), (40, 16), (16, 40)):
        start, target = torch.randn(shape), torch.randn(shape)
        ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
        pair = (
            (ours, Muon([ours], lr=0.1, weight_decay=0.02)),
            (theirs, torch.optim.Muon([theirs], lr=0.1, weight_decay=0.02)),
        )
        for _ in range(5):
            for parameter, optimizer in pair:
                parameter.grad = (parameter - target).detach()
                optimizer.step()
        assert (ours - start).norm() > 1
        assert (ours - theirs).norm() < 0.02 * (ours - start).norm()


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
def test_orthogonalized_matrices_have_singular_values_near_one_and_the_same_singular_vectors(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.T @ orthogonalize(matrix) @ v.T
    assert torch.allclose(rotated, torch.diag(rotated.diagonal()), atol=1e-9)
    assert torch.all((rotated.diagonal() > 0.6) & (rotated.diagonal() < 1.3))


def test_vectors_and_closures_are_refused():
    with pytest.raises(ValueError, match="2D"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
    with pytest.raises(ValueError, match="closures"):
        Muon([torch.nn.Parameter(torch.zeros(3, 3))], lr=0.1).step(lambda: 0.0)
