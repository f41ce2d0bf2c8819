"""`Assimilator`: from an archive of currents and tracks of drifters to a posterior ensemble of maps."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from probcl import __version__
from probcl.assimilation import storage
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import Moment, as_time, to_dataset
from probcl.assimilation.choice import FEWEST_WINDOWS
from probcl.assimilation.comparison import compare
from probcl.assimilation.course import Course
from probcl.assimilation.evaluation import Evaluation
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.frames import Frame
from probcl.assimilation.holdout import hold_out, record_of
from probcl.assimilation.independence import scarcity
from probcl.assimilation.output import to_cf
from probcl.assimilation.pairs import Campaign
from probcl.assimilation.patches import patch_at
from probcl.assimilation.routes import ROUTES, Route
from probcl.assimilation.segments import Segments, near, require_afloat, segments, within
from probcl.assimilation.simulation import Duration
from probcl.assimilation.tokens import Tokenizer
from probcl.assimilation.tracking import Track, untracked
from probcl.assimilation.tracks import require_tracks
from probcl.checks import require_count
from probcl.errors import ProbclWarning
from probcl.files import require_path

_PARTS = ("trained_on", "held_out")


class Assimilator:
    """A learned analysis of currents from drifters.

    Made by `fit`, used by `assimilate`. It simulates tracks through an archive and learns the conditional law of the
    currents given such tracks; no covariance of errors is asked for.

    Attributes
    ----------
    prior
        Of the currents, as `FieldPrior`.
    campaign
        How the currents are observed that it was trained for.
    route
        How the posterior is made, with its `BimodalModel` as ``route.model``.
    record
        What it was fitted to and how, and why this route was taken.
    frame
        The archive's grid, land and attributes.
    times
        Of the maps that it was trained on.
    origins
        Which member of the archive, and for patches which place, each member trained on is.
    patch
        Cells of the patches it analyses; None if it analyses the whole grid.
    archive
        What it was trained on, whole where it was cut into patches, unless it was loaded.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.datasets.ocean import Box, Vortices
    >>> archive = Vortices(1, Box(n=16)).archive(60, days=[0, 2.5, 5])
    >>> campaign = dict(window="5D", fix_interval="12h", n_drifters=4, position_error=100.0)
    >>> learned = pcl.assimilation.Assimilator.fit(archive, **campaign, method="information", rank=10, pairs=100)
    >>> tracks = pcl.assimilation.simulate_tracks(archive.isel(member=[0]), **campaign)
    >>> dict(learned.assimilate(tracks, members=10).u.sizes)
    {'realization': 10, 'time': 1, 'latitude': 16, 'longitude': 16}
    """

    def __init__(
        self,
        prior: FieldPrior,
        campaign: Campaign,
        route: Route,
        record: Mapping[str, Any],
        frame: Frame,
        times: Any,
        origins: xr.Dataset,
        patch: int | tuple[int, int] | None = None,
    ) -> None:
        self.prior, self.campaign, self.route, self.record = prior, campaign, route, dict(record)
        self.frame, self.times, self.origins, self.patch = frame, times, origins, patch
        self.archive: xr.Dataset | None = None

    @classmethod
    def fit(
        cls,
        archive: xr.Dataset,
        *,
        window: Duration = "10D",
        fix_interval: Duration | Sequence[Duration] = "12h",
        n_drifters: int | tuple[int, int] = 16,
        position_error: float = 100.0,
        method: str = "auto",
        patch: int | tuple[int, int] | None = None,
        stride: int | None = None,
        prior: str | FieldPrior = "auto",
        rank: int | None = None,
        maps: int = 5,
        pairs: int = 20_000,
        held_out: float = 0.1,
        gap: Duration = "32D",
        refit: bool = False,
        context: bool = False,
        operator: str = "given",
        checkpoint: str | Path | None = None,
        resume: bool = False,
        seed: int = 0,
        track: Track = untracked,
        **training: Any,
    ) -> "Assimilator":
        """Simulate drifters through an archive, and learn the currents given their tracks.

        Parameters
        ----------
        archive : xarray.Dataset
            As `read_archive` returns it: `u`, `v` in m/s on ([member,] time, latitude, longitude).
        window
            Length of a window of observations, in whose middle the analysis is.
        fix_interval
            Time between fixes, or several, to learn all of them.
        n_drifters
            How many, or the fewest and the most.
        position_error
            Standard deviation of a fix to east and to north, in metres.
        method
            ``"information"``, ``"retrieval"``, ``"sampler"``, or ``"auto"``: of the first two, both where the archive
            lets retrieval be hoped for, the one of lower CRPS on held-out windows; `record` says why. The sampler's
            members are new currents, by Monte Carlo under a decoder prior.
        patch
            Cells on a side, or rows and columns, of the patches to learn: the archive is cut into them (`patches`), and
            `assimilate` analyses the one about a place. Drifters start in a patch and go on in the whole archive; of
            their segments those count whose start, middle or end is within one of the patch's sides of it. The whole
            region unless given.
        stride
            Cells from one patch to the next that is trained on, half of the smaller side unless given; 1 is every
            place, with as many copies of the archive in memory as a patch has cells.
        prior
            ``"eof"``, ``"stream function"``, ``"hybrid"`` (between the two), ``"auto"`` (EOFs where the archive has
            many more windows than modes, and the hybrid elsewhere), or a `FieldPrior`.
        rank
            Modes to keep: 256 at most unless said.
        maps
            By how many maps, evenly over the window, currents are described, at most: 1 if they hardly change in it.
        pairs
            Pairs of windows and tracks to train on.
        held_out
            Part of the archive's members, or of its time, that calibration is done on.
        gap
            Where there is one member only, the time left out between what is trained on and what is held out.
        refit
            Whether to train the chosen route twice more: without the archive's first part in place of its last, and
            on all of it, with the mean of the calibrations that these two parts give. Where an archive of one member
            is short, what is held out and the gap are much of it, and its end is one season.
        context
            Whether the nonlinear encoders of retrieval and of the sampler are given the mean of optimal interpolation
            in the prior's modes, to start from.
        operator
            What the information form, and `context`, are told of how a segment sees the modes: ``"given"``, the modes
            along it; ``"learned"``, nothing: maps are found from the pairs by regression (`LearnedOperator`), and want
            many of them.
        checkpoint
            Stem of the files in which the training of each method is kept as it goes, ``STEM.information`` and so on.
        resume
            Whether to go on from them, where they are there; the archive and all arguments must be the same.
        seed
            Of everything.
        track
            Is given every long loop but the training, and tells how far it has come, as `rich.progress.track` does.
        **training
            Settings of `probcl.fit`; for the sampler also `law`, see `SamplerRoute`.

        Raises
        ------
        TypeError, ValueError
            If the archive is refused, covers no window, or an argument makes no sense.

        Warns
        -----
        ProbclWarning
            If the archive is of one member and has few independent windows; ``record["archive"]`` has their number.
        """
        if method != "auto" and method not in ROUTES:
            raise ValueError(f"method must be 'auto' or one of {sorted(ROUTES)}, got {method!r}")
        course = Course(
            campaign=Campaign(window, fix_interval, n_drifters, position_error),
            patch=patch,
            stride=stride,
            prior=prior,
            rank=rank,
            maps=maps,
            pairs=pairs,
            context=context,
            operator=operator,
            checkpoint=checkpoint,
            resume=resume,
            seed=seed,
            track=track,
            training=training,
        )
        ends = (False, True) if refit else (False,)
        parts, *opposite = (hold_out(archive, held_out, gap, course.campaign.length, first) for first in ends)
        used = parts.whole if refit else parts.train
        lessons = course.lessons(parts.train)
        scarce = scarcity(used, lessons.prior, course.modes, pairs)
        route, why = course.best(method, lessons, course.check(lessons, parts.held_out))
        if refit:
            route, lessons = course.refit(route, parts.whole, *opposite)
        record = {
            "version": __version__,
            **course.told(lessons),
            "trained_on": record_of(used),
            "held_out": record_of(parts.held_out),
            "choice": why,
            "archive": scarce,
        }
        grid = lessons.prior.grid if patch is None else Archive.of(used).grid
        frame, origins = Frame.of(used, grid), lessons.origins
        learned = cls(lessons.prior, course.campaign, route, record, frame, used["time"].values, origins, patch)
        learned.archive = used
        return learned

    def analyse(self, tracks: xr.Dataset, time: Moment, members: int, seed: int = 0) -> xr.Dataset:
        """Return an ensemble of maps at a time, given tracks, as `baselines.Baseline.analyse` does.

        An assimilator of patches takes tracks in their common frame, as those simulated in `patches` are.
        """
        moment, observed = as_time(time), segments(tracks, error_floor=0.0)
        if self.patch is not None:
            observed = observed.take(near(observed, self.prior.grid))
        observed = self._in_window(observed, moment)
        if self.patch is None:
            require_afloat(observed, self.prior.grid)
        return self._analyse(observed, moment, members, seed)

    def _analyse(self, observed: Segments, moment: np.datetime64, members: int, seed: int) -> xr.Dataset:
        """Return an ensemble of maps at a time, given the segments of the window about it."""
        require_count("members", members)
        rng = np.random.default_rng(require_count("seed", seed, minimum=0))
        window, times = np.zeros(len(observed), dtype=int), np.array([moment])
        tokens = Tokenizer(self.prior).of_segments(observed, window, times)
        posterior = self.route.analyse(torch.from_numpy(tokens), members, rng)
        if posterior.archive_index is not None and (posterior.effective_sample_size or np.inf) < FEWEST_WINDOWS:
            collapsed = f"the posterior rests on {posterior.effective_sample_size:.1f} windows of the archive"
            posterior = replace(posterior, warning=f"{collapsed}: too few alike")
            warnings.warn(posterior.warning, ProbclWarning, stacklevel=3)
        result = to_dataset(posterior, self.prior.grid, self.times, moment)
        if "archive_member" in result:
            origin = self.origins.isel(member=result["archive_member"].values).rename(member="realization")
            result = result.drop_vars("archive_member").assign_coords(origin.coords)
        return result.assign_attrs(method=f"probcl {self.route.name}", seed=seed, n_obs=len(observed))

    def assimilate(
        self,
        tracks: xr.Dataset,
        time: Moment | Sequence[Moment] | None = None,
        members: int = 100,
        seed: int = 0,
        centre: tuple[float, float] | None = None,
        track: Track = untracked,
    ) -> xr.Dataset:
        """Return the posterior ensemble of the currents at a time.

        Parameters
        ----------
        tracks : xarray.Dataset
            Padded trajectories, as `read_tracks` returns them.
        time
            Of the analysis, or of several; unless given, the middle of the tracks' times, for a patch of those near it.
        members
            How many maps to draw for each.
        seed
            Of the draws.
        centre
            (latitude, longitude) of the patch wanted, for an assimilator of patches. Segments of which neither start,
            middle nor end is within one of the patch's sides of it are left out; the others must be in the archive's
            water.
        track
            As for `fit`.

        Returns
        -------
        xarray.Dataset
            Of the CF conventions, as `to_cf` makes it, ready for `write`: `u`, `v` on (realization, time, latitude,
            longitude), `u_mean`, `u_stddev` and so on, on the archive's grid and land.

        Raises
        ------
        TypeError, ValueError
            If the tracks are damaged, on land or off the grid, or have no two fixes within the window or near the
            patch; if `time` is no time, or there is a `centre` where there are no patches, or none where there are.

        Warns
        -----
        ProbclWarning
            If the posterior rests on few windows of the archive, or the tracks are unlike any that it learned from, as
            `Campaign.unlike` tells: by their number, the time between fixes, or their errors. `warning` among the
            attributes says so too.
        """
        require_tracks(tracks)
        if (centre is None) != (self.patch is None):
            wanted = "None, as there are no patches" if self.patch is None else "the place of the patch wanted"
            raise ValueError(f"centre must be {wanted}, got {centre}")
        observed, where = segments(tracks, error_floor=0.0), None
        if self.patch is not None and centre is not None:
            where = patch_at(self.frame.grid, self.patch, centre)
            observed = where.near(observed)
        moments, analyses = analysis_times(time, observed), []
        for moment in track(moments, "analysing"):
            mine = self._in_window(observed, moment)
            require_afloat(mine, self.frame.grid)
            mine = mine if where is None else where.moved(mine)
            analysis = self._with_caution(self._analyse(mine, moment, members, seed), mine)
            analyses.append(analysis if where is None else where.analysis(analysis))
        return to_cf(analyses, self.frame.blank(moments[0], where), history=self._history)

    def _with_caution(self, analysis: xr.Dataset, observed: Segments) -> xr.Dataset:
        """Return an analysis with a warning if its tracks are unlike those learned."""
        unlike = self.campaign.unlike(observed)
        if not unlike:
            return analysis
        caution = f"the tracks have {unlike}; the spread of the posterior may be wrong"
        warnings.warn(caution, ProbclWarning, stacklevel=3)
        return analysis.assign_attrs(warning="; ".join(filter(None, [analysis.attrs.get("warning"), caution])))

    @property
    def _history(self) -> dict[str, object]:
        told = {part: tuple(np.datetime64(time) for time in self.record[part]["times"]) for part in _PARTS}
        return {"archive_checksum": self.frame.checksum, **told}

    def _in_window(self, observed: Segments, moment: np.datetime64) -> Segments:
        """Return the segments within the window about a time."""
        observed = within(observed, moment, self.campaign.length)
        if len(observed) == 0:
            raise ValueError(
                f"tracks must have two fixes of a drifter within {self.campaign.window} about {moment}, got none"
            )
        return observed

    def evaluate(self, test: xr.Dataset, **settings: Any) -> Evaluation:
        """Score this and the classical methods on an archive that none has seen: `compare`, with its settings."""
        return compare(self, test, **settings)

    def save(self, path: str | Path) -> None:
        """Write the assimilator as a folder: its model, its prior and its record, without pickles.

        The archive it was trained on is not part of it.
        """
        storage.save(self, require_path("path", path))

    @classmethod
    def load(cls, path: str | Path) -> "Assimilator":
        """Read back what `save` wrote.

        Raises
        ------
        probcl.CheckpointError
            If the folder is missing, damaged or of another version.
        """
        return cls(**storage.load(require_path("path", path)))

    def __repr__(self) -> str:
        return f"Assimilator({self.route.name}, {self.prior.rank} modes, {self.campaign})"


def analysis_times(time: Moment | Sequence[Moment] | None, observed: Segments) -> list[np.datetime64]:
    """Return the times of analyses: those asked for, or the middle of the segments' times."""
    if time is None:
        half = (0.5e9 * observed.duration).round().astype("timedelta64[ns]")
        first, last = (observed.time - half).min(), (observed.time + half).max()
        return [first + (last - first) // 2]
    several = isinstance(time, list | tuple | np.ndarray)
    return [as_time(moment) for moment in time] if several else [as_time(time)]  # type: ignore[union-attr]
