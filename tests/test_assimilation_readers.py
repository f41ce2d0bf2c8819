import os
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from ocean_cases import random_fourier
from reader_cases import STANDARD, currents, same

from probcl.assimilation import GridFlow, read_archive, require_archive, simulate_tracks
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines import Climatology
from probcl.assimilation.readers.conventions import speed_factor
from probcl.errors import DataFileError


def renamed(archive):
    return archive.rename(u="uo", v="vo", latitude="lat", longitude="lon")


def in_units(units, factor):
    def change(archive):
        for name in ("u", "v"):
            scaled = archive[name] * factor
            archive = archive.assign({name: scaled.assign_attrs(archive[name].attrs | {"units": units})})
        return archive

    return change


def of_kind(kind):
    def change(archive):
        for name in ("u", "v"):
            archive[name].attrs["standard_name"] = f"{kind}_{STANDARD[name]}"
        return archive.rename(u="ugos", v="vgos")

    return change


def with_zero_land(name, water):
    def change(archive):
        sea = archive["u"].isel(time=0).notnull()
        mask = xr.where(sea, water, 1 - water).astype("int8").assign_attrs(standard_name=name)
        return archive.fillna(0.0).assign(mask=mask)

    return change


def with_statistics(archive):
    mean = archive["u"].mean("time").assign_attrs(archive["u"].attrs, cell_methods="time: maximum")
    return archive.assign(u_best=mean)


def with_anomaly(archive):
    anomaly = "surface_geostrophic_eastward_sea_water_velocity_assuming_sea_level_for_geoid"
    return archive.assign(ugosa=archive["u"].assign_attrs(standard_name=anomaly))


def with_axis_alone(archive):
    archive = archive.rename(latitude="j", longitude="i", time="step")
    archive["j"].attrs, archive["i"].attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    archive["step"].attrs = {"axis": "T"}
    return archive


EXACT = {
    "as it is": lambda archive: archive,
    "other names": renamed,
    "descending latitude": lambda archive: archive.isel(latitude=slice(None, None, -1)),
    "descending longitude": lambda archive: archive.isel(longitude=slice(None, None, -1)),
    "other order of dimensions": lambda archive: archive.transpose("longitude", "time", "latitude"),
    "descending time": lambda archive: archive.isel(time=slice(None, None, -1)),
    "a depth of one": lambda archive: archive.expand_dims(depth=[0.5]),
    "a depth without size": lambda archive: archive.assign_coords(depth=0.5),
    "surface velocities": of_kind("surface"),
    "geostrophic velocities": of_kind("surface_geostrophic"),
    "a land mask": with_zero_land("land_binary_mask", 0),
    "a sea mask": with_zero_land("sea_binary_mask", 1),
    "a statistic beside": with_statistics,
    "an anomaly beside": with_anomaly,
    "axes by units and axis": with_axis_alone,
    "no units of degrees, usual names": lambda archive: archive.assign_coords(
        latitude=archive.latitude.drop_attrs(), longitude=archive.longitude.drop_attrs()
    ),
}


@pytest.mark.parametrize("change", EXACT.values(), ids=EXACT.keys())
@pytest.mark.parametrize("stored", [True, False], ids=["file", "dataset"])
def test_an_archive_in_another_convention_is_the_same_archive(change, stored, tmp_path):
    source = change(currents())
    if stored:
        source.to_netcdf(tmp_path / "currents.nc")
        source = tmp_path / "currents.nc"
    found = require_archive(read_archive(source))
    same(found, currents())
    assert found["u"].attrs["units"] == "m s-1"
    assert found["u"].attrs["standard_name"] == STANDARD["u"]


@pytest.mark.parametrize(
    ("units", "factor"),
    [("cm/s", 100), ("cm s-1", 100), ("km/h", 3.6), ("knots", 3600 / 1852), ("mm s**-1", 1000), ("km day-1", 86.4)],
)
def test_speeds_in_other_units_become_metres_a_second(units, factor):
    found = read_archive(in_units(units, factor)(currents()))
    same(found, currents(), rtol=1e-12)
    assert found["v"].attrs["original_units"] == units


