"""This library: the recorded step of its training loop, and the loop itself."""

from functools import partial

import numpy as np
import torch
from torch import nn

import pyrovae
from benchmarks.networks import copy_weights
from benchmarks.peers import Stepper, Trained
from benchmarks.peers.by_hand import proposal
from benchmarks.task import Task, latent_dim
from pyrovae.data import Binarize, Split
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder
from pyrovae.runtime.batches import Columns
from pyrovae.training.steps import Steps


def pair(task: Task) -> pyrovae.VAE:
    """The task's model and guide, with its starting weights."""
    encoder, decoder = (ConvEncoder, ConvDecoder) if task.convolutional else (MLP, MLP)
    vae = pyrovae.VAE(tuple(task.data.shape[1:]), latent_dim, encoder=encoder, decoder=decoder).to(task.data.device)
    copy_weights(task.encoder, vae.guide.encoder)
    copy_weights(task.decoder, vae.model.decoder)
    return vae


def objective(task: Task) -> pyrovae.IWAE | pyrovae.ELBO:
    """The bound of so many particles."""
    return pyrovae.IWAE(task.particles) if task.particles > 1 else pyrovae.ELBO()


def recorded(task: Task) -> Stepper:
    """What ``pyrovae.fit`` runs for data in memory."""
    vae = pair(task)
    module = objective(task)(vae.model, vae.guide)
    draw = Binarize.parse("dynamic").draw
    module.start(draw(task.data[: task.batch_size]))
    optimizer = torch.optim.Adam(module.parameters(), lr=task.learning_rate)
    steps = Steps(module, optimizer, batch_size=task.batch_size, draw=draw, clip_norm=None, compile=True)
    order = task.order()

    def run(number: int) -> float:
        return -steps.walk(Columns(task.data), order.take(number * task.batch_size)).read("train")["train_bound"]

    return run


def fitted(task: Task, epochs: int) -> Trained:
    """``pyrovae.fit`` as its users call it."""
    vae = pair(task)
    data = Split(task.data, None, np.arange(len(task.data)), Binarize.parse("dynamic"))
    pyrovae.fit(
        vae,
        data,
        objective=objective(task),
        epochs=epochs,
        batch_size=task.batch_size,
        optimizer=partial(torch.optim.Adam, lr=task.learning_rate),
        compile=True,  # by default only where there are 3,000 steps, which a small setting has not
        progress=False,
    )
    return Trained(partial(proposal, nn.Sequential(vae.guide.encoder, nn.Flatten())), vae.model.decoder)
