"""Networks: tensors to tensors, no probability."""

from pyrovae.networks.conv import ConvDecoder, ConvEncoder
from pyrovae.networks.mlp import MLP
from pyrovae.networks.network import Build, Network, Shape

__all__ = ["MLP", "Build", "ConvDecoder", "ConvEncoder", "Network", "Shape"]