@pytest.mark.parametrize(
    "units", ["m", "m s-2", "degC", "1", "s m-1", "meter", "m/s/s", "Mm/s", "", "m2 s-1", None, 1.0]
)
def test_what_is_no_unit_of_speed_has_no_factor(units):
    assert speed_factor(units) is None


def test_packed_values_and_fills_are_decoded(tmp_path):
    packing = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -32768}
    currents().to_netcdf(tmp_path / "packed.nc", encoding={"u": packing, "v": packing})
    found = read_archive(tmp_path / "packed.nc")
    np.testing.assert_allclose(found["u"], currents()["u"], atol=0.51e-4)
    raw = xr.open_dataset(tmp_path / "packed.nc", mask_and_scale=False)
    same(read_archive(raw), found.load())


def test_integers_without_packing_are_numbers():
    archive = (currents().fillna(0) * 100).round().astype("int16")
    for name in ("u", "v"):
        archive[name].attrs = currents()[name].attrs | {"units": "cm/s"}
    np.testing.assert_allclose(read_archive(archive)["u"], archive["u"] / 100)


@pytest.mark.parametrize("dim", ["member", "realization", "ensemble", "number"])
def test_realizations_are_members_with_their_labels(dim, tmp_path):
    expected = currents(members=3)
    expected.rename(member=dim).transpose("time", ...).to_netcdf(tmp_path / "ensemble.nc")
    found = read_archive(tmp_path / "ensemble.nc")
    same(found, expected)
    np.testing.assert_array_equal(found["member"], [5, 6, 7])


def test_names_and_units_say_what_a_file_does_not(tmp_path):
    bare = renamed(currents()).drop_attrs()
    bare = bare.assign_coords(time=("time", np.arange(4.0), {}))
    bare.to_netcdf(tmp_path / "bare.nc")
    names = {"u": "uo", "v": "vo"}
    with pytest.raises(ValueError, match=r'bare.nc must have one .*got none among.*names=\{"u": ..., "v": ...\}'):
        read_archive(tmp_path / "bare.nc")
    with pytest.raises(ValueError, match=r"bare.nc: uo must have units, got none; say which with units=\{'u': ...\}"):
        read_archive(tmp_path / "bare.nc", names=names)
    units = {"u": "m/s", "v": "m/s"}
    with pytest.raises(ValueError, match=r"bare.nc: time 'time' must have units such as"):
        read_archive(tmp_path / "bare.nc", names=names, units=units)
    found = read_archive(tmp_path / "bare.nc", names=names, units=units | {"time": "days since 2002-01-01"})
    same(found, currents())
    assert found["u"].attrs["original_name"] == "uo"


def test_one_time_without_a_dimension_is_one_map():
    same(read_archive(currents().isel(time=1)), currents().isel(time=[1]))


def test_what_was_done_is_recorded(tmp_path):
    in_units("cm/s", 100)(currents().isel(latitude=slice(None, None, -1))).to_netcdf(tmp_path / "theirs.nc")
    found = read_archive(tmp_path / "theirs.nc")
    assert found.attrs["archive_source"] == "theirs.nc"
    assert found.attrs["archive_changes"] == "u from u in cm/s; v from v in cm/s; latitude reversed"


def globe(first: float, step: float = 10.0) -> xr.Dataset:
    """A grid around the Earth whose currents are functions of the place."""
    longitude = first + step * np.arange(round(360 / step))
    latitude = np.array([-10.0, 0.0, 10.0])
    u = np.sin(np.radians(longitude)) + latitude[:, None] / 100
    dims = ("time", "latitude", "longitude")
    axes = {"time": [np.datetime64("2002-01-01", "ns")], "latitude": latitude, "longitude": longitude}
    archive = xr.Dataset({"u": (dims, u[None]), "v": (dims, -u[None])}, coords=axes)
    for name in ("u", "v"):
        archive[name].attrs = {"units": "m s-1", "standard_name": STANDARD[name]}
    return archive


def is_right(archive: xr.Dataset) -> None:
    require_archive(archive)
    expected = np.sin(np.radians(archive["longitude"])) + archive["latitude"] / 100
    np.testing.assert_allclose(archive["u"].isel(time=0), expected.transpose("latitude", "longitude"), atol=1e-12)


