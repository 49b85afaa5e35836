"""The face that scikit-learn knows: its own checks, and that nothing is computed otherwise than by the library beneath."""

import math
import pickle
from copy import copy
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from checks import QUANTILE, guide_for, members, prior_for, refused, slow_but
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.priors
from pyrovae import IWAE, VAE, VAEEstimator
from pyrovae.evaluation import posterior_means
from pyrovae.guides import Flow, FullRankNormal, Guide, Hierarchical
from pyrovae.likelihoods import Bernoulli, Beta, Likelihood, Normal
from pyrovae.networks import MLP
from pyrovae.objectives import BetaELBO
from pyrovae.priors import Prior, Vamp
from pyrovae.runtime.seeds import seeds_of_rows

pytestmark = pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
small = partial(MLP, hidden=(8,))
quick = {"latent_dim": 2, "encoder": small, "decoder": small, "epochs": 2, "num_samples": 50, "random_state": 0}


def estimator(**changed) -> VAEEstimator:
    return VAEEstimator(**{**quick, **changed})


def noise():
    return np.random.default_rng(0).normal(size=(40, 3))


@pytest.fixture
def X():
    return noise()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([estimator()])
def test_what_scikit_learn_asks_of_every_estimator(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [
        estimator(validation_fraction=0.2, patience=1),
        estimator(guide=partial(Flow, transforms=1, hidden=(8,)), num_samples=10),
    ]
)
def test_what_scikit_learn_asks_of_every_estimator_with_other_settings(estimator, check):
    check(estimator)


def linear(in_shape, out_shape):
    return nn.Linear(*in_shape, *out_shape)


def correlated():
    rng = np.random.default_rng(1)
    return rng.normal(size=(200, 2)) @ rng.normal(size=(2, 4)) + rng.normal(size=(200, 4)) + 5.0


@pytest.fixture(scope="module")
def linear_gaussian():
    """A fitted linear-Gaussian model, whose log p(x) is known."""
    parts = {"guide": FullRankNormal, "encoder": linear, "decoder": linear}
    return estimator(**parts, epochs=200, batch_size=50, learning_rate=0.02, num_samples=2000).fit(correlated())


class TestAsTheLibraryHasIt:
    """Each method against the function that it stands for, and against closed forms."""

    @pytest.fixture
    def X(self):
        return correlated()

    @pytest.fixture
    def fitted(self, linear_gaussian):
        return linear_gaussian

    @pytest.fixture
    def exact(self, fitted, X):
        """Log p(x) of the rows in closed form."""
        model = fitted.vae_.model
        with torch.no_grad():
            loc = model.likelihood.origin + model.likelihood.unit * model.decoder.bias
            slope = model.likelihood.unit * model.decoder.weight
            noise = model.likelihood.unit * model.likelihood.log_scale.exp()
            covariance = slope @ slope.T + noise**2 * torch.eye(4)
            return dist.MultivariateNormal(loc, covariance).log_prob(torch.tensor(X)).numpy()

    def test_score_samples_is_log_p_of_x(self, fitted, exact, X):
        estimate = pyrovae.log_likelihood(fitted.vae_, torch.tensor(X), 2000)
        sure = estimate.standard_error < 0.05
        assert sure.mean() > 0.9
        z = ((fitted.score_samples(X) - exact) / estimate.standard_error)[sure]
        assert abs(z).max() < 6.0
        assert abs(z.mean()) < QUANTILE / np.sqrt(len(z))

    def test_score_samples_is_within_the_tolerance(self, fitted, exact, X):
        close = copy(fitted).set_params(tolerance=0.05)
        distance = abs(close.score_samples(X) - exact)
        assert (distance <= 0.05).mean() > 0.9
        assert distance.max() < 0.1
        seeds = seeds_of_rows(X[:9], fitted._seed)
        found = pyrovae.log_likelihood(fitted.vae_, torch.tensor(X[:9]), tolerance=0.05, num_particles=(), seed=seeds)
        np.testing.assert_allclose(close.score_samples(X[:9]), found.log_p, rtol=1e-12)

    def test_score_is_its_mean(self, fitted, X):
        assert fitted.score(X[:7]) == pytest.approx(fitted.score_samples(X[:7]).mean())

    def test_transform_is_the_mean_of_the_guide(self, fitted, X):
        expected = fitted.vae_.guide.propose(torch.tensor(X)).mean.detach()
        np.testing.assert_allclose(fitted.transform(X), expected)

    def test_inverse_transform_is_the_mean_of_the_model(self, fitted):
        z = np.random.default_rng(0).normal(size=(5000, 2))
        expected = fitted.vae_.model.decode(torch.tensor(z)).mean.detach()
        np.testing.assert_allclose(fitted.inverse_transform(z), expected)

    def test_samples_have_the_moments_of_the_data(self, fitted, X):
        drawn = fitted.sample(4000, random_state=1)
        np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.3)
        np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.8)

    def test_the_history_is_that_of_fit(self, fitted):
        assert fitted.n_iter_ == len(fitted.history_) == 200
        assert fitted.history_[-1]["train_bound"] > fitted.history_[0]["train_bound"]

    def test_nothing_enters_pyros_store(self, fitted, X):
        fitted.transform(X[:3]), fitted.score_samples(X[:3]), fitted.sample(3)
        assert not [*pyro.get_param_store().keys()]


