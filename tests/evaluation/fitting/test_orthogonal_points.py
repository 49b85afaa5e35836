"""Orthogonal points, whose averages are exact up to the third degree."""

import pytest
import torch

from pyrovae.evaluation.fitting.orthogonal_points import number_of_points, orthogonal_points

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("dimensions", [1, 2, 5, 40])
def test_moments_are_those_of_the_normal_distribution(dimensions):
    points = orthogonal_points(3, torch.zeros(1, dimensions))
    assert points.shape == (number_of_points(dimensions), 3, dimensions)
    assert len(points) >= 32
    covariance = torch.einsum("kbi,kbj->bij", points, points) / len(points)
    torch.testing.assert_close(points.mean(0), torch.zeros(3, dimensions))
    torch.testing.assert_close(covariance, torch.eye(dimensions).expand(3, -1, -1))
    torch.testing.assert_close((points[..., :1] * points[..., -1:] * points).mean(0), torch.zeros(3, dimensions))


def test_directions_differ_between_data():
    points = orthogonal_points(2, torch.zeros(1, 6))
    assert not torch.allclose(points[:, 0], points[:, 1])
