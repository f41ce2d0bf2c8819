import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from ocean_cases import DAY, START, padded, track_of
from reader_cases import STANDARD, currents

from probcl.assimilation import read_archive, to_cf, write
from probcl.assimilation.baselines import Analogs, Climatology
from probcl.assimilation.output import archive_checksum
from probcl.files import temporary_beside

TRACKS = padded([track_of(-33.2, 21.0, 5, 0.1, 0.2), track_of(-33.0, 20.8, 5, -0.1, 0.2)])
WHEN = START + 5 * DAY


def archive() -> xr.Dataset:
    """An archive as of a file in another convention, in single precision."""
    given = currents(times=20).astype(np.float32)
    given["u"].attrs |= {"long_name": "surface current to the east", "comment": "as estimated"}
    given = given.assign_coords(latitude=given["latitude"].astype(np.float32))
    for name in ("u", "v"):
        given[name].attrs["standard_name"] = f"surface_{STANDARD[name]}"
    attributes = {"title": "Currents", "institution": "Ours", "source": "A model", "history": "made by hand"}
    return read_archive(given.assign_attrs(attributes))


def analysis(method=Climatology, time=WHEN, members=6, **options) -> xr.Dataset:
    return method(**options).fit(archive()).analyse(TRACKS, time, members=members, seed=3)


def several() -> list[xr.Dataset]:
    return [analysis(Analogs, WHEN + k * DAY, neighbours=5) for k in (2, 0, 1)]


def test_members_and_moments_are_the_analysis_in_single_precision():
    found, given = to_cf(analysis(), archive()), analysis()
    assert found["u"].dims == ("realization", "time", "latitude", "longitude")
    assert found["v_stddev"].dims == ("time", "latitude", "longitude")
    for name in ("u", "v", "u_mean", "v_mean", "u_stddev", "v_stddev"):
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name].isel(time=0), given[name].astype(np.float32))
    np.testing.assert_array_equal(found["member_weight"], np.full(6, 1 / 6))
    assert found["n_obs"].values.tolist() == [2]
    assert found["time"].values == [WHEN]


def test_grid_and_land_are_the_archives_bit_for_bit(tmp_path):
    write(to_cf(analysis(), archive()), tmp_path / "posterior.nc")
    with xr.open_dataset(tmp_path / "posterior.nc") as found:
        for axis in ("latitude", "longitude"):
            assert found[axis].dtype == archive()[axis].dtype
            assert found[axis].values.tobytes() == archive()[axis].values.tobytes()
        for name in ("u", "u_mean", "v_stddev"):
            land = np.broadcast_to(np.isnan(archive()["u"].values[0]), found[name].shape)
            np.testing.assert_array_equal(np.isnan(found[name].values), land)


def test_times_are_put_in_order_and_members_know_their_day(tmp_path):
    parts = several()
    found = to_cf(parts, archive())
    assert found["u"].shape[:2] == (6, 3)
    np.testing.assert_array_equal(found["time"], [WHEN + k * DAY for k in range(3)])
    np.testing.assert_array_equal(found["u"].isel(time=2), parts[0]["u"].astype(np.float32))
    np.testing.assert_array_equal(found["archive_time"].isel(time=0), parts[1]["archive_time"])
    assert found["n_obs"].values.tolist() == [2, 2, 2]
    day = found.isel(time=0, realization=0)
    theirs = archive().sel(time=day["archive_time"])
    np.testing.assert_array_equal(day["u"], theirs["u"].astype(np.float32))
    one = to_cf(parts[1], archive())
    assert one["archive_time"].dims == ("realization",)
    counted = [part.assign(n_obs=2) for part in parts]
    joined = xr.concat(counted, "time", data_vars="different", coords="different", compat="equals")
    xr.testing.assert_equal(to_cf(joined, archive()), found)


def test_weights_and_effective_sample_size_are_kept():
    weights = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    given = analysis().assign(member_weight=("realization", weights), effective_sample_size=3.3)
    found = to_cf(given, archive())
    np.testing.assert_array_equal(found["member_weight"], weights)
    assert found["effective_sample_size"].dims == ("time",)
    later = given.assign_coords(time=WHEN + DAY).assign(member_weight=("realization", weights[::-1]))
    both = to_cf([given, later], archive())
    assert both["member_weight"].dims == ("realization", "time")


def test_attributes_are_those_of_the_archive():
    found = to_cf(analysis().assign_attrs(warning="few members carry the weight"), archive())
    assert found.attrs["warning"] == "few members carry the weight"
    assert found.attrs["method"] == "Climatology"
    assert found["u"].attrs["standard_name"] == "surface_eastward_sea_water_velocity"
    assert found["u_stddev"].attrs["standard_name"] == "surface_eastward_sea_water_velocity standard_error"
    assert found["u"].attrs["comment"] == "as estimated"
    assert "surface current to the east" in found["u_mean"].attrs["long_name"]
    assert found.attrs["Conventions"] == "CF-1.8"
    assert found.attrs["institution"] == "Ours"
    assert found.attrs["source"] == "A model"
    assert found.attrs["title"].endswith("archive: Currents")


