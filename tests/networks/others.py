"""Networks that others wrote, each in a pair of programs on data that it takes: the cases of ``test_others.py``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from pyrovae import VAE
from pyrovae.likelihoods import Categorical, Normal
from pyrovae.networks import MLP, Shape

Call = Callable[[nn.Module, Tensor], Tensor]
small = partial(MLP, hidden=(8,))


@dataclass
class Pair:
    """Two programs, the data they are for, and a module that has all their parameters and buffers."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    x: Tensor
    module: nn.Module


@dataclass
class Case:
    """A way to make a pair, and what is expected of it.

    Attributes:
        make: makes the pair, from random numbers that are seeded before.
        needs: the package that has to be installed.
        dtype: the precision of weights and data.
        tolerance: how far what is recorded may be from what is eager, relative and absolute.
        eager: part of the warning, where its gradient is known to be computed eagerly.
        untrained: part of the error, where :func:`pyrovae.fit` refuses the pair.
        unkept: part of the error, where a run folder cannot hold its weights.
    """

    make: Callable[[], Pair]
    needs: str = "torch"
    dtype: torch.dtype = torch.float64
    tolerance: float = 1e-8
    eager: str | None = None
    untrained: str | None = None
    unkept: str | None = None


def vae(x: Tensor, encoder: Any, decoder: Any = small, latent_dim: int = 2, likelihood: Any = None) -> Pair:
    """A VAE of an encoder and a decoder, each given as what builds it from its shapes."""
    likelihood = likelihood or partial(Normal, learned="shared")
    made = VAE(tuple(x.shape[1:]), latent_dim, likelihood=likelihood, encoder=encoder, decoder=decoder)
    return Pair(made.model, made.guide, x, made)


class Headed(nn.Module):
    """A network, and a linear layer that gives what it finds the shape that is wanted.

    Args:
        build: makes the network.
        width: how many numbers it gives for a datum.
        in_shape: shape of one datum.
        out_shape: the shape that is wanted.
        call: how it is called.
    """

    def __init__(self, build: Callable[[], nn.Module], width: int, in_shape: Shape, out_shape: Shape, call: Call) -> None:
        super().__init__()
        self.network, self.head = build(), nn.Linear(width, math.prod(out_shape))
        self.in_shape, self.out_shape, self.call = in_shape, out_shape, call

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self.network, x).tanh()).unflatten(-1, self.out_shape)


def headed(build: Callable[[], nn.Module], width: int, call: Call = lambda network, x: network(x)) -> Any:
    """An encoder of such a network."""
    return partial(Headed, build, width, call=call)


def pictures(channels: int = 3, side: int = 32) -> Tensor:
    return torch.randn(8, channels, side, side)


def rows() -> Tensor:
    return torch.randn(8, 4)


# Pictures


def resnet18() -> Pair:
    from torchvision.models import resnet18

    return vae(pictures(), headed(partial(resnet18, num_classes=8), 8))


def timm_vit() -> Pair:
    from timm.models import VisionTransformer

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 8}
    return vae(pictures(), headed(partial(VisionTransformer, **sizes, drop_path_rate=0.3, proj_drop_rate=0.1), 8))


sizes_of_kl = {
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
}


def diffusers_parts() -> Pair:
    from diffusers.models.autoencoders.vae import Decoder, Encoder

    shared = {name: value for name, value in sizes_of_kl.items() if name[-5:] != "types"}

    class Encoding(Encoder):
        """Means and scales, as the two rows that a guide takes."""

        def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
            super().__init__(3, 2, sizes_of_kl["down_block_types"], **shared)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).reshape(len(x), 2, -1)

    class Decoding(Decoder):
        """A picture of a vector."""

        def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
            super().__init__(2, 3, sizes_of_kl["up_block_types"], **shared)

        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z.unflatten(-1, (2, 16, 16)))

    return vae(pictures(), Encoding, Decoding, latent_dim=512)


