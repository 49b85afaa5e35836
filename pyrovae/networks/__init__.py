"""Networks, from tensors to tensors, without probability."""

from pyrovae.networks.conv import ConvDecoder, ConvEncoder
from pyrovae.networks.mlp import MLP
from pyrovae.networks.network import Build, Network, Shape
from pyrovae.networks.resnet import ResNetDecoder, ResNetEncoder

__all__ = ["MLP", "Build", "ConvDecoder", "ConvEncoder", "Network", "ResNetDecoder", "ResNetEncoder", "Shape"]
