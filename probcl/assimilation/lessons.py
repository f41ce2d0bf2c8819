"""What an assimilator learns from: an archive, a prior of its currents, and tracks simulated through it."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from probcl.assimilation.archive import Archive
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.mosaics import Mosaic, Region, source_of
from probcl.assimilation.operators import LearnedOperator
from probcl.assimilation.pairs import Campaign, WindowPairs, simulate_pairs
from probcl.assimilation.surroundings import with_surroundings
from probcl.assimilation.tracking import Track, untracked
from probcl.checks import require_count

# Of the modes, unless asked for: enough for a basin, no more than an archive has.
MODES = 256
"""How many are kept, if no number is asked for and the archive has as many."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """An archive, whole or in patches, and what is learned from it."""

    source: Region | Mosaic
    prior: FieldPrior
    pairs: WindowPairs

    @cached_property
    def operator(self) -> LearnedOperator:
        """What segments see of the prior's modes, learned from the pairs."""
        return LearnedOperator.of(self.pairs, self.prior.outlook.shape)

    @classmethod
    def of(
        cls,
        archive: xr.Dataset,
        *,
        campaign: Campaign,
        patch: int | tuple[int, int] | None,
        stride: int | None,
        prior: str | FieldPrior,
        rank: int | None,
        maps: int,
        pairs: int,
        seed: int,
        track: Track = untracked,
    ) -> "Lessons":
        """Cut the archive, fit the prior and simulate pairs, as the arguments of `Assimilator.fit` say."""
        source = source_of(archive, patch, stride)
        held = Archive.of(source.archive)
        (chosen,) = (
            _prior(prior, of, campaign, rank, maps, seed) for of in track([held], "finding the modes of the currents")
        )
        if isinstance(source, Mosaic) and chosen.around is None:
            chosen = with_surroundings(chosen, source, seed)
        return cls(source, chosen, simulate_pairs(source, chosen, campaign, pairs, seed, held, track))

    @property
    def origins(self) -> xr.Dataset:
        """The labels of members, and the places of patches, by the names that analyses have them under."""
        archive = self.source.archive
        if "member" not in archive.dims:
            return xr.Dataset(coords={"archive_member": ("member", [0])})
        if "patch_latitude" not in archive.coords:
            return xr.Dataset(coords={"archive_member": ("member", archive["member"].values)})
        names = {
            "archive_member": "archive_member",
            "patch_latitude": "archive_latitude",
            "patch_longitude": "archive_longitude",
        }
        return xr.Dataset(coords={new: ("member", archive[old].values) for old, new in names.items()})


def _prior(prior: object, archive: Archive, campaign: Campaign, rank: int | None, maps: int, seed: int) -> FieldPrior:
    if isinstance(prior, FieldPrior):
        mine, theirs = archive.grid, prior.grid
        same = all(np.array_equal(getattr(mine, part.name), getattr(theirs, part.name)) for part in fields(mine))
        if not same:
            raise ValueError(f"prior must be on the archive's grid and land, got one from {theirs.latitude[0]:g} N on")
        return prior
    wanted = MODES if rank is None else rank
    lags = _lags(archive, campaign, require_count("maps", maps))
    if prior == "auto":
        windows = len(archive.values) * len(archive.times)
        # A member is worth several windows only if it is long; maps days apart are nearly one.
        prior = "eof" if len(archive.values) >= 2 * wanted or windows >= 50 * wanted else "hybrid"
    if prior == "eof":
        return FieldPrior.eofs(archive, lags, wanted, seed)
    if prior == "stream function":
        return FieldPrior.stream_function(archive, lags, wanted, seed=seed)
    if prior == "hybrid":
        return FieldPrior.hybrid(archive, lags, wanted, seed=seed)
    raise ValueError(f"prior must be 'auto', 'eof', 'stream function', 'hybrid' or a FieldPrior, got {prior!r}")


def _lags(archive: Archive, campaign: Campaign, maps: int) -> Any:
    """Return lags of a window's maps, evenly over it, the middle among them."""
    half = campaign.length // 2
    within = int(half // np.diff(archive.times).min()) if len(archive.times) > 1 else 0
    each_side = min(within, (maps - 1) // 2)
    if each_side == 0:
        return np.zeros(1, "timedelta64[ns]")
    return np.arange(-each_side, each_side + 1) * (half // each_side)
