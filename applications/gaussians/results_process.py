"""What the fits of the Gaussian process gave, as arrays and as tables."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import xarray as xr

import probcl as pcl
from applications.gaussians.experiment_process import DIRECTIONS, SWEEPS, SYMBOLS, Config, Result, floors, yardstick

ERROR = "mean squared error of the conditional mean, summed over components"
EXCESS = "the same less that of the best encoders of this rank, over the same draws"


def dataset(results: list[Result], config: Config) -> xr.Dataset:
    """Return error_by_SWEEP and excess_by_SWEEP(curve, SWEEP, seed, direction), and the floor(rank, direction)."""
    arrays: dict[str, xr.DataArray] = {}
    for sweep in SWEEPS:
        points = [result for result in results if result.sweep == sweep]
        arrays |= {f"{kind}_by_{sweep}": _array(points, kind, sweep, config) for kind in ("error", "excess")}
    ranks = arrays["error_by_rank"]["rank"].values.tolist()
    floor = [floors(config, rank) for rank in ranks]
    arrays["floor"] = xr.DataArray(floor, {"rank": ranks, "direction": list(DIRECTIONS)}, attrs={"long_name": ERROR})
    return xr.Dataset(arrays, attrs=_attributes(config))


def _array(points: list[Result], kind: str, sweep: str, config: Config) -> xr.DataArray:
    coordinates = {
        "curve": [curve.name for curve in config.curves],
        sweep: sorted({getattr(point.setting, sweep) for point in points}),
        "seed": sorted({point.setting.seed for point in points}),
        "direction": list(DIRECTIONS),
    }
    name = {"error": ERROR, "excess": EXCESS}[kind]
    array = xr.DataArray(float("nan"), coordinates, dims=list(coordinates), attrs={"long_name": name, "units": "1"})
    for curve, _, setting, errors in points:
        array.loc[curve, getattr(setting, sweep), setting.seed] = list(getattr(errors, kind))
    # Sweeps differ in their seeds, and a data set has one axis of that name.
    return array.rename(seed=f"seed_by_{sweep}")


def _attributes(config: Config) -> dict[str, Any]:
    return {
        "title": "Errors of learned conditional means of a Gaussian process",
        "references": "Baptista, Stuart & Tran (2025), arXiv 2505.24134v1, section 6.1",
        "probcl_version": pcl.__version__,
        "seed": config.seed,
        "settings": json.dumps({"n_draws": config.n_draws, "curves": [asdict(curve) for curve in config.curves]}),
    }


def mean_over_seeds(sweeps: xr.Dataset, kind: str, sweep: str) -> xr.DataArray:
    """Return error_by_SWEEP or excess_by_SWEEP(curve, SWEEP, direction), NaN where nothing was fitted."""
    return sweeps[f"{kind}_by_{sweep}"].mean(f"seed_by_{sweep}")


def table(sweeps: xr.Dataset, sweep: str, config: Config) -> list[dict[str, str | float]]:
    """Return a row for each point of a sweep; what is of u|v in thousandths, excesses as multiples of the yardstick."""
    return [
        {"fit": curve.name, SYMBOLS[sweep]: f"{value}", **dict(_columns(sweeps, curve.name, sweep, value, config))}
        for curve in config.curves
        for value in curve.sweeps.get(sweep, [])
    ]


def _columns(sweeps: xr.Dataset, curve: str, sweep: str, value: int, config: Config) -> Iterator[tuple[str, float]]:
    rank = value if sweep == "rank" else config.curves[0].base["rank"]
    where = {"curve": curve, sweep: value}
    error, excess = (mean_over_seeds(sweeps, kind, sweep).sel(where).values for kind in ("error", "excess"))
    for index, (direction, unit) in enumerate(zip(DIRECTIONS, (1e-3, 1.0), strict=True)):
        if sweep == "rank":
            yield f"{direction} floor", floors(config, rank)[index] / unit
        yield f"{direction} error", float(error[index]) / unit
        yield f"{direction} excess", float(excess[index]) / yardstick(config, rank)[index]
