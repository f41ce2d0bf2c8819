"""Does the learned analysis do what optimal interpolation does where that is right, and better where it is not?

Worlds T0 (Gaussian), T2 (turbulence) and T3 (currents from a file): `python -m benchmarks.ocean_worlds turbulence
--interval 48h`. A table of learned analyses beside the classical methods, fitted to the same archive and tuned to the
same tracks; of T0 the exact posterior instead of most of them, of T2 also the error in the stream function.
"""

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.fft
import torch
import xarray as xr
from jaxtyping import Float
from rich.console import Console

from applications.files import write_text
from benchmarks.measure import machine
from benchmarks.report import OUTPUT
from probcl.assimilation import Assimilator, Evaluation, compare, scores
from probcl.assimilation.baselines import (
    Baseline,
    Case,
    Climatology,
    LinearGaussian,
    OptimalInterpolation,
    tune_setting,
)
from probcl.assimilation.baselines.base import Moment
from probcl.assimilation.cases import simulate_cases
from probcl.assimilation.comparison import Learned
from probcl.assimilation.evaluation import Analyst
from probcl.assimilation.suite import fit_baselines
from probcl.datasets.ocean import Box, GaussianOcean, Turbulence, load_globcurrent, split_by_gap

# In m/s. Where the covariance is exact, fixes at short intervals leave errors below those that suit real archives.
_FLOORS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
_TUNING_WINDOWS, _TUNING_MEMBERS, _MEMBERS_OF_COVARIANCE = 12, 20, 200


@dataclass(eq=False)
class Recorded:
    """A method that keeps the mean of each of its analyses, and is the method in all else."""

    method: Analyst
    means: list[xr.Dataset] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def analyse(self, tracks: xr.Dataset, time: Moment, members: int, seed: int = 0) -> xr.Dataset:
        analysis = self.method.analyse(tracks, time, members, seed)
        self.means.append(analysis[["u_mean", "v_mean"]])
        return analysis


def archives(options: argparse.Namespace) -> tuple[xr.Dataset, xr.Dataset]:
    """Return what to learn from and what to be judged by, of other members or, for currents, 32 days apart."""
    if options.world == "currents":
        if options.data is None:
            raise SystemExit("--data must be the GlobCurrent file for the world of currents")
        train, test = split_by_gap(load_globcurrent(options.data))
        return train.isel(time=slice(options.train_days and -options.train_days, None)), test
    ocean = {"gaussian": GaussianOcean, "turbulence": Turbulence}[options.world]()
    train = ocean.archive(options.members, days=range(options.days))
    return train, ocean.archive(options.windows, days=range(11), first_member=options.members)


def learn(train: xr.Dataset, options: argparse.Namespace) -> tuple[Assimilator, float]:
    """Return a learned analysis, and the seconds that took."""
    settings: dict[str, Any] = {"epochs": options.epochs, "batch_size": options.batch, "prior": "eof"}
    if options.world == "currents" and options.patch is None:
        settings["prior"] = options.prior
    began = time.perf_counter()
    learned = Assimilator.fit(
        train,
        fix_interval=options.interval,
        n_drifters=options.drifters,
        method=options.method,
        patch=options.patch,
        stride=options.stride,
        rank=options.rank,
        maps=options.maps,
        refit=options.refit,
        pairs=options.pairs,
        operator=options.operator,
        seed=options.seed,
        **settings,
    )
    return learned, time.perf_counter() - began


