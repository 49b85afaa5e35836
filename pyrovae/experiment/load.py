"""Load a trained pair from its run folder."""

from collections.abc import Sequence
from pathlib import Path

from pyrovae.errors import InputError
from pyrovae.experiment.build import vae_maker
from pyrovae.runs.checkpoint import load_into, load_weights
from pyrovae.runs.settings_files import check_settings
from pyrovae.runs.split_record import read_event_shape
from pyrovae.untrusted.allocation_limit import Budget
from pyrovae.untrusted.bounded_files import read_text, require_plain
from pyrovae.untrusted.plain_yaml import SIZE
from pyrovae.vae import VAE


def load(run: str | Path, which: str = "best", trust: Sequence[str] = ()) -> VAE:
    """Rebuild the pair that a run trained; no data set is needed, and the folder may be anyone's.

    Nothing of it is unpickled or imported. Its ``config.yaml`` may name classes of pyrovae and of ``torch.nn``, and others
    only where you trust their module, which is then imported.

    Args:
        run: the run folder that ``pyrovae train`` wrote.
        which: the checkpoint, ``best`` or ``last``.
        trust: names of modules whose classes, with those of all modules below them, may be built too.

    Returns:
        The VAE, in evaluation mode; its programs are ``.model`` and ``.guide``.

    Raises:
        InputError: where the folder is no run, or is incomplete, or a file differs from what was written, or names a class
            of a module that is not trusted.
    """
    run = Path(run)
    config = read_config(run)
    check_settings(run)
    make = vae_maker(config, read_event_shape(run / "split.npz"), run / "config.yaml", trust)
    weights = load_weights(run / "checkpoints", which)
    with Budget(weights, run):
        vae = make()
    load_into(vae, weights, run)
    _require_finite(vae, run)
    return vae.eval()


def _require_finite(vae: VAE, run: Path) -> None:
    """Raise an InputError for parameters that are not finite, which no training keeps."""
    for name, value in vae.named_parameters():
        if not value.isfinite().all():
            raise InputError(f"{run} has weights {name!r} that are not finite; expected what training keeps: copy it again")


def read_config(run: Path) -> str:
    """Read the text of a run's ``config.yaml``, after a check of what the folder holds.

    Raises:
        InputError: where the folder is no run, or holds links that lead out of it, pipes or devices.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise InputError(f"{path} is missing; expected a run folder that `pyrovae train` wrote")
    require_plain(run)
    return read_text(path, SIZE)
