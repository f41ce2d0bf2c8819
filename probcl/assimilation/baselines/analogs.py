"""Analogs: the windows of the archive in which the tracks' velocities fit best."""

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import Baseline, Posterior, draw
from probcl.assimilation.segments import ERROR_FLOOR, Segments
from probcl.checks import require_count


class Analogs(Baseline):
    """The k windows of least misfit Σ |y − Hx|²/σ², equally weighted (Lorenz 1969).

    Weighting them by likelihood would leave one of them; k stands between that and climatology.

    Parameters
    ----------
    neighbours
        k.
    error_floor
        As for `segments`.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Analogs
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(20, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> analysis = Analogs(neighbours=5).fit(archive).analyse(tracks, archive.time.values[1], members=5)
    >>> dict(analysis.u.sizes)
    {'realization': 5, 'latitude': 32, 'longitude': 32}
    """

    def __init__(self, neighbours: int = 30, *, error_floor: float = ERROR_FLOOR) -> None:
        super().__init__(error_floor)
        self.neighbours = require_count("neighbours", neighbours, minimum=2)

    def _fit(self, archive: Archive) -> None:
        if len(archive.maps) < self.neighbours:
            raise ValueError(f"archive must have {self.neighbours} maps or more, got {len(archive.maps)}")

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        seen, maps = self.archive.observe(observed, time), self.archive.window_maps(observed, time)
        misfit = (((seen - observed.velocity) / observed.error[:, None]) ** 2).sum((1, 2))
        nearest = np.argsort(misfit, kind="stable")[: self.neighbours]
        drawn = nearest[draw(len(nearest), members, rng)]
        member, centre = np.divmod(drawn, len(maps) // len(self.archive.values))
        moment = self.archive.centres(observed.time - time)[centre]
        return Posterior(
            members=maps[drawn],
            mean=maps[nearest].mean(0, dtype=float),
            stddev=maps[nearest].std(0, dtype=float, ddof=1),
            archive_index=np.stack([member, moment], axis=1),
        )