def diffusers_whole() -> Pair:
    from diffusers import AutoencoderKL

    network = AutoencoderKL(**sizes_of_kl, latent_channels=2)

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2, 16, 16), 1.0).to_event(3))
            pyro.sample("x", dist.Normal(network.decode(z).sample, 0.5).to_event(3), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            found = network.encode(x).latent_dist
            pyro.sample("z", dist.Normal(found.mean, found.std).to_event(3))

    return Pair(model, guide, pictures(), network)


def monai_regressor() -> Pair:
    from monai.networks.nets import Generator, Regressor

    def encoder(in_shape: Shape, out_shape: Shape) -> nn.Module:
        return Regressor(in_shape, out_shape, channels=(4, 8), strides=(2, 2), dropout=0.1)

    def decoder(in_shape: Shape, out_shape: Shape) -> nn.Module:
        return Generator(in_shape, (8, 4, 4), channels=(4, 1), strides=(2, 2), num_res_units=1)

    return vae(pictures(1, 16), encoder, decoder)


def monai_unet() -> Pair:
    from monai.networks.nets import BasicUNet

    build = partial(BasicUNet, spatial_dims=2, in_channels=1, out_channels=1, features=(4,) * 6, dropout=0.1)
    return vae(pictures(1), headed(build, 32 * 32, lambda network, x: network(x).flatten(1)))


def monai_efficientnet() -> Pair:
    from monai.networks.nets import EfficientNet

    blocks = ["r1_k3_s11_e1_i8_o8_se0.25", "r2_k3_s22_e2_i8_o16_se0.25"]
    build = partial(EfficientNet, blocks, spatial_dims=2, in_channels=1, num_classes=8, width_coefficient=0.25)
    return vae(pictures(1), headed(build, 8))


def channels_last() -> Pair:
    def build() -> nn.Module:
        layers = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.Flatten()
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)

    call: Call = lambda network, x: network(x.contiguous(memory_format=torch.channels_last))  # noqa: E731
    return vae(pictures(side=11), headed(build, 16, call))


def channels_last_normalised() -> Pair:
    """A group normalisation of numbers in another layout than its weights, and those of the next layer, have."""
    call: Call = lambda network, x: network(x.contiguous(memory_format=torch.channels_last)).mean((-2, -1))  # noqa: E731
    return vae(pictures(side=6), headed(lambda: nn.Sequential(nn.GroupNorm(1, 3), nn.Conv2d(3, 4, 3)), 4, call))


# Sequences


