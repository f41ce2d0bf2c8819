"""``probcl assimilate`` gives what `Assimilator` gives, as a CF file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cli_cases import run, run_json
from ocean_cases import DAY, START, padded, random_fourier, track_of

from probcl.assimilation import Assimilator, read_archive, read_tracks, simulate_tracks, write
from probcl.assimilation.lessons import Lessons
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.routes import Route
from probcl.cli.campaigns import fleet
from probcl.cli.errors import Misuse
from probcl.cli.screen import Screen


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
        (
            ("assimilate", "m", "--archive", "a.nc", "--tracks", "drifters.csv", "-o", "d.nc", "--stride", 1),
            2,
            "--patch",
        ),
        (
            ("assimilate", "m", "--archive", "a.nc", "--tracks", "drifters.csv", "-o", "d.nc", "--patch", 4),
            2,
            "--centre",
        ),
        (
            ("assimilate", "model", "--tracks", "drifters.csv", "-o", "d.nc", "--rank", 4),
            2,
            "--rank would be of a training",
        ),
        (
            ("assimilate", "model", "--tracks", "drifters.csv", "-o", "d.nc"),
            1,
            "has none; give --error METRES",
        ),
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
    told, again = capsys.readouterr().err.splitlines()
    kept = tmp_path / ".model.training.information"
    assert told.startswith(f"interrupted; nothing is lost, the training is kept in {kept}.")
    assert again.split()[:2] == ["probcl", "assimilate"]
    assert [path.name for path in tmp_path.iterdir()] == [".model.training.information"]
    monkeypatch.setattr(Route, "remember", interrupted)
    assert run(*command, "--method", "information", "-q") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    straight = [part if part != folder / "model" else tmp_path / "other" for part in train(folder, "model")]
    assert run(*straight, "--method", "information", "-q") == 0
    seen = read_tracks(folder / "drifters.csv", position_error=80.0)
    one, other = (Assimilator.load(tmp_path / name).assimilate(seen, members=4) for name in ("model", "other"))
    np.testing.assert_array_equal(one.u.values, other.u.values)


def test_ctrl_c_before_a_checkpoint_says_that_nothing_is_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lessons, "of", stop)
    command = [part if part != folder / "model" else tmp_path / "model" for part in train(folder, "model")]
    assert run(*command, "-q") == 130
    told, again = capsys.readouterr().err.splitlines()
    assert told == (
        "interrupted before the training had a checkpoint; nothing is kept. To start anew, the same command:"
    )
    assert again.split() == ["probcl", *map(str, command), "-q"]
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_it_analyses_says_what_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Assimilator, "assimilate", stop)
    assert run(*use(folder, "-o", folder / "h.nc"), "-q") == 130
    assert f"what was learned is kept in {folder / 'model'}" in capsys.readouterr().err
    assert not (folder / "h.nc").exists()


def test_everything_long_shows_its_progress_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def track(self: Screen, items: Sequence[object], what: str, size: object = None) -> Iterator[object]:
        asked.append((what, len(items)))
        yield from items

    monkeypatch.setattr(Screen, "track", track)
    assert run(*train(folder, "tracked"), "-q") == 0
    counts = dict(asked)
    assert counts["checking"] > 10
    assert counts["calibrating"] > 1
    assert {"finding the modes of the currents", "simulating drifters", "analysing"} <= counts.keys()


def test_names_units_prior_and_rank_reach_the_library(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with xr.open_dataset(folder / "archive.nc") as archive:
        other = archive.rename(u="ugos", v="vgos").load()
    for name in ("ugos", "vgos"):
        other[name] = (100 * other[name]).assign_attrs(units="unknown")
    other.to_netcdf(tmp_path / "other.nc")
    table = pd.read_csv(folder / "drifters.csv").rename(columns={"trajectory": "who"})
    table.to_csv(tmp_path / "drifters.csv", index=False)
    (tmp_path / "other.nc").rename(tmp_path / "archive.nc")
    command = [*train(tmp_path, "model")]
    capsys.readouterr()
    assert run(*command, "-q") == 1
    told = capsys.readouterr().err
    assert "--track-names id=NAME" in told
    command += ["--track-names", "id=who"]
    assert run(*command, "-q") == 1
    assert "say which with --names u=NAME,v=NAME" in capsys.readouterr().err
    command += ["--names", "u=ugos,v=vgos", "--units", "u=cm/s,v=cm/s", "--rank", 7, "--prior", "stream-function"]
    assert run(*command, "-q") == 0
    found = run_json(capsys, "info", tmp_path / "model")
    assert (found["modes"], found["prior"]) == (7, "stream function")
    assert run(*train(folder, "elsewhere"), "--names", "u", "-q") == 2
    assert "--names must be KEY=VALUE" in capsys.readouterr().err


def test_drifters_are_counted_in_the_windows_of_the_analyses() -> None:
    early = [track_of(-33.0, 21.0 + 0.1 * k, 1.0, 0.1, 0.1) for k in range(3)]
    late = [track_of(-33.0, 21.0 + 0.1 * k, 40.0, 0.1, 0.1) for k in range(5)]
    seen, moments = padded([*early, *late]), [START + DAY, START + 40 * DAY]
    assert fleet(None, seen, moments[:1], "4D")[0] == (3, 3)
    number, told = fleet(None, seen, moments, "4D")
    assert number == (3, 5)
    assert told.startswith("training for 3 to 5 drifters: of 8 in the tracks, those with fixes within 4D about")
    with pytest.raises(ValueError, match="tracks must have two fixes of a drifter within 4D about 2002-01-21"):
        fleet(None, seen, [START + 20 * DAY], "4D")
    assert fleet("4-16", seen, moments, "4D") == ((4, 16), "training for 4-16 drifters")
    assert fleet("7", seen, moments, "4D")[0] == (7, 7)
    for wrong in ("16-4", "0", "many", "-3"):
        with pytest.raises(Misuse, match="--drifters must be a number"):
            fleet(wrong, seen, moments, "4D")


def test_checkpoints_of_a_model_that_is_there_are_removed(folder: Path) -> None:
    left = folder / ".model.training.information"
    left.write_bytes(b"of a process that was killed when it had just saved the model")
    assert run(*use(folder, "--members", 3, "-o", folder / "g.nc"), "-q") == 0
    assert not left.exists()
