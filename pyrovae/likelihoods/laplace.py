"""The Laplace likelihood of real-valued data with outliers."""

import pyro.distributions as dist
from torch import Tensor

from pyrovae.likelihoods.location_scale import LocationScale


class Laplace(LocationScale):
    r"""Independent Laplace pixels, whose log density falls with the absolute difference.

    .. math::
        p(x \mid z) = \prod_i \frac{1}{2 \sigma_i} e^{-|x_i - \mu_i| / \sigma_i}

    Args:
        event_shape: shape of one datum.
        scale: the scale, or where it begins.
        learned: where the scale comes from, as of :class:`~pyrovae.likelihoods.Normal`.

    Raises:
        InputError: for a scale that is not positive, and for another word than those three.
    """

    def around(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return dist.Laplace(loc, scale)
