"""Small things to write, to damage and to read: models, fits, libraries, posteriors, data files."""

import gzip
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array  # noqa: F401 - what is imported late is imported here, once for all children
import killable_fit
import netCDF4  # noqa: F401
import numpy as np
import torch
import torch._dynamo
import xarray as xr
import xarray.computation.nanops
import zarr  # noqa: F401
from cli_cases import vector_config, write_pairs
from ocean_cases import random_fourier

import probcl as pcl
import probcl.cli.app
import probcl.cli.assimilate
import probcl.cli.fit
from probcl.assimilation import Assimilator, read_archive, read_tracks, simulate_tracks, to_cf, write
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import hyperparameters
from probcl.cli import main
from probcl.cli.arrays import ArrayFile, read_array
from probcl.cli.images import read_images
from probcl.datasets.idx import read_idx
from probcl.retrieval import Library, shards
from probcl.serialization import read_archive as read_tensors

EPOCHS = 12
# Enough to learn something from, in a second.
hyperparameters._VIEWS = 4


def digest(*values: Any) -> str:
    """Return a digest of arrays, tensors, and what JSON can hold."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, dict) and any(isinstance(part, torch.Tensor) for part in value.values()):
            found.update(digest(*(part for pair in sorted(value.items()) for part in pair)).encode())
        elif isinstance(value, torch.Tensor | np.ndarray):
            array = np.asarray(value)
            found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            found.update(json.dumps(value, sort_keys=True, default=str).encode())
    return found.hexdigest()


def of_dataset(dataset: xr.Dataset) -> str:
    """Return a digest of the values, names and attributes of a dataset."""
    loaded = dataset.load()
    parts = [(str(n), loaded[n].dims, {k: str(v) for k, v in loaded[n].attrs.items()}) for n in loaded.variables]
    attributes = {key: str(value) for key, value in loaded.attrs.items()}
    return digest(parts, attributes, *(_plain(loaded[name].values) for name in loaded.variables))


def _plain(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64) if values.dtype.kind in "mM" else values


# Models and fits


def model(seed: int = 0) -> pcl.BimodalModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        towers = pcl.encoders.MLP(6, 4, hidden=(16,)), pcl.encoders.Linear(3, 4)
        return pcl.BimodalModel(*towers, alignment=pcl.L2(), temperature=0.5, learn_temperature=True)


def of_model(folder: Path) -> str:
    loaded = pcl.BimodalModel.load(folder)
    return digest(loaded.state_dict(), repr(loaded))


def write_checkpoint(path: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    u, v = killable_fit.pairs()
    towers = pcl.encoders.Linear(5, 3), pcl.encoders.Linear(4, 3)
    pcl.fit(
        pcl.BimodalModel(*towers),
        (u, v),
        epochs=2,
        batch_size=40,
        device="cpu",
        progress=False,
        checkpoint=path,
        seed=seed,
    )


def of_checkpoint(path: Path) -> str:
    tensors, record = read_tensors(path, "probcl training checkpoint")
    del tensors["history.seconds"]
    return digest(tensors, record)


def write_fit_inputs(folder: Path) -> None:
    """Write the pairs and the config of a fit of the command line."""
    write_pairs(folder, 300)
    text = vector_config(EPOCHS).replace("pairs.npz", str(folder / "pairs.npz"))
    (folder / "fit.yaml").write_text(text)


def fit(folder: Path, *options: str) -> int:
    return main(["fit", str(folder / "fit.yaml"), "-o", str(folder / "out" / "model"), "-q", *options])


def of_fit(folder: Path) -> str:
    """Return a digest of what the folder of a fit holds: the model, the config and the course, seconds apart."""
    path = folder / "out" / "model"
    course = json.loads((path / "history.json").read_text())
    del course["seconds"]
    return digest(pcl.BimodalModel.load(path).state_dict(), course, (path / "fit.yaml").read_text())


# Libraries

ITEMS = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))


def create_library(folder: Path, count: int = 200, rows: int = 8) -> None:
    shards.SHARD_BYTES = rows * 16
    Library.create(model(), folder / "library", u=ITEMS[:count])


def add_to_library(folder: Path, first: int = 200, last: int = 400) -> None:
    shards.SHARD_BYTES = 8 * 16
    Library.open(folder / "library", model()).add(ITEMS[first:last])


def of_library(folder: Path) -> str:
    library = Library.open(folder / "library", model())
    return digest(library.ids, library.embeddings)


# Assimilation


def write_ocean(folder: Path) -> None:
    """Write an archive, of as many members as make learning quick, and tracks as a table."""
    archive = random_fourier(30, 3, seed=1, waves=20)
    archive.to_netcdf(folder / "archive.nc")
    tracks = simulate_tracks(archive.isel(member=[4]), n_drifters=3, window="2D", fix_interval="12h", position_error=80)
    table = tracks[["time", "latitude", "longitude"]].to_dataframe().reset_index().dropna()
    table.drop(columns="obs").to_csv(folder / "drifters.csv", index=False)


def assimilate(folder: Path, suffix: str, seed: int = 0) -> int:
    """Run the command, which learns if there is no model yet."""
    learned = folder / "out" / "learned"
    how = ["--tracks", str(folder / "drifters.csv"), "--error", "80", "--seed", str(seed), "--members", "5", "-q"]
    if not learned.exists():
        how += ["--archive", str(folder / "archive.nc"), "--window", "2D", "--drifters", "3", "--pairs", "40"]
    return main(["assimilate", str(learned), *how, "-o", str(folder / "out" / f"posterior{suffix}")])


def of_posterior(path: Path) -> str:
    """Return a digest of all that a posterior says, read as an archive and as a dataset, but when it was written."""
    read = read_archive(path).load()
    Archive.of(read)
    engine = "zarr" if path.suffix == ".zarr" else "netcdf4"
    with xr.open_dataset(path, engine=engine) as whole:
        return digest(*(of_dataset(found.assign_attrs(history="")) for found in (read, whole)))


def write_assimilator(folder: Path) -> None:
    """Learn one, beside `out`."""
    write_ocean(folder)
    assimilate(folder, ".nc")
    (folder / "out" / "learned").rename(folder / "whole")


def save_assimilator(folder: Path, seed: int) -> None:
    """Save the one that was learned, its model and its state both changed, into `out`."""
    learned = Assimilator.load(folder / "whole")
    learned.route.spread = 1.0 + seed
    next(learned.route.model.parameters()).data.add_(seed)
    learned.save(folder / "out" / "learned")


def of_assimilator(folder: Path) -> str:
    learned = Assimilator.load(folder)
    parts = learned.prior.modes, learned.prior.mean, learned.record, learned.route.spread
    return digest(learned.route.model.state_dict(), *parts)


def posterior(folder: Path, seed: int = 0, members: int = 30) -> xr.Dataset:
    """A posterior of `write_ocean`'s archive, without an assimilator."""
    archive = read_archive(folder / "archive.nc").load()
    rng = np.random.default_rng(seed)
    maps = np.where(np.isnan(archive["u"].values[:members, 1]), np.nan, rng.standard_normal((members, 8, 9)))
    fields = {name: (("realization", "latitude", "longitude"), maps + k) for k, name in enumerate("uv")}
    for name in "uv":
        fields |= {f"{name}_mean": (("latitude", "longitude"), maps.mean(0))}
        fields |= {f"{name}_stddev": (("latitude", "longitude"), maps.std(0))}
    axes = {axis: archive[axis].values for axis in ("latitude", "longitude")}
    analysis = xr.Dataset(fields, {**axes, "time": archive["time"].values[1]}, {"n_obs": 5})
    return to_cf(analysis, archive)


