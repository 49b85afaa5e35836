r"""Methods of a fitted estimator as scikit-learn has them: a transformer of rows to latents, and a density of rows."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from pyrovae import rows
from pyrovae.errors import require_positive
from pyrovae.vae import VAE

Array = NDArray[Any]
RandomState = int | np.random.RandomState | None


class LatentTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A transformer of rows to the means of their latents, and back."""

    vae_: VAE
    _seed: int

    def transform(self, X: ArrayLike) -> Array:
        r"""The means of the posteriors, :math:`\mathbb{E}_{q(z \mid x)}[z]`.

        Args:
            X: rows, shape ``(N, D)``.

        Returns:
            Shape ``(N, latent_dim)``, in the precision of ``X``; where the guide has several latent sites, those of each,
            one after another (:func:`pyrovae.evaluation.posterior_means`).

        Raises:
            NotFittedError: before :meth:`fit`.
        """
        x, dtype = rows.checked_rows(self, X)
        return rows.latent_means(self.vae_, x, self._seed).numpy().astype(dtype)

    def inverse_transform(self, X: ArrayLike) -> Array:
        r"""The means of the model's rows at given latents, :math:`\mathbb{E}[x \mid z]`.

        Args:
            X: latents, shape ``(N, latent_dim)``.

        Returns:
            Shape ``(N, D)``, in the precision of ``X``.

        Raises:
            InputError: for latents of another length, and for a likelihood that does not know its mean.
            NotFittedError: before :meth:`fit`.
        """
        z, dtype = rows.checked_latents(self, X)
        return rows.decoded_means(self.vae_, z).numpy().astype(dtype)


class RowDensity(DensityMixin, BaseEstimator):
    """The density of rows, which can be sampled and evaluated."""

    vae_: VAE
    num_samples: int
    tolerance: float | None
    random_state: RandomState
    _seed: int

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Array:
        r"""Draw new rows, :math:`z \sim p(z),\; x \sim p(x \mid z)`.

        Args:
            n_samples: how many.
            random_state: fixes the draws; that of the estimator if null, which, if a number, gives the same rows each time.

        Returns:
            Shape ``(n_samples, D)``.

        Raises:
            InputError: for a number below one.
            NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self, "vae_")
        require_positive(n_samples=n_samples)
        numbers = check_random_state(self.random_state if random_state is None else random_state)
        return rows.new_rows(self.vae_, n_samples, int(numbers.randint(2**31 - 1))).numpy()

    def score_samples(self, X: ArrayLike) -> Array:
        r"""Estimates of :math:`\log p(x)` by importance sampling, in nats.

        .. math::
            \log \hat p(x) = \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

        Of ``num_samples`` draws a row; where the estimator has a ``tolerance``, of as many as each row needs, from the
        proposal that it needs. ``pyrovae.log_likelihood(vae_, x)`` gives their standard errors and diagnostics, too.

        Args:
            X: rows, shape ``(N, D)``.

        Returns:
            Shape ``(N,)``, float64.

        Raises:
            InputError: for data outside the likelihood's support, and for a weight that is not a number, naming the site.
            NotFittedError: before :meth:`fit`.

        Warns:
            ImportanceSamplingWarning: where the estimates of more than one row in twenty are not to be trusted, or do not
                meet the tolerance.
        """
        x, _ = rows.checked_rows(self, X)
        return rows.log_densities(self.vae_, x, self.num_samples, self.tolerance, self._seed)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        r"""The mean of :math:`\log \hat p(x)` over rows, in nats: the larger the better.

        Args:
            X: rows, shape ``(N, D)``.
            y: not used.

        Raises:
            InputError: as :meth:`score_samples` does.
        """
        return float(self.score_samples(X).mean())
