"""The continuous Bernoulli distribution, by its natural parameter."""

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class ContinuousBernoulli(TorchDistribution):
    r"""The continuous Bernoulli distribution, the exponential tilt of the uniform one on [0, 1].

    .. math::
        p(x) = \frac{\eta}{e^\eta - 1} e^{\eta x}, \qquad \eta = \operatorname{logit} \lambda

    torch's distribution of this name is that of :math:`\lambda`, which rounding keeps away from 0 and 1: in single precision
    its :math:`\eta` ends near 16. Here every :math:`\eta` is right, near 0 by a series.

    Args:
        logits: :math:`\eta`.

    References:
        | The continuous Bernoulli: fixing a pervasive error in variational autoencoders (Loaiza-Ganem & Cunningham, 2019)
        | https://arxiv.org/abs/1907.06845
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012  # pyright: ignore
    support = constraints.unit_interval  # pyright: ignore

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: None = None) -> "ContinuousBernoulli":
        return ContinuousBernoulli(self.logits.expand(batch_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.logits * value - self._log_normalizer()

    @property
    def mean(self) -> Tensor:
        r"""The mean, :math:`1 / (1 - e^{-\eta}) - 1 / \eta`, the derivative of the log normaliser."""
        small, safe = self._split()
        exact = -1 / torch.expm1(-safe) - 1 / safe
        return torch.where(small, 0.5 + self.logits / 12 - self.logits**3 / 720, exact)

    @torch.no_grad()
    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw by the inverse of the distribution function, from the side on which it does not overflow."""
        size = self.logits.abs().clamp_min(1e-6)
        uniform = torch.rand(self._extended_shape(sample_shape), dtype=self.logits.dtype, device=self.logits.device)
        rising = (1 + torch.log1p((1 - uniform) * torch.expm1(-size)) / size).clamp(0, 1)
        return torch.where(self.logits > 0, rising, 1 - rising)

    def _log_normalizer(self) -> Tensor:
        r"""Compute :math:`\log \int_0^1 e^{\eta x} dx = \max(\eta, 0) + \log(1 - e^{-|\eta|}) - \log |\eta|`."""
        small, safe = self._split()
        size = safe.abs()
        exact = safe.clamp_min(0) + torch.log(-torch.expm1(-size)) - size.log()
        series = self.logits / 2 + self.logits**2 / 24 - self.logits**4 / 2880
        return torch.where(small, series, exact)

    def _split(self) -> tuple[Tensor, Tensor]:
        """Find where the series holds, and replace the logits there by values at which the formulas have gradients."""
        small = self.logits.abs() < (0.05 if self.logits.dtype == torch.float64 else 0.3)
        return small, torch.where(small, torch.ones_like(self.logits), self.logits)
