"""The base of this library's networks: shapes, and a bias to start from."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Size, Tensor, nn

from pyrovae.errors import InputError

Shape = tuple[int, ...]
Activation = Literal["tanh", "relu", "leaky_relu", "elu", "silu", "gelu", "softplus"]

activations: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}


class Network(nn.Module):
    """A map from tensors ``(*batch, *in_shape)`` to tensors ``(*batch, *out_shape)``.

    Any ``nn.Module`` of the same shapes serves in its place. The batch has dimensions of its own, because a decoder sees
    ``(particles, data)``.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.out_shape = tuple(out_shape)

    @abstractmethod
    def start_output_at(self, value: Tensor) -> None:
        """Set the output layer's bias so that the network starts near ``value``, of shape ``out_shape``."""

    def batch_shape(self, x: Tensor) -> Size:
        """Return the batch dimensions of an input.

        Raises:
            InputError: where its last dimensions are not ``in_shape``, or its precision is not the network's.
        """
        precision = next((value.dtype for value in self.parameters()), x.dtype)
        if x.dtype != precision and not torch.is_autocast_enabled(x.device.type):
            raise InputError(
                f"{type(self).__name__} got numbers of {x.dtype}, and its own are of {precision}; convert them by "
                f"x.to({precision}), and pixels of 0 to 255 by x / 255"
            )
        split = x.dim() - len(self.in_shape)
        if split < 0 or x.shape[split:] != self.in_shape:
            raise InputError(
                f"{type(self).__name__} got a tensor of shape {tuple(x.shape)}; expected (*batch, "
                f"{', '.join(map(str, self.in_shape))}): build it with in_shape={tuple(x.shape[1:])}, or reshape the data"
            )
        return x.shape[:split]


Build = Callable[[Shape, Shape], Network] | Callable[[Shape, Shape], nn.Module]
"""A function from input and output shapes to a network; a short name in a configuration is first looked for among ours."""