def test_held_out_rows_choose_the_epoch(X):
    fitted = estimator(validation_fraction=0.25, patience=2, epochs=200, learning_rate=0.1).fit(X)
    assert 2 < fitted.n_iter_ < 200
    bounds = [epoch["validation_bound"] for epoch in fitted.history_]
    assert np.argmax(bounds) == fitted.n_iter_ - 3


def test_the_objective_is_used_and_left_as_it_was(X):
    objective = BetaELBO(warmup=100)
    before = pickle.dumps(objective)
    assert estimator(objective=objective).fit(X).history_ != estimator(objective=IWAE(5)).fit(X).history_
    assert pickle.dumps(objective) == before


@pytest.fixture(scope="module", params=[FullRankNormal, partial(Flow, hidden=(8,))], ids=["mean known", "mean drawn"])
def fitted_to_noise(request):
    return estimator(guide=request.param).fit(noise())


class TestARowByItself:
    """What is said of a row depends on no other, to the last bit where it is drawn."""

    @pytest.fixture
    def fitted(self, fitted_to_noise):
        return fitted_to_noise

    @pytest.mark.parametrize("method", ["score_samples", "transform"])
    def test_order_company_and_copies_do_not_matter(self, fitted, X, method):
        found = getattr(fitted, method)(X)
        for rows in (np.arange(40)[::-1], [3, 7], [5], [2, 2, 2, 9]):
            again = getattr(fitted, method)(X[rows])
            np.testing.assert_allclose(again, found[rows], rtol=1e-13, atol=1e-13)

    def test_nor_do_they_to_a_tolerance(self, fitted, X):
        close = copy(fitted).set_params(tolerance=0.1)
        found = close.score_samples(X[:12])
        for rows in (np.arange(12)[::-1], [3, 7], [2, 2, 9]):
            np.testing.assert_allclose(close.score_samples(X[rows]), found[rows], rtol=1e-13, atol=1e-13)

    def test_rows_that_nearly_agree_have_noise_of_their_own(self, fitted):
        rows = 0.3 + 1e-9 * np.random.default_rng(2).normal(size=(20, 3))
        assert fitted.score_samples(rows).std() > 1e-3

    def test_minus_zero_is_zero(self, fitted):
        zeros = np.zeros((1, 3))
        assert fitted.score_samples(zeros) == fitted.score_samples(-zeros)

    def test_a_pickle_says_the_same(self, fitted, X):
        again = pickle.loads(pickle.dumps(fitted))
        for method in ("score_samples", "transform"):
            np.testing.assert_array_equal(getattr(again, method)(X), getattr(fitted, method)(X))
        np.testing.assert_array_equal(again.sample(3), fitted.sample(3))


