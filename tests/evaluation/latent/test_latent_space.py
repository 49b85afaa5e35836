"""What is read off a guide: means of proposals, active units, neighbours, maps, reconstructions."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from programs import (
    Chain,
    ChainGuide,
    GaussianGuide,
    LatentPlateGuide,
    LinearGaussian,
    WithDeterministic,
    WithLatentPlate,
    WithPixelPlate,
)
from torch.distributions import transforms
from torch.utils.data import TensorDataset

from pyrovae.evaluation import (
    active_units,
    latent_map,
    linear_probe,
    nearest_neighbour_accuracy,
    posterior_means,
    reconstructions,
)
from pyrovae.evaluation.latent.means import mean

pytestmark = pytest.mark.usefixtures("float64")


def gaussian():
    model = LinearGaussian()
    return model, GaussianGuide(model)


def standard_model(*names, event=()):
    """Latents N(0, 1) of one event shape, and x ~ N(0, 1) whatever they are."""

    def model(x):
        with pyro.plate("data", len(x)):
            for name in names:
                pyro.sample(name, dist.Normal(torch.zeros(event), 1.0).to_event(len(event)))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    return model


@pytest.mark.parametrize("kind", ["tensor", "array", "dataset"])
def test_means_of_a_known_proposal_are_exact(kind):
    model, guide = gaussian()
    x = model.data(11)
    data = {"tensor": x, "array": x.numpy(), "dataset": TensorDataset(x)}[kind]
    means = posterior_means((model, guide), data, max_rows=4)
    torch.testing.assert_close(means, model.posterior(x)[0])


def test_a_known_mean_takes_one_draw():
    rows = []

    def guide(x):
        with pyro.plate("data", len(x)):
            rows.append(pyro.sample("z", dist.Normal(x, 1.0)).numel())

    posterior_means((standard_model("z"), guide), torch.randn(50))
    assert sum(rows) <= 12 * 50, "with the runs that show how particles run, and which are few"


def test_two_sites_are_flattened_in_order():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("matrix", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
            pyro.sample("number", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("matrix", dist.Normal(x[:, None, None] * torch.arange(6.0).reshape(2, 3), 1.0).to_event(2))
            pyro.sample("number", dist.Normal(-x, 1.0))

    x = torch.randn(5)
    expected = torch.cat([x[:, None] * torch.arange(6.0), -x[:, None]], 1)
    torch.testing.assert_close(posterior_means((model, guide), x), expected)


def test_an_inner_plate_is_flattened():
    model = WithLatentPlate()
    x = model.data(4)
    torch.testing.assert_close(posterior_means((model, LatentPlateGuide(model)), x), model.posterior(x)[0])


def test_a_chain_of_sites():
    model = Chain()
    x = model.data(5)
    means = posterior_means((model, ChainGuide(model)), x, num_samples=4000)
    loc, covariance = model.posterior(x)
    torch.testing.assert_close(means[:, 0], loc[:, 0])
    error = covariance[0, 1].abs() / covariance[0, 0].sqrt() / math.sqrt(4000)
    assert ((means[:, 1] - loc[:, 1]).abs() < 5 * error).all()


def test_a_mean_that_depends_on_another_site_is_averaged_over_it():
    def guide(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(x, 1.0))
            pyro.sample("z", dist.Normal(top**2, 1.0))

    x = torch.randn(4)
    means = posterior_means((standard_model("top", "z"), guide), x, num_samples=4000)
    torch.testing.assert_close(means[:, 0], x)
    error = (4 * x**2 + 2).sqrt() / math.sqrt(4000)
    assert ((means[:, 1] - x**2 - 1).abs() < 5 * error).all()


def test_a_seed_a_datum_alone_decides_a_mean_that_is_drawn():
    model = Chain()
    x, seeds = model.data(5), [4, 9, 2**63 - 1, 0, 9]
    pair = model, ChainGuide(model)
    means = posterior_means(pair, x, num_samples=20, seed=seeds)
    for rows in ([4, 3, 2, 1, 0], [2], [1, 1, 3]):
        again = posterior_means(pair, x[rows], num_samples=20, seed=[seeds[row] for row in rows])
        torch.testing.assert_close(again, means[rows], rtol=0.0, atol=0.0)
    assert (posterior_means(pair, x[:1].expand(2, -1), num_samples=20, seed=[1, 2]).diff(dim=0)[:, 1] != 0.0).all()
    with refused("seeds", 4, 5):
        posterior_means(pair, x, seed=seeds[:4])


def test_a_proposal_without_a_mean_is_drawn():
    def guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(x, 0.5)
            pyro.sample("z", dist.TransformedDistribution(base, transforms.ExpTransform()))

    x = torch.randn(4)
    means = posterior_means((standard_model("z"), guide), x, num_samples=5000)
    known = dist.LogNormal(x, 0.5)
    assert ((means[:, 0] - known.mean).abs() < 5 * known.stddev / math.sqrt(5000)).all()


def test_auxiliary_sites_are_no_latents():
    def guide(x):
        with pyro.plate("data", len(x)):
            aid = pyro.sample("aid", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(x + 0 * aid, 1.0))

    x = torch.randn(4)
    torch.testing.assert_close(posterior_means((standard_model("z"), guide), x), x[:, None])


def test_means_leave_the_callers_noise_and_repeat():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Cauchy(x, 1.0))

    before = torch.get_rng_state()
    x = torch.randn(3, generator=torch.Generator().manual_seed(0))
    first, again = (posterior_means((standard_model("z"), guide), x, num_samples=10, seed=1) for _ in "ab")
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (dist.Normal(torch.tensor([1.0, 2.0]), 1.0).to_event(1), [1.0, 2.0]),
        (dist.Categorical(torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])), [0.75, 2.0]),
        (dist.Categorical(torch.tensor([[0.5, 0.5], [0.0, 1.0]])).to_event(1).mask(False), [0.5, 1.0]),
        (dist.Bernoulli(0.25).expand([2]), [0.25, 0.25]),
        (dist.Cauchy(torch.zeros(2), 1.0), None),
        (dist.TransformedDistribution(dist.Normal(0.0, 1.0), transforms.ExpTransform()), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_mean_of_a_distribution(distribution, expected):
    found = mean(distribution)
    assert (found is None) == (expected is None)
    assert found is None or found.tolist() == expected


def test_active_units_of_probabilistic_pca():
    """A dimension without a weight has the prior for a posterior: its mean does not move."""
    model = LinearGaussian(3, 3)
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 0.0])))
    units = active_units(posterior_means((model, GaussianGuide(model)), model.data(20_000)))
    assert units.number == 2
    expected = torch.tensor([1 / (1 + 0.64), 4 / (4 + 0.64), 0.0])
    torch.testing.assert_close(units.variances, expected, rtol=0.05, atol=1e-12)


def test_active_units_above_a_threshold():
    means = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.1, 0.0]])
    torch.testing.assert_close(active_units(means).variances, torch.tensor([2.0, 0.005, 0.0]))
    assert active_units(means).number == 1
    assert active_units(means, threshold=0.001).number == 2
    assert active_units(means, threshold=2.5).number == 0


def test_nearest_neighbours_vote():
    train, labels = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]]), torch.tensor([0, 0, 0, 1, 1, 1])
    test = torch.tensor([[1.1], [10.5], [3.0], [9.0]])
    accuracy = nearest_neighbour_accuracy(train, labels, test, torch.tensor([0, 1, 0, 0]), neighbours=3)
    assert accuracy == 0.75
    mislabelled = torch.tensor([0, 1, 0, 0, 1, 1])
    assert nearest_neighbour_accuracy(train, mislabelled, torch.tensor([[1.1]]), torch.tensor([0])) == 1.0
    assert nearest_neighbour_accuracy(train, mislabelled, torch.tensor([[1.1]]), torch.tensor([0]), neighbours=1) == 0.0


def test_a_linear_probe_finds_a_line_and_no_circle():
    points = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    line, circle = (points @ torch.tensor([1.0, -2.0]) > 0).long(), (points.norm(dim=-1) > 1.18).long()
    halves = points[:1000], points[1000:]
    assert linear_probe(halves[0], line[:1000], halves[1], line[1000:]) > 0.98
    assert linear_probe(halves[0], circle[:1000], halves[1].numpy(), circle[1000:].numpy()) < 0.6


def test_a_linear_probe_of_a_stretched_space_is_the_same():
    points = torch.randn(300, 3)
    labels = (points @ torch.tensor([1.0, -2.0, 0.5]) + 0.5 * torch.randn(300) > 0).long()
    stretched = points * torch.tensor([1e-4, 1e4, 1.0]) + 7.0
    expected = linear_probe(points[:200], labels[:200], points[200:], labels[200:])
    assert linear_probe(stretched[:200], labels[:200], stretched[200:], labels[200:]) == expected


def test_a_map_of_two_dimensions_is_the_space_itself():
    points = torch.randn(7, 2)
    coordinates, axes = latent_map(points)
    np.testing.assert_array_equal(coordinates, points.numpy())
    assert axes == ("z1", "z2")


def test_a_map_of_more_dimensions_holds_the_most_variance():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(500, 4)) * [0.1, 3.0, 0.1, 1.0]
    coordinates, axes = latent_map(points, "pca")
    centred = points - points.mean(0)
    assert abs(np.corrcoef(coordinates[:, 0], centred[:, 1])[0, 1]) > 0.999
    assert abs(np.corrcoef(coordinates[:, 1], centred[:, 3])[0, 1]) > 0.99
    assert axes[0].startswith("component 1 (88%")


def test_a_map_by_neighbours_keeps_clusters_apart_and_is_the_same_each_time():
    centres = 20 * torch.eye(5).repeat_interleave(12, 0)
    points = centres + torch.randn(60, 5)
    coordinates, axes = latent_map(points)
    labels = torch.arange(5).repeat_interleave(12)
    assert nearest_neighbour_accuracy(coordinates, labels, coordinates, labels) == 1.0
    assert axes == ("t-SNE 1", "t-SNE 2")
    np.testing.assert_array_equal(latent_map(points).coordinates, coordinates)
    with refused("method", "'umap'", "'tsne'", "'pca'"):
        latent_map(points, "umap")


def test_one_dimension_has_no_map():
    with refused("means", (5, 1), "(N, D)"):
        latent_map(torch.randn(5, 1))


def test_reconstructions_of_probabilistic_pca():
    model, guide = gaussian()
    x = model.data(6)
    loc, covariance = model.posterior(x)
    found = reconstructions((model, guide), x, num_samples=20_000)
    error = ((model.weight @ covariance) * model.weight).sum(1).sqrt() / math.sqrt(20_000)
    assert ((found - model.mean(loc)).abs() < 5 * error).all()
    assert not found.requires_grad


@pytest.mark.parametrize("structure", [WithPixelPlate, WithDeterministic])
@pytest.mark.parametrize("draws", [1, 5])
def test_the_structure_of_a_program_does_not_change_its_reconstructions(structure, draws):
    model, guide = gaussian()
    x = model.data(4)
    torch.testing.assert_close(
        reconstructions((structure(), guide), x, num_samples=draws), reconstructions((model, guide), x, num_samples=draws)
    )


def test_reconstructions_of_latents_in_an_inner_plate():
    model = WithLatentPlate()
    x = model.data(4)
    guide = LatentPlateGuide(model, widen=1e-9)
    torch.testing.assert_close(reconstructions((model, guide), x), model.mean(model.posterior(x)[0]))


def test_one_reconstruction_is_one_draw():
    model, guide = gaussian()
    x = model.data(6)
    before = torch.get_rng_state()
    first, again, other = (reconstructions((model, guide), x, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_reconstructions_have_the_shape_of_the_data():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.factor("nothing", 0 * z)
            pyro.sample("x", dist.Bernoulli(logits=z[..., None, None, None].expand(*z.shape, 1, 2, 3)).to_event(3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean((1, 2, 3)), 1e-9))

    x = torch.ones(4, 1, 2, 3)
    torch.testing.assert_close(reconstructions((model, guide), x), torch.full_like(x, torch.tensor(1.0).sigmoid()))


def observing(**distributions):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            for name, distribution in distributions.items():
                pyro.sample(name, distribution, obs=x)

    return model


def normal_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_reconstruction_needs_one_observed_site():
    two = observing(first=dist.Normal(0.0, 1.0), second=dist.Normal(0.0, 1.0))
    with refused(2, ("first", "second"), "log_weights((model, guide), x).model"):
        reconstructions((two, normal_guide), torch.randn(3))


def test_reconstruction_needs_a_mean():
    with refused("'x'", "Cauchy", "pyro.infer.Predictive"):
        reconstructions((observing(x=dist.Cauchy(0.0, 1.0)), normal_guide), torch.randn(3))
