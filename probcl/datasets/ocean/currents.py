"""World T3: daily maps of real currents around the Agulhas, from a file."""

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from probcl.assimilation.readers import read_archive
from probcl.checks import require_count
from probcl.errors import DataFileError


class CurrentsSplit(NamedTuple):
    """Maps to learn from, and later ones to judge by, with a gap between them.

    Examples
    --------
    >>> from probcl.datasets.ocean import Vortices, split_by_gap
    >>> archive = Vortices(1).archive(1, days=range(20)).isel(member=0)
    >>> train, test = split_by_gap(archive, train_days=10, gap=5)
    >>> train.sizes["time"], test.sizes["time"]
    (10, 5)
    """

    train: xr.Dataset
    test: xr.Dataset


def load_globcurrent(path: str | PathLike[str]) -> xr.Dataset:
    """Read the daily GlobCurrent maps of the Agulhas in 2002, or another such netCDF file, as an archive.

    `probcl.assimilation.read_archive` of one file, in memory.

    Parameters
    ----------
    path
        A netCDF file, as ``globcurrent_agulhas_daily_2002.nc``.

    Returns
    -------
    xarray.Dataset
        `u` and `v` on (time, latitude, longitude), m/s, NaN on land, in memory.

    Raises
    ------
    DataFileError
        If there is no such file, it is not netCDF, or `read_archive` refuses it.

    Examples
    --------
    >>> import tempfile
    >>> from probcl.datasets.ocean import Vortices, load_globcurrent
    >>> archive = Vortices(1).archive(1, days=[0, 1]).isel(member=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     archive.to_netcdf(f"{folder}/currents.nc")  # in place of globcurrent_agulhas_daily_2002.nc
    ...     dict(load_globcurrent(f"{folder}/currents.nc").sizes)
    {'time': 2, 'latitude': 32, 'longitude': 32}
    """
    file = Path(path)
    if not file.is_file():
        raise DataFileError(f"path must be a netCDF file of currents, got {str(file)!r}, which does not exist")
    try:
        with read_archive(file) as archive:
            return archive.load()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise DataFileError(f"{file.name} must be a CF netCDF file of currents: {error}") from error


def split_by_gap(archive: xr.Dataset, train_days: int = 256, gap: int = 32) -> CurrentsSplit:
    """Divide maps by time: the first `train_days`, and what comes `gap` days after them.

    The defaults train on days 0 to 255 and test on days from 288, for currents that decorrelate in 20 to 30 days.

    Raises
    ------
    TypeError, ValueError
        If an argument is not an integer of at least 1 (0 for the gap), or no maps are left for one of the parts.

    Examples
    --------
    >>> from probcl.datasets.ocean import Vortices, split_by_gap
    >>> archive = Vortices(1).archive(1, days=range(20)).isel(member=0)
    >>> train, test = split_by_gap(archive, train_days=10, gap=5)
    >>> print((test.time[0] - train.time[-1]).values.astype("timedelta64[D]"))
    6 days
    """
    require_count("train_days", train_days)
    require_count("gap", gap, minimum=0)
    days = (archive["time"].values - archive["time"].values[0]) / np.timedelta64(1, "D")
    first_test = train_days + gap
    if not (days >= first_test).any():
        raise ValueError(f"train_days + gap must be before the last of {days[-1]:g} days, got {first_test}")
    return CurrentsSplit(archive.isel(time=days < train_days), archive.isel(time=days >= first_test))
