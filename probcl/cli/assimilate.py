"""``probcl assimilate``: from an archive of currents and drifters' tracks to a posterior ensemble, as a CF file."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from probcl.cli.campaigns import fleet, in_options, mapping
from probcl.cli.errors import Interruption, Misuse
from probcl.cli.outputs import require_suffix
from probcl.cli.screen import Screen, current
from probcl.files import replacing, require_writable

if TYPE_CHECKING:
    import xarray as xr

    from probcl.assimilation import Assimilator

_TRAINING = "To train, where MODEL does not exist yet"


class Method(StrEnum):
    """A way to the posterior; see `Assimilator.fit`."""

    auto = "auto"
    information = "information"
    retrieval = "retrieval"
    sampler = "sampler"


class Prior(StrEnum):
    """A prior of the currents; see `Assimilator.fit`."""

    auto = "auto"
    eof = "eof"
    stream_function = "stream-function"
    hybrid = "hybrid"


def assimilate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of the learned analysis: made with --archive, else used.")
    ],
    tracks: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The drifters: netCDF, zarr (CF, Parcels, OpenDrift), CSV or Parquet with a header."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Posterior to write, .nc or .zarr.")],
    time: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIME", help="Time of an analysis, ISO 8601; may be repeated. By default the middle of the tracks."
        ),
    ] = None,
    members: Annotated[int, typer.Option(min=2, help="How many maps of currents to draw for each time.")] = 100,
    error: Annotated[
        float | None,
        typer.Option(
            metavar="METRES", min=0, help="Standard deviation of a fix; needed where the tracks do not say it."
        ),
    ] = None,
    track_names: Annotated[
        str | None,
        typer.Option(metavar="KEY=NAME,…", help="What id, time, latitude, longitude are called in the tracks."),
    ] = None,
    centre: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LAT LON", help="Place of the patch to analyse, of a MODEL trained with --patch."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes training and draws.")] = 0,
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Gridded currents to learn from: netCDF (several as a pattern in quotes, 'years/*.nc') or zarr.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=NAME,…",
            help="What u, v, time, latitude, … are called in the archive: u=ugos,v=vgos.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=UNIT,…", help="Units in place of the archive's: u=cm/s,v=cm/s.", rich_help_panel=_TRAINING
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(metavar="TIME", help="How long the fixes of one analysis last in all.", rich_help_panel=_TRAINING),
    ] = "10D",
    fix_interval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIME",
            help="Time between the fixes of a drifter; may be repeated, to learn several. By default 12h.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    drifters: Annotated[
        str | None,
        typer.Option(
            metavar="N or N-N",
            help="Drifters in a window, or the fewest and the most; by default as many as the tracks have there.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="Route to the posterior; auto takes what does better.", rich_help_panel=_TRAINING)
    ] = Method.auto,
    prior: Annotated[
        Prior,
        typer.Option(help="Of the currents; auto: EOFs of a long archive, else hybrid.", rich_help_panel=_TRAINING),
    ] = Prior.auto,
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="Modes of the prior to keep; by default up to 256.", rich_help_panel=_TRAINING),
    ] = None,
    gap: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Left out of an archive of one member, between what is trained on and what is held out to check.",
            rich_help_panel=_TRAINING,
        ),
    ] = "32D",
    refit: Annotated[
        bool,
        typer.Option(
            "--refit", help="Check at both ends of the archive, then train on all of it.", rich_help_panel=_TRAINING
        ),
    ] = False,
    pairs: Annotated[
        int, typer.Option(min=2, help="Simulated windows of drifters to train on.", rich_help_panel=_TRAINING)
    ] = 20_000,
    patch: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="CELLS",
            help="Learn square patches with so many cells on a side; by default the whole region.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="CELLS",
            help="From one patch to the next that is learned from; by default half a patch.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
) -> None:
    """Turn drifters into a posterior ensemble of currents, by an analysis learned from an archive.

    The first time, --archive says what to learn from, and MODEL is where that is kept.
    If it is interrupted while it learns, the same command goes on. Lengths of time have a unit, as 12h or 10D.
    """
    from probcl.assimilation import Assimilator, read_archive, read_tracks, write

    screen = current()
    require_suffix(output, ".nc", ".zarr")
    if model.exists() and archive is not None:
        raise Misuse(f"{model} exists; leave --archive out to use it, or name a new folder to train")
    if stride is not None and patch is None:
        raise Misuse("--stride is from one patch to the next; give --patch")
    if archive is not None and (patch is None) != (centre is None):
        raise Misuse("--patch and --centre, the place of the patch to analyse, go together")
    if not model.exists() and archive is None:
        raise Misuse(f"{model} does not exist; --archive says what to learn from")
    if archive is None:
        of_training = {
            "--patch": patch,
            "--stride": stride,
            "--rank": rank,
            "--drifters": drifters,
            "--fix-interval": fix_interval,
            "--refit": refit or None,
            "--names": names,
            "--units": units,
        }
        given = [option for option, value in of_training.items() if value]
        if given:
            raise Misuse(f"{model} has been trained; {', '.join(given)} would be of a training, with --archive")
    require_writable(model)
    in_archive, in_units = mapping("--names", names), mapping("--units", units)
    with in_options("--track-names"):
        seen = read_tracks(tracks, names=mapping("--track-names", track_names), position_error=error)
    if archive is not None:
        with in_options("--names"):
            learn_from = read_archive(archive, names=in_archive, units=in_units).load()
        number, told = fleet(drifters, *_used(seen, learn_from, patch, centre, time or None, window), window)
        screen.say(f"learning from {archive}")
        screen.say(told)
        with _resumable(model, screen) as checkpoint:
            learned = Assimilator.fit(
                learn_from,
                window=window,
                fix_interval=fix_interval or "12h",
                n_drifters=number,
                method=method.value,
                prior=prior.value.replace("-", " "),
                rank=rank,
                gap=gap,
                refit=refit,
                position_error=float(np.nanmedian(seen["position_error"])),
                patch=patch,
                stride=stride,
                pairs=pairs,
                checkpoint=checkpoint,
                resume=True,
                seed=seed,
                track=screen.track,
                progress=screen.shows_progress,
            )
            _keep(learned, model)
    else:
        learned = Assimilator.load(model)
        _forget(_training(model))  # of a process that was killed when it had just saved
    with _kept(model):
        posterior = learned.assimilate(seen, time or None, members, seed, centre, screen.track)
        write(posterior, output)
    _show(screen, learned, posterior, output)


def _used(
    tracks: "xr.Dataset",
    archive: "xr.Dataset",
    patch: int | None,
    centre: tuple[float, float] | None,
    time: list[str] | None,
    window: str,
) -> tuple["xr.Dataset", list[np.datetime64]]:
    """Return the tracks that count, and the times of analyses; then, they must be in the archive's water."""
    from probcl.assimilation.archive import Archive
    from probcl.assimilation.assimilator import analysis_times
    from probcl.assimilation.patches import patch_at
    from probcl.assimilation.segments import require_afloat, segments, within
    from probcl.assimilation.simulation import timedelta_of

    observed, grid = segments(tracks, error_floor=0.0), Archive.of(archive).grid
    if patch is not None and centre is not None:
        observed = patch_at(grid, patch, centre).near(observed)
    moments, length = analysis_times(time, observed), timedelta_of("window", window)
    for moment in moments:
        require_afloat(within(observed, moment, length), grid)
    return tracks.isel(trajectory=np.unique(observed.trajectory)), moments


