"""What is fuzzed: every reader of a file that may be a stranger's, on bytes, with seeds that are made here."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from strangers import checkpoint, make_run, taken_as_sealed

from pyrovae.cli import rate_distortion_file
from pyrovae.cli.records import read_metrics, read_summary
from pyrovae.data import Array
from pyrovae.errors import InputError
from pyrovae.evaluation import LogLikelihood
from pyrovae.experiment.build import vae_maker
from pyrovae.experiment.settings import read_settings
from pyrovae.runs.checkpoint import checked_checkpoint
from pyrovae.runs.split_record import holds_part, read_event_shape
from pyrovae.untrusted.allocation_limit import Budget
from pyrovae.untrusted.idx import read_idx
from pyrovae.untrusted.image_files import FORMATS, ImageFiles
from pyrovae.untrusted.safetensors_file import read_weights
from pyrovae.untrusted.torch_file import read_state

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """A reader, the file of a folder that it is given, and what that file is made from.

    Attributes:
        read: reads the folder.
        place: where in it the bytes are written.
        seeds: bytes that it can read, made from a small run.
        words: what the format has words for, put into the bytes as a whole.
    """

    read: Read
    place: str
    seeds: Callable[[Path], list[bytes]]
    words: tuple[bytes, ...] = ()


def _read_config(folder: Path) -> None:
    text = (folder / "config.yaml").read_bytes().decode(errors="replace")
    make = vae_maker(text, (2, 2), folder / "config.yaml")
    with Budget({}, folder):
        make()


def _read_settings(folder: Path) -> None:
    read_settings((folder / "config.yaml").read_bytes().decode(errors="replace"), folder / "config.yaml")


def _read_split(folder: Path) -> None:
    read_event_shape(folder / "split.npz")
    for part in ("train", "validation", "test"):
        holds_part(folder / "split.npz", part, np.arange(4))


def _read_array(name: str) -> Read:
    def read(folder: Path) -> None:
        for lazy in (None, False)[: 1 if name.endswith("z") else 2]:
            data = Array(str(folder / name), validation=0.2, test=0.2, in_memory=lazy)
            next(data.test.batches(2, shuffle=False))

    return read


def _read_image(folder: Path) -> None:
    for size in (None, (2, 2)):
        _ = ImageFiles([folder / "x.png"], size, grayscale=size is None)[np.zeros(1, int)]


def _of(*names: str) -> Callable[[Path], list[bytes]]:
    """The bytes of a run's files."""
    return lambda run: [(run / name).read_bytes() for name in names]


def _in_checkpoint(name: str) -> Callable[[Path], list[bytes]]:
    return lambda run: [(checkpoint(run) / name).read_bytes()]


def _npy(run: Path) -> list[bytes]:
    return [_saved(np.save, x) for x in (np.zeros((5, 3)), np.ones((5, 2, 2), np.uint8), np.zeros((10, 2), bool))]


def _npz(run: Path) -> list[bytes]:
    x, y = np.zeros((5, 3), np.float32), np.arange(5)
    return [_saved(np.savez, x=x, labels=y), _saved(np.savez_compressed, x=x), (run / "split.npz").read_bytes()]


def _saved(save: Callable, *args: object, **arrays: np.ndarray) -> bytes:
    with tempfile.TemporaryFile() as file:
        save(file, *args, **arrays)
        file.seek(0)
        return file.read()


