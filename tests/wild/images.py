"""Autoencoders of binary pictures, as Pyro's examples and tutorials have them: networks in a module, two methods of it."""

import pyro
import pyro.distributions as dist
import torch
import zuko
from pyro import poutine
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn
from torch.nn import functional

from tests.wild.case import Case, Row, linear
from tests.wild.exact import over_grid

PIXELS, LATENT, CLASSES = 6, 2, 3
MISSING = -1.0
"""What stands, in a partial picture, for a pixel that is to be predicted."""


def pictures(size: int, pixels: int = PIXELS) -> Tensor:
    return torch.bernoulli(torch.full((size, pixels), 0.5))


class Moments(nn.Module):
    """A hidden layer, and from it a location and a scale."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 5) -> None:
        super().__init__()
        self.hidden, self.loc, self.log_scale = linear(inputs, hidden), linear(hidden, outputs), linear(hidden, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = functional.softplus(self.hidden(x))
        return 0.3 * self.loc(h), (0.1 * self.log_scale(h)).exp()


class Pixels(nn.Module):
    """Probabilities of pixels."""

    def __init__(self, inputs: int, pixels: int = PIXELS, hidden: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(linear(inputs, hidden), nn.Tanh(), linear(hidden, pixels), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Plain(nn.Module):
    """The first example of all: parameters of the prior made with as many rows as there are data."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Moments(PIXELS, LATENT), Pixels(LATENT)

    def model(self, x: Tensor) -> Tensor:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = x.new_zeros(x.shape[0], LATENT), x.new_ones(x.shape[0], LATENT)
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            pixels = self.decoder(z)
            pyro.sample("obs", dist.Bernoulli(pixels, validate_args=False).to_event(1), obs=x.reshape(-1, PIXELS))
            return pixels

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", dist.Normal(*self.encoder(x.reshape(-1, PIXELS))).to_event(1))


def plain() -> Case:
    vae = Plain()
    case = Case(vae.model, vae.guide, (pictures(4),), 4, modules=(vae,))
    return case.with_exact(lambda: over_grid(case, "latent", LATENT))


class Completion(nn.Module):
    """A picture's missing half given its other half: a first guess, a prior that sees it, and a recognition network."""

    def __init__(self) -> None:
        super().__init__()
        self.guess = nn.Sequential(linear(PIXELS, 4), nn.ReLU(), linear(4, PIXELS), nn.Sigmoid())
        self.prior, self.recognition, self.generation = Moments(PIXELS, LATENT), Moments(PIXELS, LATENT), Pixels(LATENT)

    def filled(self, partial: Tensor, whole: Tensor) -> Tensor:
        picture = partial.clone()
        picture[partial == MISSING] = whole[partial == MISSING]
        return picture.view(-1, PIXELS)

    def first(self, partial: Tensor) -> Tensor:
        with torch.no_grad():
            return self.guess(partial.view(-1, PIXELS)).view(partial.shape)

    def model(self, x: Tensor, y: Tensor) -> None:
        pyro.module("completion", self)
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(*self.prior(self.filled(x, self.first(x)))).to_event(1))
            pixels, missing = self.generation(z), (x == MISSING).view(-1, PIXELS)
            wanted = pixels[missing].view(x.shape[0], -1)
            truth = y[x == MISSING].view(x.shape[0], -1)
            pyro.sample("y", dist.Bernoulli(wanted, validate_args=False).to_event(1), obs=truth)

    def guide(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(*self.recognition(self.filled(x, y))).to_event(1))


def completion() -> Case:
    pair, y = Completion(), pictures(4).view(4, 2, 3)
    x = y.clone()
    x[:, 0] = MISSING
    case = Case(pair.model, pair.guide, (x,), 4, {"y": y}, modules=(pair,))
    return case.with_exact(lambda: over_grid(case, "z", LATENT))