@contextmanager
def _resumable(folder: Path, screen: Screen) -> Iterator[Path]:
    """Give the stem of checkpoints beside a folder; remove them at the end, and keep them at Ctrl-C, saying so."""
    stem = _training(folder)
    try:
        yield stem
    except KeyboardInterrupt as error:
        kept = _checkpoints(stem)
        if kept:
            told = f"interrupted; nothing is lost, the training is kept in {kept[0]}. To go on, the same command"
        else:
            told = "interrupted before the training had a checkpoint; nothing is kept. To start anew, the same command"
        raise Interruption(f"{told}:\n  {screen.command}") from error
    _forget(stem)


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Say at Ctrl-C that what was learned is there, and how to use it."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interruption(
            f"interrupted; nothing was written, and what was learned is kept in {folder}. To analyse, the same command "
            "without --archive and the options of training"
        ) from error


def _training(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.training")


def _forget(stem: Path) -> None:
    for path in _checkpoints(stem):
        path.unlink(missing_ok=True)


def _checkpoints(stem: Path) -> list[Path]:
    return list(stem.parent.glob(f"{escape(stem.name)}.*"))


def _keep(learned: "Assimilator", folder: Path) -> None:
    """Save under a temporary name first, so that a folder that is there is whole."""
    with replacing(folder) as temporary:
        learned.save(temporary)


def _show(screen: Screen, learned: "Assimilator", posterior: Any, output: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("time", "segments", "mean speed, m/s", "spread, m/s"):
        table.add_column(heading, justify="right")
    rows = []
    for k, moment in enumerate(posterior["time"].values):
        at = posterior.isel(time=k)
        speed = float(np.hypot(at["u_mean"], at["v_mean"]).mean())
        spread = float(np.sqrt(0.5 * (at["u_stddev"] ** 2 + at["v_stddev"] ** 2).mean()))
        count = int(at["n_obs"])
        rows.append({"time": str(moment)[:19], "segments": count, "mean_speed": speed, "spread": spread})
        table.add_row(str(moment)[:16], str(count), f"{speed:.3f}", f"{spread:.3f}")
    method = learned.record["choice"]["method"]
    members = posterior.sizes["realization"]
    screen.say(f"{members} members by the {method} route: {output}")
    screen.show({"method": method, "members": members, "output": str(output), "analyses": rows}, table)
