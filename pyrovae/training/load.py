"""A trained pair back from its run folder."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pyrovae.errors import InputError
from pyrovae.training.checkpoint import load_into, load_weights
from pyrovae.training.config import build_vae
from pyrovae.vae import VAE


def load(run: str | Path, which: str = "best") -> VAE:
    """Rebuild the pair that a run trained; no data set and no unpickling is needed.

    The run's ``config.yaml`` names classes, which are imported and called: load runs only from those whom you trust.

    Args:
        run: the run folder that ``pyrovae train`` wrote.
        which: the checkpoint, ``best`` or ``last``.

    Returns:
        The VAE, in evaluation mode; its programs are ``.model`` and ``.guide``.

    Raises:
        InputError: where the folder is no run, or is incomplete, or a file differs from what was written.
    """
    run = Path(run)
    vae = build_vae(read_config(run), _event_shape(run / "split.npz"))
    load_into(vae, load_weights(run / "checkpoints", which), run)
    return vae.eval()


def read_config(run: Path) -> str:
    """The text of a run's ``config.yaml``."""
    path = run / "config.yaml"
    if not path.is_file():
        raise InputError(f"{path} is missing; expected a run folder that `pyrovae train` wrote")
    return path.read_text()


def _event_shape(path: Path) -> tuple[int, ...]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as record:
            return tuple(int(length) for length in record["event_shape"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}); the run is incomplete: copy it again, or train again") from error