@given(
    start=st.integers(-18, 35),
    length=st.integers(2, 36),
    signed=st.booleans(),
    region=st.none() | st.tuples(st.integers(-35, 18), st.integers(2, 35)),
)
def test_currents_stay_where_they_are_whatever_the_longitudes_are_called(start, length, signed, region):
    grid = globe(10.0 * start).isel(longitude=slice(length))
    wrapped = (grid["longitude"] + 180) % 360 - 180 if signed else grid["longitude"] % 360
    theirs = grid.assign_coords(longitude=wrapped.values)
    found = read_archive(theirs)
    is_right(found)
    assert found.sizes["longitude"] == length
    if length == 36:
        np.testing.assert_array_equal(found["longitude"], np.sort(wrapped))
    if region is not None:
        west, east = 10.0 * region[0] - 1, 10.0 * (region[0] + region[1]) - 1
        inside = ((grid["longitude"].values - west) % 360) <= east - west
        if inside.sum() < 2:
            with pytest.raises(ValueError, match="region must hold two latitudes and two longitudes"):
                read_archive(theirs, region=(west, -20, east, 20))
        else:
            part = read_archive(theirs, region=(west, -5, east, 15))
            is_right(part)
            assert part.sizes == {"time": 1, "latitude": 2, "longitude": inside.sum()}
            assert west <= part["longitude"].values[0] < part["longitude"].values[-1] <= east


def test_a_column_given_twice_is_once_in_a_region():
    grid = globe(0.0)
    cyclic = xr.concat([grid, grid.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude", data_vars="all")
    assert read_archive(cyclic).sizes["longitude"] == 37
    part = read_archive(cyclic, region=(-30, -20, 30, 20))
    is_right(part)
    np.testing.assert_array_equal(part["longitude"], np.arange(-30, 31, 10.0))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0, 0, 10), "region must be"),
        ((0, 10, 10, 0), "south < north"),
        ((0, 0, np.nan, 10), "region must be"),
        ((5, -5, 5, 5), "region must be"),
        ((0, -100, 10, 10), "south < north"),
        ((100, -20, 101, 20), "two longitudes"),
    ],
)
def test_a_region_that_is_none_is_refused(region, message, unchecked):
    with pytest.raises(ValueError, match=message):
        read_archive(globe(0.0), region=region)
    with pytest.raises(TypeError, match="region must be"):
        read_archive(globe(0.0), region="north")


def files(tmp_path, archive):
    for number in range(archive.sizes["time"]):
        archive.isel(time=[number]).to_netcdf(tmp_path / f"map_{3 - number}.nc")
    return tmp_path


def test_maps_of_many_files_are_in_order_of_time(tmp_path):
    files(tmp_path, currents())
    for source in (f"{tmp_path}/map_*.nc", [tmp_path / f"map_{k}.nc" for k in (2, 0, 3, 1)]):
        with read_archive(source) as found:
            same(found, currents())
    assert read_archive(f"{tmp_path}/map_*.nc").attrs["archive_source"] == "map_0.nc to map_3.nc (4 files)"


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    files(tmp_path, currents())
    currents().isel(time=[0]).to_netcdf(tmp_path / "again.nc")
    with pytest.raises(ValueError, match=r"time must occur once, got 2002-01-01.* there and in"):
        read_archive([*tmp_path.glob("map_*.nc"), tmp_path / "again.nc"])
    currents().isel(time=[0], latitude=slice(1, None)).to_netcdf(tmp_path / "part.nc")
    with pytest.raises(ValueError, match=r"part.nc must have the latitude of map_0.nc"):
        read_archive([tmp_path / "map_0.nc", tmp_path / "part.nc"])
    currents(members=2).isel(time=[0]).to_netcdf(tmp_path / "members.nc")
    with pytest.raises(ValueError, match=r"members.nc must have the dimensions"):
        read_archive([tmp_path / "map_0.nc", tmp_path / "members.nc"])