def classical(learned: Assimilator, options: argparse.Namespace) -> dict[str, Analyst]:
    """Fit the classical methods to what was trained on, tuned to the tracks."""
    known = learned.archive
    assert known is not None
    if options.world != "gaussian":
        if options.world == "turbulence":
            # One window of each member: maps days apart are nearly one, and tuning over all takes an hour.
            middle = known.sizes["time"] // 2
            known = known.isel(time=slice(middle - 5, middle + 6))
        settings = {
            "smoother": options.smoother,
            "etkf": options.etkf,
            "tuning_windows": options.tuning_windows,
            "patch": options.patch,
        }
        return dict(fit_baselines(known, learned.campaign, **settings).methods)
    few = known.isel(member=slice(None, None, max(1, known.sizes["member"] // _MEMBERS_OF_COVARIANCE)))
    cases = simulate_cases(few, learned.campaign, _TUNING_WINDOWS, seed=1)
    features = GaussianOcean().features
    methods: dict[str, Baseline] = {
        "OI, stream function": OptimalInterpolation(local=False).fit(few),
        # The world's own covariance, which no other method is told.
        "OI, exact covariance": LinearGaussian(features).fit(few),
        "exact, along segments": LinearGaussian(features, along=True).fit(few),
    }
    tuned = {
        name: tune_setting(method, "error_floor", _FLOORS, cases, _TUNING_MEMBERS, 0)
        for name, method in methods.items()
    }
    return {"climatology": Climatology().fit(few), **tuned}


def measure(options: argparse.Namespace) -> tuple[Evaluation, dict[str, scores.Estimate]]:
    """Return the table, and for turbulence the nRMSE of each method's stream function."""
    train, test = archives(options)
    learned, seconds = learn(train, options)
    mine = f"probcl {learned.route.name}"
    others = {} if options.alone else classical(learned, options)
    methods = {name: Recorded(method) for name, method in {**others, mine: learned}.items()}
    baselines = {name: method for name, method in methods.items() if name != mine}
    evaluation = compare(
        cast(Learned, methods[mine]),
        test,
        windows=options.windows,
        baselines=baselines,
        train_seconds={mine: seconds},
    )
    if options.world != "turbulence":
        return evaluation, {}
    # The same as in the evaluation.
    cases = simulate_cases(test, learned.campaign, options.windows)
    return evaluation, {name: stream_function_error(method.means, cases) for name, method in methods.items()}


def stream_function_error(means: list[xr.Dataset], cases: list[Case]) -> scores.Estimate:
    """Return the nRMSE of the stream function of mean currents."""
    box = Turbulence().box
    found = np.stack([stream_function(box, mean["u_mean"].values, mean["v_mean"].values) for mean in means])
    truth = np.stack([case.truth["psi"].values for case in cases])
    flat = found.reshape(len(cases), -1), truth.reshape(len(cases), -1)
    return scores.bootstrap(lambda chosen: scores.nrmse(*(part[chosen] for part in flat)), len(cases))


def stream_function(box: Box, u: Float[np.ndarray, "n n"], v: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Return the periodic ψ of zero mean, in m²/s, whose currents are nearest to these; it has no mean flow."""
    spacing = box.size / box.n
    across, along = (2j * np.pi * scipy.fft.fftfreq(box.n, spacing) for _ in range(2))
    d_dy, d_dx = np.meshgrid(across, along, indexing="ij")
    # On an even grid the shortest wave has no sign, and so no derivative.
    for slope in (d_dy, d_dx):
        slope[np.abs(slope) > np.pi / spacing * (1 - 1e-9)] = 0
    laplacian = (d_dx**2 + d_dy**2).real
    power = np.where(laplacian == 0, 1, laplacian)
    v = v / box.stretch(box.latitudes)[:, None]
    vorticity = d_dx * scipy.fft.fft2(v) - d_dy * scipy.fft.fft2(u)
    return np.asarray(scipy.fft.ifft2(np.where(laplacian == 0, 0, vorticity / power)).real)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ocean_worlds", description=__doc__)
    parser.add_argument("world", choices=["gaussian", "turbulence", "currents"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--interval", default="48h")
    parser.add_argument("--method", default="information")
    parser.add_argument("--smoother", action="store_true", help="the ensemble smoother too, which takes longest")
    parser.add_argument("--prior", default="hybrid", help="of the currents of a whole region; EOFs elsewhere")
    parser.add_argument("--etkf", action="store_true", help="DAPPER's ETKF too, an extra")
    parser.add_argument("--operator", default="given", choices=["given", "learned"], help="how segments see modes")
    parser.add_argument("--patch", type=int, help="cells on a side; the whole region if left out")
    parser.add_argument("--stride", type=int, help="cells from one patch to the next; half a patch if left out")
    for name, default in (("drifters", 16), ("members", 12_000), ("windows", 200), ("rank", 256), ("maps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--refit", action="store_true", help="on all of the archive, once calibrated")
    parser.add_argument("--alone", action="store_true", help="without the classical methods")
    parser.add_argument("--train-days", type=int, help="of currents, the last before the gap; all unless given")
    parser.add_argument("--tuning-windows", type=int, default=24, help="that the classical methods are tuned on")
    parser.add_argument("--days", type=int, default=11, help="of each member to train on; 11 make one window")
    for name, default in (("pairs", 12_000), ("epochs", 2), ("batch", 32), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    evaluation, stream_functions = measure(options)
    asked = ", ".join(
        f"{name} {value}" for name, value in vars(options).items() if value is not None and name != "data"
    )
    lines = [f"# Ocean worlds: {asked}", "", evaluation.to_markdown(), ""]
    lines += [f"nRMSE of ψ, {name}: {error!r}" for name, error in stream_functions.items()]
    lines += [f"{evaluation.settings['windows']} windows. {machine(torch.device('cpu'))}."]
    Console().print("\n".join(lines), markup=False, soft_wrap=True)
    size = "" if options.patch is None else f"-patch{options.patch}"
    size += "" if options.train_days is None else f"-{options.train_days}-days"
    size += "-learned-operator" if options.operator == "learned" else ""
    name = f"ocean-{options.world}{size}-{options.interval}-{options.drifters}.md"
    OUTPUT.mkdir(parents=True, exist_ok=True)
    write_text(OUTPUT / name, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
