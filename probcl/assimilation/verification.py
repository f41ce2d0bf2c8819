"""Analyses of several windows and the truths that verify them, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from probcl.assimilation.archive import COMPONENTS, load_values
from probcl.assimilation.scores import Ensemble, Fields, Weights
from probcl.checks import describe

Maps = Float[np.ndarray, "windows 2 lat lon"]


@dataclass(frozen=True, eq=False)
class Verification:
    """Analyses and truths of as many windows; each kind of maps is stacked once, when it is first asked for.

    Parameters
    ----------
    analyses
        With `u`, `v` (realization, latitude, longitude), `u_mean` and so on; `member_weight` if members are weighted.
    truths
        `u`, `v` (latitude, longitude) on the same grid, one for each analysis.

    Raises
    ------
    ValueError
        If there are fewer than two windows, or an analysis and its truth differ in grid; and where members are asked
        for, if they differ in land.
    """

    analyses: Sequence[xr.Dataset]
    truths: Sequence[xr.Dataset]

    def __post_init__(self) -> None:
        given = len(self.analyses), len(self.truths)
        if given[0] != given[1] or given[1] < 2:
            raise ValueError(f"analyses and truths must be as many, two or more, got {given[0]} and {given[1]}")
        for window, (analysis, truth) in enumerate(zip(self.analyses, self.truths, strict=True)):
            for axis in ("latitude", "longitude"):
                if not np.array_equal(analysis[axis].values, truth[axis].values):
                    raise ValueError(f"analyses and truths must have the same {axis}, got others in window {window}")

    @cached_property
    def truth(self) -> Maps:
        """True currents in m/s, NaN on land."""
        return np.stack([maps_of(each) for each in self.truths])

    @cached_property
    def mean(self) -> Maps:
        """Of the analyses."""
        return np.stack([maps_of(each, "{}_mean") for each in self.analyses])

    @cached_property
    def stddev(self) -> Maps:
        """Of the analyses."""
        return np.stack([maps_of(each, "{}_stddev") for each in self.analyses])

    @cached_property
    def ocean(self) -> Bool[np.ndarray, "2 lat lon"]:
        """Where the first truth is known."""
        ocean: np.ndarray = np.isfinite(self.truth[0])
        return ocean

    def at_sea(self, maps: Maps) -> Fields:
        """Return the values of maps over the ocean, u and v together."""
        return np.stack([each[self.ocean] for each in maps])

    @cached_property
    def members(self) -> Ensemble:
        """Of the analyses, over the ocean."""
        stacked = []
        for window, (analysis, truth) in enumerate(zip(self.analyses, self.truth, strict=True)):
            members = maps_of(analysis)
            if not np.array_equal(np.isfinite(members).all(0), np.isfinite(truth)):
                raise ValueError(f"analyses and truths must have the same land, got another in window {window}")
            stacked.append(members[:, self.ocean])
        return np.stack(stacked)

    @cached_property
    def weights(self) -> Weights | None:
        """Of the members, None if they are equal."""
        if "member_weight" not in self.analyses[0]:
            return None
        return np.stack([each["member_weight"].values for each in self.analyses])


def maps_of(dataset: xr.Dataset, name: str = "{}") -> Float[np.ndarray, "*members 2 lat lon"]:
    """Return u and v, or what the name makes of them, such as ``"{}_mean"``."""
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"analyses, truths and climatology must be xarray.Datasets, got {describe(dataset)}")
    names = [name.format(component) for component in COMPONENTS]
    leading = ("realization",) if "realization" in dataset[names[0]].dims else ()
    ordered = dataset[names].transpose(*leading, "latitude", "longitude")
    return np.stack([load_values(ordered, component) for component in names], axis=-3)
