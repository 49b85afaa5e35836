"""Networks: tensors to tensors, no probability."""

from pyrovae.networks.conv import ConvDecoder, ConvEncoder
from pyrovae.networks.mlp import MLP
from pyrovae.networks.network import Network, Shape

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Network", "Shape"]
