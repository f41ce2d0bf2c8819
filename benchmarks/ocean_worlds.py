"""Does the learned analysis do what optimal interpolation does where that is right, and better where it is not?

Worlds T0 (Gaussian), T2 (turbulence) and T3 (currents from a file): `python -m benchmarks.ocean_worlds turbulence
--interval 48h`. A table of the information form beside optimal interpolation, its covariance fitted and its error floor
tuned on the training archive, on the same tracks.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console

from probcl.assimilation import Assimilator, Evaluation
from probcl.assimilation.baselines import Baseline, Climatology, LinearGaussian, OptimalInterpolation, tune_setting
from probcl.assimilation.cases import simulate_cases
from probcl.datasets.ocean import GaussianOcean, Turbulence, load_globcurrent, split_by_gap

# In m/s. Where the covariance is exact, fixes at short intervals leave errors below those that suit real archives.
_FLOORS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
_TUNING_WINDOWS, _TUNING_MEMBERS, _MEMBERS_OF_COVARIANCE = 12, 20, 200


def archives(world: str, members: int, windows: int, data: Path | None) -> tuple[xr.Dataset, xr.Dataset]:
    """Return what to learn from and what to be judged by, of other members or, for currents, 32 days apart."""
    if world == "currents":
        if data is None:
            raise SystemExit("--data must be the GlobCurrent file for the world of currents")
        return split_by_gap(load_globcurrent(data))
    ocean = {"gaussian": GaussianOcean, "turbulence": Turbulence}[world]()
    train = ocean.archive(members, days=range(11))
    return train, ocean.archive(windows, days=range(11), first_member=members)


def measure(world: str, options: argparse.Namespace) -> Evaluation:
    train, test = archives(world, options.members, options.windows, options.data)
    began = time.perf_counter()
    learned = Assimilator.fit(
        train,
        fix_interval=options.interval,
        n_drifters=options.drifters,
        method="information",
        rank=options.rank,
        maps=options.maps,
        pairs=options.pairs,
        epochs=options.epochs,
        batch_size=options.batch,
        prior="stream function" if world == "currents" else "eof",
    )
    seconds = time.perf_counter() - began
    known = learned.archive
    assert known is not None
    few = known.isel(member=slice(_MEMBERS_OF_COVARIANCE)) if "member" in known.dims else known
    settings: dict[str, Any] = {} if world == "currents" else {"local": False}
    cases = simulate_cases(few, learned.campaign, _TUNING_WINDOWS, seed=1)
    methods: dict[str, Baseline] = {"OI, stream function": OptimalInterpolation(**settings).fit(few)}
    if world == "gaussian":
        # OI with the world's own covariance, which no other method is told.
        features = GaussianOcean().features
        methods["OI, exact covariance"] = LinearGaussian(features).fit(few)
        methods["exact, along segments"] = LinearGaussian(features, along=True).fit(few)
    baselines: dict[str, Baseline] = {"climatology": Climatology().fit(few)}
    for name, method in methods.items():
        baselines[name] = tune_setting(method, "error_floor", _FLOORS, cases, _TUNING_MEMBERS, 0)
    names = {f"probcl {learned.route.name}": seconds}
    return learned.evaluate(test, windows=options.windows, baselines=baselines, train_seconds=names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", choices=["gaussian", "turbulence", "currents"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--interval", default="48h")
    for name, default in (("drifters", 16), ("members", 12_000), ("windows", 200), ("rank", 256), ("maps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("pairs", 12_000), ("epochs", 2), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    evaluation = measure(options.world, options)
    Console().print(evaluation.to_markdown(), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
