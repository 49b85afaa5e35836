r"""A variational autoencoder as scikit-learn knows estimators: a transformer of rows to latents, and a density of rows."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from sklearn.utils import Tags, check_random_state

from pyrovae import rows
from pyrovae.errors import require_positive
from pyrovae.guides import DiagonalNormal, Guide
from pyrovae.likelihoods import Likelihood
from pyrovae.networks import MLP, Build, Shape
from pyrovae.objectives import Objective
from pyrovae.priors import Prior, StandardNormal
from pyrovae.sklearn_mixins import LatentTransformer, RandomState, RowDensity
from pyrovae.training import fit


class VAEEstimator(LatentTransformer, RowDensity):
    r"""A variational autoencoder of the rows of a matrix, for pipelines, grid searches and data frames.

    .. math::
        z \sim p(z), \quad x \sim p(x \mid z), \quad z \sim q(z \mid x); \qquad
        \texttt{transform}(x) = \mathbb{E}_{q(z \mid x)}[z], \qquad \texttt{score\_samples}(x) = \log \hat p(x)

    The encoder sees rows in units of the training data, and so does the likelihood if none is given: neither the origin of a
    column nor the unit of all columns matters. Columns that vary more weigh more: put a ``StandardScaler`` before, as for
    principal components, where that means nothing.

    Computes in the precision of the training data: float32 where they are, and float64 otherwise. The results for a row are
    a function of that row and of the fitted estimator alone: importance samples, and latents of a guide whose mean is not
    known in closed form, are drawn for each row by itself, from a seed made of its own numbers and of ``random_state``. So
    the errors of rows are independent, and equal rows have equal results, in whatever order and company.

    Args:
        latent_dim: length of z.
        prior: builds p(z) from ``latent_dim``, as in :class:`pyrovae.VAE`.
        likelihood: builds p(x | z) from the shape of a row, as ``Bernoulli`` does for binary data, ``Poisson`` for counts;
            if null, a Normal with one learned scale for all columns, which begins at the standard deviation of the data.
        guide: builds q(z | x) from the shape of a row, ``latent_dim`` and the encoder's builder.
        encoder: builds the guide's network from its input and output shapes.
        decoder: builds the model's network from its input and output shapes.
        objective: the bound that is maximised; ``ELBO()`` if null.
        epochs: passes over the data, at the most.
        batch_size: rows in a step.
        learning_rate: of Adam.
        validation_fraction: share of rows held out from training, to keep the parameters of the epoch whose bound on them
            was best; if null, all are trained on, and the last parameters are kept.
        patience: stop when the bound on held-out rows has not improved for this many epochs.
        num_samples: importance samples a row, of :meth:`score_samples` and :meth:`score`.
        tolerance: the largest distance from log p(x) of a row to an end of its 95% interval, in nats; each row then has as
            many draws as it needs, from the proposal that it needs (:func:`pyrovae.log_likelihood`). If null, all rows have
            ``num_samples`` draws from the guide.
        device: where the pair is trained and stays: move it by ``vae_.to("cpu")`` to pickle it for a machine without one.
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
        tolerance: float | None = None,
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
        self.tolerance = tolerance
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Train a new pair on rows.

        Args:
            X: a matrix, shape ``(N, D)``, of NumPy, pandas or whatever else scikit-learn takes; dense, without NaN.
            y: not used.

        Raises:
            InputError: for unusable parameters, data outside the likelihood's support, and a loss or gradient not finite.
            ValueError: scikit-learn's, for what is no matrix of finite numbers; ``TypeError`` for a sparse one.
        """
        x = torch.tensor(rows.checked_matrix(self, X, reset=True))
        require_positive(num_samples=self.num_samples)
        rows.require_tolerance(self.tolerance)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, held_out = rows.split_rows(x, self.validation_fraction, self.patience, seed)
        parts = rows.Parts(self.prior, self.likelihood, self.guide, self.encoder, self.decoder)
        vae = parts.build(train, self.latent_dim, seed)
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
        self._n_features_out = rows.latent_means(self.vae_, x[:1], seed).shape[1]
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
