"""``probcl assimilate``: from an archive of currents and drifters' tracks to a posterior ensemble, as a CF file."""

from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from probcl.cli.errors import Interruption, Misuse
from probcl.cli.outputs import require_suffix
from probcl.cli.screen import Screen, current
from probcl.files import replacing, require_writable

if TYPE_CHECKING:
    from probcl.assimilation import Assimilator

_TRAINING = "To train, where MODEL does not exist yet"


def assimilate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of the learned analysis.")],
    tracks: Annotated[Path, typer.Option(help="Drifters: netCDF (CF, Parcels, OpenDrift) or a table with a header.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Posterior to write, .nc or .zarr.")],
    time: Annotated[
        list[str] | None, typer.Option(help="Time of an analysis, ISO 8601; again for more. By default the middle.")
    ] = None,
    members: Annotated[int, typer.Option(min=2, help="Maps to draw.")] = 100,
    error: Annotated[float | None, typer.Option(help="Error of a fix in metres, where the tracks do not say.")] = None,
    centre: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LAT LON", help="Place of the patch, for a model of patches.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Archive of currents: netCDF (a glob is fine), zarr.", rich_help_panel=_TRAINING
        ),
    ] = None,
    window: Annotated[str, typer.Option(help="Length of a window of fixes.", rich_help_panel=_TRAINING)] = "10D",
    fix_interval: Annotated[
        list[str] | None, typer.Option(help="Time between fixes; again for several. 12h.", rich_help_panel=_TRAINING)
    ] = None,
    drifters: Annotated[
        int | None, typer.Option(min=1, help="Drifters in a window; those of the tracks.", rich_help_panel=_TRAINING)
    ] = None,
    method: Annotated[
        str, typer.Option(help="Or information, retrieval, sampler.", rich_help_panel=_TRAINING)
    ] = "auto",
    gap: Annotated[
        str, typer.Option(help="Time left out before what is held out, of one member.", rich_help_panel=_TRAINING)
    ] = "32D",
    refit: Annotated[
        bool, typer.Option("--refit", help="Train once more, on all of the archive.", rich_help_panel=_TRAINING)
    ] = False,
    pairs: Annotated[
        int, typer.Option(min=2, help="Windows with tracks to train on.", rich_help_panel=_TRAINING)
    ] = 20_000,
    patch: Annotated[
        int | None,
        typer.Option(
            min=2, help="Cells of a patch on a side; the whole region if not given.", rich_help_panel=_TRAINING
        ),
    ] = None,
) -> None:
    """Turn drifters into a posterior ensemble of currents, by an analysis learned from an archive.

    The first time, --archive says what to learn from, and MODEL is where the learned analysis is kept. If that is
    interrupted, the same command goes on.
    """
    from probcl.assimilation import Assimilator, read_archive, read_tracks, write

    screen = current()
    require_suffix(output, ".nc", ".zarr")
    if model.exists() and archive is not None:
        raise Misuse(f"{model} exists; leave --archive out to use it, or name a new folder to train")
    if not model.exists() and archive is None:
        raise Misuse(f"{model} does not exist; --archive says what to learn from")
    require_writable(model)
    seen = read_tracks(tracks, position_error=error)
    if archive is not None:
        screen.say(f"learning from {archive}")
        with _resumable(model) as checkpoint:
            learned = Assimilator.fit(
                read_archive(archive).load(),
                window=window,
                fix_interval=fix_interval or "12h",
                n_drifters=drifters or seen.sizes["trajectory"],
                method=method,
                gap=gap,
                refit=refit,
                position_error=float(np.nanmedian(seen["position_error"])),
                patch=patch,
                pairs=pairs,
                checkpoint=checkpoint,
                resume=True,
                seed=seed,
                progress=not screen.quiet and screen.err.is_terminal,
            )
            _keep(learned, model)
    else:
        learned = Assimilator.load(model)
        _forget(_training(model))  # of a process that was killed when it had just saved
    posterior = learned.assimilate(seen, time or None, members=members, seed=seed, centre=centre)
    write(posterior, output)
    _show(screen, learned, posterior, output)


@contextmanager
def _resumable(folder: Path) -> Iterator[Path]:
    """Give the stem of checkpoints beside a folder; remove them at the end, and keep them at Ctrl-C, saying so."""
    stem = _training(folder)
    try:
        yield stem
    except KeyboardInterrupt as error:
        if not _checkpoints(stem):
            raise
        raise Interruption("interrupted; nothing is lost. The same command goes on") from error
    _forget(stem)


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