def sentences(x: Tensor, call: Call) -> Pair:
    """Sentences of six words out of eleven."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(**sizes, vocab_size=11, max_position_embeddings=16)
    encoder = headed(partial(BertModel, config, add_pooling_layer=False), 8, call)
    return vae(x, encoder, likelihood=partial(Categorical, levels=11))


def bert() -> Pair:
    return sentences(torch.randint(11, (8, 6)), lambda network, x: network(x).last_hidden_state[:, 0])


def bert_masked() -> Pair:
    """Some sentences are shorter, which the last word says."""
    x = torch.randint(10, (8, 6))
    x[::2, 3:] = 10
    call: Call = lambda network, x: network(x, attention_mask=(x < 10).long()).last_hidden_state[:, 0]  # noqa: E731
    return sentences(x, call)


def recurrent(cls: type[nn.Module]) -> Pair:
    build = partial(cls, 3, 4, num_layers=2, dropout=0.2, bidirectional=True, batch_first=True)
    return vae(torch.randn(8, 5, 3), headed(build, 8, lambda network, x: network(x)[0].mean(1)))


# Graphs


class GraphNetwork(nn.Module):
    """Convolutions over one graph: from features of its nodes to a row, or back."""

    def __init__(self, up: bool) -> None:
        from torch_geometric.nn import GCNConv

        super().__init__()
        self.up = up
        self.linear = nn.Linear(2, 6 * 4) if up else nn.Linear(4, 4)
        self.convolution = GCNConv(4, 3) if up else GCNConv(3, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        if self.up:
            return self.convolution(self.linear(x).tanh().unflatten(-1, (6, 4)), edges)
        return self.linear(self.convolution(x, edges).tanh().mean(-2))


class GraphPair(nn.Module):
    """A model and a guide of features on the nodes of one graph, whose edges are an argument or a buffer."""

    def __init__(self, edges: Tensor | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = GraphNetwork(up=False), GraphNetwork(up=True)
        self.register_buffer("edges", edges)

    def model(self, x: Tensor, edges: Tensor | None = None) -> None:
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = self.decoder(z, self.edges if edges is None else edges)
            pyro.sample("x", dist.Normal(loc, 0.5).to_event(2), obs=x)

    def guide(self, x: Tensor, edges: Tensor | None = None) -> None:
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x, self.edges if edges is None else edges).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def ring() -> Tensor:
    """The edges of six nodes in a ring, both ways, and of a chord."""
    around = torch.stack([torch.arange(6), (torch.arange(6) + 1) % 6])
    return torch.cat([around, around.flip(0), torch.tensor([[0, 3], [3, 0]])], 1)


def edges_as_argument() -> Pair:
    pair = GraphPair()
    return Pair(partial(pair.model, edges=ring()), partial(pair.guide, edges=ring()), torch.randn(8, 6, 3), pair)


def edges_as_buffer() -> Pair:
    pair = GraphPair(ring())
    return Pair(pair.model, pair.guide, torch.randn(8, 6, 3), pair)


# What torch does to a layer


def changed(change: Callable[[nn.Module], nn.Module]) -> Pair:
    """An encoder of one layer that something was done to."""
    return vae(rows(), headed(lambda: change(nn.Linear(4, 4)), 4))


def called(call: Call) -> Pair:
    """An encoder of one layer that is called in some way."""
    return vae(rows(), headed(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), 4, call))


def checkpointed(network: nn.Module, x: Tensor, use_reentrant: bool) -> Tensor:
    first, second = network.children()
    return checkpoint(second, first(x).tanh(), use_reentrant=use_reentrant)  # pyright: ignore


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.5)


def compiled(backend: str) -> Pair:
    torch._dynamo.reset()  # what it compiled for other tests
    return changed(lambda layer: torch.compile(layer, backend=backend))  # pyright: ignore


def autocast(network: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network(x).tanh().to(x.dtype)


def in_frequencies(network: nn.Module, x: Tensor) -> Tensor:
    """Filter a row by a gain and a phase for each of its frequencies."""
    gain, phase = network(x)[..., :3].exp(), network(x)[..., 1:]
    return torch.fft.irfft(torch.fft.rfft(x) * torch.polar(gain, phase), n=4)


class Fourier(nn.Module):
    """A filter whose weights are complex."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.get_default_dtype().to_complex()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=4)


class Across(nn.Module):
    """A decoder whose weights are those of an encoder's layer, transposed."""

    def __init__(self, layer: nn.Linear, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__()
        self.layer, self.bias = layer, nn.Parameter(torch.zeros(out_shape))
        self.inner = nn.Linear(*in_shape, layer.out_features)

    def forward(self, z: Tensor) -> Tensor:
        return self.inner(z).tanh() @ self.layer.weight + self.bias


def tied() -> Pair:
    layer = nn.Linear(4, 5)
    return vae(rows(), headed(lambda: layer, 5), partial(Across, layer))


def shared() -> Pair:
    """One parameter is the weight of a layer of the encoder, and of one of the decoder."""
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = one.weight
    return vae(rows(), headed(lambda: one, 4), lambda in_shape, _: nn.Sequential(nn.Linear(*in_shape, 4), nn.Tanh(), other))


class Scaled(Tensor):
    """Whole numbers and a scale that stand for a matrix, without memory of its own, as quantised weights are kept."""

    qdata: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, qdata: Tensor, scale: Tensor) -> Tensor:
        made = Tensor._make_wrapper_subclass(cls, qdata.shape, dtype=scale.dtype, device=qdata.device)  # pyright: ignore
        made.qdata, made.scale = qdata, scale
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["qdata", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, parts: dict[str, Tensor], *_: Any) -> Tensor:
        return cls(parts["qdata"], parts["scale"])

    def dequantize(self) -> Tensor:
        return self.qdata.to(self.scale.dtype) * self.scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(*(func(part) for part in (args[0].qdata, args[0].scale)))
        return func(*tree_map_only(cls, cls.dequantize, args), **tree_map_only(cls, cls.dequantize, kwargs or {}))