def test_files_are_read_lazily_with_dask_and_at_once_without(tmp_path, monkeypatch):
    pytest.importorskip("dask")
    files(tmp_path, currents())
    lazy = read_archive(f"{tmp_path}/map_*.nc")
    assert lazy["u"].chunks is not None
    cut = read_archive(f"{tmp_path}/map_*.nc", chunks={"time": 2, "latitude": 3})
    assert cut["u"].chunks == ((2, 2), (3, 3, 2), (9,))
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(ImportError, match=r'chunks needs the extra: pip install "probcl\[dask\]"'):
        read_archive(f"{tmp_path}/map_*.nc", chunks={"time": 1})
    eager = read_archive(f"{tmp_path}/map_*.nc")
    assert eager["u"].chunks is None
    one = read_archive(tmp_path / "map_0.nc", region=(20, -34, 21, -33))
    monkeypatch.undo()
    same(lazy, eager)
    same(cut, eager)
    same(one, read_archive(tmp_path / "map_0.nc", region=(20, -34, 21, -33)))


def test_a_zarr_folder_is_an_archive(tmp_path):
    pytest.importorskip("zarr")
    renamed(currents()).to_zarr(tmp_path / "currents.zarr", consolidated=False)
    with read_archive(tmp_path / "currents.zarr") as found:
        same(found, currents())


def test_a_lazy_archive_is_what_the_methods_take(tmp_path):
    currents().to_netcdf(tmp_path / "currents.nc")
    with read_archive(tmp_path / "currents.nc") as lazy:
        GridFlow.from_archive(lazy)
        fitted = Climatology().fit(lazy).archive
    np.testing.assert_array_equal(fitted.values, Climatology().fit(currents()).archive.values)


def without(*names):
    return lambda archive: archive.drop_vars(names)


def with_attributes(*names, **attributes):
    def change(archive):
        return archive.assign({name: archive[name].assign_attrs(attributes) for name in names})

    return change


def changed(name, change):
    """Change the values of a variable, not its attributes."""
    return lambda archive: archive.assign({name: change(archive[name]).assign_attrs(archive[name].attrs)})


def chosen(**indices):
    return lambda archive: archive.isel(indices)


def masked(*names, value=1.0):
    def change(archive):
        mask = (0 * archive["u"].isel(time=0) + value).fillna(1).assign_attrs(standard_name="land_binary_mask")
        return archive.assign(dict.fromkeys(names, mask))

    return change


def winds(archive):
    archive = with_attributes("u", standard_name="eastward_wind")(archive)
    return with_attributes("v", standard_name="northward_wind")(archive)


def staggered(archive):
    return archive.assign(v=archive["v"].isel(longitude=slice(8)).rename(longitude="x"))


def deep(archive):
    return xr.concat([archive, archive], "deptht", data_vars="all")


def curvilinear(archive):
    grid = {"nav_lat": archive["latitude"].values[:, None], "nav_lon": archive["longitude"].values[None]}
    plain = archive.drop_vars(["latitude", "longitude"]).rename(latitude="y", longitude="x")
    return plain.assign_coords({name: (("y", "x"), np.broadcast_to(values, (8, 9))) for name, values in grid.items()})


def noleap(archive):
    return archive.assign_coords(time=xr.date_range("2002-01-01", periods=4, calendar="noleap", use_cftime=True))


def far_off(time):
    return time.astype("datetime64[s]") + np.timedelta64(500 * 366, "D").astype("timedelta64[s]")


