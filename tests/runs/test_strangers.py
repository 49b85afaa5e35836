"""A run folder that came from a stranger: nothing of it is run, it leads nowhere else, and what it cannot be is said."""

import json
import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from checks import refused, slow_but
from safetensors.torch import save_file
from strangers import Bomb, checkpoint, little_memory, payload, soon

from pyrovae import InputError, load
from pyrovae.cli import main, rate_distortion_file
from pyrovae.evaluation import LogLikelihood
from pyrovae.evaluation.estimates.effort import PROPOSALS
from pyrovae.runs.checkpoint import load_training

pytestmark = pytest.mark.usefixtures("sealed_by_a_stranger")


@pytest.fixture
def run(strangers_run):
    return strangers_run


def try_everything(run: Path, capsys, *more: str) -> str:
    """Hand a run to all that reads one, and to more commands; each ends with 0, or with 2 and one message."""
    capsys.readouterr()
    with soon():
        for which in ("best", "last"):
            with suppress(InputError):
                load(run, which)
        with suppress(InputError):
            load_training(run / "checkpoints")
        assert main(["compare", str(run), str(run.parent / "other")]) in (0, 2)
        with suppress(InputError):
            rate_distortion_file.read({"run": run}, 6)
        for command in ("report", *more):
            assert main([command, str(run)]) in (0, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def as_zip(content: bytes, name: str) -> bytes:
    """A zip of one member."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def object_array(mark: Path) -> np.ndarray:
    return np.array([Bomb(mark)], dtype=object)


def saved(save, *args, **kwargs) -> bytes:
    file = BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


def poisons(mark: Path) -> dict[str, bytes]:
    """Files that leave a mark where they are read with less care."""
    bomb = Bomb(mark)
    return {
        "a pickle": payload(mark),
        "a pickle in text": payload(mark, 0),
        "a newer pickle": payload(mark, 5),
        "torch's format": saved(lambda file: torch.save({"epoch": bomb}, file)),
        "torch's older format": saved(lambda file: torch.save(bomb, file, _use_new_zipfile_serialization=False)),
        "an array of objects": saved(lambda file: np.save(file, object_array(mark), allow_pickle=True)),
        "arrays of objects": saved(lambda file: np.savez(file, event_shape=object_array(mark), train=object_array(mark))),
        "a zip of a pickle": as_zip(payload(mark), "event_shape.npy"),
        "yaml": f"!!python/object/apply:pathlib.Path.touch [{{path: {mark}}}]".encode(),
    }


def test_the_poisons_work(tmp_path):
    """Each leaves its mark where it is unpickled, so that a test without a mark says something."""
    mark = tmp_path / "mark"
    content = poisons(mark)
    for name in ("a pickle", "a pickle in text", "a newer pickle"):
        pickle.loads(content[name])
        assert mark.exists()
        mark.unlink()
    for name in ("torch's format", "torch's older format"):
        (tmp_path / "file").write_bytes(content[name])
        torch.load(tmp_path / "file", weights_only=False)
        assert mark.exists()
        mark.unlink()
    for name in ("an array of objects", "arrays of objects"):
        (tmp_path / "file").write_bytes(content[name])
        found = np.load(tmp_path / "file", allow_pickle=True)
        assert mark.exists() or found["train"] is not None
        mark.unlink()


slots = (
    *("config.yaml", "split.npz", "metrics.jsonl", "summary.json", "log_likelihood.nc", "annealed.json", "annealed.npz"),
    *("rate_distortion.npz", "samples.npz", "samples.png", "report.html", "figures/loss_curve.png"),
    *(
        "checkpoints/index.json",
        "checkpoints/X/manifest.json",
        "checkpoints/X/weights.safetensors",
        "checkpoints/X/training.pt",
    ),
)


of_the_place = {".yaml": "yaml", ".npz": "arrays of objects"}


@pytest.mark.parametrize("slot", slots)
@pytest.mark.parametrize("some", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["two of them", "the others"])
def test_nothing_is_unpickled_in_any_place(some, slot, run, tmp_path, capsys):
    """Soon a pickle, and what is most like what the place has: an array, yaml, or else what torch writes."""
    mark = tmp_path / "mark"
    place = run / slot.replace("X", checkpoint(run).name)
    soonest = ("a pickle", of_the_place.get(place.suffix, "torch's format"))
    for content in (content for name, content in poisons(mark).items() if (name in soonest) == some):
        former = place.read_bytes() if place.exists() else b""
        place.write_bytes(content)
        try_everything(run, capsys)
        assert not mark.exists()
        place.write_bytes(former)


@pytest.mark.parametrize("slot", slots)
@pytest.mark.parametrize("kind", ["a link out", "a broken link", "a pipe", "a link to a device", "a folder", "a loop"])
def test_a_file_is_a_file(kind, slot, run, tmp_path, capsys):
    """A link that leads out is neither read nor written through; a pipe does not keep one waiting."""
    place = run / slot.replace("X", checkpoint(run).name)
    place.unlink(missing_ok=True)
    outside = tmp_path / "precious"
    outside.write_text("years of work")
    make = {
        "a link out": lambda: place.symlink_to(outside),
        "a broken link": lambda: place.symlink_to(tmp_path / "absent"),
        "a pipe": lambda: os.mkfifo(place),
        "a link to a device": lambda: place.symlink_to("/dev/zero"),
        "a folder": lambda: place.mkdir(),
        "a loop": lambda: place.symlink_to(place),
    }
    make[kind]()
    if kind == "a folder":
        with soon(), suppress(InputError):
            load(run)
        return
    try_everything(run, capsys, "evaluate", "sample")
    assert outside.read_text() == "years of work"
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_is_a_link_out_is_not_followed(run, tmp_path, capsys):
    for name in ("figures", "checkpoints"):
        shutil.move(run / name, tmp_path / name)
        (run / name).symlink_to(tmp_path / name)
        with refused(name, "link"):
            load(run)
        (run / name).unlink()
        shutil.move(tmp_path / name, run / name)
    (tmp_path / "link").symlink_to(run)
    load(tmp_path / "link")


def test_a_link_to_a_neighbour_whose_name_begins_alike_leads_out(run):
    neighbour = run.with_name(f"{run.name}-2")
    neighbour.mkdir()
    (run / "samples.npz").symlink_to(neighbour)
    with refused("samples.npz", "link"):
        load(run)


escapes = ["../../other", "/etc", "..", ".", "", "epoch-1/../..", "epoch-00002/", None, 3, ["epoch-00002"], {}]


@pytest.mark.parametrize("name", escapes, ids=str)
@pytest.mark.parametrize("key", ["best", "last", "another"])
def test_an_index_names_checkpoints_of_its_folder_alone(key, name, run, tmp_path):
    shutil.copytree(checkpoint(run), tmp_path / "other")
    index = run / "checkpoints" / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), key: name}))
    with refused("index.json"):
        load(run)


jsons = ["", "[", "[]", "3", "null", "[" * 10**5, '{"a":' * 10**5, '{"last": "\\ud800"}', "{}", " " * 2**26]
jsons += ['{"a": ' + "9" * 5000 + "}", "\udcff"]
records = ("checkpoints/index.json", "checkpoints/X/manifest.json", "metrics.jsonl", "summary.json", "annealed.json")


@pytest.mark.parametrize("slot", records)
def test_json_of_any_kind_is_refused_or_read(slot, run, capsys):
    place = run / slot.replace("X", checkpoint(run).name)
    for content in jsons:
        place.write_bytes(content.encode("utf-8", "surrogateescape"))
        try_everything(run, capsys)


summaries = {
    "kNN accuracy": "<b>",
    "linear probe": [1],
    "share untrusted": {"a": 1},
    "share of k-hat above threshold": {"a": 1},
    "active units": [[]],
    "log p(x)": 10**400,
    "IWAE-" + "9" * 5000: 1.0,
    "IWAE-٣": 1.0,
    "test data": "many",
    "fingerprint of the test data": 3,
    "x" * 10**5: 1.0,
    "ELBO": True,
    "latent dimensions": None,
}


@pytest.mark.parametrize("name", summaries, ids=lambda name: name[:20])
def test_summaries_of_other_things_are_refused_or_shown(name, run, capsys):
    found = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**found, name: summaries[name]}))
    try_everything(run, capsys)


rows = [
    *({"epoch": epoch, "train_bound": 1.0} for epoch in ("<script>", [1], None, {}, 10**400)),
    *({"epoch": 1, "train_bound": value} for value in ("a", [1.0], {}, 10**400, float("nan"), float("inf"), True)),
    *({"epoch": 1, "train_reconstruction": "a", "train_kl": []}, {}, {"a": 1}),
]


@pytest.mark.parametrize("row", rows, ids=str)
def test_metrics_of_other_things_are_refused_or_drawn(row, run, capsys):
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    try_everything(run, capsys)


def bomb(path: Path, size: int, method: int = zipfile.ZIP_DEFLATED, claim: tuple[int, ...] | None = None) -> None:
    """An .npz of so many zeros, where an event shape should be."""
    said = {"descr": "<i8", "fortran_order": False, "shape": claim or (size // 8,)}
    header, name = saved(np.lib.format.write_array_header_1_0, said), "event_shape"
    with zipfile.ZipFile(path, "w", method) as archive, archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        member.write(header)
        for _ in range(size // 2**20):
            member.write(bytes(2**20))


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, pytest.param(zipfile.ZIP_LZMA, marks=pytest.mark.slow)]
)
def test_zip_bombs_are_refused_unopened(method, run, capsys):
    bomb(run / "split.npz", 2**28, method=method)
    assert (run / "split.npz").stat().st_size < 2**21
    with little_memory(200), refused("split.npz"):
        load(run)


def test_a_header_that_claims_more_than_there_is(run):
    bomb(run / "split.npz", 2**20, claim=(2**40,))
    with little_memory(200), refused("split.npz", (2**40,)):
        load(run)


@pytest.mark.parametrize("shape", [[], [0], [-1, 4], [2**40], [2**16, 2**16], [1] * 17, [[1, 2]], 4, [1.0], [True], ["4"]])
def test_event_shapes_that_are_none(shape, run):
    np.savez(run / "split.npz", event_shape=np.array(shape))
    with refused("split.npz"):
        load(run)


def test_a_checkpoint_of_another_event_shape_is_refused(run):
    np.savez(run / "split.npz", event_shape=np.array([3, 3]))
    with refused("'guide.encoder.layers.0.weight'", (4, 9)):
        load(run)


headers = {
    "a long header": (2**40).to_bytes(8, "little") + b"{}",
    "no header": b"",
    "too short": b"\x01",
    "deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "an offset beyond": b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    "a shape that overflows": b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}',
    "a shape of nothing": b'{"a":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}',
    "an unknown type": b'{"a":{"dtype":"F99","shape":[0],"data_offsets":[0,0]}}',
    "an alias of nothing": b'{"__metadata__":{"a":"b"}}',
    "numbers in the metadata": b'{"__metadata__":{"a":3}}',
}


@pytest.mark.parametrize("name", headers)
def test_weights_whose_header_is_none(name, run):
    content = headers[name]
    if content.startswith(b"{"):
        content = len(content).to_bytes(8, "little") + content
    (checkpoint(run) / "weights.safetensors").write_bytes(content)
    with little_memory(600), pytest.raises(InputError):
        load(run)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
def test_weights_of_any_value_end_in_a_message(value, run, capsys):
    weights = {name: torch.full_like(tensor, value) for name, tensor in load(run).state_dict().items()}
    save_file(weights, checkpoint(run) / "weights.safetensors")
    try_everything(run, capsys, "evaluate", "sample")


types = (torch.complex64, torch.int64, torch.bool, torch.float64, torch.float8_e4m3fn)


@pytest.mark.parametrize("dtype", slow_but(lambda dtype: dtype in (torch.complex64, torch.float64), types))
def test_weights_of_any_type_end_in_a_message(dtype, run, capsys):
    weights = {name: torch.zeros(tensor.shape, dtype=dtype) for name, tensor in load(run).state_dict().items()}
    save_file(weights, checkpoint(run) / "weights.safetensors")
    try_everything(run, capsys, "evaluate", "sample")
    if dtype == torch.complex64:
        with refused("complex"):
            load(run)


def test_a_state_that_unfolds_without_end(run):
    unfolding = [0]
    for _ in range(60):
        unfolding = [unfolding, unfolding]
    torch.save({"epoch": 1, "optimizer": unfolding}, checkpoint(run) / "training.pt")
    with soon(), refused("training.pt", "values"):
        load_training(run / "checkpoints")


def test_a_state_that_was_compressed(run):
    path = checkpoint(run) / "training.pt"
    torch.save({"epoch": torch.zeros(2**20)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with refused("training.pt", "compressed"):
        load_training(run / "checkpoints")


def estimates(path: Path, change) -> None:
    """Estimates as they are written, changed."""
    column = np.zeros(6)
    with h5py.File(path, "w") as file:
        group = file.create_group("importance_sampling")
        for name in (
            "log_p",
            "standard_error",
            "effective_sample_size",
            "k_hat",
            "smoothed",
            "jackknife",
            "jackknife_error",
        ):
            group[name] = column
        group["particles"], group["bound"], group.attrs["num_samples"] = np.array([1, 5]), np.zeros((2, 6)), 60
        change(group)


def replaced(name: str, value: object):
    def change(group) -> None:
        del group[name]
        if value is not None:
            group[name] = value

    return change


def remade(name: str, **how: object):
    def change(group) -> None:
        del group[name]
        group.create_dataset(name, **how)

    return change


secret = "/etc/passwd"
files = {
    "a link to a file": replaced("log_p", h5py.ExternalLink(secret, "/")),
    "a link": replaced("log_p", h5py.SoftLink("/importance_sampling/k_hat")),
    "numbers of another file": remade("log_p", shape=(6,), dtype="u1", external=[(secret, 0, 6)]),
    "a shape without numbers": remade("log_p", shape=(2**40,), dtype="f8", chunks=(2**10,)),
    "a shape without numbers, in one": remade("bound", shape=(2, 2**40), dtype="f8", chunks=(1, 2**10)),
    "texts": replaced("log_p", ["a"] * 6),
    "texts of one length": replaced("log_p", np.array([b"a"] * 6)),
    "references": remade("log_p", shape=(6,), dtype=h5py.ref_dtype),
    "complex numbers": replaced("log_p", np.zeros(6, complex)),
    "pairs": replaced("log_p", np.zeros(6, [("a", "f8"), ("b", "f8")])),
    "nothing": replaced("log_p", None),
    "no axis": replaced("log_p", 1.0),
    "an empty array": replaced("log_p", h5py.Empty("f8")),
    "other lengths": replaced("k_hat", np.zeros(7)),
    "no bounds": replaced("bound", np.zeros((3, 6))),
    "particles that are none": replaced("particles", np.array([0, -1])),
    "a particle and a half": replaced("particles", np.array([1.5, 2.0])),
    "no draws": lambda group: group.attrs.__setitem__("num_samples", 0),
    "draws that are a text": lambda group: group.attrs.__setitem__("num_samples", "many"),
    "draws that are many": lambda group: group.attrs.__setitem__("num_samples", np.zeros(4)),
    "dimensions below none": lambda group: group.attrs.__setitem__("discrete_dimensions", -1),
    "three numbers of two": lambda group: group.attrs.__setitem__("rounding", np.zeros(3)),
    "a group for an array": lambda group: (group.__delitem__("log_p"), group.create_group("log_p")),
}


@pytest.mark.parametrize("name", files)
def test_estimates_of_other_things_are_refused(name, tmp_path):
    estimates(tmp_path / "plain.nc", lambda group: None)
    assert len(LogLikelihood.from_netcdf(tmp_path / "plain.nc").log_p) == 6
    estimates(tmp_path / "e.nc", files[name])
    with little_memory(600), refused("e.nc", "to_netcdf"):
        LogLikelihood.from_netcdf(tmp_path / "e.nc")


def effort(group) -> None:
    """Add what estimates to a tolerance took."""
    group.attrs["tolerance"], group.attrs["level"] = 0.1, 0.95
    for name, value in {"proposal": 2, "draws": 500, "evaluations": 3000, "trusted": 1, "met": 1}.items():
        group[name] = np.full(6, value)


def said(name: str, value: object):
    return lambda group: group.attrs.__setitem__(name, value)


efforts = {
    "other lengths": replaced("draws", np.full(7, 500)),
    "no column": replaced("evaluations", None),
    "two columns": replaced("proposal", np.zeros((6, 2), int)),
    "no axis": replaced("met", 1),
    "a proposal that is none": replaced("proposal", np.full(6, len(PROPOSALS))),
    "a proposal from the end": replaced("proposal", np.full(6, -1)),
    "half a proposal": replaced("proposal", np.full(6, 0.5)),
    "no draws": replaced("draws", np.zeros(6, int)),
    "draws that are no number": replaced("draws", np.full(6, np.nan)),
    "too many draws": replaced("draws", np.full(6, 2**62)),
    "no evaluations": replaced("evaluations", np.full(6, -5)),
    "trust that is no number": replaced("trusted", np.full(6, np.nan)),
    "half met": replaced("met", np.full(6, 0.5)),
    "met twice": replaced("met", np.full(6, 2)),
    "met by what is not trusted": replaced("trusted", np.zeros(6, int)),
    "a tolerance that is no number": said("tolerance", np.nan),
    "a tolerance of nothing": said("tolerance", 0.0),
    "a tolerance of everything": said("tolerance", np.inf),
    "two tolerances": said("tolerance", np.array([0.1, 0.2])),
    "a tolerance that is a text": said("tolerance", "small"),
    "no level": lambda group: group.attrs.__delitem__("level"),
    "a level that is certain": said("level", 1.0),
    "a level that is no number": said("level", np.nan),
}


@pytest.mark.parametrize("name", efforts)
def test_efforts_of_other_things_are_refused(name, tmp_path):
    estimates(tmp_path / "plain.nc", effort)
    assert LogLikelihood.from_netcdf(tmp_path / "plain.nc").effort.share_met == 1.0
    estimates(tmp_path / "e.nc", lambda group: (effort(group), efforts[name](group)))
    with refused("e.nc", "to_netcdf"):
        LogLikelihood.from_netcdf(tmp_path / "e.nc")


@pytest.mark.parametrize("content", [b"", b"CDF\x01", b"\x89HDF\r\n\x1a\n", b"x" * 100])
def test_what_is_no_netcdf_is_refused(content, tmp_path):
    (tmp_path / "e.nc").write_bytes(content)
    with refused("e.nc", "to_netcdf"):
        LogLikelihood.from_netcdf(tmp_path / "e.nc")


def test_virtual_arrays_are_refused(tmp_path):
    def virtual(group) -> None:
        del group["log_p"]
        layout = h5py.VirtualLayout(shape=(6,), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a", shape=(6,))
        group.create_virtual_dataset("log_p", layout)

    estimates(tmp_path / "e.nc", virtual)
    with refused("e.nc", "'log_p'", "virtual"):
        LogLikelihood.from_netcdf(tmp_path / "e.nc")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", b"a\xffb"])
def test_names_that_would_steer_a_terminal_are_refused(name, run):
    with open(os.path.join(os.fsencode(run), name if isinstance(name, bytes) else name.encode()), "wb"):
        pass
    with refused("printed"):
        load(run)


def test_messages_do_not_steer_the_terminal(run, capsys):
    (run / "config.yaml").write_text('model: {prior: {class_path: "a.b\\e[31m' + "x" * 3000 + '"}}')
    assert main(["sample", str(run)]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert len(said) < 5000
