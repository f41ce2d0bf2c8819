"""A reader of gridded currents: many conventions in, one archive out."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import xarray as xr

from probcl.assimilation.archive import COMPONENTS, FASTEST, MOST_POLAR, load_values, require_archive
from probcl.assimilation.readers.conventions import require_names
from probcl.assimilation.readers.grids import GRID, standardised
from probcl.assimilation.readers.longitudes import Region, crop, require_region
from probcl.assimilation.readers.sources import Opened, Source, close, has_dask, named, open_source, source_name

_NAMES = ("u", "v", *GRID, "member", "land_mask", "sea_mask")
Chunks = Mapping[str, int | str] | int | str


def read_archive(
    source: Source,
    *,
    names: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    chunks: Chunks | None = None,
    region: Region | None = None,
) -> xr.Dataset:
    """Read gridded currents as an archive, lazily where dask is installed.

    Currents are found by their CF standard names (eastward and northward sea-water velocity, also surface or
    geostrophic), coordinates by standard name, axis, units or usual name. Speeds become m/s, latitudes and longitudes
    ascend, a depth of size one goes, a land mask is applied, and a dimension of realizations is named ``member``. Of
    the values, only the first map is read, to refuse speeds that no current has; what uses the others refuses them so.

    Parameters
    ----------
    source : path, pattern, list of paths, or xarray.Dataset
        netCDF files or zarr folders. Several hold maps of one grid at different times, and are put in order of time;
        without dask, several are read into memory.
    names : mapping, optional
        Which variable is ``"u"``, ``"v"``, ``"time"``, ``"latitude"``, ``"longitude"``, ``"member"``, ``"land_mask"``
        (0 in water) or ``"sea_mask"`` (0 on land), where the file does not say.
    units : mapping, optional
        Units of ``"u"``, ``"v"``, ``"latitude"``, ``"longitude"`` or ``"time"``, in place of the file's.
    chunks : mapping, int or str, optional
        For dask, with the archive's dimensions. Unless given, files are cut along time alone.
    region : (west, south, east, north), optional
        In degrees, also across 180 or 0; its longitudes are those of the archive then.

    Returns
    -------
    xarray.Dataset
        `u` and `v` in m/s on ([member,] time, latitude, longitude), NaN on land, as `require_archive` asks for. The
        attributes `archive_source` and `archive_changes`, and on `u` and `v` `original_name`, `original_units` and
        `original_standard_name`, tell where they come from.

    Raises
    ------
    DataFileError
        If a file is absent, damaged, or neither netCDF nor zarr.
    ImportError
        If zarr or dask are asked for and not installed.
    TypeError, ValueError
        If a variable, a coordinate or its units are missing, ambiguous or other than above, a depth is longer than one,
        the grid is curvilinear, the calendar is not Gregorian, times occur twice, or `region` holds no grid.

    Examples
    --------
    >>> from probcl.assimilation import read_archive
    >>> from probcl.datasets.ocean import Vortices
    >>> found = Vortices(1).archive(1, days=[0, 1]).isel(member=0, drop=True)
    >>> found = found.rename(u="uo", v="vo", latitude="lat", longitude="lon")  # as others name them
    >>> archive = read_archive(found, names={"u": "uo", "v": "vo"})
    >>> archive.u.dims, archive.u.attrs["original_name"]
    (('time', 'latitude', 'longitude'), 'uo')
    """
    if chunks is not None and not has_dask():
        raise ImportError('chunks needs the extra: pip install "probcl[dask]"')
    asked = require_names("names", names, _NAMES), require_names("units", units, ("u", "v", *GRID))
    wanted = require_region(region)
    opened = open_source(source)
    label = source_name(opened)
    try:
        archive = _joined([_read(part, *asked) for part in opened])
        with named(label):
            archive = archive if wanted is None else crop(archive, wanted, label)
            _require_off_poles(archive, label)
            archive = require_archive(archive, label)
            _require_speeds(archive, label)
    except BaseException:
        close(opened)
        raise
    if not isinstance(source, xr.Dataset):
        archive.attrs["archive_source"] = label
    # Not `Dataset.chunk`'s own hints: what it takes depends on the version.
    archive = archive if chunks is None else archive.chunk(cast("dict[str, int]", chunks))
    archive.set_close(lambda: close(opened))
    return archive


def _read(opened: Opened, names: dict[str, str], units: dict[str, str]) -> Opened:
    with named(opened.label):
        return opened._replace(dataset=standardised(opened, names, units))


def _joined(parts: list[Opened]) -> xr.Dataset:
    """Put the maps of several files in order of time."""
    first = parts[0]
    for label, part, _ in parts[1:]:
        for axis in ("latitude", "longitude"):
            if not np.array_equal(part[axis].values, first.dataset[axis].values):
                raise ValueError(f"{label} must have the {axis} of {first.label}, got another")
        if part["u"].dims != first.dataset["u"].dims:
            raise ValueError(f"{label} must have the dimensions {first.dataset['u'].dims}, got {part['u'].dims}")
    whose = np.repeat([label for label, *_ in parts], [part.sizes["time"] for _, part, _ in parts])
    times = np.concatenate([part["time"].values for _, part, _ in parts])
    order = np.argsort(times, kind="stable")
    twice = np.nonzero(np.diff(times[order]) == np.timedelta64(0))[0]
    if len(twice):
        one, other = order[twice[0]], order[twice[0] + 1]
        raise ValueError(f"{whose[one]}: time must occur once, got {times[one]} there and in {whose[other]}")
    archive = first.dataset
    if len(parts) > 1:
        # Their grids are the same bit for bit, as seen above; only times and values differ.
        archive = xr.concat(
            [part for _, part, _ in parts],
            "time",
            data_vars="all",
            coords="minimal",
            compat="override",
            join="override",
            combine_attrs="override",
        )
    return archive if (np.diff(order) > 0).all() else archive.isel(time=order)


def _require_off_poles(archive: xr.Dataset, label: str) -> None:
    latitude = archive["latitude"].values
    if (np.abs(latitude) > MOST_POLAR).any():
        raise ValueError(
            f"{label}: latitude must be within ±{MOST_POLAR:g}, got {latitude[0]:g} to {latitude[-1]:g}; read a part "
            f"with region=(west, south, east, north)"
        )


def _require_speeds(archive: xr.Dataset, label: str) -> None:
    """Read the first map and refuse it if no ocean has such currents."""
    start = archive.isel({dim: 0 for dim in archive["u"].dims if dim not in GRID[1:]})
    for name in COMPONENTS:
        fastest = np.nanmax(np.abs(load_values(start, name)), initial=0.0)
        if fastest > FASTEST:
            raise ValueError(
                f"{label}: {name} must be at most {FASTEST:g} m/s, got {fastest:g} in the first map; a fill value that "
                f"is not declared, or units other than {archive[name].attrs.get('original_units')!r}?"
            )
