"""``probcl assimilate`` gives what `Assimilator` gives, as a CF file."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cli_cases import run, run_json
from ocean_cases import random_fourier

from probcl.assimilation import Assimilator, read_archive, read_tracks, simulate_tracks, write
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.routes import Route


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive, tracks as a table, and a model learned from the first."""
    folder = tmp_path_factory.mktemp("ocean")
    archive = random_fourier(30, 3, seed=1)
    archive.to_netcdf(folder / "archive.nc")
    tracks = simulate_tracks(archive.isel(member=[4]), n_drifters=3, window="2D", fix_interval="12h", position_error=80)
    table = tracks[["time", "latitude", "longitude"]].to_dataframe().reset_index().dropna()
    table.drop(columns="obs").to_csv(folder / "drifters.csv", index=False)
    assert run(*train(folder, "model"), "-q") == 0
    return folder


def train(folder: Path, model: str) -> tuple[object, ...]:
    learn = ("--archive", folder / "archive.nc", "--window", "2D", "--drifters", 3, "--pairs", 40)
    return (
        "assimilate",
        folder / model,
        "--tracks",
        folder / "drifters.csv",
        "--error",
        80,
        *learn,
        "-o",
        folder / "a.nc",
    )


def use(folder: Path, *more: object) -> tuple[object, ...]:
    return ("assimilate", folder / "model", "--tracks", folder / "drifters.csv", "--error", 80, *more)


def test_what_it_writes_is_the_posterior_of_the_library(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    told = run_json(capsys, *use(folder, "--members", 6, "--seed", 2, "-o", folder / "b.nc"))
    learned = Assimilator.load(folder / "model")
    expected = learned.assimilate(read_tracks(folder / "drifters.csv", position_error=80.0), members=6, seed=2)
    with xr.open_dataset(folder / "b.nc") as written:
        np.testing.assert_allclose(written.u.values, expected.u.values, rtol=1e-6)
    assert told["members"] == 6
    assert told["method"] == "information"
    assert told["analyses"][0]["segments"] == int(expected.n_obs[0])
    assert read_archive(folder / "b.nc").sizes["member"] == 6


def test_info_says_what_was_learned_and_cite_what_is_behind_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = Assimilator.load(folder / "model")
    found = run_json(capsys, "info", folder / "model")
    assert (found["method"], found["n_drifters"], found["modes"]) == ("information", [3, 3], learned.prior.rank)
    assert found["trained_on"]["maps"] == learned.record["trained_on"]["maps"]
    assert run("info", folder / "model") == 0
    assert "3 drifters, 2 days of fixes every 12 h, errors of 80 m" in " ".join(capsys.readouterr().out.split())
    assert run("cite", folder / "model") == 0
    assert "baptista2025mathematical" in capsys.readouterr().out
    assert run("cite", folder / "model", "--sampler", "smc") == 2


def test_several_times_are_analysed_in_one_file(folder: Path) -> None:
    times = ("--time", "2002-01-01T18:00", "--time", "2002-01-02")
    assert run(*use(folder, *times, "--members", 3, "-o", folder / "c.nc"), "-q") == 0
    with xr.open_dataset(folder / "c.nc") as written:
        assert written.sizes["time"] == 2


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("assimilate", "nowhere", "--tracks", "drifters.csv", "-o", "d.nc"), 2, "--archive says what to learn from"),
        (
            ("assimilate", "model", "--archive", "archive.nc", "--tracks", "drifters.csv", "-o", "d.nc"),
            2,
            "model exists",
        ),
        (("assimilate", "model", "--tracks", "drifters.csv", "-o", "d.txt"), 2, "d.txt"),
        (("assimilate", "model", "--tracks", "drifters.csv", "-o", "d.nc"), 1, "position_error"),
        (("assimilate", "model", "--tracks", "absent.csv", "-o", "d.nc"), 1, "absent.csv"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    command: tuple[str, ...],
    code: int,
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert run(*command) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not (folder / "d.nc").exists()


def test_a_posterior_is_an_archive_that_survives_the_way_through_zarr(folder: Path) -> None:
    assert run(*use(folder, "--members", 3, "-o", folder / "e.nc"), "-q") == 0
    back = read_archive(folder / "e.nc")
    write(back.rename(member="realization"), folder / "f.zarr")
    xr.testing.assert_allclose(read_archive(folder / "f.zarr").load(), back.load())


def test_ctrl_c_while_it_learns_is_gone_on_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = Route.remember

    def stop(self: Route, pairs: WindowPairs) -> None:
        raise KeyboardInterrupt

    command = [part if part != folder / "model" else tmp_path / "model" for part in train(folder, "model")]
    monkeypatch.setattr(Route, "remember", stop)
    assert run(*command, "--method", "information", "-q") == 130
    assert "nothing is lost" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".model.training.information"]
    monkeypatch.setattr(Route, "remember", interrupted)
    assert run(*command, "--method", "information", "-q") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    straight = [part if part != folder / "model" else tmp_path / "other" for part in train(folder, "model")]
    assert run(*straight, "--method", "information", "-q") == 0
    seen = read_tracks(folder / "drifters.csv", position_error=80.0)
    one, other = (Assimilator.load(tmp_path / name).assimilate(seen, members=4) for name in ("model", "other"))
    np.testing.assert_array_equal(one.u.values, other.u.values)


def test_checkpoints_of_a_model_that_is_there_are_removed(folder: Path) -> None:
    left = folder / ".model.training.information"
    left.write_bytes(b"of a process that was killed when it had just saved the model")
    assert run(*use(folder, "--members", 3, "-o", folder / "g.nc"), "-q") == 0
    assert not left.exists()
