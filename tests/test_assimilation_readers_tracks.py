import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from ocean_cases import padded

from probcl.assimilation import read_tracks, simulate_tracks
from probcl.assimilation.segments import segments
from probcl.assimilation.tracks import FIX, require_tracks
from probcl.datasets.ocean import Box, Vortices
from probcl.errors import DataFileError

IDS = np.array([70, 12, 41])


def tracks() -> xr.Dataset:
    """Three trajectories of four, two and one fixes, as `read_tracks` returns them."""
    one = [(0.0, -35.0, 20.0), (0.5, -35.1, 20.1), (1.0, -35.2, 20.3), (2.5, -35.3, 20.2)]
    two = [(0.25, -34.0, 21.0), (1.0, -34.1, 21.5)]
    return padded([one, two, [(0.0, -33.0, 22.0)]]).assign_coords(trajectory=IDS)


def table(shuffled: bool = True) -> pd.DataFrame:
    """The same as a long table."""
    long = tracks().to_dataframe().dropna().reset_index()
    long = long.rename(columns={"trajectory": "id", "longitude": "lon", "latitude": "lat", "position_error": "error"})
    long["id"] = pd.Categorical(long["id"], categories=IDS, ordered=True)
    long = long.sort_values(["id", "time"]).astype({"id": int})[["id", "time", "lon", "lat", "error"]]
    return long.sample(frac=1, random_state=1) if shuffled else long


def ragged(**attributes: str) -> xr.Dataset:
    long = table(shuffled=False)
    return xr.Dataset(
        {
            "lon": ("obs", long["lon"].to_numpy(), {"standard_name": "longitude", "units": "degrees_east"}),
            "lat": ("obs", long["lat"].to_numpy(), {"standard_name": "latitude", "units": "degrees_north"}),
            "rowsize": ("traj", np.array([4, 2, 1]), attributes),
            "deploy_lat": ("traj", np.zeros(3), {"standard_name": "latitude", "units": "degrees_north"}),
            "drogue_lost_date": ("traj", np.zeros(3), {"units": "seconds since 1970-01-01"}),
        },
        coords={"id": ("traj", IDS), "time": ("obs", long["time"].to_numpy())},
    )


def same(found: xr.Dataset, order: np.ndarray = IDS) -> None:
    require_tracks(found)
    np.testing.assert_array_equal(np.sort(found["trajectory"]), np.sort(order))
    found = found.sel(trajectory=order)
    for name in FIX:
        np.testing.assert_array_equal(found[name].values, tracks().sel(trajectory=IDS)[name].values)


def test_a_shuffled_table_is_padded_in_order_of_time():
    same(read_tracks(table()))


def test_times_with_a_zone_become_universal():
    zoned = table()
    zoned["time"] = zoned["time"].dt.tz_localize("UTC").dt.tz_convert("Africa/Johannesburg")
    same(read_tracks(zoned))


def test_a_csv_file_is_a_table(tmp_path):
    table().to_csv(tmp_path / "drifters.csv", index=False)
    same(read_tracks(tmp_path / "drifters.csv"))
    table().to_csv(tmp_path / "drifters.csv.gz", index=False)
    same(read_tracks(str(tmp_path / "drifters.csv.gz")))


def test_a_parquet_file_is_a_table_where_pyarrow_is(tmp_path):
    pytest.importorskip("pyarrow")
    table().to_parquet(tmp_path / "drifters.parquet")
    same(read_tracks(tmp_path / "drifters.parquet"))


def test_without_pyarrow_parquet_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "drifters.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"drifters.parquet is Parquet, which needs pyarrow"):
        read_tracks(tmp_path / "drifters.parquet")


@pytest.mark.parametrize("attributes", [{}, {"sample_dimension": "obs"}], ids=["by name", "by attribute"])
def test_contiguous_ragged_tracks_are_cut_at_the_counts(attributes, tmp_path):
    source = ragged(**attributes)
    if attributes:
        source = source.rename(rowsize="n_fixes")
    same(read_tracks(source, position_error=100))
    source.to_netcdf(tmp_path / "gdp.nc")
    same(read_tracks(tmp_path / "gdp.nc", position_error=100))


def test_indexed_ragged_tracks_are_gathered_by_index():
    order = np.array([6, 0, 4, 1, 2, 5, 3])
    index = ("obs", np.repeat([0, 1, 2], [4, 2, 1])[order], {"instance_dimension": "traj"})
    source = ragged().drop_vars("rowsize").isel(obs=order).assign(which=index)
    same(read_tracks(source, position_error=100))


