"""The ocean application: it writes what it promises, splits what it learns from what it is judged by, and skips."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr

from applications.ocean import experiment
from applications.ocean.__main__ import main
from applications.ocean.config import Config
from applications.ocean.worlds import WORLDS, archives
from probcl.assimilation import Assimilator, read_archive, suite
from probcl.assimilation.baselines import hyperparameters
from probcl.plotting import currents, degrees


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch):
    """Fit and tune on little, which is enough to see that it is done."""
    monkeypatch.setattr(hyperparameters, "_VIEWS", 2)
    monkeypatch.setattr(hyperparameters, "_POINTS", 10)
    small = {"_SMOOTHER_WINDOWS": 2, "_ENSEMBLE": 5, "_MODEL_ERRORS": (3e3,), "_REACHES": (0.25, 1.0)}
    for name, value in small.items():
        monkeypatch.setattr(suite, name, value)
    for module in (suite, experiment):
        monkeypatch.setattr(module, "FLOORS", (0.05, 0.3))


def test_a_quick_run_writes_all_it_promises_and_changes_no_random_state(tmp_path, capsys, process_state):
    state, random_state = process_state(), torch.get_rng_state()
    main(["--quick", "--out", str(tmp_path)])
    names = {"table.md", "table.json", "calibration.png", "posterior.png", "skill.png", "skill.csv", "posterior.nc"}
    assert {path.name for path in tmp_path.iterdir()} == names | {"assimilator"}
    said = json.loads((tmp_path / "table.json").read_text())
    assert said["settings"] == {"fix_interval": "48h", "n_drifters": 4, "windows": 3, "members": 6, "seed": 0}
    assert len(said["methods"]) == 7
    assert list(said["methods"])[-1].startswith("probcl ")
    for scores in said["methods"].values():
        assert scores["nrmse"]["low"] <= scores["nrmse"]["value"] <= scores["nrmse"]["high"]
        assert scores["train_seconds"]["value"] > 0
    assert (tmp_path / "table.md").read_text().count("\n| ") == 9
    for name in ("calibration", "posterior", "skill"):
        assert plt.imread(tmp_path / f"{name}.png").std() > 0.05
    assert not plt.get_fignums()
    assert process_state() == state
    assert torch.equal(torch.get_rng_state(), random_state)

    with xr.open_dataset(tmp_path / "posterior.nc") as posterior:
        assert dict(posterior["u"].sizes) == {"realization": 6, "time": 1, "latitude": 32, "longitude": 32}
        away = abs(posterior["u"].mean("realization") - posterior["u_mean"])
        assert (away < 5 * posterior["u_stddev"] / np.sqrt(6)).all()
        assert "trained_on" in posterior.attrs["history"]
    assert read_archive(tmp_path / "posterior.nc").sizes["member"] == 6
    assert Assimilator.load(tmp_path / "assimilator").prior.rank <= 8
    assert "wrote" in capsys.readouterr().out


def test_currents_without_their_file_are_skipped_with_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PROBCL_DATA", raising=False)
    main(["--world", "currents", "--out", str(tmp_path / "none")])
    main(["--world", "currents", "--data", str(tmp_path / "absent.nc"), "--out", str(tmp_path / "none")])
    assert capsys.readouterr().out.replace("\n", " ").count("Skipped: --data must be the path of globcurrent") == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("world", WORLDS)
def test_every_world_has_a_configuration_within_what_is_trained_on(world):
    config = Config.read(world)
    assert config.fix_interval in config.trained_intervals
    assert set(config.swept_intervals) <= set(config.trained_intervals)
    low, high = config.trained_drifters
    assert all(low <= count <= high for count in (config.n_drifters, *config.swept_drifters))


@pytest.mark.parametrize("world", ["vortices", "gaussian"])
def test_members_that_are_learned_from_and_judged_by_differ(world):
    config = Config.read(world, quick=True)
    train, test = archives(world, config)
    assert (len(train.member), len(test.member)) == (config.n_train, config.n_test)
    assert not set(train.member.values) & set(test.member.values)


def test_maps_have_the_arrows_and_the_frame_of_their_currents():
    figure, ax = plt.subplots()
    latitude, longitude = np.arange(-35, -30, 0.5), np.arange(0, 8, 0.5)
    shape = len(latitude), len(longitude)
    u = np.full(shape, 0.5)
    u[0, 0] = np.nan
    maps = xr.Dataset({"u": (("latitude", "longitude"), u), "v": (("latitude", "longitude"), 0 * u)})
    maps = maps.assign_coords(latitude=latitude, longitude=longitude)
    mesh = currents(ax, maps, 1.0, arrows=8)
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), u)
    assert mesh.get_clim() == (0, 1)
    assert ax.get_xlim() == (-0.25, 7.75)
    assert ax.get_ylim() == (-35.25, -30.25)
    arrows = next(part for part in ax.collections if hasattr(part, "U"))
    assert len(arrows.U) == 8 * 5
    degrees(ax)
    assert ax.xaxis.get_major_formatter()(2.5, 0) == "2.5°E"
    assert ax.yaxis.get_major_formatter()(-34, 0) == "34°S"
    assert ax.xaxis.get_major_formatter()(0, 0) == "0°"
    plt.close(figure)