def _idx(run: Path) -> list[bytes]:
    return [bytes([0, 0, 8, 3]) + bytes([0, 0, 0, n, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(4 * n) for n in (1, 3)]


def _pictures(run: Path) -> list[bytes]:
    from PIL import Image

    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    return [_saved(lambda file, form: picture.save(file, form), form) for form in FORMATS]


def _checked(folder: Path) -> None:
    checked_checkpoint(folder, "best")


arrays = (b"|O", b"'descr': ", b"(-1,", b"9999999999", b"True", b"<f8", b"|V0")
archive = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\xff\xff\xff\xff", b"event_shape", b"labels")
json = (
    b"null",
    b"true",
    b"1e999",
    b"-1",
    b"NaN",
    b'"../../x"',
    b"[[[[",
    b'{"a":',
    b"9" * 20,
    b"\\ud800",
    b'"F64"',
    b'"BF16"',
)
yaml = (
    *(b"class_path: ", b"init_args:", b"pyrovae.priors.", b"torch.nn.Linear", b"os.system", b"builtins.eval", b"config: "),
    *(b"&a ", b"*a", b"<<: *a", b"!!python/object/apply:os.system ", b"[", b"{", b"- ", b"null", b"1e400", b"0x", b"-1"),
    *(b"dict_kwargs:", b"9" * 11, b"torch.nn.modules.module.torch.hub.load", b"help: ", b"hidden: [100000, 100000]"),
    *(b"Vamp", b"Flow", b"Mixture", b"Categorical", b"ConvEncoder", b"ResNetDecoder", b"LowRankNormal", b"__path__: "),
)
pickled = (b"cposix\nsystem\n", b"R.", b"\x85R", b"cbuiltins\nbytearray\n")
targets = {
    "idx": Target(lambda folder: read_idx(folder / "x", (2, 2)), "x", _idx),
    "npy": Target(_read_array("x.npy"), "x.npy", _npy, arrays),
    "npz": Target(_read_array("x.npz"), "x.npz", _npz, archive),
    "images": Target(_read_image, "x.png", _pictures),
    "config": Target(_read_config, "config.yaml", _of("config.yaml"), yaml),
    "settings": Target(_read_settings, "config.yaml", _of("config.yaml"), yaml),
    "split": Target(_read_split, "split.npz", _of("split.npz"), archive),
    "index": Target(_checked, "index.json", _of("checkpoints/index.json"), json),
    "manifest": Target(_checked, "epoch-00002/manifest.json", _in_checkpoint("manifest.json"), json),
    "weights": Target(lambda folder: read_weights(folder / "w"), "w", _in_checkpoint("weights.safetensors"), json),
    "state": Target(lambda folder: read_state(folder / "t"), "t", _in_checkpoint("training.pt"), pickled),
    "metrics": Target(read_metrics, "metrics.jsonl", _of("metrics.jsonl"), json),
    "summary": Target(read_summary, "summary.json", _of("summary.json"), json),
    "plane": Target(
        lambda folder: rate_distortion_file.read_plane(folder / "p", 6), "p", _of(rate_distortion_file.FILE), archive
    ),
    "netcdf": Target(lambda folder: LogLikelihood.from_netcdf(folder / "e.nc"), "e.nc", _of("log_likelihood.nc")),
}
"""By the name of what is read."""


@cache
def seeds(name: str) -> list[bytes]:
    """The seeds of a target."""
    return targets[name].seeds(_run())


@cache
def _run() -> Path:
    """A small run, kept until the process ends."""
    holder = tempfile.TemporaryDirectory(prefix="fuzz-run-")
    _kept.append(holder)
    return make_run(Path(holder.name))


_kept: list[tempfile.TemporaryDirectory] = []


@contextmanager
def reader(name: str) -> Iterator[Callable[[bytes], bool]]:
    """A function that has a target read bytes, and says whether it did; every error but an InputError passes."""
    target = targets[name]
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as folder, warnings.catch_warnings(), taken_as_sealed():
        warnings.simplefilter("ignore")
        place = Path(folder, target.place)
        if target.read is _checked:
            shutil.copytree(_run() / "checkpoints", folder, dirs_exist_ok=True)
        if target.read is read_metrics:
            shutil.copytree(_run() / "checkpoints", Path(folder, "checkpoints"))

        def read(content: bytes) -> bool:
            place.write_bytes(content)
            try:
                target.read(Path(folder))
            except InputError:
                return False
            return True

        yield read