def test_an_id_for_each_fix_says_whose_it_is():
    source = ragged().drop_vars(["rowsize", "id"]).assign(ids=("obs", np.repeat(IDS, [4, 2, 1])))
    same(read_tracks(source, position_error=100))


def test_padded_tracks_of_parcels_are_read(tmp_path):
    numbers = (tracks()["time"] - np.datetime64("2002-01-01", "ns")) / np.timedelta64(1, "s")
    parcels = tracks().drop_vars("position_error").rename(latitude="lat", longitude="lon")
    parcels["time"] = numbers.assign_attrs(units="seconds since 2002-01-01", standard_name="time")
    parcels.to_netcdf(tmp_path / "parcels.nc")
    same(read_tracks(tmp_path / "parcels.nc", position_error=100))
    same(read_tracks(parcels.transpose("obs", "trajectory"), position_error=100))


def test_padded_tracks_of_opendrift_share_their_times():
    shared = pd.date_range("2002-01-01", periods=11, freq="6h")
    long = table()
    grid = long.set_index(["id", "time"]).reindex(pd.MultiIndex.from_product([IDS, shared], names=["id", "time"]))
    dims = ("trajectory", "time")
    opendrift = xr.Dataset(
        {name: (dims, grid[name].to_numpy().reshape(3, 11)) for name in ("lon", "lat")},
        coords={"time": shared, "trajectory": ("trajectory", IDS, {"cf_role": "trajectory_id"})},
    )
    same(read_tracks(opendrift, position_error=100))
    same(read_tracks(opendrift.transpose(), position_error=100))
    unnamed = read_tracks(opendrift.drop_vars("trajectory"), position_error=100)
    assert unnamed["trajectory"].values.tolist() == [0, 1, 2]


def test_simulated_tracks_pass_through_a_file_unchanged(tmp_path):
    archive = Vortices(1, box=Box(n=16, size=160e3)).archive(n_members=3, days=[0, 5])
    simulated = simulate_tracks(archive, n_drifters=4, window="5D", fix_interval="12h", position_error=100)
    simulated.to_netcdf(tmp_path / "tracks.nc")
    found = read_tracks(tmp_path / "tracks.nc")
    for name in FIX:
        np.testing.assert_array_equal(found[name], simulated[name])
    xr.testing.assert_identical(read_tracks(found), found)
    assert len(segments(found)) == len(segments(simulated))


def test_text_ids_survive_a_file(tmp_path):
    named = tracks().assign_coords(trajectory=["a", "bb", "c"])
    named.to_netcdf(tmp_path / "named.nc")
    assert read_tracks(tmp_path / "named.nc")["trajectory"].values.tolist() == ["a", "bb", "c"]
    strung = named.assign_coords(trajectory=("trajectory", np.array([b"a", b"bb", b"c"])))
    assert read_tracks(strung)["trajectory"].values.tolist() == ["a", "bb", "c"]


def test_errors_come_from_the_source_or_from_the_argument():
    assert np.nanmax(read_tracks(table(), position_error=7.0)["position_error"]) == 7
    same(read_tracks(tracks()))
    in_km = tracks().assign(position_error=(tracks()["position_error"] / 1000).assign_attrs(units="km"))
    same(read_tracks(in_km))
    with pytest.raises(ValueError, match="position_error must be given, in metres: source has none"):
        read_tracks(table().drop(columns="error"))
    with pytest.raises(ValueError, match=r"error must have units of length.*got None; or give position_error="):
        read_tracks(tracks().rename(position_error="error"))


def test_fixes_without_a_position_and_trajectories_without_a_fix_are_left_out():
    gap = tracks()
    gap["latitude"][0, 1] = gap["longitude"][0, 1] = np.nan
    gap["latitude"][2], gap["longitude"][2] = np.nan, np.nan
    found = read_tracks(gap, position_error=100)
    assert found["trajectory"].values.tolist() == [70, 12]
    np.testing.assert_array_equal(found["latitude"], [[-35.0, -35.2, -35.3], [-34.0, -34.1, np.nan]])


def test_names_say_which_columns_are_meant():
    odd = table().rename(columns={"id": "who", "time": "when", "lon": "x", "lat": "y", "error": "sigma"})
    names = {"id": "who", "time": "when", "longitude": "x", "latitude": "y", "position_error": "sigma"}
    same(read_tracks(odd, names=names))
    with pytest.raises(ValueError, match=r"source must have columns id, time, .*without \['id', 'time'.*names="):
        read_tracks(odd)
    with pytest.raises(ValueError, match=r"one column names\['id'\] = 'whom'"):
        read_tracks(odd, names=names | {"id": "whom"})


