"""Segments of tracks as the tokens that encoders read: where, when, how long, how fast.

A token is a row of numbers: the segment's start, middle and end as places in the prior's outlook, each (lag, row,
column) counted from 0; what describes it before its velocity is looked at; the velocity, less the prior's mean there
and over the prior's scale; and 1 where there is a segment, 0 where there is none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.interpolation import trilinear
from probcl.assimilation.segments import SIMPSON, Segments, near, segments

PLACES = 3
"""Start, middle and end."""

COORDINATES = 3
"""Lag, row and column."""

VALUES = 2
"""u and v."""

DESCRIPTION = 2
"""Logarithms of duration in days and of the fixes' part of the velocity's error over the prior's scale."""

WIDTH = PLACES * COORDINATES + DESCRIPTION + VALUES + 1

_DAY = 86_400.0
_LEAST_ERROR = 1e-4


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Reads tracks as tokens relative to a prior's outlook and lags."""

    prior: FieldPrior

    def __call__(
        self, tracks: xr.Dataset, window: Int[np.ndarray, " trajectory"], times: Any
    ) -> Float[np.ndarray, "windows tokens width"]:
        """Return the tokens of windows, padded to the longest; for a prior of patches, of the segments `near` them.

        Parameters
        ----------
        tracks
            Padded trajectories, as for `segments`.
        window
            Which window each trajectory belongs to.
        times
            Of the windows' analyses.

        Raises
        ------
        TypeError, ValueError
            As `segments` does.
        """
        observed = segments(tracks, error_floor=0.0)
        if self.prior.around is not None:
            observed = observed.take(near(observed, self.prior.grid))
        return self.of_segments(observed, window[observed.trajectory], times)

    def of_segments(
        self, observed: Segments, window: Int[np.ndarray, " n"], times: Any
    ) -> Float[np.ndarray, "windows tokens width"]:
        """Return the tokens of segments; ends beyond the lags or the outlook count as at their edge."""
        lag = (observed.time - times[window]) / np.timedelta64(1, "s")
        half = 0.5 * observed.duration
        places = np.stack([self._place(observed, lag, share * half) for share in (-1, 0, 1)], axis=1)
        velocity = (observed.velocity - self._mean(places)) / self.prior.scale
        error = np.maximum(observed.error / self.prior.scale, _LEAST_ERROR)
        rows = np.column_stack(
            [
                places.reshape(len(observed), -1),
                np.log(observed.duration / _DAY),
                np.log(error),
                velocity,
                np.ones(len(observed)),
            ]
        )
        return _padded(rows.astype(np.float32), window, len(times))

    def _place(
        self, observed: Segments, lag: Float[np.ndarray, " n"], seconds: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 3"]:
        """Return lag, row and column of where a segment is some seconds from its middle, at its mean velocity."""
        outlook, lags = self.prior.outlook, self.prior.lags / np.timedelta64(1, "s")
        latitude, longitude = observed.along(seconds)
        longitude = self.prior.grid.near(longitude)
        axes = (lags, lag + seconds), (outlook.latitude, latitude), (outlook.longitude, longitude)
        return np.stack([np.interp(at, axis, np.arange(len(axis))) for axis, at in axes], axis=1)

    def _mean(self, places: Float[np.ndarray, "n places 3"]) -> Float[np.ndarray, "n 2"]:
        """Return the prior's mean along segments, by Simpson's rule."""
        table = self.prior.outlook.mean
        index, weight = trilinear(torch.from_numpy(places), table.shape[:1] + table.shape[2:])
        cells = np.moveaxis(table, 1, -1).reshape(-1, 2)
        means: np.ndarray = np.einsum("npkc,npk,p->nc", cells[index.numpy()], weight.numpy(), SIMPSON, optimize=True)
        return means


def _padded(
    rows: Float[np.ndarray, "n width"], window: Int[np.ndarray, " n"], count: int
) -> Float[np.ndarray, "windows tokens width"]:
    """Put each window's rows one after the other, zeros after the last."""
    order = np.argsort(window, kind="stable")
    sizes = np.bincount(window, minlength=count)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    column = np.arange(len(rows)) - np.repeat(first, sizes)
    padded = np.zeros((count, max(1, sizes.max(initial=0)), rows.shape[1]), rows.dtype)
    padded[window[order], column] = rows[order]
    return padded
