"""The task's networks as functions of their weights, in jax: pictures have their channels last, as jax prefers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from torch import Tensor, nn

from benchmarks.task import Task, latent_dim

Weights = list[tuple[Any, Any]]
"""Weight and bias of each layer."""

Network = Callable[[Weights, Any], Any]


def networks(task: Task) -> tuple[tuple[Network, Weights], tuple[Network, Weights]]:
    """Encoder and decoder, each with its starting weights."""
    encoder, decoder = _layers(task.encoder), _layers(task.decoder)
    if task.convolutional:
        return (_conv_encoder, _encoder_weights(encoder)), (_conv_decoder, _decoder_weights(decoder))
    return (_mlp, list(map(_dense_weights, encoder))), (_mlp, list(map(_dense_weights, decoder)))


def _mlp(layers: Weights, x: Any) -> Any:
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def _conv_encoder(layers: Weights, x: Any) -> Any:
    first, second, (weight, bias) = layers
    features = jax.nn.silu(_convolution(first, x[..., None], 2))
    features = jax.nn.silu(_convolution(second, features, 2))
    return features.reshape(len(x), -1) @ weight + bias


def _conv_decoder(layers: Weights, z: Any) -> Any:
    (weight, bias), second, third = layers
    features = jax.nn.silu((z.reshape(-1, latent_dim) @ weight + bias).reshape(-1, 7, 7, 64))
    features = jax.nn.silu(_convolution(second, _doubled(features)))
    return _convolution(third, _doubled(features)).reshape(*z.shape[:-1], 28, 28)


def _convolution(layer: tuple[Any, Any], x: Any, stride: int = 1) -> Any:
    weight, bias = layer
    around = ((1, 1), (1, 1))
    return lax.conv_general_dilated(x, weight, (stride, stride), around, dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias


def _doubled(x: Any) -> Any:
    return x.repeat(2, axis=1).repeat(2, axis=2)


def _layers(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def _encoder_weights(layers: list[Any]) -> Weights:
    *convolutions, last = layers
    weight = _array(last.weight).reshape(-1, 64, 7, 7).transpose(2, 3, 1, 0).reshape(64 * 7 * 7, -1)
    return [*map(_kernel, convolutions), (weight, _array(last.bias))]


def _decoder_weights(layers: list[Any]) -> Weights:
    first, *convolutions = layers
    weight = _array(first.weight).reshape(64, 7, 7, latent_dim).transpose(3, 1, 2, 0).reshape(latent_dim, -1)
    bias = _array(first.bias).reshape(64, 7, 7).transpose(1, 2, 0).flatten()
    return [(weight, bias), *map(_kernel, convolutions)]


def _dense_weights(layer: Any) -> tuple[Any, Any]:
    return _array(layer.weight).T, _array(layer.bias)


def _kernel(layer: Any) -> tuple[Any, Any]:
    return _array(layer.weight).transpose(2, 3, 1, 0), _array(layer.bias)


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()