class TestRandomState:
    def test_a_number_fixes_everything_and_torchs_numbers_go_on(self, X):
        before = torch.get_rng_state()
        one, same, other = (estimator(random_state=seed).fit(X) for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(one.score_samples(X), same.score_samples(X))
        assert (one.score_samples(X) != other.score_samples(X)).all()

    def test_none_is_another_at_each_fit_and_the_same_within_it(self, X):
        one, other = (estimator(random_state=None).fit(X) for _ in range(2))
        assert (one.transform(X) != other.transform(X)).all()
        np.testing.assert_array_equal(one.score_samples(X), one.score_samples(X))

    def test_of_samples(self, X):
        fitted = estimator().fit(X)
        np.testing.assert_array_equal(fitted.sample(3), fitted.sample(3))
        np.testing.assert_array_equal(fitted.sample(3, random_state=5), fitted.sample(3, random_state=5))
        assert (fitted.sample(3) != fitted.sample(3, random_state=5)).all()


class TestAmongOthers:
    def test_pipeline_and_grid_search(self):
        X, y = load_iris(return_X_y=True)
        pipeline = make_pipeline(StandardScaler(), estimator(epochs=20, learning_rate=0.02), LogisticRegression())
        assert pipeline.fit(X, y).score(X, y) > 0.7
        density = make_pipeline(StandardScaler(), estimator(num_samples=20))
        search = GridSearchCV(density, {"vaeestimator__epochs": [1, 30]}, cv=2, error_score="raise")
        search.fit(X)
        assert search.best_params_ == {"vaeestimator__epochs": 30}
        assert search.score(X) == pytest.approx(search.best_estimator_.score_samples(X).mean())

    def test_a_data_frame_in_and_a_data_frame_out(self, X):
        frame = pd.DataFrame(X, columns=["a", "b", "c"], index=np.arange(40) + 100)
        found = estimator().set_output(transform="pandas").fit(frame).transform(frame)
        assert [*found.columns] == ["vaeestimator0", "vaeestimator1"]
        assert found.index.equals(frame.index)
        fitted = estimator().fit(frame)
        assert [*fitted.feature_names_in_] == ["a", "b", "c"]
        np.testing.assert_array_equal(fitted.transform(frame), found)
        with pytest.raises(ValueError, match="feature names should match"):
            fitted.transform(frame[["b", "a", "c"]])

    def test_a_clone_has_the_parameters_and_no_fit(self, X):
        copied = clone(estimator(objective=IWAE(3), prior=partial(Vamp, components=7)).fit(X))
        assert copied.prior.keywords == {"components": 7}
        assert copied.objective.num_particles == 3
        with pytest.raises(NotFittedError):
            copied.transform(X)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_precision(self, X, dtype):
        fitted = estimator().fit(X.astype(dtype))
        assert {value.dtype for value in fitted.vae_.parameters()} == {torch.tensor(X.astype(dtype)).dtype}
        assert fitted.sample(2).dtype == dtype
        for given in (np.float32, np.float64):
            latents = fitted.transform(X.astype(given))
            assert latents.dtype == fitted.inverse_transform(latents).dtype == given
            assert fitted.score_samples(X.astype(given)).dtype == np.float64

    def test_columns_of_very_different_size_are_no_error(self, X):
        fitted = estimator().fit(X * [1e-6, 1.0, 1e6])
        assert np.isfinite(fitted.score(X * [1e-6, 1.0, 1e6]))


def but_slow(quick, classes):
    """Each class in both precisions, of which those of these names in the second are quick."""
    return slow_but(lambda cls, dtype: cls.__name__ in quick and dtype is np.float64, product(classes, dtypes))


dtypes = (np.float32, np.float64)
counts = ("Bernoulli", "Binomial", "Categorical", "ZeroInflatedNegativeBinomial", "DiscretizedLogisticMixture", "Normal")


class TestEveryPart:
    """Parts whose programs or data are of one kind are left to the night but for one."""

    def works(self, X, dtype, **parts):
        fitted = estimator(**parts, epochs=1, num_samples=5).fit(X.astype(dtype))
        assert {value.dtype for value in fitted.vae_.parameters()} == {torch.tensor(X.astype(dtype)).dtype}
        assert fitted.transform(X.astype(dtype)).shape == (len(X), len(fitted.get_feature_names_out()))
        scores = fitted.score_samples(X.astype(dtype))
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(fitted.score_samples(X[::-2].astype(dtype)), scores[::-2])
        assert fitted.sample(5).shape == (5, 3)
        assert fitted.inverse_transform(np.eye(2)).shape == (2, 3)

    @pytest.mark.parametrize(
        ("prior", "dtype"), but_slow(("Hierarchical", "Vamp", "VonMisesFisher"), members(pyrovae.priors, Prior))
    )
    def test_prior(self, X, dtype, prior):
        self.works(X, dtype, prior=prior, guide=guide_for(prior))

    @pytest.mark.parametrize(
        ("guide", "dtype"), but_slow(("FullRankNormal", "Flow", "Ladder"), members(pyrovae.guides, Guide))
    )
    def test_guide(self, X, dtype, guide):
        self.works(X, dtype, guide=guide, prior=prior_for(guide))

    @pytest.mark.parametrize(("likelihood", "dtype"), but_slow(counts, members(pyrovae.likelihoods, Likelihood)))
    def test_likelihood(self, dtype, likelihood):
        with torch.no_grad():
            X = VAE((3,), 2, likelihood=likelihood).model(size=40).numpy()
        self.works(X, dtype, likelihood=likelihood)


def test_pseudo_inputs_begin_at_rows(X):
    prior = estimator(prior=Vamp, learning_rate=1e-9).fit(X + 100.0).vae_.model.prior
    distances = (prior.pseudo_inputs.detach()[:, None] - torch.tensor(X + 100.0)).abs().amax(-1)
    assert distances.amin(1).max() < 1e-6


def test_a_decoder_of_ones_own_need_not_know_where_to_start(X):
    assert np.isfinite(estimator(decoder=linear).fit(X).score(X))


class TestRefused:
    @pytest.mark.parametrize(
        ("parameters", "words"),
        [
            ({"latent_dim": 0}, ["latent_dim", 0, 1]),
            ({"num_samples": 0}, ["num_samples", 0, 1]),
            ({"tolerance": 0.0}, ["tolerance", 0.0, 0.1]),
            ({"tolerance": math.inf}, ["tolerance", math.inf, 0.1]),
            ({"epochs": 0}, ["epochs", 0, 1]),
            ({"learning_rate": -1.0}, ["optimiser", -1.0]),
            ({"validation_fraction": 1.5}, ["validation_fraction", 1.5, 0, 1, None]),
            ({"patience": 3}, ["patience", "validation_fraction=0.1"]),
            ({"likelihood": "Normal"}, ["likelihood", "'Normal'", "functools.partial"]),
            ({"objective": IWAE}, ["objective", "pyrovae.IWAE(5)"]),
            ({"device": "nowhere"}, ["device", "'nowhere'", "'cpu'"]),
            ({"likelihood": Bernoulli}, [120, "Bernoulli, {0, 1}"]),
            ({"likelihood": Beta}, ["OpenBeta", 0, 1]),
            ({"learning_rate": 1e30, "epochs": 20}, ["loss", "rate"]),
            ({"prior": pyrovae.priors.Hierarchical}, ["'z2'"]),
        ],
    )
    def test_parameters(self, X, parameters, words):
        unfit = estimator(**parameters)
        with refused(*words):
            unfit.fit(X)
        with pytest.raises(NotFittedError):
            unfit.transform(X)

    def test_numbers_whose_squares_are_none(self, X):
        with refused("sklearn.preprocessing.StandardScaler"):
            estimator().fit((X * 1e25).astype(np.float32))

    def test_sparse_and_missing_numbers(self, X):
        with pytest.raises(TypeError, match="dense data is required"):
            estimator().fit(scipy.sparse.csr_matrix(X))
        with pytest.raises(ValueError, match="contains NaN"):
            estimator().fit(np.where(X > 1.0, np.nan, X))

    def test_rows_outside_the_support_wherever_they_are(self, X):
        binary = (X > 0.0).astype(float)
        fitted = estimator(likelihood=Bernoulli).fit(binary)
        binary[30, 1] = 0.5
        with refused(1, 120, "Bernoulli, {0, 1}", 0.5, [30, 1]):
            fitted.score_samples(binary)

    def test_latents_of_another_length(self, X):
        fitted = estimator(prior=pyrovae.priors.Hierarchical, guide=Hierarchical).fit(X)
        with refused("X", 12, "latent_dim=2"):
            fitted.inverse_transform(fitted.transform(X))

    def test_a_likelihood_without_a_mean(self, X):
        class Cauchy(Normal):
            def around(self, loc, scale):
                return dist.Cauchy(loc, scale)

        fitted = estimator(likelihood=Cauchy).fit(X)
        with refused("Cauchy", "vae_.model.decode(z)"):
            fitted.inverse_transform(np.eye(2))

    def test_no_sample(self, X):
        with refused("n_samples", 0, 1):
            estimator().fit(X).sample(0)


def test_seeds_of_rows():
    rows = np.arange(12.0).reshape(4, 3)
    seeds = seeds_of_rows(rows)
    assert len({*seeds, *seeds_of_rows(rows, 1)}) == 8
    assert seeds_of_rows(rows[[2, 0, 0]]) == [seeds[2], seeds[0], seeds[0]]
    assert seeds_of_rows(np.asfortranarray(rows)) == seeds
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_transform_is_posterior_means_from_those_seeds(X):
    fitted = estimator(guide=partial(Flow, hidden=(8,))).fit(X)
    pair = fitted.vae_.model, fitted.vae_.guide
    expected = posterior_means(pair, torch.tensor(X[:3]), seed=seeds_of_rows(X[:3], fitted._seed))
    np.testing.assert_array_equal(fitted.transform(X[:3]), expected)


def test_networks_rest_once_they_are_fitted():
    """Batch normalisation goes on with what it learnt, for one row too."""

    def encoder(in_shape, out_shape):
        layers = nn.Linear(*in_shape, 4), nn.BatchNorm1d(4), nn.Linear(4, math.prod(out_shape))
        return nn.Sequential(*layers, nn.Unflatten(1, out_shape))

    x = np.random.default_rng(0).normal(size=(60, 3))
    fitted = VAEEstimator(latent_dim=1, encoder=encoder, epochs=2, num_samples=20, random_state=0).fit(x)
    first = fitted.score_samples(x)
    np.testing.assert_array_equal(fitted.score_samples(x), first)
    np.testing.assert_array_equal(fitted.score_samples(x[:1]), first[:1])
