r"""A variational autoencoder as scikit-learn knows estimators: a transformer of rows to latents, and a density of rows."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyrovae.engine.pair import Pair
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation import log_likelihood, posterior_means
from pyrovae.evaluation.latent.means import mean
from pyrovae.guides import DiagonalNormal, Guide
from pyrovae.likelihoods import Likelihood
from pyrovae.networks import MLP, Build, Shape
from pyrovae.objectives import Objective
from pyrovae.priors import Prior, StandardNormal
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.parameters import keeping_its_own
from pyrovae.runtime.seeds import seeded, seeds_of_rows
from pyrovae.standardize import Rescaled, RescaledNormal, Units
from pyrovae.training import fit
from pyrovae.vae import VAE

Array = NDArray[Any]
RandomState = int | np.random.RandomState | None
DTYPES = [np.float64, np.float32]


class VAEEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    r"""A variational autoencoder of the rows of a matrix, for pipelines, grid searches and data frames.

    .. math::
        z \sim p(z), \quad x \sim p(x \mid z), \quad z \sim q(z \mid x); \qquad
        \texttt{transform}(x) = \mathbb{E}_{q(z \mid x)}[z], \qquad \texttt{score\_samples}(x) = \log \hat p(x)

    Any numbers will do: the encoder sees rows in units of the training data, and so does the likelihood if none is given, so
    that neither the origin of a column nor the unit of all columns matters. What weighs how much is decided by how the
    columns vary beside each other: put a ``StandardScaler`` before, as for principal components, where that means nothing.

    Computes in the precision of the training data: float32 where they are, and float64 otherwise. The results for a row are
    a function of that row and of the fitted estimator alone. What has to be drawn for it, the importance samples of
    ``score_samples`` and the latents of a guide whose mean is not known in closed form, is drawn for each row by itself,
    from a seed made of its own numbers and of ``random_state``: rows have errors that do not depend on each other, and equal
    rows equal results, in whatever order and company. It takes about as long as together, since the work is that of
    ``num_samples`` draws a row.

    Args:
        latent_dim: length of z.
        prior: builds p(z) from ``latent_dim``, as in :class:`pyrovae.VAE`.
        likelihood: builds p(x | z) from the shape of a row; if null, a Normal with a learned scale, the same for all
            columns, which begins at the standard deviation of the data. It must suit the data: ``Bernoulli`` for zeros and
            ones, ``Poisson`` for counts.
        guide: builds q(z | x) from the shape of a row, ``latent_dim`` and the encoder's builder.
        encoder: builds the guide's network from its input and output shapes.
        decoder: builds the model's network from its input and output shapes.
        objective: the bound that is maximised; ``ELBO()`` if null.
        epochs: passes over the data, at the most.
        batch_size: rows in a step.
        learning_rate: of Adam.
        validation_fraction: the share of rows that are held out from training, to end with the parameters of the epoch whose
            bound on them was best; if null, all are trained on, and the last parameters are kept.
        patience: stop when the bound on held-out rows has not improved for this many epochs.
        num_samples: importance samples a row, of :meth:`score_samples` and :meth:`score`.
        device: where to train. The pair stays there, and everything is computed where it is: move it by ``vae_.to("cpu")``
            before it is pickled for a machine that has no such device.
        random_state: fixes initial weights, the order of rows, held-out rows and all draws.
        verbose: whether to show a progress bar.

    Attributes:
        vae_: the trained :class:`pyrovae.VAE`: everything that this library computes, it computes of ``vae_.model`` and
            ``vae_.guide``, given rows as a tensor of the precision that was trained in.
        history_: one dict an epoch, as in the history of :func:`pyrovae.fit`, in nats a row.
        n_iter_: the number of epochs trained.
        n_features_in_: the number of columns.
        feature_names_in_: their names, where they have names that are all strings.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014)
        | https://arxiv.org/abs/1312.6114

    Example:
        >>> import pyrovae
        >>> from sklearn.datasets import load_iris
        >>> x = load_iris().data
        >>> estimator = pyrovae.VAEEstimator(latent_dim=2, epochs=2, random_state=0).fit(x)
        >>> estimator.transform(x).shape, estimator.score_samples(x[:5]).shape, estimator.sample(3).shape
        ((150, 2), (5,), (3, 4))
    """

    def __init__(
        self,
        latent_dim: int = 10,
        *,
        prior: Callable[[int], Prior] = StandardNormal,
        likelihood: Callable[[Shape], Likelihood] | None = None,
        guide: Callable[[Shape, int, Build], Guide] = DiagonalNormal,
        encoder: Build = MLP,
        decoder: Build = MLP,
        objective: Objective | None = None,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        validation_fraction: float | None = None,
        patience: int | None = None,
        num_samples: int = 1000,
        device: str | None = None,
        random_state: RandomState = None,
        verbose: bool = False,
    ) -> None:
        self.latent_dim = latent_dim
        self.prior = prior
        self.likelihood = likelihood
        self.guide = guide
        self.encoder = encoder
        self.decoder = decoder
        self.objective = objective
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.num_samples = num_samples
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Train a new pair on rows.

        Args:
            X: a matrix, shape ``(N, D)``, of NumPy, pandas or whatever else scikit-learn takes; dense, without NaN.
            y: not used.

        Raises:
            InputError: for parameters that cannot be used, for data outside the support of the likelihood, and for a loss or
                a gradient that is not finite, each with a remedy.
            ValueError: scikit-learn's, for what is no matrix of finite numbers; ``TypeError`` for a sparse one.
        """
        x = torch.tensor(self._matrix(X, reset=True))
        require_positive(num_samples=self.num_samples)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, held_out = self._split(x, seed)
        vae = self._untrained(train, seed)
        history = fit(
            vae,
            train,
            held_out,
            objective=deepcopy(self.objective),
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=partial(torch.optim.Adam, lr=self.learning_rate),
            patience=self.patience,
            seed=seed,
            device=self.device,
            progress=bool(self.verbose),
        )
        self.vae_, self._seed = vae.eval(), seed
        self.history_ = history.metrics
        self.n_iter_ = len(history.metrics)
        self._n_features_out = self._means(x[:1]).shape[1]
        return self

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
        x, dtype = self._rows(X)
        return self._means(x).numpy().astype(dtype)

    def inverse_transform(self, X: ArrayLike) -> Array:
        r"""What the model makes of latents, the mean of :math:`p(x \mid z)`.

        Args:
            X: latents, shape ``(N, latent_dim)``.

        Returns:
            Shape ``(N, D)``, in the precision of ``X``.

        Raises:
            InputError: for latents of another length, and for a likelihood that does not know its mean.
            NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self, "vae_")
        checked: Array = check_array(X, dtype=DTYPES, order="C")  # pyright: ignore
        if checked.shape[1] != self.latent_dim:
            raise InputError(
                f"X has {checked.shape[1]} columns; expected the latents that the decoder is given, of latent_dim="
                f"{self.latent_dim} columns: leave out what belongs to other latent sites"
            )
        z = torch.tensor(checked).to(self._parameter)
        with torch.no_grad(), evaluating(self.vae_.model):
            means = [mean(self.vae_.model.decode(rows)) for rows in z.split(MAX_ROWS)]
        known = [rows for rows in means if rows is not None]
        if len(known) < len(means):
            raise InputError(
                f"the likelihood {type(self.vae_.model.likelihood).__name__} does not know its mean at these latents; draw "
                "from vae_.model.decode(z) instead"
            )
        return torch.cat(known).cpu().numpy().astype(checked.dtype)

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Array:
        r"""Draw new rows, :math:`z \sim p(z),\; x \sim p(x \mid z)`.

        Args:
            n_samples: how many.
            random_state: fixes the draws; that of the estimator if null, so that one which is a number gives the same rows
                at each call.

        Returns:
            Shape ``(n_samples, D)``.

        Raises:
            InputError: for a number below one.
            NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self, "vae_")
        require_positive(n_samples=n_samples)
        numbers = check_random_state(self.random_state if random_state is None else random_state)
        place = self._parameter.device
        with torch.no_grad(), evaluating(self.vae_.model), seeded(int(numbers.randint(2**31 - 1)), place):
            return keeping_its_own(self.vae_.model)(size=n_samples).cpu().numpy()

    def score_samples(self, X: ArrayLike) -> Array:
        r"""Estimates of :math:`\log p(x)` by importance sampling, in nats.

        .. math::
            \log \hat p(x) = \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

        ``pyrovae.log_likelihood(vae_, x)`` gives their standard errors and diagnostics, too.

        Args:
            X: rows, shape ``(N, D)``.

        Returns:
            Shape ``(N,)``, float64.

        Raises:
            InputError: where data are outside the support of the likelihood, and for a weight that is not a number, naming
                the site.
            NotFittedError: before :meth:`fit`.

        Warns:
            ImportanceSamplingWarning: where the estimates of more than one row in twenty are not to be trusted.
        """
        x, _ = self._rows(X)
        for rows in x.split(MAX_ROWS):
            Pair(self.vae_.model, self.vae_.guide).check(rows.to(self._parameter))
        return log_likelihood(
            (self.vae_.model, self.vae_.guide),
            x,
            self.num_samples,
            num_particles=(),
            seed=seeds_of_rows(x.numpy(), self._seed),
            device=self._parameter.device,
            compile=False,
            max_rows=MAX_ROWS,
        ).log_p

    def score(self, X: ArrayLike, y: Any = None) -> float:
        r"""The mean of :math:`\log \hat p(x)` over rows, in nats: the larger the better.

        Args:
            X: rows, shape ``(N, D)``.
            y: not used.

        Raises:
            InputError: as :meth:`score_samples` does.
        """
        return float(self.score_samples(X).mean())

    def _split(self, x: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
        """The rows to train on, and those held out if any."""
        fraction = self.validation_fraction
        if fraction is None:
            if self.patience is not None:
                raise InputError("patience waits for the bound on held-out rows; pass validation_fraction=0.1 too")
            return x, None
        if not 0.0 < fraction < 1.0:
            raise InputError(f"validation_fraction is {fraction}; expected a number between 0 and 1, or None")
        train, held_out = train_test_split(np.arange(len(x)), test_size=fraction, random_state=seed)
        return x[train], x[held_out]

    def _untrained(self, x: Tensor, seed: int) -> VAE:
        """A pair that starts where the data are."""
        for name in ("prior", "likelihood", "guide", "encoder", "decoder"):
            if (part := getattr(self, name)) is not None and not callable(part):
                raise InputError(f"{name} is {part!r}; expected a class, or a functools.partial of one, that builds it")
        units = Units.of(x)
        with seeded(seed):
            vae = VAE(
                tuple(x.shape[1:]),
                self.latent_dim,
                prior=self.prior,
                likelihood=self.likelihood or partial(RescaledNormal, units),
                guide=self.guide,
                encoder=partial(Rescaled, self.encoder, units),
                decoder=self.decoder,
            ).to(x.dtype)
            if hasattr(vae.model.decoder, "start_output_at"):
                vae.start_at_mean(x.mean(0))
            if (pseudo_inputs := getattr(vae.model.prior, "pseudo_inputs", None)) is not None:
                vae.model.prior.start_at(x[torch.randint(len(x), (len(pseudo_inputs),))])  # pyright: ignore
        return vae

    @property
    def _parameter(self) -> Tensor:
        """One of the pair's parameters, which tells where they are and in what precision."""
        return next(self.vae_.parameters())

    def _matrix(self, X: ArrayLike, *, reset: bool) -> Array:
        """What scikit-learn takes for a matrix, and whose columns are those of the fit where this is not one."""
        return validate_data(self, X, dtype=DTYPES, order="C", reset=reset)  # pyright: ignore

    def _rows(self, X: ArrayLike) -> tuple[Tensor, np.dtype]:
        """Rows for the fitted pair, on the CPU, and the precision that they had."""
        check_is_fitted(self, "vae_")
        checked = self._matrix(X, reset=False)
        return torch.tensor(checked, dtype=self._parameter.dtype), checked.dtype

    def _means(self, x: Tensor) -> Tensor:
        seeds, place = seeds_of_rows(x.numpy(), self._seed), self._parameter.device
        return posterior_means((self.vae_.model, self.vae_.guide), x, seed=seeds, device=place)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