# Data files


def write_idx(path: Path) -> None:
    values = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype=np.uint8)
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_data(folder: Path) -> None:
    """Write one array in each format, some images and a table of tracks."""
    from PIL import Image
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    values = rng.standard_normal((20, 6)).astype(np.float32)
    np.save(folder / "x.npy", values)
    np.savez(folder / "x.npz", x=values)
    save_file({"x": values}, folder / "x.safetensors")
    xr.Dataset({"x": (("n", "d"), values)}).to_netcdf(folder / "x.nc")
    for name in ("x.png", "x.jpg"):
        Image.fromarray(rng.integers(256, size=(12, 12), dtype=np.uint8)).save(folder / name)
    for name in ("x.idx", "x.idx.gz"):
        write_idx(folder / name)


def read_image(path: Path) -> Any:
    return read_images([path], None, "grey", lambda items, what: items)


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: read_array(ArrayFile(path=str(path))),
    ".npz": lambda path: read_array(ArrayFile(path=str(path))),
    ".safetensors": lambda path: read_array(ArrayFile(path=str(path))),
    ".nc": lambda path: read_array(ArrayFile(path=str(path))),
    ".idx": read_idx,
    ".gz": read_idx,
    ".png": read_image,
    ".jpg": read_image,
    ".csv": lambda path: read_tracks(path, position_error=80.0),
}

__all__ = ["write"]
