"""Hostile inputs: each is refused by name or read right, and each that is only unusual is read right."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from reader_cases import STANDARD, currents, same

from probcl.assimilation import read_archive, read_tracks, to_cf, write
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import Climatology
from probcl.assimilation.tracks import require_tracks
from probcl.errors import DataFileError

Change = Callable[[xr.Dataset, np.random.Generator], xr.Dataset]
NAMED = re.compile(r"source|archive|tracks|region|names|units|position_error")


def uv(dataset: xr.Dataset) -> list[str]:
    return [
        str(name)
        for name, values in dataset.data_vars.items()
        if values.attrs.get("standard_name", "").endswith("ward_sea_water_velocity")
    ]


def axis(dataset: xr.Dataset, standard_name: str) -> str:
    return next(str(n) for n in dataset.variables if dataset[n].attrs.get("standard_name") == standard_name)


def edit(dataset: xr.Dataset, name: str, change: Callable[[xr.DataArray], xr.DataArray], **attributes) -> xr.Dataset:
    return dataset.assign({name: change(dataset[name]).assign_attrs(dataset[name].attrs | attributes)})


def rescale(dataset, rng):
    units, factor = [("cm/s", 100), ("km/h", 3.6), ("mm s-1", 1000), ("knots", 3600 / 1852)][rng.integers(4)]
    for name in uv(dataset):
        if dataset[name].attrs["units"] == "m s-1" and "_FillValue" not in dataset[name].attrs:
            dataset = edit(dataset, name, lambda values: values * factor, units=units)
    return dataset


def rename(dataset, rng):
    old, new = [("u", "ugos"), ("v", "water_v"), ("latitude", "lat"), ("longitude", "x"), ("time", "T")][
        rng.integers(5)
    ]
    return dataset.rename({old: new}) if old in dataset.variables else dataset


def surface(dataset, rng):
    kind = ["surface_", "geostrophic_", "surface_geostrophic_"][rng.integers(3)]
    for name in uv(dataset):
        bare = "east" if "east" in dataset[name].attrs["standard_name"] else "north"
        dataset = edit(dataset, name, lambda values: values, standard_name=f"{kind}{bare}ward_sea_water_velocity")
    return dataset


def turn(dataset, rng):
    name = axis(dataset, ["latitude", "longitude", "time"][rng.integers(3)])
    return dataset.isel({dataset[name].dims[0]: slice(None, None, -1)})


def permute(dataset, rng):
    return dataset.transpose(*rng.permutation(list(dataset.dims)))


def deepen(dataset, rng):
    return dataset if "depth" in dataset.variables else dataset.expand_dims(depth=[float(rng.uniform(0, 10))])


def wrap(dataset, rng):
    name = axis(dataset, "longitude")
    return edit(dataset, name, lambda values: values % 360 if rng.random() < 0.5 else (values + 180) % 360 - 180)


def pack(dataset, rng):
    for name in uv(dataset):
        dataset = edit(dataset, name, lambda values: values.fillna(-32768.0), _FillValue=-32768.0)
    return dataset


def add(dataset, rng):
    return dataset.assign(sst=("time_of_sst", np.arange(3.0), {"units": "degC"}))


def shuffle_times(dataset, rng):
    dim = dataset[axis(dataset, "time")].dims[0]
    return dataset.isel({dim: rng.permutation(dataset.sizes[dim])})


UNUSUAL: list[Change] = [rescale, rename, surface, turn, permute, deepen, wrap, pack, add, shuffle_times]


def drop(dataset, rng):
    return dataset.drop_vars(rng.choice([*uv(dataset), *(axis(dataset, n) for n in ("latitude", "longitude", "time"))]))


def forget(dataset, rng):
    name = str(rng.choice(list(map(str, dataset.variables))))
    lost = str(rng.choice(["units", "standard_name", "axis"]))
    dataset = dataset.copy()
    dataset[name].attrs = {key: value for key, value in dataset[name].attrs.items() if key != lost}
    return dataset


def mislabel(dataset, rng):
    name = str(rng.choice(list(map(str, dataset.variables))))
    units = ["degC", "m", "radians", "", "furlong/fortnight", 3, "m s-2", "degrees_south", "\x00", b"m s-1", [1, 2]]
    return dataset.assign({name: dataset[name].assign_attrs(units=units[rng.integers(len(units))])})


def overflow(dataset, rng):
    fill = [np.inf, -np.inf, 1e20, -9999.0, 9.96921e36][rng.integers(5)]
    return edit(dataset, str(rng.choice(uv(dataset))), lambda values: values.fillna(fill))


def hole(dataset, rng):
    def dig(values):
        dug = values.values.copy()
        dug[tuple(int(rng.integers(size)) for size in dug.shape)] = np.nan
        return values.copy(data=dug)

    return edit(dataset, str(rng.choice([*uv(dataset), axis(dataset, "latitude"), axis(dataset, "longitude")])), dig)


def retype(dataset, rng):
    kind = ["str", "object", "complex128", "bool", "S32"][rng.integers(5)]
    return edit(dataset, str(rng.choice(list(map(str, dataset.variables)))), lambda values: values.astype(kind))


def jumble(dataset, rng):
    dim = dataset[axis(dataset, ["latitude", "longitude"][rng.integers(2)])].dims[0]
    return dataset.isel({dim: rng.permutation(dataset.sizes[dim])})


def empty(dataset, rng):
    return dataset.isel({str(rng.choice(list(dataset.dims))): slice(int(rng.integers(2)))})


def repeat(dataset, rng):
    dim = str(rng.choice(list(dataset.dims)))
    return dataset.isel({dim: np.sort(rng.integers(dataset.sizes[dim], size=dataset.sizes[dim]))})


def stack(dataset, rng):
    return xr.concat([dataset, dataset], str(rng.choice(["level", "scenario", "band"])), data_vars="all")


def count_times(dataset, rng):
    units = [None, "days", "days since never", "hours since 2002-13-45", "years since 9999-01-01", 7][rng.integers(6)]
    values = rng.choice([np.arange(4.0), np.array([0, 1, np.nan, 3]), np.arange(4.0) * 1e300, np.arange(4.0) * 1e9])
    name = axis(dataset, "time")
    attributes = {"standard_name": "time"} | ({} if units is None else {"units": units})
    size = dataset[name].size
    return dataset.assign_coords({name: (dataset[name].dims, values[:size], attributes)}) if size == 4 else dataset


def beyond(dataset, rng):
    name = axis(dataset, ["latitude", "longitude"][rng.integers(2)])
    return edit(dataset, name, lambda values: values * float(rng.choice([-1e6, 1e3, np.nan, np.inf, 0.0])))


def twin(dataset, rng):
    return dataset.assign({f"{name}_again": dataset[name] for name in uv(dataset)[:1]})


DAMAGE: list[Change] = [
    drop, forget, mislabel, overflow, hole, retype, jumble, empty, repeat, stack, count_times, beyond, twin
]  # fmt: skip


def assert_named(error: Exception) -> None:
    assert NAMED.search(str(error)), repr(error)
    assert "Type-check error" not in str(error), repr(error)


def place_by_place(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Compare what both hold for each time, latitude and longitude modulo 360, and nothing may be made up."""
    turned = expected.assign_coords(longitude=expected["longitude"] % 360).sortby("longitude")
    theirs = found.assign_coords(longitude=found["longitude"] % 360).sortby("longitude")
    for name in ("u", "v"):
        want = turned[name].sel(
            time=theirs["time"],
            latitude=xr.DataArray(theirs["latitude"].values, dims="latitude"),
            longitude=xr.DataArray(theirs["longitude"].values, dims="longitude"),
            method=None,
        )
        have = theirs[name].transpose(*want.dims).values
        np.testing.assert_allclose(have, want.values, rtol=1e-12, atol=1e-15)


