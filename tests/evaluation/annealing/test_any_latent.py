"""Annealed chains of latents of any support, against log p(x) by quadrature or in closed form."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from annealed import (
    LINE,
    Stateless,
    at_a_point,
    by_quadrature,
    one_start,
    pair,
    require_unbiased,
    scalar,
    with_another_site,
)
from pyro.contrib.zuko import ZukoToPyro

from pyrovae.distributions.flow import FlowDistribution, zuko
from pyrovae.evaluation import annealed_importance_sampling, bidirectional

pytestmark = pytest.mark.usefixtures("float64")


class TestAnyLatent:
    """At z-tests of 1e-5, which see a volume that is not counted, or counted twice."""

    @one_start
    @pytest.mark.parametrize("kind", ["of Pyro", "of ours"])
    def test_a_flow_as_prior(self, start, kind):
        flow = zuko.flows.MAF(1, transforms=1)
        with torch.no_grad():
            for value in flow.parameters():
                value.mul_(1.5)
        made = ZukoToPyro if kind == "of Pyro" else FlowDistribution
        x = torch.tensor([-0.5, 0.3, 1.5])

        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", made(flow()))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[:, None])

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(x[:, None], 1.0).to_event(1))

        log_p = by_quadrature(lambda z: flow().log_prob(z[:, None]), lambda z, x: dist.Normal(z, 1.0).log_prob(x), x)
        require_unbiased((model, guide), x, log_p.detach(), start)

    def test_a_support_that_only_the_guide_states(self):
        x = torch.tensor([0.5, 2.0])
        programs = scalar(Stateless(dist.Gamma(2.0, 1.0)), dist.LogNormal(0.0, 1.0))
        log_p = by_quadrature(
            lambda u: dist.Gamma(2.0, 1.0).log_prob(u.exp()) + u, lambda u, x: dist.Normal(u.exp(), 1.0).log_prob(x), x
        )
        require_unbiased(programs, x, log_p, "prior")

    @one_start
    def test_cholesky_factors_of_correlations(self, start):
        """Of two dimensions, whose density is that of their correlation; the data are pairs."""
        prior, proposal = dist.LKJCholesky(2, 1.5), dist.LKJCholesky(2, 1.0)
        programs = scalar(prior, proposal, lambda factor: dist.MultivariateNormal(torch.zeros(2), scale_tril=factor))
        x = torch.tensor([[1.0, 1.5], [0.4, -0.7]])
        r = LINE.tanh()
        factors = torch.stack([torch.ones_like(r), torch.zeros_like(r), r, (1 - r**2).sqrt()], -1).reshape(-1, 2, 2)
        factors = factors.clamp(min=-1.0 + 1e-12)
        inner = r.abs() < 1.0 - 1e-9
        normal = dist.MultivariateNormal(torch.zeros(2), scale_tril=factors[inner][:, None])
        joint = (prior.log_prob(factors[inner]) + (1 - r[inner] ** 2).log())[:, None] + normal.log_prob(x)
        log_p = joint.logsumexp(0) + (LINE[1] - LINE[0]).log()
        require_unbiased(programs, x, log_p, start)

    @one_start
    def test_points_of_a_simplex(self, start):
        """Counts of which a Dirichlet's probabilities are hidden: the Dirichlet-multinomial distribution."""
        a = torch.tensor([1.5, 0.8, 2.0])
        counts = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 2.0]])
        programs = scalar(
            dist.Dirichlet(a),
            dist.Dirichlet(a + 0.5),
            lambda p: dist.Multinomial(probs=p, total_count=4, validate_args=False),
        )
        log_p = dist.DirichletMultinomial(a, 4).log_prob(counts)
        require_unbiased(programs, counts, log_p, start)

    @one_start
    @pytest.mark.filterwarnings(
        "ignore:Singular sample detected"
    )  # torch, of a Wishart's draws that rounding made asymmetric
    def test_positive_definite_matrices(self, start):
        r"""A precision from a Wishart distribution, and data normal with it: :math:`x` is Student's t, in two dimensions."""
        scale, df = torch.tensor([[0.5, 0.1], [0.1, 0.3]]), 5.0
        prior, proposal = dist.Wishart(torch.tensor(df), scale), dist.Wishart(torch.tensor(4.0), 1.2 * scale)

        def precise(precision):
            return dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision)

        x = torch.tensor([[1.0, 0.5], [-0.3, 1.5]])
        shape = (scale * (df - 1.0)).inverse()
        log_p = torch.from_numpy(scipy.stats.multivariate_t(np.zeros(2), shape.numpy(), df - 1.0).logpdf(x.numpy()))
        require_unbiased(scalar(prior, proposal, precise), x, log_p, start, times=120)

    @pytest.mark.parametrize("support", [dist.constraints.real, dist.constraints.real_vector])
    def test_improper_priors(self, support):
        """Of a vector, each number of which is mapped by itself where the support is that of numbers; log p(x) is 0."""
        prior = dist.ImproperUniform(support, (), (2,))
        programs = scalar(prior, dist.Normal(torch.zeros(2), 2.0).to_event(1), lambda z: dist.Normal(z, 1.0).to_event(1))
        x = torch.tensor([[0.5, -1.0], [0.0, 1.0]])
        require_unbiased(programs, x, torch.zeros(2), "guide")

    def test_improper_priors_of_positive_vectors(self):
        r"""Log-normal data: :math:`\int N(\log x; \log z, 1)\, dz = x e^{1 / 2}` for each number."""
        prior = dist.ImproperUniform(dist.constraints.positive, (), (2,))
        proposal = dist.LogNormal(torch.full((2,), 0.5), 1.5).to_event(1)
        programs = scalar(prior, proposal, lambda z: dist.Normal(z.log(), 1.0).to_event(1))
        log_x = torch.tensor([[0.5, 1.0], [0.0, 0.2]])
        require_unbiased(programs, log_x, log_x.sum(-1) + 1.0, "guide", temperatures=20)

    @pytest.mark.parametrize(
        ("run", "name"), [(annealed_importance_sampling, "log_weights"), (bidirectional, "reverse")], ids=["AIS", "both"]
    )
    def test_from_the_prior_no_density_of_the_guide_matters(self, run, name):
        """The same chains as with any guide that has the latents."""
        model, plain = pair()
        x = model.data(4)
        others = [at_a_point, *(partial(with_another_site, kind) for kind in ("auxiliary", "factor", "observed"))]
        expected, *found = (run((model, guide), x, 3, 3, steps=2) for guide in (plain, *others))
        for each in found:
            np.testing.assert_array_equal(getattr(each, name), getattr(expected, name))

    @pytest.mark.parametrize("beside", ["factor", "observed"])
    def test_from_the_guide_only_the_density_of_its_draws_matters(self, beside):
        model, _ = pair()
        x = model.data(4)
        run = partial(annealed_importance_sampling, temperatures=6, num_chains=3, steps=2, start="guide")
        expected, found = (run((model, partial(with_another_site, kind)), x).log_weights for kind in ("nothing", beside))
        np.testing.assert_array_equal(found, expected)

    @one_start
    def test_supports_that_depend_on_the_data(self, start, unfused):
        """Each batch has its own, compiled or not: uniform between 0 and a number given beside x."""

        def model(x, high):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Uniform(torch.zeros_like(high), high))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x, high):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Uniform(torch.zeros_like(high), high))

        x, high = torch.tensor([0.5, 1.0, 2.0, 0.0]), torch.tensor([1.0, 4.0, 2.0, 3.0])
        normal = dist.Normal(0.0, 1.0)
        log_p = ((normal.cdf(high - x) - normal.cdf(-x)) / high).log().numpy()
        data, run = (
            {"x": x, "high": high},
            partial(annealed_importance_sampling, (model, guide), start=start, steps=2),
        )
        np.testing.assert_allclose(run(data, 64, 20, max_rows=128, compile=False).log_p, log_p, atol=0.15)
        eager, recorded = (run(data, 32, 4, max_rows=64, compile=compile).log_weights for compile in (False, True))
        np.testing.assert_allclose(recorded, eager, rtol=1e-6)