def test_history_says_when_with_which_version_seed_archive_and_splits():
    import probcl

    notes = {"train": (START, np.datetime64("2002-09-13")), "method_chosen": "because"}
    history = to_cf(analysis(), archive(), history=notes).attrs["history"].split("\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ probcl \S+: .*", history[0])
    assert f"probcl {probcl.__version__}: seed 3; " in history[0]
    assert "train 2002-01-01T00:00:00/2002-09-13T00:00:00" in history[0]
    assert "method_chosen because" in history[0]
    assert f"archive_checksum {archive_checksum(archive())}" in history[0]
    assert history[1] == "made by hand"


def test_a_file_passes_the_compliance_checker(tmp_path):
    runner = pytest.importorskip("compliance_checker.runner")
    runner.CheckSuite.load_all_available_checkers()
    write(to_cf(analysis(), archive()), tmp_path / "one.nc")
    write(to_cf(several(), archive()), tmp_path / "several.nc")
    for name in ("one", "several"):
        report = tmp_path / f"{name}.txt"
        passed, failed = runner.ComplianceChecker.run_checker(
            str(tmp_path / f"{name}.nc"), ["cf:1.8"], 0, "strict", output_filename=str(report), output_format="text"
        )
        assert passed, report.read_text()
        assert not failed
        assert "All tests passed!" in report.read_text(), report.read_text()


