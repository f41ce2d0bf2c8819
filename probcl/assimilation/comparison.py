"""A learned assimilator beside the classical methods, on an archive that none of them has seen."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import xarray as xr

from probcl.assimilation.archive import COMPONENTS
from probcl.assimilation.evaluation import Analyst, Evaluation, evaluate
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.holdout import require_apart
from probcl.assimilation.pairs import Campaign
from probcl.assimilation.routes import Route
from probcl.assimilation.simulation import Duration
from probcl.assimilation.suite import fit_baselines


@runtime_checkable
class Learned(Analyst, Protocol):
    """What of an `Assimilator` is needed here."""

    prior: FieldPrior
    campaign: Campaign
    route: Route
    record: dict[str, Any]
    archive: xr.Dataset | None
    patch: int | tuple[int, int] | None


def compare(
    learned: Learned,
    test: xr.Dataset,
    *,
    archive: xr.Dataset | None = None,
    baselines: str | Mapping[str, Analyst] | None = "default",
    gap: Duration = "32D",
    seed: int = 0,
    train_seconds: Mapping[str, float] | None = None,
    **evaluation: Any,
) -> Evaluation:
    """Score an assimilator and the classical methods on tracks simulated through an archive that none has seen.

    Parameters
    ----------
    learned : Assimilator
    test : xarray.Dataset
        Of other members than were trained on, or of times at least `gap` away; whole, also for an assimilator of
        patches, which is judged by the patches of it.
    archive : xarray.Dataset, optional
        What to fit the classical methods to, whole; what the assimilator was trained on, unless it was loaded.
    baselines
        ``"default"``, those of `fit_baselines`; or fitted methods by name, `baselines.ExactPosterior` among them where
        the world has one; or None.
    gap
        Least distance in time of a member from what was trained on.
    seed
        Of the drifters, the analyses and the baselines.
    train_seconds
        How long methods took to fit, by the names of their rows, where `fit_baselines` does not say.
    **evaluation
        Of `evaluate`: `windows`, `members`, `fix_interval`, `n_drifters`.

    Returns
    -------
    Evaluation
        With the assimilator in the last row.

    Raises
    ------
    TypeError, ValueError
        If the test overlaps what was trained on, covers too few windows or is on another grid, or there is no archive
        to fit baselines to.

    Examples
    --------
    >>> import probcl as pcl
    >>> from probcl.datasets.ocean import Box, Vortices
    >>> world = Vortices(1, Box(n=16))
    >>> learned = pcl.assimilation.Assimilator.fit(
    ...     world.archive(60, [0, 2.5, 5]), window="5D", fix_interval="12h", n_drifters=4, position_error=100.0,
    ...     method="information", rank=10, pairs=100,
    ... )
    >>> test = world.archive(4, [0, 2.5, 5], first_member=1000)
    >>> result = pcl.assimilation.compare(learned, test, baselines=None, members=10)
    >>> result.table.shape[0], sorted(result.settings)
    (1, ['fix_interval', 'members', 'n_drifters', 'seed', 'windows'])
    """
    require_apart(test, learned.record, gap)
    seconds = dict(train_seconds or {})
    if baselines == "default":
        known = learned.archive if archive is None else archive
        if known is None:
            raise ValueError("archive must be given to fit baselines to, after a load; or baselines=None")
        asked = {name: evaluation[name] for name in ("fix_interval", "n_drifters") if name in evaluation}
        suite = fit_baselines(known, learned.campaign, patch=learned.patch, seed=seed, **asked)
        methods: dict[str, Analyst] = dict(suite.methods)
        seconds = suite.train_seconds | seconds
    elif baselines is None or isinstance(baselines, Mapping):
        methods = dict(baselines or {})
    else:
        raise ValueError(f"baselines must be 'default', fitted methods by name, or None, got {baselines!r}")
    methods[f"probcl {learned.route.name}"] = learned
    return evaluate(
        methods,
        test,
        learned.campaign,
        seed=seed,
        patch=learned.patch,
        climatology=_climatology(learned.prior),
        train_seconds=seconds,
        **evaluation,
    )


def _climatology(prior: FieldPrior) -> xr.Dataset:
    maps = prior.grid.on_map(prior.mean[prior.now])
    axes = {"latitude": prior.grid.latitude, "longitude": prior.grid.longitude}
    return xr.Dataset({name: (tuple(axes), part) for name, part in zip(COMPONENTS, maps, strict=True)}, coords=axes)
