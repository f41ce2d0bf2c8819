"""What each extra is for: a call that works where it is installed, and that names it where it is absent."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import xarray as xr

import probcl as pcl
from probcl.assimilation import read_archive, read_tracks, simulate_tracks
from probcl.assimilation.baselines import ETKF
from probcl.datasets.ocean import Box, GaussianOcean

DAYS = range(3)
OCEAN = GaussianOcean(Box(n=8, size=200e3), n_waves=64)


def archive() -> xr.Dataset:
    """Forty worlds of three days."""
    return OCEAN.archive(40, DAYS)


def tracks() -> xr.Dataset:
    """Three drifters in one more."""
    ocean = OCEAN.archive(1, DAYS, first_member=40)
    return simulate_tracks(ocean, n_drifters=3, window="2D", fix_interval="12h", position_error=100.0)


def faiss(folder: Path) -> None:
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(2, 2))
    library = pcl.retrieval.Library(model, u=torch.randn(50, 3))
    library.index(nlist=2).topk(torch.randn(4, 2), 3)


def triton(folder: Path) -> None:
    pcl.Scores(torch.randn(5, 2), torch.randn(4, 2), method="triton").logsumexp(1)


def dask(folder: Path) -> None:
    if find_spec("dask"):
        archive().to_netcdf(folder / "archive.nc")
    read_archive(folder / "archive.nc", chunks={"time": 1}).load()


def zarr(folder: Path) -> None:
    path = folder / "archive.zarr"
    if find_spec("zarr"):
        archive().to_zarr(path, zarr_format=2)
    else:
        path.mkdir()
        (path / ".zgroup").write_text('{"zarr_format": 2}')
    read_archive(path).load()


def parquet(folder: Path) -> None:
    path = folder / "drifters.parquet"
    path.touch()
    if find_spec("pyarrow"):
        table = tracks()[["time", "latitude", "longitude"]].to_dataframe().reset_index().dropna()
        table.drop(columns="obs").to_parquet(path)
    read_tracks(path, position_error=100.0)


def tensorboard(folder: Path) -> None:
    pcl.training.TensorBoard(folder).log({"loss": 1.0}, step=0)


def arviz(folder: Path) -> None:
    model = pcl.BimodalModel(pcl.encoders.MLP(3, 2), pcl.encoders.Linear(2, 2))
    posterior = model.u_given_v(pcl.GaussianPrior(torch.zeros(3), torch.eye(3))).condition(torch.zeros(1, 2))
    pcl.conditional.to_inference_data(posterior, num_samples=10)


def hub(folder: Path) -> None:
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(2, 2))
    try:
        model.push_to_hub("nobody/nothing", token="none")
    except ImportError:
        raise
    except Exception as error:  # there is no such place, and perhaps no network, of which each version says otherwise
        print(f"  hub: asked, and got {type(error).__name__}")


def dapper(folder: Path) -> None:
    ETKF(10).fit(archive()).analyse(tracks(), "2000-01-02", members=4)


CALLS: dict[str, Callable[[Path], None]] = {
    call.__name__: call for call in (faiss, triton, dask, zarr, parquet, dapper, tensorboard, arviz, hub)
}
PACKAGES = {"parquet": "pyarrow", "hub": "huggingface_hub"}
"""The package behind an extra, where it has another name."""