def changed(**columns):
    return lambda frame: frame.assign(**columns)


def at(row, column, value):
    def change(frame):
        frame = frame.reset_index(drop=True)
        frame.loc[row, column] = value
        return frame

    return change


TABLES = {
    "no time": (lambda frame: frame.drop(columns="time"), r"without \['time'\]"),
    "two times": (changed(t=1), r"source must have one time, got columns \['time', 't'\]"),
    "numbers for time": (changed(time=np.arange(7.0)), r"time must be datetime64 or text in ISO 8601, got numbers"),
    "words for time": (changed(time="yesterday"), r"time must be datetime64 or text in ISO 8601"),
    "text for numbers": (changed(lon="east"), r"longitude must be numbers"),
    "no id somewhere": (at(3, "id", None), r"each row must have an id, got 1 without"),
    "half a fix": (at(3, "lat", np.nan), r"each fix must have a latitude, got one of trajectory"),
    "a fix at no time": (at(3, "time", pd.NaT), r"each fix must have a time, got one of trajectory"),
    "a fix twice": (lambda frame: pd.concat([frame, frame.iloc[:1]]), r"must have one fix at a time, got two at 2002"),
    "beyond the pole": (at(2, "lat", 95.0), r"tracks' latitude must be finite and within \[-90, 90\], got 95"),
    "infinite": (at(2, "lon", np.inf), r"longitude must be finite, got 1 infinite"),
    "a negative error": (at(2, "error", -1.0), r"tracks' position_error must be finite and within"),
    "nothing": (lambda frame: frame.iloc[:0], r"source must have fixes, got none"),
    "lonely fixes": (lambda frame: frame.drop_duplicates("id"), r"must have a trajectory of two fixes or more"),
}


@pytest.mark.parametrize(("change", "message"), TABLES.values(), ids=TABLES.keys())
def test_a_table_that_is_no_tracks_is_refused_by_name(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        read_tracks(change(table()))


def with_sizes(*sizes):
    return lambda source: source.assign(rowsize=("traj", np.array(sizes)))


DATASETS = {
    "no longitude": (lambda source: source.drop_vars("lon"), r"source must have a longitude"),
    "counts short of the fixes": (with_sizes(4, 2, 2), r"rowsize must sum to the number of fixes, 7, got 8"),
    "counts below zero": (with_sizes(9, -3, 1), r"rowsize must be counts of fixes"),
    "counts that are none": (with_sizes(4.5, 1.5, 1), r"rowsize must be counts of fixes"),
    "nothing that says whose": (lambda source: source.drop_vars(["rowsize", "id"]), r"must say which trajectory each"),
    "time without units": (lambda source: source.assign_coords(time=("obs", np.arange(7.0))), r"must have units such"),
    "ids twice": (lambda source: source.assign_coords(id=("traj", [1, 1, 2])), r"one id for each trajectory"),
    "time elsewhere": (lambda source: source.assign_coords(time=("traj", source.time.values[:3])), r"time must be on"),
    "an index beyond": (
        lambda source: source.drop_vars("rowsize").assign(k=("obs", np.arange(7), {"instance_dimension": "traj"})),
        r"k must be indices from 0 to 2",
    ),
}


@pytest.mark.parametrize(("change", "message"), DATASETS.values(), ids=DATASETS.keys())
def test_a_dataset_that_is_no_tracks_is_refused_by_name(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        read_tracks(change(ragged()), position_error=100)


def test_what_is_no_source_of_tracks_is_refused(tmp_path, unchecked):
    with pytest.raises(DataFileError, match=r"'absent.csv', which does not exist"):
        read_tracks(tmp_path / "absent.csv")
    (tmp_path / "noise.csv").write_bytes(b"\x00\xff\xfe,\n\xff")
    with pytest.raises(ValueError, match=r"noise.csv must"):
        read_tracks(tmp_path / "noise.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataFileError, match=r"empty.csv must be CSV that can be read"):
        read_tracks(tmp_path / "empty.csv")
    (tmp_path / "noise.nc").write_bytes(b"CDF\x01nothing")
    with pytest.raises(DataFileError, match=r"noise.nc must be a netCDF file"):
        read_tracks(tmp_path / "noise.nc")
    with pytest.raises(TypeError, match="source must be a path"):
        read_tracks(3)
    for wrong, kind in ((True, TypeError), ("10 m", TypeError), (-1.0, ValueError), (np.nan, ValueError)):
        with pytest.raises(kind, match="position_error must be"):
            read_tracks(table(), position_error=wrong)
