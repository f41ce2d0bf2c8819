"""Windows of an archive and the drifters in them: members as they are, or patches that drifters may leave."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int

from probcl.assimilation.archive import Archive
from probcl.assimilation.patches import Patch, cut, patches_of
from probcl.assimilation.simulation import SIMULATING, simulate_tracks
from probcl.assimilation.tracking import Track, untracked
from probcl.assimilation.tracks import DIMENSIONS, FIX, padded_tracks


class Released(NamedTuple):
    """Tracks of drifters, which window each is of, as counted by who asked, and which drifter of that window."""

    tracks: xr.Dataset
    window: Int[np.ndarray, " trajectory"]
    drifter: Int[np.ndarray, " trajectory"]


@dataclass(frozen=True, eq=False)
class Region:
    """The members of an archive, in which drifters start anywhere over the water and are lost at the edge.

    Attributes
    ----------
    archive
        Of the form that `require_archive` asks for.
    """

    archive: xr.Dataset

    def release(self, members: Int[np.ndarray, " n"], starts: Any, *, n_drifters: int, **observed: Any) -> Released:
        """Simulate drifters in windows.

        Parameters
        ----------
        members, starts
            Number of the member and first time, of each window.
        n_drifters, **observed
            As for `simulate_tracks`.
        """
        chosen, row = np.unique(members, return_inverse=True)
        begins, column = np.unique(starts, return_inverse=True)
        part = self.archive.isel(member=chosen) if "member" in self.archive.dims else self.archive
        tracks = simulate_tracks(part, n_drifters=n_drifters, start=begins, **observed)
        # Most windows of a block may be wanted, or few.
        position = np.full(len(chosen) * len(begins), -1)
        position[row.reshape(-1) * len(begins) + column.reshape(-1)] = np.arange(len(members))
        return _wanted(tracks, position, n_drifters)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """The patches of an archive, in which drifters start; they go on in the whole of it until they leave that.

    Attributes
    ----------
    whole
        The archive.
    archive
        The patches, as `patches` cuts them.
    places
        Of the patches: each is that of as many members of `archive` as the whole has.
    """

    whole: xr.Dataset
    archive: xr.Dataset
    places: list[Patch]

    @classmethod
    def of(cls, archive: xr.Dataset, size: int | tuple[int, int], stride: int | None = None) -> "Mosaic":
        """Cut an archive; it raises as `patches` does."""
        held = Archive.of(archive)
        if "member" in archive.dims and "member" not in archive.coords:
            # Drifters are told apart by the labels of members.
            archive = archive.assign_coords(member=np.arange(archive.sizes["member"]))
        places = patches_of(held.grid, size, stride)
        return cls(archive, cut(archive, held, places), places)

    def release(
        self,
        members: Int[np.ndarray, " n"],
        starts: Any,
        *,
        n_drifters: int,
        track: Track = untracked,
        **observed: Any,
    ) -> Released:
        """Simulate drifters in windows, as `Region.release` does, and tell their tracks in the patches' frame."""
        parts = []
        for start in track(list(np.unique(starts)), SIMULATING):
            (here,) = np.nonzero(starts == start)
            parts.append(self._at(here, members[here], start, n_drifters, observed))
        fixes, window, drifter = zip(*parts, strict=True)
        together = {name: np.concatenate([part[name] for part in fixes]) for name in FIX}
        number = np.concatenate(window)
        return Released(padded_tracks(together, np.arange(len(number))), number, np.concatenate(drifter))

    def _at(
        self, here: Int[np.ndarray, " n"], members: Int[np.ndarray, " n"], start: Any, n_drifters: int, observed: Any
    ) -> tuple[dict[str, np.ndarray], Int[np.ndarray, " trajectory"], Int[np.ndarray, " trajectory"]]:
        """Return the fixes of windows that start together, and which window and drifter each is of."""
        place, member = np.divmod(members, self.whole.sizes.get("member", 1))
        boxes, column = np.unique(place, return_inverse=True)
        chosen, row = np.unique(member, return_inverse=True)
        tracks = simulate_tracks(
            self.whole.isel(member=chosen) if "member" in self.whole.dims else self.whole,
            n_drifters=n_drifters,
            start=start,
            boxes=[self.places[number].box for number in boxes],
            **observed,
        )
        position = np.full(len(chosen) * len(boxes), -1)
        position[row.reshape(-1) * len(boxes) + column.reshape(-1)] = np.arange(len(here))
        tracks, window, drifter = _wanted(tracks, position, n_drifters)
        fixes = {name: tracks[name].transpose(*DIMENSIONS).values for name in FIX}
        north, east = self._moves[place[window]].T[..., None]
        fixes |= {"latitude": fixes["latitude"] + north, "longitude": fixes["longitude"] + east}
        return fixes, here[window], drifter

    @cached_property
    def _moves(self) -> np.ndarray:
        return np.array([place.shift for place in self.places])


def source_of(archive: xr.Dataset, patch: int | tuple[int, int] | None, stride: int | None = None) -> Region | Mosaic:
    """Return what windows are of: the members of an archive or, if they are wanted, its patches."""
    return Region(archive) if patch is None else Mosaic.of(archive, patch, stride)


def _wanted(tracks: xr.Dataset, position: Int[np.ndarray, " windows"], n_drifters: int) -> Released:
    """Take the tracks of windows that were asked for; of the others the position is −1."""
    window, drifter = np.repeat(position, n_drifters), np.tile(np.arange(n_drifters), len(position))
    kept = window >= 0
    return Released(tracks.isel(trajectory=kept), window[kept], drifter[kept])
