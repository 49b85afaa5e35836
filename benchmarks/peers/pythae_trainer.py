"""pythae: its VAE and IWAE with networks of the same layers, in its ``BaseTrainer``.

Its encoders give the logarithm of the variance where the others give a scale before softplus, and its VAE takes the KL
from its formula. Its IWAE reports another number as its loss, so that none of its losses is compared.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.measure import AbsentError
from benchmarks.peers import Estimator, Trained
from benchmarks.peers.by_hand import binarize
from benchmarks.task import Task, latent_dim


def trained(task: Task, epochs: int) -> Trained:
    """Its trainer, for so many epochs, without evaluation."""
    require()
    from pythae.trainers import BaseTrainer

    model = _model(task)
    with _quiet(), TemporaryDirectory() as folder:
        trainer = BaseTrainer(model, _dataset(task.data), training_config=_configuration(task, epochs, folder))
        trainer.train()
    return Trained(_proposal(model.encoder.network), model.decoder.network)


def log_likelihood(task: Task) -> Estimator:
    """``get_nll`` of its VAE, of one datum at a time, as it returns their mean: not negative, for all its name."""
    require()
    model = _model(task, scales_before_softplus)

    @torch.no_grad()
    def estimate(x: Tensor, draws: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.tensor([model.get_nll(one[None], draws, min(draws, 100)) for one in x])

    return estimate


def require() -> None:
    if find_spec("pythae") is None:
        raise AbsentError("not installed")


def scales_before_softplus(raw: Tensor) -> Tensor:
    """The log variance of an encoder that gives what all others take."""
    return 2 * (softplus(raw) + 1e-6).log()


def _configuration(task: Task, epochs: int, folder: str) -> Any:
    from pythae.trainers import BaseTrainerConfig

    return BaseTrainerConfig(
        output_dir=folder,
        num_epochs=epochs,
        learning_rate=task.learning_rate,
        per_device_train_batch_size=task.batch_size,
        no_cuda=task.data.device.type == "cpu",
        keep_best_on_train=True,
    )


def _model(task: Task, log_variance_of: Callable[[Tensor], Tensor] = lambda raw: raw) -> Any:
    from pythae.models import IWAE, VAE, IWAEConfig, VAEConfig

    shapes = {"input_dim": tuple(task.data.shape[1:]), "latent_dim": latent_dim, "reconstruction_loss": "bce"}
    if task.particles == 1:
        return VAE(VAEConfig(**shapes), *_networks(task, log_variance_of))
    return IWAE(IWAEConfig(number_samples=task.particles, **shapes), *_networks(task, log_variance_of))


def _networks(task: Task, log_variance_of: Callable[[Tensor], Tensor]) -> tuple[Any, Any]:
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> ModelOutput:
            loc, raw = self.network(x).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=log_variance_of(raw))

    class Decoder(BaseDecoder):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    encoder, decoder = task.networks()
    return Encoder(encoder), Decoder(decoder)


def _dataset(data: Tensor) -> Any:
    from pythae.data.datasets import BaseDataset, DatasetOutput

    class Dynamic(BaseDataset):
        """Binarised anew at each use."""

        def __getitem__(self, index: int) -> DatasetOutput:
            return DatasetOutput(data=binarize(self.data[index]), labels=self.labels[index])

    return Dynamic(data.cpu(), torch.zeros(len(data)))


def _proposal(network: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def propose(x: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_variance = network(x).chunk(2, -1)
        return loc, (0.5 * log_variance).exp()

    return propose


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its progress bars and log."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)