def unusual(rng: np.random.Generator) -> xr.Dataset:
    dataset = currents()
    dataset["latitude"].attrs["standard_name"], dataset["longitude"].attrs["standard_name"] = "latitude", "longitude"
    dataset["time"].attrs["standard_name"] = "time"
    for change in rng.permutation(np.array(UNUSUAL, object))[: rng.integers(1, 5)]:
        dataset = change(dataset, rng)
    return dataset


def try_archives(cases: range) -> Counter:
    verdicts: Counter = Counter()
    for case in cases:
        rng = np.random.default_rng([6, case])
        dataset = unusual(rng)
        if case % 4 == 0:
            found = read_archive(dataset)
            place_by_place(found, currents())
            same(found.assign_coords(longitude=currents()["longitude"]), currents(), rtol=1e-12)
            verdicts["unusual, right"] += 1
            continue
        change = DAMAGE[case % len(DAMAGE)]
        damaged = change(dataset, rng)
        try:
            found = read_archive(damaged)
            Archive.of(found)
        except (ValueError, TypeError) as error:
            assert_named(error)
            verdicts[f"{change.__name__}, refused"] += 1
        else:
            place_by_place(found, currents())
            verdicts[f"{change.__name__}, right"] += 1
    return verdicts


def test_unusual_archives_are_read_right_and_damaged_ones_refused_by_name_or_read_right():
    verdicts = try_archives(range(200))
    assert verdicts["unusual, right"] == 50
    assert sum(count for verdict, count in verdicts.items() if verdict.endswith("refused")) > 50
    assert sum(count for verdict, count in verdicts.items() if verdict.endswith("right")) > 60


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ids = np.repeat(["a", "b", "c"], 5)
    time = np.tile(pd.date_range("2002-01-01", periods=5, freq="6h"), 3)
    where = {"lon": rng.uniform(10, 30, 15), "lat": rng.uniform(-40, -30, 15), "error": rng.uniform(50, 200, 15)}
    return pd.DataFrame({"id": ids, "time": time, **where})