REFUSED = {
    "no current": (without("u"), r"source must have one .*got \[\] and \['v'\].*names="),
    "two currents": (lambda archive: archive.assign(again=archive.u), r"got \['again', 'u'\] and \['v'\].*names="),
    "unlike currents": (with_attributes("u", standard_name="surface_" + STANDARD["u"]), r"source must have one"),
    "winds": (winds, "got none among"),
    "no latitude": (without("latitude"), r"source must have a coordinate latitude .*names="),
    "no time": (without("time"), r"source must have a coordinate time"),
    "a depth of two": (deep, r"u must have one level, got 2 along 'deptht'.*isel\(deptht=0\)"),
    "a curvilinear grid": (curvilinear, r"must have one dimension, got 'nav_lat' on \('y', 'x'\), a curvilinear grid"),
    "a staggered grid": (staggered, r"v must have one level, got 8 along 'x'"),
    "no units": (with_attributes("u", units=None), r"source: u must have units, got none"),
    "units of another kind": (with_attributes("v", units="degC"), r"v must be in units of speed.*got 'degC'"),
    "radians": (with_attributes("latitude", units="radian"), r"must have units 'degrees_north', got 'radian'"),
    "exchanged axes": (with_attributes("latitude", units="degrees_east"), r"got 'degrees_east'"),
    "noleap": (noleap, r"must be of the Gregorian calendar, got 'noleap'.*convert_calendar"),
    "text": (changed("u", lambda u: u.astype(str)), r"u must be numbers, got <U"),
    "text for axes": (changed("latitude", lambda axis: axis.astype(str)), r"latitude 'latitude' must be numbers"),
    "no order of longitudes": (chosen(longitude=[3, 1, 2, 0, 5, 4]), r"longitude must be monotonic"),
    "no order of latitudes": (chosen(latitude=[1, 0, 2, 3]), r"latitude must be finite and ascend"),
    "NaN in an axis": (changed("latitude", lambda axis: axis.where(axis > -34)), r"latitude must be finite"),
    "beyond the pole": (changed("latitude", lambda axis: axis + 124), r"latitude must be within ±89.*region="),
    "one latitude": (chosen(latitude=[0]), r"latitude must be two or more"),
    "the same time twice": (chosen(time=[0, 0, 1]), r"time must occur once, got 2002-01-01"),
    "NaT": (changed("time", lambda time: time.where(time > time[0])), r"time must have no NaT"),
    "a year far off": (changed("time", far_off), r"time 'time' must be within 1678 to 2262"),
    "an undeclared fill": (changed("u", lambda u: u.fillna(-9999)), r"u must be at most 20 m/s, got 9999 in the first"),
    "cm/s called m/s": (in_units("m/s", 100), r"must be at most 20 m/s"),
    "infinite": (changed("u", lambda u: u.fillna(np.inf)), r"u must be at most 20 m/s, got inf"),
    "two masks": (masked("tmask", "umask"), r"one land mask, got \['tmask', 'umask'\]"),
    "a mask of fractions": (masked("mask", value=0.5), r"mask must be of 0 and 1"),
    "nothing": (lambda _: xr.Dataset(), r"source must have one"),
    "empty": (chosen(time=slice(0)), r"u must not be empty"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_archive_is_refused_by_name(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        read_archive(change(currents()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": {"u": "uo", "v": "vo"}}, r"names\['u'\] = 'uo', got"),
        ({"names": {"u": "u"}}, "names must say both u and v"),
        ({"names": {"east": "u"}}, r"names must have keys among .*got \['east'\]"),
        ({"units": {"w": "m/s"}}, r"units must have keys among"),
        ({"names": {"latitude": "longitude"}}, "must have a dimension each"),
    ],
)
def test_names_that_are_not_there_are_refused(arguments, message, unchecked):
    with pytest.raises(ValueError, match=message):
        read_archive(currents(), **arguments)
    with pytest.raises(TypeError, match="names must be a mapping"):
        read_archive(currents(), names=["u", "v"])


def test_what_is_no_source_is_refused(tmp_path, unchecked):
    for wrong in (3, None, [1, 2], currents()["u"]):
        with pytest.raises(TypeError, match="source must be a path"):
            read_archive(wrong)
    for nothing in (f"{tmp_path}/*.nc", []):
        with pytest.raises(DataFileError, match="source must name one file or more"):
            read_archive(nothing)
    with pytest.raises(DataFileError, match=r"'absent.nc', which does not exist"):
        read_archive(tmp_path / "absent.nc")
    with pytest.raises(DataFileError, match="a folder that is no zarr"):
        read_archive(tmp_path)


@pytest.mark.parametrize("file_format", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT"])
def test_a_truncated_file_is_refused_whatever_is_missing(file_format, tmp_path):
    currents().to_netcdf(tmp_path / "whole.nc", format=file_format)
    content = (tmp_path / "whole.nc").read_bytes()
    with read_archive(tmp_path / "whole.nc") as archive:
        same(archive, currents())
    for size in np.linspace(0, len(content) - 8, 15).astype(int):
        path = tmp_path / f"{size}.nc"
        path.write_bytes(content[:size])
        with pytest.raises(DataFileError, match=rf"{size}.nc must be"):
            Archive.of(read_archive(path))


def test_a_file_that_goes_or_is_cut_after_it_was_opened_is_an_error_by_name(tmp_path):
    pytest.importorskip("dask")
    for spoil in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:3000])):
        path = tmp_path / "currents.nc"
        currents(times=200).to_netcdf(path)
        archive = read_archive(path)
        archive.close()
        spoil(path)
        with pytest.raises(DataFileError, match=r"archive.u must be readable from currents.nc"):
            Climatology().fit(archive)


def test_a_file_that_goes_is_named_where_another_opened_it(tmp_path):
    random_fourier(1, 3).to_netcdf(tmp_path / "mine.nc")
    with xr.open_dataset(tmp_path / "mine.nc") as archive:
        pass
    (tmp_path / "mine.nc").unlink()
    with pytest.raises(DataFileError, match=r"archive.u must be readable from .*mine.nc: "):
        simulate_tracks(archive, n_drifters=1, window="2D", fix_interval="12h")


@pytest.fixture
def ocean():
    folder = Path(os.environ.get("PROBCL_DATA", "absent")) / "ocean"
    if not folder.is_dir():
        pytest.skip("there is no $PROBCL_DATA/ocean")
    return folder


def test_real_global_maps_are_read_by_region_and_refused_at_the_poles(ocean):
    path = ocean / "nrt_global_allsat_phy_l4_20190223_20190226.nc"
    with pytest.raises(ValueError, match=r"latitude must be within ±89, got -89.875 to 89.875; read a part"):
        read_archive(path)
    part = read_archive(path, region=(-20, -50, 40, -20)).load()
    raw = xr.open_dataset(path)
    assert part["longitude"].values[[0, -1]].tolist() == [-19.875, 39.875]
    place = {"latitude": -35.125, "longitude": 10.125}
    assert part["u"].sel(place).item() == raw["ugos"].sel(place).item()
    west = part["v"].sel(latitude=-35.125, longitude=-15.125)
    assert west.item() == raw["vgos"].sel(latitude=-35.125, longitude=344.875).item()


def test_real_model_output_is_read_with_one_time_and_without_depth(ocean):
    found = read_archive(ocean / "small_glorys_region.nc")
    assert found.sizes == {"time": 1, "latitude": 241, "longitude": 601}
    raw = xr.open_dataset(ocean / "small_glorys_region.nc")
    np.testing.assert_array_equal(found["u"].values[0], raw["uo"].values)


def test_real_radar_currents_become_metres_a_second_and_gaps_are_no_land(ocean):
    found = read_archive(f"{ocean}/hfradar/*.nc")
    assert found.sizes == {"time": 3, "latitude": 187, "longitude": 196}
    raw = xr.open_dataset(min((ocean / "hfradar").glob("*.nc")))
    np.testing.assert_allclose(found["u"].values[0], raw["u"].values[0, 0] / 100, rtol=1e-6)
    with pytest.raises(ValueError, match="NaN that come and go"):
        Climatology().fit(found)


def test_real_files_without_cf_are_refused_until_names_and_units_are_given(ocean):
    source = f"{ocean}/globcurrent_original/*.nc"
    names = {"u": "eastward_eulerian_current_velocity", "v": "northward_eulerian_current_velocity"}
    with pytest.raises(ValueError, match="names="):
        read_archive(source)
    with pytest.raises(ValueError, match=r"must have units, got none, though \{'Unit': 'm s-1'\}"):
        read_archive(source, names=names)
    found = read_archive(source, names=names, units={"u": "m s-1", "v": "m s-1", "time": "days since 1900-1-1"})
    joined = read_archive(ocean / "globcurrent_agulhas_daily_2002.nc").sel(time=found["time"])
    np.testing.assert_array_equal(found["u"].values.astype(np.float32), joined["u"].values)
    np.testing.assert_array_equal(found["latitude"], joined["latitude"])
