"""The ensemble transform Kalman filter of DAPPER, as an outside check."""

import importlib
from typing import Any

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import Baseline, Posterior, draw, require_covariance
from probcl.assimilation.segments import ERROR_FLOOR, Segments
from probcl.checks import require_count


class ETKF(Baseline):
    """One analysis of the ETKF on windows of the archive, by DAPPER's ``EnKF_analysis`` with ``"Sqrt"``.

    The transform is deterministic and symmetric (Bishop, Etherton & Majumdar 2001; Hunt, Kostelich & Szunyogh 2007),
    and not localised: with many more points than windows, `EnsembleOptimalInterpolation` is the stronger.

    Parameters
    ----------
    windows
        How many windows of the archive to use, drawn once per analysis; all of them if there are fewer.
    error_floor
        As for `segments`.

    Raises
    ------
    ImportError
        Without DAPPER, which the extra ``probcl[dapper]`` installs.

    Examples
    --------
    >>> from probcl.assimilation.baselines import ETKF, Baseline
    >>> issubclass(ETKF, Baseline)
    True
    >>> ETKF(windows=64).windows  # needs pip install probcl[dapper]  # doctest: +SKIP
    64
    """

    def __init__(self, windows: int = 256, *, error_floor: float = ERROR_FLOOR) -> None:
        super().__init__(error_floor)
        _dapper("dapper.da_methods.ensemble")
        self.windows = require_count("windows", windows, minimum=2)

    def _fit(self, archive: Archive) -> None:
        require_covariance(archive)

    def _analyse(
        self, tracks: xr.Dataset, observed: Segments, time: np.datetime64, members: int, rng: np.random.Generator
    ) -> Posterior:
        maps, seen = self.archive.window_maps(observed, time), self.archive.observe(observed, time)
        chosen = draw(len(maps), min(self.windows, len(maps)), rng)
        noise = _dapper("dapper.tools.randvars").GaussRV(C=np.repeat(observed.error**2, 2), M=2 * len(observed))
        updated = _dapper("dapper.da_methods.ensemble").EnKF_analysis(
            maps[chosen].astype(float).reshape(len(chosen), -1),
            seen[chosen].reshape(len(chosen), -1),
            noise,
            observed.velocity.ravel(),
            "Sqrt",
        )
        analysed = updated.reshape(len(chosen), *maps.shape[1:])
        drawn = draw(len(chosen), members, rng)
        return Posterior(analysed[drawn], analysed.mean(0), analysed.std(0, ddof=1))


def _dapper(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError('the ETKF needs DAPPER, an extra: pip install "probcl[dapper]"') from error
