"""Counts of words and of photons: topic models, and a deep exponential family."""

from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from tests.wild.case import Case, Row, linear
from tests.wild.exact import over_grid, over_values

TOPICS = 2


class Topics(nn.Module):
    """A product of experts: dropout and batch normalisation in encoder and decoder, axes named from the left."""

    def __init__(self, words: int, dropout: float, total: int | None, hidden: int = 4) -> None:
        super().__init__()
        self.encoder, self.decoder = TopicEncoder(words, dropout, hidden), TopicDecoder(words, dropout)
        self.total = total

    def model(self, docs: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("documents", docs.shape[0]):
            loc, scale = docs.new_zeros((docs.shape[0], TOPICS)), docs.new_ones((docs.shape[0], TOPICS))
            log_theta = pyro.sample("logtheta", dist.Normal(loc, scale).to_event(1))
            words = self.decoder(functional.softmax(log_theta, -1))
            total = self.total or int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total, words), obs=docs)

    def guide(self, docs: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("documents", docs.shape[0]):
            pyro.sample("logtheta", dist.Normal(*self.encoder(docs)).to_event(1))


class TopicEncoder(nn.Module):
    def __init__(self, words: int, dropout: float, hidden: int) -> None:
        super().__init__()
        self.first, self.second, self.drop = linear(words, hidden), linear(hidden, hidden), nn.Dropout(dropout)
        self.loc, self.log_variance = linear(hidden, TOPICS, 0.3), linear(hidden, TOPICS, 0.1)
        self.norm_loc = nn.BatchNorm1d(TOPICS, affine=False)
        self.norm_log_variance = nn.BatchNorm1d(TOPICS, affine=False)

    def forward(self, docs: Tensor) -> tuple[Tensor, Tensor]:
        h = self.drop(functional.softplus(self.second(functional.softplus(self.first(docs)))))
        return self.norm_loc(self.loc(h)), (0.5 * self.norm_log_variance(self.log_variance(h))).exp()


class TopicDecoder(nn.Module):
    def __init__(self, words: int, dropout: float) -> None:
        super().__init__()
        self.beta, self.drop = nn.Linear(TOPICS, words, bias=False), nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(words, affine=False)

    def forward(self, theta: Tensor) -> Tensor:
        return functional.softmax(self.norm(self.beta(self.drop(theta))), dim=1)


def documents(size: int, words: int) -> Tensor:
    return torch.poisson(torch.full((size, words), 1.5)) + torch.eye(size, words)


def topics(size: int, words: int, training: bool, dropout: float = 0.0, total: int | None = None) -> Case:
    """The pair after a look at some data; the length of the longest document is found in the batch if not given."""
    pair, docs = Topics(words, dropout, total), documents(size, words)
    with torch.no_grad():  # statistics of the data, as after some training
        pair.encoder(docs)
        pair.decoder(torch.softmax(torch.randn(50, TOPICS), -1))
    pair.train(training)
    case = Case(pair.model, pair.guide, (docs,), size, plate="documents", modules=(pair,))
    return case.with_exact(lambda: over_grid(case, "logtheta", TOPICS))


LENGTH, VOCABULARY = 5, 4


class Allocation(nn.Module):
    """Latent Dirichlet allocation with the words' topics summed by hand: words by documents, the data's axis the last."""

    def __init__(self, rows: bool = False) -> None:
        super().__init__()
        self.rows = rows
        self.topic_words = nn.Parameter(torch.randn(TOPICS, VOCABULARY))
        self.predictor = nn.Sequential(linear(VOCABULARY, 4), nn.Sigmoid(), linear(4, TOPICS))
        self.concentration = torch.tensor([1.5, 2.0])

    def model(self, words: Tensor) -> None:
        words = words.t() if self.rows else words
        probabilities = self.topic_words.softmax(-1)
        with pyro.plate("documents", words.shape[1]):
            theta = pyro.sample("doc_topics", dist.Dirichlet(self.concentration))
            with pyro.plate("words", words.shape[0]):
                pyro.sample("doc_words", dist.Categorical(theta @ probabilities), obs=words)

    def histogram(self, words: Tensor) -> Tensor:
        words = words.t() if self.rows else words
        counts = torch.zeros(VOCABULARY, words.shape[1])
        return counts.scatter_add(0, words, torch.ones(words.shape)).transpose(0, 1)

    def guide(self, words: Tensor) -> None:
        pyro.module("predictor", self.predictor)
        concentration = 1.0 + functional.softplus(self.predictor(self.histogram(words)))
        with pyro.plate("documents", len(concentration)):
            pyro.sample("doc_topics", dist.Dirichlet(concentration))

    def point(self, words: Tensor) -> None:
        """The guide of the example: a point for each document, which is no density."""
        pyro.module("predictor", self.predictor)
        theta = self.predictor(self.histogram(words)).softmax(-1)
        with pyro.plate("documents", len(theta)):
            pyro.sample("doc_topics", dist.Delta(theta, event_dim=1))


def allocation(rows: bool = False, point: bool = False) -> Case:
    pair = Allocation(rows)
    words = torch.randint(VOCABULARY, (3, LENGTH)).t()
    args = (words.t().contiguous() if rows else words,)
    case = Case(pair.model, pair.point if point else pair.guide, args, 3, plate="documents", modules=(pair,))
    return case.with_exact(lambda: over_values(case, simplex(case.size)))


def simplex(size: int) -> list[tuple[dict[str, Tensor], float]]:
    """Points (t, 1 - t) of the one-dimensional simplex, even on the scale of log(t / (1 - t)), with their volumes."""
    step = 0.1
    u = torch.arange(-25.0, 25.0, step)
    t = torch.stack([u.sigmoid(), (-u).sigmoid()], -1)
    volumes = t.log().sum(-1) + torch.tensor(step).log()
    return [({"doc_topics": point.expand(size, -1)}, float(volume)) for point, volume in zip(t, volumes, strict=True)]


WIDTHS = (1, 1)
PHOTONS = 3


class SparseGamma:
    """A deep exponential family of gamma variables with parameters for each datum; the weights are parameters."""

    def model(self, x: Tensor) -> None:
        top, bottom = WIDTHS
        inner = pyro.param("w_top", torch.full((top, bottom), 0.8), constraint=constraints.positive)
        outer = pyro.param("w_bottom", torch.linspace(0.5, 2.0, bottom * PHOTONS), constraint=constraints.positive)
        with pyro.plate("data", x.size(0)):
            z_top = pyro.sample("z_top", dist.Gamma(1.5, 1.0).expand([top]).to_event(1))
            z_bottom = pyro.sample("z_bottom", dist.Gamma(1.5, 1.5 / torch.matmul(z_top, inner)).to_event(1))
            pyro.sample("obs", dist.Poisson(torch.matmul(z_bottom, outer.reshape(bottom, PHOTONS))).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        size = x.size(0)

        def draw(layer: str, width: int) -> None:
            shape = pyro.param(f"shape_{layer}", lambda: 1.0 + 0.1 * torch.randn(size, width))
            mean = pyro.param(f"mean_{layer}", lambda: 0.8 + 0.1 * torch.randn(size, width))
            shape, mean = functional.softplus(shape), functional.softplus(mean)
            pyro.sample(f"z_{layer}", dist.Gamma(shape, shape / mean).to_event(1))

        with pyro.plate("data", size):
            draw("top", WIDTHS[0])
            draw("bottom", WIDTHS[1])


def sparse_gamma() -> Case:
    pair = SparseGamma()
    case = Case(pair.model, pair.guide, (torch.poisson(torch.full((4, PHOTONS), 1.2)),), 4)
    return case.with_exact(lambda: over_values(case, positive(case.size)))


def positive(size: int) -> list[tuple[dict[str, Tensor], float]]:
    """Points of both gamma latents, even on the scale of their logarithms, with their volumes."""
    step = 0.5
    u = torch.cartesian_prod(torch.arange(-12.0, 3.5, step), torch.arange(-14.0, 4.0, step))
    values, volumes = u.exp(), u.sum(-1) + 2 * torch.tensor(step).log()
    pairs = [{"z_top": top.expand(size, 1), "z_bottom": bottom.expand(size, 1)} for top, bottom in values]
    return [(pair, float(volume)) for pair, volume in zip(pairs, volumes, strict=True)]


GENES, CELL_TYPES = 4, 3


def normalized(*widths: int) -> nn.Sequential:
    """Linear layers, batch normalisation and rectifiers between them."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [linear(inputs, outputs)] + [nn.BatchNorm1d(outputs), nn.ReLU()] * (i < len(widths) - 2)
    return nn.Sequential(*layers)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = x.reshape((*x.shape[:-1], 2, -1)).unbind(-2)
    return first, second


class Cells(nn.Module):
    """Counts of genes in cells: two levels of latents, a size for each cell, and types that some cells have."""

    def __init__(self) -> None:
        super().__init__()
        self.from_top, self.to_genes = normalized(1 + CELL_TYPES, 4, 2), normalized(1, 4, 2 * GENES)
        self.encoder, self.classifier = normalized(GENES, 4, 4), normalized(1, 4, CELL_TYPES)
        self.to_top = normalized(1 + CELL_TYPES, 4, 2)

    def joined(self, network: nn.Module, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.cat([z, y], dim=-1)
        loc, scale = halves(network(rows.reshape(-1, rows.size(-1))))
        return loc, functional.softplus(scale)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("cells", self)
        dispersion = pyro.param("dispersion", 5.0 * x.new_ones(GENES), constraint=constraints.positive)
        with pyro.plate("batch", len(x)), poutine.scale(scale=1.0):
            top = pyro.sample("top", dist.Normal(0, x.new_ones(1)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(CELL_TYPES)), obs=y)
            z = pyro.sample("z", dist.Normal(*self.joined(self.from_top, top, y)).to_event(1))
            size = pyro.sample("size", dist.LogNormal(2.0, 0.5 * x.new_ones(1)).to_event(1))
            gate, share = halves(self.to_genes(z))
            logits = (size * share.softmax(dim=-1) + 1e-2).log() - (dispersion + 1e-2).log()
            counts = dist.ZeroInflatedNegativeBinomial(gate_logits=gate, total_count=dispersion, logits=logits)
            pyro.sample("x", counts.to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("cells", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=1.0):
            locs, scales = halves(self.encoder(x.log1p()))
            scales = functional.softplus(scales)
            pyro.sample("size", dist.LogNormal(2.0 + locs[..., -1:], scales[..., -1:]).to_event(1))
            z = pyro.sample("z", dist.Normal(locs[..., :-1], scales[..., :-1]).to_event(1))
            types = dist.OneHotCategorical(logits=self.classifier(z))
            if y is None:
                y = pyro.sample("y", types)
            else:
                pyro.factor("classification", 46.0 * types.log_prob(y), has_rsample=False)
            pyro.sample("top", dist.Normal(*self.joined(self.to_top, z, y)).to_event(1))


def cells(typed: bool) -> Case:
    pair, x = Cells(), torch.poisson(torch.full((4, GENES), 2.0))
    kwargs = {"y": torch.eye(CELL_TYPES)[torch.arange(4) % CELL_TYPES]} if typed else {}
    return Case(pair.model, pair.guide, (x,), 4, kwargs, plate="batch", modules=(pair.eval(),))


ROWS = [
    Row("prodlda, evaluation", lambda: topics(4, 7, training=False)),
    Row("prodlda, as many words as documents", lambda: topics(5, 5, training=False)),
    Row("prodlda, training", lambda: topics(4, 7, training=True)),
    Row("prodlda, training, as many words as documents", lambda: topics(5, 5, training=True)),
    Row("lda, documents last", allocation, no_batches="documents"),
    Row("lda, documents first", lambda: allocation(rows=True)),
    Row("lda, a point for each document", lambda: allocation(rows=True, point=True), no_likelihood="doc_topics"),
    Row("sparse gamma DEF", sparse_gamma),
    Row("scanvi, types known", lambda: cells(typed=True)),
    Row("scanvi, types drawn", lambda: cells(typed=False)),
]