def scaled() -> Pair:
    """Two frozen layers of equal shapes whose weights are such tensors."""

    def build() -> nn.Module:
        frozen = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).requires_grad_(False)
        for layer in (frozen[0], frozen[2]):
            whole = layer.weight.mul(100).round().to(torch.int8)
            layer.weight = nn.Parameter(Scaled(whole, layer.weight.new_tensor(0.01)), requires_grad=False)
        return nn.Sequential(frozen, nn.Tanh(), nn.Linear(4, 4))

    return vae(rows(), headed(build, 4))


def quantised() -> Pair:
    """A frozen layer whose weights torchao has made whole numbers: a subclass of tensors."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    def build() -> nn.Module:
        frozen = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32)).requires_grad_(False)
        quantize_(frozen, Int8WeightOnlyConfig())
        return nn.Sequential(frozen, nn.Tanh(), nn.Linear(32, 4))

    return vae(rows(), headed(build, 4))


single = torch.float32
"""Rounding alone makes recorded and eager numbers differ by some 1e-6."""
cases = {
    "torchvision resnet18": Case(resnet18, "torchvision"),
    "timm ViT": Case(timm_vit, "timm"),
    "diffusers Encoder, Decoder": Case(diffusers_parts, "diffusers"),
    "diffusers AutoencoderKL": Case(diffusers_whole, "diffusers"),
    "transformers BertModel": Case(bert, "transformers"),
    "transformers BertModel, masked": Case(bert_masked, "transformers", eager="padding_mask.all"),
    "torch_geometric, edges as argument": Case(edges_as_argument, "torch_geometric"),
    "torch_geometric, edges as buffer": Case(edges_as_buffer, "torch_geometric"),
    "monai Regressor, Generator": Case(monai_regressor, "monai"),
    "monai BasicUNet": Case(monai_unet, "monai"),
    "monai EfficientNet": Case(monai_efficientnet, "monai"),
    "LSTM": Case(partial(recurrent, nn.LSTM)),
    "LSTM, float32": Case(partial(recurrent, nn.LSTM), dtype=single, tolerance=1e-5),
    "GRU": Case(partial(recurrent, nn.GRU)),
    "GRU, float32": Case(partial(recurrent, nn.GRU), dtype=single, tolerance=1e-5),
    "weight_norm, old": Case(partial(changed, weight_norm)),
    "weight_norm": Case(partial(changed, parametrizations.weight_norm)),
    "spectral_norm, old": Case(partial(changed, spectral_norm)),
    "spectral_norm": Case(partial(changed, parametrizations.spectral_norm)),
    "pruned": Case(partial(changed, pruned)),
    "tied": Case(tied),
    "shared parameter": Case(shared),
    "checkpoint": Case(partial(called, partial(checkpointed, use_reentrant=False))),
    "checkpoint, re-entrant": Case(
        partial(called, partial(checkpointed, use_reentrant=True)), untrained="use_reentrant=False"
    ),
    "channels_last": Case(channels_last),
    "channels_last, GroupNorm": Case(channels_last_normalised),
    "torch.compile": Case(partial(compiled, "inductor")),
    "torch.compile, aot_eager": Case(partial(compiled, "aot_eager")),
    "autocast": Case(partial(called, autocast), dtype=single, tolerance=1e-3),  # bfloat16 has three digits
    "complex numbers": Case(partial(called, in_frequencies)),
    "complex numbers, float32": Case(partial(called, in_frequencies), dtype=single, tolerance=1e-5),
    "complex weights": Case(partial(changed, lambda _: Fourier()), unkept="torch.complex128"),
    "complex weights, float32": Case(partial(changed, lambda _: Fourier()), dtype=single, tolerance=1e-5),
    "subclass of tensors": Case(scaled, unkept="Scaled"),
    "torchao int8": Case(quantised, "torchao", dtype=single, tolerance=1e-5, unkept="Int8Tensor"),
}