class Conditional(nn.Module):
    """How a conditional autoencoder is written most often: labels joined to whatever goes into a network."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Moments(PIXELS + CLASSES, LATENT), Pixels(LATENT + CLASSES)
        self.prior = Moments(CLASSES, LATENT)

    def model(self, x: Tensor, y: Tensor) -> None:
        pyro.module("conditional", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(*self.prior(y)).to_event(1))
            pyro.sample("x", dist.Bernoulli(self.decoder(torch.cat([z, y], -1))).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor) -> None:
        pyro.module("conditional", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(torch.cat([x, y], -1))).to_event(1))


def conditional() -> Case:
    pair, x = Conditional(), pictures(4)
    case = Case(pair.model, pair.guide, (x,), 4, {"y": labels(4)}, modules=(pair,))
    return case.with_exact(lambda: over_grid(case, "z", LATENT))


def labels(size: int) -> Tensor:
    return torch.eye(CLASSES)[torch.arange(size) % CLASSES]


class SemiSupervised(nn.Module):
    """Labels are observed or drawn; the plate does not say how many data there are."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential(linear(PIXELS, 4), nn.Softplus(), linear(4, CLASSES), nn.Softmax(dim=-1))
        self.encoder, self.decoder = Moments(PIXELS + CLASSES, LATENT), Pixels(LATENT + CLASSES)

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        pyro.module("semi_supervised", self)
        size = x.size(0)
        with pyro.plate("data"):
            z = pyro.sample("z", dist.Normal(torch.zeros(size, LATENT), torch.ones(size, LATENT)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(size, CLASSES) / CLASSES), obs=y)
            pixels = self.decoder(torch.cat([z, y], dim=-1))
            pyro.sample("x", dist.Bernoulli(pixels, validate_args=False).to_event(1), obs=x)
            return pixels

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data"):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(self.classifier(x)))
            pyro.sample("z", dist.Normal(*self.encoder(torch.cat([x, y], dim=-1))).to_event(1))


def labelled() -> Case:
    pair = SemiSupervised()
    case = Case(pair.model, pair.guide, (pictures(4),), 4, {"y": labels(4)}, modules=(pair,))
    return case.with_exact(lambda: over_grid(case, "z", LATENT))


def unlabelled() -> Case:
    pair = SemiSupervised()
    case = Case(pair.model, pair.guide, (pictures(4),), 4, modules=(pair,))
    every = [{"y": one.expand(4, -1)} for one in torch.eye(CLASSES)]
    return case.with_exact(lambda: over_grid(case, "z", LATENT, also=every))


class Summed(SemiSupervised):
    """Unlabelled data, the label gone through by hand in the model; the guide has none."""

    def __init__(self) -> None:
        super().__init__()
        self.unlabelled_encoder = Moments(PIXELS, LATENT)

    def summed(self, x: Tensor) -> None:
        size, y = x.size(0), torch.eye(CLASSES)
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(torch.zeros(size, LATENT), 1.0).to_event(1))
            pairs = torch.cat([z.unsqueeze(1).expand(-1, CLASSES, -1), y.expand(size, -1, -1)], dim=2)
            given_y = dist.Bernoulli(self.decoder(pairs)).to_event(1)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.ones(size, CLASSES)), given_y), obs=x)

    def drawn(self, x: Tensor) -> None:
        """The same model with the label drawn, for stock Pyro to sum over."""
        size = x.size(0)
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(torch.zeros(size, LATENT), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(CLASSES)), infer={"enumerate": "parallel"})
            shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
            joined = torch.cat([z.expand(*shape, -1), y.expand(*shape, -1)], -1)
            pyro.sample("x", dist.Bernoulli(self.decoder(joined)).to_event(1), obs=x)

    def encode(self, x: Tensor) -> None:
        with pyro.plate("data", x.size(0)):
            pyro.sample("z", dist.Normal(*self.unlabelled_encoder(x)).to_event(1))


def summed() -> Case:
    pair = Summed()
    enumerated = TraceEnum_ELBO(max_plate_nesting=1)

    def stock(model: object, guide: object):
        return lambda x: enumerated.loss(pair.drawn, pair.encode, x)

    case = Case(pair.summed, pair.encode, (pictures(4),), 4, modules=(pair,), stock=stock)
    return case.with_exact(lambda: over_grid(case, "z", LATENT))