def table_damage(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    column, row = str(rng.choice(frame.columns)), int(rng.integers(len(frame)))
    way = int(rng.integers(9))
    if way == 0:
        return frame.drop(columns=column)
    if way == 1:
        return frame.assign(**{column: frame[column].astype(str) + "?"})
    if way == 2:
        return pd.concat([frame, frame.iloc[[row]]])
    if way == 3:
        return frame.iloc[: int(rng.integers(4))]
    if way == 4:
        return frame.assign(**{f"{column} ": frame[column], column.upper(): frame[column]})
    if way == 5:
        return frame.assign(time=np.arange(len(frame)) * float(rng.integers(1, 10**9)))
    value = rng.choice([np.nan, np.inf, -1e3, 1e30])
    if way == 6 and column not in ("id", "time"):
        return frame.assign(**{column: frame[column].where(np.arange(len(frame)) != row, value)})
    if way == 7:
        return frame.assign(id=frame["id"].where(np.arange(len(frame)) != row, None))
    return frame.assign(**{column: frame[column].astype(object).where(np.arange(len(frame)) != row, "x")})


def fixes(tracks: xr.Dataset) -> set[tuple]:
    long = tracks.to_dataframe().reset_index().dropna(subset=["latitude"])
    columns = ["trajectory", "time", "longitude", "latitude", "position_error"]
    return set(long[columns].itertuples(index=False, name=None))


def as_dataset(frame: pd.DataFrame, form: int) -> xr.Dataset:
    """The same as padded or contiguous ragged."""
    padded = read_tracks(frame)
    if form == 1:
        return padded
    counts = frame.groupby("id").size()
    ordered = frame.sort_values(["id", "time"])
    columns = {"lon": "lon", "lat": "lat", "position_error": "error"}
    found = xr.Dataset({new: ("obs", ordered[old].to_numpy()) for new, old in columns.items()})
    return found.assign(time=("obs", ordered["time"].to_numpy()), rowsize=("traj", counts.to_numpy())).assign_coords(
        id=("traj", counts.index.to_numpy(str))
    )


def dataset_damage(dataset: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    name, way = str(rng.choice(list(map(str, dataset.variables)))), int(rng.integers(5))
    values = dataset[name]
    if way == 0:
        return dataset.drop_vars(name)
    if way == 1:
        return dataset.assign({name: values.astype(str)})
    if way == 2 and values.dtype.kind in "fi" and name != "position_error":
        return dataset.assign({name: values + rng.choice([np.nan, np.inf, 500, 1e30])})
    if way == 3:
        return dataset.isel({str(rng.choice(list(values.dims))): slice(int(rng.integers(3)))})
    return dataset.assign_coords(time=(dataset["time"].dims, np.zeros(dataset["time"].shape)))


def try_tracks(cases: range) -> Counter:
    verdicts: Counter = Counter()
    expected = fixes(read_tracks(table()))
    for case in cases:
        rng = np.random.default_rng([7, case])
        frame = table().sample(frac=1, random_state=case)[list(rng.permutation(table().columns))]
        form = case % 3
        whole = frame if form == 0 else as_dataset(frame, form)
        if case % 5 == 0:
            assert fixes(read_tracks(whole)) == expected
            verdicts["unusual, right"] += 1
            continue
        try:
            found = read_tracks(table_damage(frame, rng) if form == 0 else dataset_damage(whole, rng))
        except (ValueError, TypeError) as error:
            assert_named(error)
            verdicts["refused"] += 1
        else:
            require_tracks(found)
            # An id may be lost or become text, and trajectories may be cut short; positions are never made up.
            assert {fix[1:] for fix in fixes(found)} <= {fix[1:] for fix in expected}
            verdicts["right"] += 1
    return verdicts


def test_damaged_tracks_are_refused_by_name_or_hold_nothing_made_up():
    verdicts = try_tracks(range(150))
    assert verdicts["unusual, right"] == 30
    assert verdicts["refused"] > 40


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> Path:
    """The same currents as plain netCDF-4, packed with checksums, classic, and as a posterior."""
    folder = tmp_path_factory.mktemp("files")
    archive = currents(times=6).astype(np.float32)
    for name in ("u", "v"):
        archive[name].attrs = {"units": "m s-1", "standard_name": STANDARD[name]}
    archive.to_netcdf(folder / "plain.nc")
    guarded = {"zlib": True, "fletcher32": True}
    archive.to_netcdf(folder / "guarded.nc", encoding={"u": guarded, "v": guarded})
    archive.to_netcdf(folder / "classic.nc", format="NETCDF3_CLASSIC")
    tracks = read_tracks(table(), position_error=100).assign(latitude=lambda data: data["latitude"] * 0 - 33.5)
    tracks["longitude"] = tracks["longitude"] * 0 + 21
    analysis = Climatology().fit(archive).analyse(tracks, archive["time"].values[2], members=3)
    write(to_cf(analysis, archive), folder / "posterior.nc")
    return folder


def try_bytes(folder: Path, cases: range) -> Counter:
    """Run cases in processes of their own; where one dies, go on after the case that killed it."""
    verdicts: Counter = Counter()
    case, last = cases.start, cases.stop
    script = Path(__file__).with_name("damaged_files.py")
    while case < last:
        run = subprocess.run(
            [sys.executable, str(script), str(folder), str(case), str(last)],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = run.stdout.splitlines()
        for line in lines:
            _, source, _, verdict = line.split("\t")
            assert verdict in ("refused", "right", "as its bytes say"), line
            verdicts[source, verdict] += 1
        case += len(lines)
        if run.returncode == 0:
            break
        assert run.returncode < 0, run.stderr  # a signal
        assert library_dies(folder / f"damaged-{case}.bin"), f"case {case} dies of {run.returncode}: {run.stderr}"
        verdicts["any", "killed by netCDF"] += 1
        case += 1
    return verdicts


def library_dies(path: Path) -> bool:
    """Whether netCDF's own library crashes or loops for ever on a file, without us."""
    program = """
import signal, sys, netCDF4
signal.setitimer(signal.ITIMER_PROF, 5)
dataset = netCDF4.Dataset(sys.argv[1])
for variable in dataset.variables.values():
    variable[...]
"""
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, check=False)
    return run.returncode < 0


def test_damaged_bytes_are_refused_by_name_or_read_as_netcdf_reads_them(whole_files):
    verdicts = try_bytes(whole_files, range(90))
    assert verdicts.total() == 90
    assert sum(count for (_, verdict), count in verdicts.items() if verdict == "refused") > 40


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_ten_thousand_hostile_inputs_archives(part):
    verdicts = try_archives(range(1000 * part, 1000 * (part + 1)))
    assert verdicts.total() == 1000
    print(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_ten_thousand_hostile_inputs_tracks(part):
    verdicts = try_tracks(range(1000 * part, 1000 * (part + 1)))
    assert verdicts.total() == 1000
    print(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_ten_thousand_hostile_inputs_bytes(part, whole_files):
    verdicts = try_bytes(whole_files, range(500 * part, 500 * (part + 1)))
    assert verdicts.total() == 500
    print(verdicts)


def test_a_damaged_file_is_a_data_file_error(whole_files, tmp_path):
    content = (whole_files / "guarded.nc").read_bytes()
    values = xr.open_dataset(whole_files / "guarded.nc")["u"].values
    assert values.size
    middle = bytearray(content)
    middle[-600:-400] = bytes(200)
    (tmp_path / "middle.nc").write_bytes(middle)
    with pytest.raises(DataFileError, match=r"middle.nc|archive\.[uv]"):
        Archive.of(read_archive(tmp_path / "middle.nc"))
