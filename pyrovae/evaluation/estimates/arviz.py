"""The data trees of ArviZ, whose two generations differ: nothing else of it is used.

ArviZ is imported where it is used, since importing it takes seconds.
"""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xarray import Dataset


def as_tree(dataset: "Dataset", group: str) -> Any:
    """Wrap one group as an ``arviz.InferenceData`` (ArviZ 0.x) or an ``xarray.DataTree`` (1.x)."""
    if int(version("arviz").split(".")[0]) >= 1:
        from xarray import DataTree

        return DataTree.from_dict({group: dataset})
    return _inference_data(dataset, group)


def _inference_data(dataset: "Dataset", group: str) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
        import arviz
    return arviz.InferenceData(**{group: dataset})  # pyright: ignore[reportArgumentType]


def write(dataset: "Dataset", group: str, path: str | Path) -> None:
    """Write one group to a netCDF file, which ``arviz.from_netcdf`` of either generation reads."""
    dataset.to_netcdf(path, mode="w", group=group, engine="h5netcdf")