class FlowPrior(nn.Module):
    """A masked autoregressive flow for a prior, written by another library."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Moments(PIXELS, LATENT), Pixels(LATENT)
        self.prior = zuko.flows.MAF(features=LATENT, transforms=2, hidden_features=(4,))

    def model(self, x: Tensor) -> None:
        pyro.module("prior", self.prior)
        pyro.module("decoder", self.decoder)
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", ZukoToPyro(self.prior()))
            pyro.sample("x", dist.Bernoulli(self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("batch", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))


def flow_prior() -> Case:
    vae = FlowPrior()
    case = Case(vae.model, vae.guide, (pictures(4),), 4, plate="batch", modules=(vae,))
    return case.with_exact(lambda: over_grid(case, "z", LATENT, 0.35))


class Convolutional(nn.Module):
    """Pictures with channels; whatever goes through a convolution is first given the shape of a batch of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), linear(32, 2 * LATENT))
        self.project, self.deconvolve = linear(LATENT, 8), nn.ConvTranspose2d(2, 1, 2, stride=2)

    def model(self, x: Tensor) -> None:
        pyro.module("convolutional", self)
        with pyro.plate("data", x.size(0)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.size(0), LATENT), 1.0).to_event(1))
            pixels = torch.sigmoid(self.deconvolve(self.project(z).view(-1, 2, 2, 2)))
            pyro.sample("x", dist.Bernoulli(pixels).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("convolutional", self)
        with pyro.plate("data", x.size(0)):
            loc, log_scale = self.encoder(x).chunk(2, dim=1)
            pyro.sample("z", dist.Normal(0.3 * loc, (0.1 * log_scale).exp()).to_event(1))


def convolutional() -> Case:
    vae = Convolutional()
    case = Case(vae.model, vae.guide, (pictures(3, 16).view(3, 1, 4, 4),), 3, modules=(vae,))
    return case.with_exact(lambda: over_grid(case, "z", LATENT))


class Classified(SemiSupervised):
    """The classifier by itself: labels observed, nothing latent, a guide that does nothing, and a scale."""

    def classify(self, x: Tensor, y: Tensor) -> None:
        pyro.module("semi_supervised", self)
        with pyro.plate("data"), poutine.scale(scale=46.0):
            pyro.sample("y_aux", dist.OneHotCategorical(self.classifier(x)), obs=y)

    def nothing(self, x: Tensor, y: Tensor) -> None:
        pass


def classified() -> Case:
    pair = Classified()
    return Case(pair.classify, pair.nothing, (pictures(4),), 4, {"y": labels(4)}, modules=(pair,))


def functions(training: bool) -> Case:
    """Plain functions around networks that only ``pyro.module`` names, with batch normalisation."""
    encoder = nn.Sequential(linear(PIXELS, 5), nn.BatchNorm1d(5), nn.Tanh(), linear(5, 2 * LATENT))
    decoder = nn.Sequential(linear(LATENT, 5), nn.BatchNorm1d(5), nn.Tanh(), linear(5, PIXELS))

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(0.3 * loc, (0.1 * log_scale).exp()).to_event(1))

    for _ in range(5):  # running statistics, as after some training
        encoder(pictures(20))
        decoder(torch.randn(20, LATENT))
    for network in (encoder, decoder):
        network.train(training)
    case = Case(model, guide, (pictures(4),), 4, modules=(encoder, decoder))
    return case.with_exact(lambda: over_grid(case, "z", LATENT))


ROWS = [
    Row("vae", plain),
    Row("vae, convolutional", convolutional),
    Row("vae, flow prior", flow_prior),
    Row("cvae, half a picture given", completion),
    Row("cvae, labels joined", conditional),
    Row("ss_vae, labelled", labelled),
    Row("ss_vae, label drawn", unlabelled),
    Row("ss_vae, label summed", summed),
    Row("ss_vae, the classifier by itself", classified, no_likelihood="y_aux"),
    Row("functions, batch norm, training", lambda: functions(training=True)),
    Row("functions, batch norm, evaluation", lambda: functions(training=False)),
]
