"""``dataset.probcl``: what one asks of a posterior of currents, with its members' weights, for `xarray`.

Importing `probcl.assimilation` registers it, and does nothing else to xarray.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from probcl.assimilation import scores
from probcl.assimilation.archive import COMPONENTS
from probcl.checks import describe, require_count

_MEMBERS = "realization"


@xr.register_dataset_accessor("probcl")
class PosteriorAccessor:
    """A posterior's members as a weighted ensemble: ``posterior.probcl.quantile([0.05, 0.95])``.

    For datasets with `u` and `v` on ``realization`` and other dimensions, as `Assimilator.assimilate`, `to_cf` and the
    baselines return them. The members' weights are `member_weight`, equal if there is none. What comes back are
    datasets of `u` and `v`, NaN on land.

    Raises
    ------
    TypeError, ValueError
        From every method, if the dataset is no such posterior, or the truth is not `u` and `v` on its map.

    Examples
    --------
    >>> import numpy as np, xarray as xr, probcl.assimilation
    >>> members = xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("realization", "longitude"))
    >>> weight = xr.DataArray([0.5, 0.5, 0.0, 0.0], dims="realization")
    >>> posterior = xr.Dataset({"u": members, "v": -members, "member_weight": weight})
    >>> posterior.probcl.mean()["u"].values
    array([1., 2.])
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @property
    def weights(self) -> xr.DataArray:
        """The members' weights, which sum to one over ``realization``."""
        members = self._members()
        if "member_weight" not in self._dataset:
            return xr.DataArray(np.full(members.sizes[_MEMBERS], 1 / members.sizes[_MEMBERS]), dims=_MEMBERS)
        given = self._dataset["member_weight"].astype(float)
        return given / given.sum(_MEMBERS)

    def mean(self) -> xr.Dataset:
        """Return the weighted mean of the members."""
        return self._members().weighted(self.weights).mean(_MEMBERS, keep_attrs=True)

    def std(self) -> xr.Dataset:
        """Return the weighted standard deviation of the members, that of the population."""
        return self._members().weighted(self.weights).std(_MEMBERS, keep_attrs=True)

    def quantile(self, q: float | Sequence[float]) -> xr.Dataset:
        """Return weighted quantiles of the members, along ``quantile`` if there are several, as xarray defines them."""
        return self._members().weighted(self.weights).quantile(q, dim=_MEMBERS, keep_attrs=True)

    def sample(self, n: int, *, seed: int = 0) -> xr.Dataset:
        """Draw n members with replacement by their weights, anew at each time where weights change in time.

        Their `member_weight` are equal, and they are numbered from 0.
        """
        require_count("n", n)
        rng = np.random.default_rng(require_count("seed", seed, minimum=0))
        weights = self.weights.transpose(..., _MEMBERS)
        dims = weights.dims[:-1]
        rows = weights.values.reshape(-1, weights.sizes[_MEMBERS])
        drawn = np.stack([rng.choice(len(row), n, p=row) for row in rows])
        indexers = {_MEMBERS: xr.DataArray(drawn.reshape(*weights.shape[:-1], n), dims=(*dims, _MEMBERS))}
        indexers |= {str(dim): xr.DataArray(np.arange(weights.sizes[dim]), dims=[dim]) for dim in dims}
        members = self._members()
        order = {name: members[name].dims for name in COMPONENTS}
        result = members.drop_vars(_MEMBERS, errors="ignore").isel(indexers)
        result = result.assign({name: result[name].transpose(*order[name]) for name in COMPONENTS})
        return result.assign(member_weight=(_MEMBERS, np.full(n, 1 / n))).assign_coords({_MEMBERS: np.arange(n)})

    def rank(self, truth: xr.Dataset) -> xr.Dataset:
        """Return the share of the weight that lies below the truth, half of what equals it, in [0, 1].

        Over truths that a calibrated posterior of many members was conditioned on, it is uniform at every point.

        Parameters
        ----------
        truth
            `u` and `v` on the posterior's map, and on its times or without any.
        """
        members, true = self._aligned(truth)
        below = (members < true) + 0.5 * (members == true)
        return below.weighted(self.weights).mean(_MEMBERS).where(true.notnull() & members.notnull().all(_MEMBERS))

    def crps(self, truth: xr.Dataset) -> xr.Dataset:
        """Return the fair CRPS at every point, in m/s; see `probcl.assimilation.scores.fair_crps`.

        Parameters
        ----------
        truth
            As for `rank`.

        Raises
        ------
        ValueError
            If there is one member, or one with all the weight.
        """
        members, true = self._aligned(truth)
        core = [[_MEMBERS], [], [_MEMBERS]]
        crps: xr.Dataset = xr.apply_ufunc(_fair_crps, members, true, self.weights, input_core_dims=core)
        return crps

    def _members(self) -> xr.Dataset:
        for name in COMPONENTS:
            if name not in self._dataset or _MEMBERS not in self._dataset[name].dims:
                raise ValueError(f"the dataset must have u and v on {_MEMBERS}, got {dict(self._dataset.sizes)}")
        return self._dataset[list(COMPONENTS)]

    def _aligned(self, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        """Return members and truth, on the same coordinates."""
        if not isinstance(truth, xr.Dataset):
            raise TypeError(f"truth must be an xarray.Dataset, got {describe(truth)}")
        missing = [name for name in COMPONENTS if name not in truth]
        if missing:
            raise ValueError(f"truth must have u and v, got none of {missing}")
        members, true = xr.align(self._members(), truth[list(COMPONENTS)], join="exact", exclude=[_MEMBERS])
        return members, true


def _fair_crps(
    members: Float[np.ndarray, "*map m"], truth: Float[np.ndarray, "*map2"], weights: Float[np.ndarray, "*map3 m"]
) -> Float[np.ndarray, "*map4"]:
    """Score every point as a window of its own, NaN where something is not known."""
    shape = np.broadcast_shapes(members.shape[:-1], truth.shape)
    ensemble, weights = (np.broadcast_to(x, (*shape, x.shape[-1])) for x in (members, weights))
    truth = np.broadcast_to(truth, shape)
    known = np.isfinite(truth) & np.isfinite(ensemble).all(-1)
    result = np.full(shape, np.nan)
    if known.any():
        # Equal weights are scored faster by their absence.
        unequal = None if (weights == weights.flat[0]).all() else weights[known]
        result[known] = scores.fair_crps(ensemble[known][..., None], truth[known][:, None], unequal)
    return result
