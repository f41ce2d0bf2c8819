"""Climatology: the archive itself, whatever the tracks say."""

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import Baseline, Posterior, draw
from probcl.assimilation.segments import Segments


class Climatology(Baseline):
    """The prior: mean and standard deviation of the archive's maps, and maps drawn from it.

    Any method must beat it. Members differ as long as the archive has enough maps.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.assimilation.baselines import Climatology
    >>> from probcl.datasets.ocean import Vortices
    >>> archive = Vortices(1).archive(20, [0, 2.5, 5])
    >>> tracks = pcl.assimilation.simulate_tracks(
    ...     archive.isel(member=[0]), n_drifters=4, window="5D", fix_interval="12h", position_error=100.0
    ... )
    >>> dict(Climatology().fit(archive).analyse(tracks, archive.time.values[1], members=5).u.sizes)
    {'realization': 5, 'latitude': 32, 'longitude': 32}
    """

    def _fit(self, archive: Archive) -> None:
        self.mean = archive.maps.mean(0, dtype=float)
        self.stddev = archive.maps.std(0, dtype=float)

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        maps = self.archive.maps
        drawn = draw(len(maps), members, rng)
        index = np.stack(np.divmod(drawn, len(self.archive.times)), axis=1)
        return Posterior(maps[drawn], self.mean, self.stddev, archive_index=index)
