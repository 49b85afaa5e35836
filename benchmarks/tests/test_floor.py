"""The arithmetic of a step, counted."""

from benchmarks.roofline import floor
from benchmarks.task import latent_dim, made_up, mlp_task


def test_products_are_those_of_the_layers_forward_and_twice_backward():
    (data,) = made_up(100)
    found = floor(mlp_task(20, 5, data), seconds=0.001)
    encoder = [(784, 200), (200, 200), (200, 2 * latent_dim)]
    decoder = [(latent_dim, 200), (200, 200), (200, 784)]
    forward = 2 * 20 * sum(a * b for a, b in encoder) + 2 * 100 * sum(a * b for a, b in decoder)
    assert found.flops == 3 * forward - 2 * 20 * 784 * 200  # the data need no gradient
    assert found.seconds > 0
    assert found.copying > 0