def test_the_compliance_checker_would_see_a_fault(tmp_path):
    runner = pytest.importorskip("compliance_checker.runner")
    runner.CheckSuite.load_all_available_checkers()
    wrong = to_cf(analysis(), archive())
    wrong["u"].attrs["standard_name"] = "eastward_sea_current"
    write(wrong, tmp_path / "wrong.nc")
    report = tmp_path / "wrong.txt"
    runner.ComplianceChecker.run_checker(
        str(tmp_path / "wrong.nc"), ["cf:1.8"], 0, "strict", output_filename=str(report), output_format="text"
    )
    assert "eastward_sea_current" in report.read_text()


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_file_reopens_as_what_was_written(suffix, tmp_path):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    found = to_cf(several(), archive())
    path = tmp_path / "new" / f"posterior{suffix}"
    for _ in range(2):  # also over what is there
        write(found, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = xr.open_dataset(path)
    with again:
        xr.testing.assert_equal(again, found)
        assert again.attrs == found.attrs
    assert [child.name for child in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_posterior_passes_back_through_the_reader(suffix, tmp_path):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    found = to_cf(several(), archive())
    write(found, tmp_path / f"posterior{suffix}")
    with read_archive(tmp_path / f"posterior{suffix}") as again:
        assert again["u"].dims == ("member", "time", "latitude", "longitude")
        np.testing.assert_array_equal(again["u"], found["u"])
        np.testing.assert_array_equal(again["v"], found["v"])
        np.testing.assert_array_equal(again["member"], found["realization"])
        Climatology().fit(again)


def test_values_are_single_precision_packed_and_guarded_by_checksums(tmp_path):
    write(to_cf(analysis(), archive()), tmp_path / "posterior.nc")
    with xr.open_dataset(tmp_path / "posterior.nc") as found:
        assert found["u"].encoding["dtype"] == np.float32
        assert found["u"].encoding["zlib"]
        assert found["u"].encoding["fletcher32"]
        assert found["time"].encoding["dtype"] == np.float64


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "posterior.nc"
    write(to_cf(analysis(), archive()), path)
    before = path.read_bytes()
    bad = to_cf(analysis(), archive()).assign(bad=("time", np.array([{"a": 1}], dtype=object)))
    with pytest.raises((TypeError, ValueError)):
        write(bad, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_behind_is_removed(tmp_path):
    for suffix in (".nc", ".zarr"):
        target = tmp_path / f"posterior{suffix}"
        left = temporary_beside(target)
        left = left.with_name(left.name.replace(f"-{os.getpid()}-", "-999999999-"))
        left.mkdir() if suffix == ".zarr" else left.write_bytes(b"half")
        if suffix == ".zarr":
            pytest.importorskip("zarr")
        write(to_cf(analysis(), archive()), target)
        assert not left.exists()


def test_a_checksum_depends_on_values_and_axes_alone(tmp_path):
    pytest.importorskip("dask")
    given = archive()
    expected = archive_checksum(given)
    other_nan = given.copy(deep=True)
    other_nan["u"] = other_nan["u"].where(other_nan["u"].notnull(), np.float32(-np.nan)).assign_attrs(given["u"].attrs)
    big_endian = given.assign(u=given["u"].astype(">f4"))
    same = [given.chunk(time=3), given.transpose("longitude", ...), given.assign_attrs(x=1), other_nan, big_endian]
    assert {archive_checksum(one) for one in same} == {expected}
    moved = given.assign_coords(latitude=given["latitude"] + np.float32(1e-5))
    moved["latitude"].attrs = given["latitude"].attrs
    value = given.copy(deep=True)
    value["v"][3, 2, 1] += np.float32(1e-6)
    later = given.assign_coords(time=given["time"] + np.timedelta64(1, "ns"))
    swapped = given.assign(u=given["v"].assign_attrs(given["u"].attrs), v=given["u"].assign_attrs(given["v"].attrs))
    double = given.assign(u=given["u"].astype(float), v=given["v"].astype(float))
    others = [moved, value, later, swapped, double, given.isel(time=slice(19))]
    assert len({archive_checksum(one) for one in others} | {expected}) == len(others) + 1


@pytest.mark.parametrize("piece", [1, 1000, 4000, 30_000])
def test_a_checksum_does_not_depend_on_the_pieces_it_is_made_of(piece, monkeypatch):
    given = currents(members=3, times=5)
    expected = archive_checksum(given)
    monkeypatch.setattr("probcl.assimilation.output._PIECE", piece)
    assert archive_checksum(given) == expected


def nan_at_sea(given):
    return given.assign(u=given["u"].where(given["latitude"] < -33))


WRONG = {
    "no mean": (lambda given: given.drop_vars("u_mean"), r"got none of \['u_mean'\]"),
    "no time": (lambda given: given.drop_vars("time"), r"got none of \['time'\]"),
    "another grid": (lambda given: given.assign_coords(latitude=given.latitude + 1), "on the archive's latitude"),
    "another land": (nan_at_sea, "analysis.u must be NaN on the archive's land, and finite elsewhere"),
    "infinite": (lambda given: given.assign(u=given.u / 0), "analysis.u must be NaN on the archive's land"),
    "members of the mean": (lambda given: given.assign(u_mean=given.u), "analysis.u_mean must be on"),
    "no members": (lambda given: given.isel(realization=slice(0)), "analysis.u must be on .* and not empty"),
    "weights": (lambda given: given.assign(member_weight=("realization", np.ones(6))), "sum to 1"),
    "a number for time": (lambda given: given.assign_coords(time=3.0), "analysis.time must be datetime64"),
    "integers": (lambda given: given.assign(v=given.v.fillna(0).astype(int)), "analysis.v must be of a floating"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_analysis_of_this_archive_is_refused_by_name(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        to_cf(change(analysis()), archive())


def test_times_that_do_not_go_together_are_refused(unchecked):
    with pytest.raises(ValueError, match="analysis must have each time once"):
        to_cf([analysis(), analysis()], archive())
    with pytest.raises(ValueError, match="equally many members"):
        to_cf([analysis(), analysis(time=WHEN + DAY, members=7)], archive())
    joined = xr.concat([analysis(), analysis(time=WHEN + DAY)], "time")
    with pytest.raises(ValueError, match="must have n_obs as a variable"):
        to_cf(joined, archive())
    for nothing in ([], "analysis", [1]):
        with pytest.raises(TypeError, match=r"analysis must be an xarray.Dataset or a list"):
            to_cf(nothing, archive())


def test_paths_that_say_no_format_are_refused(tmp_path, unchecked):
    with pytest.raises(ValueError, match=r"path must end in .nc or .zarr, got 'posterior.h5'"):
        write(to_cf(analysis(), archive()), tmp_path / "posterior.h5")
    with pytest.raises(TypeError, match="path must be a path"):
        write(to_cf(analysis(), archive()), 3)
    with pytest.raises(TypeError, match=r"dataset must be an xarray.Dataset"):
        write(analysis()["u"], tmp_path / "posterior.nc")


def test_a_posterior_of_real_currents_passes_back(tmp_path):
    path = Path(os.environ.get("PROBCL_DATA", "absent")) / "ocean" / "globcurrent_agulhas_daily_2002.nc"
    if not path.is_file():
        pytest.skip("the GlobCurrent file is not in $PROBCL_DATA/ocean")
    real = read_archive(path, region=(20, -38, 26, -33)).isel(time=slice(30)).load()
    tracks = padded([track_of(-36.5, 22.0, 15, 0.1, 0.2)])
    found = Analogs(neighbours=4).fit(real).analyse(tracks, START + 15 * DAY, members=4)
    write(to_cf(found, real, history={"train": ("2002-01-01", "2002-01-30")}), tmp_path / "posterior.nc")
    with read_archive(tmp_path / "posterior.nc") as again:
        land = np.broadcast_to(np.isnan(real["u"].values[0]), again["u"].shape)
        np.testing.assert_array_equal(np.isnan(again["u"].values), land)
        np.testing.assert_array_equal(again["latitude"], real["latitude"])
    with xr.open_dataset(tmp_path / "posterior.nc") as stored:
        assert stored.attrs["source"] == real.attrs["source"]
