"""How well are vortices found from four drifters (world T1), by learned analyses and by classical ones?"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from applications.tables import Row, report
from benchmarks.measure import machine
from benchmarks.report import OUTPUT
from benchmarks.vortex_posterior import VortexPosterior
from probcl.assimilation import baselines, predict_tracks, scorecard, simulate_tracks
from probcl.assimilation.archive import Archive
from probcl.assimilation.baselines.base import to_dataset
from probcl.assimilation.decoder import FieldDecoderPrior
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.holdout import hold_out
from probcl.assimilation.pairs import Campaign, WindowPairs, simulate_pairs, truths
from probcl.assimilation.routes import InformationRoute, RetrievalRoute, Route, SamplerRoute
from probcl.assimilation.tokens import Tokenizer
from probcl.assimilation.tracks import has_segment
from probcl.datasets.ocean import Vortices
from probcl.diagnostics import c2st
from probcl.errors import ProbclWarning

DAYS, DRIFTERS, WINDOW, POSITION_ERROR = [0, 2.5, 5], 4, "5D", 100.0
# Members that covariances are of, the first of the archive's: they gain little from more. Analogs are of all.
OPTIMAL_INTERPOLATION, ENSEMBLE = 2000, 9000
FLOORS, NEIGHBOURS = (0.05, 0.1, 0.2, 0.4, 0.8), (10, 30, 100)
# Of the box's diagonal, where a taper ends; and errors of the smoother's advection, in metres.
REACHES, MODEL_ERRORS = (0.5, 1.0), (300.0, 1000.0, 3000.0, 10_000.0)
TUNING_WINDOWS, SMOOTHER_TUNING_WINDOWS, MEMBERS, FIRST_TEST = 30, 8, 60, 60_000
NOTE = (
    "T1: steady Gaussian vortices in a box of 160 km, 4 drifters for 5 days, 100 m errors; 30,000 members, the last "
    "tenth for calibration, test members apart. nRMSE is of the posterior mean, CRPS the fair one of 60 members, m/s; "
    "brackets: 95% bootstrap interval over windows. Classical error floors, the taper, and the number of analogs, by "
    "CRPS on 30 windows of the archive that these are not fitted to; the model error of ES-MDA on 8 of these. "
    "The exact posterior is of the vortices' parameters, by tempered SMC with the likelihood of the tracks. "
    "Seconds and ms are of one thread's CPU time. The sampler has retrieval's encoders; train s is of its decoder."
)


@dataclass(frozen=True)
class Tests:
    """Windows that nothing was fitted to."""

    tracks: xr.Dataset
    archive: xr.Dataset

    @classmethod
    def of(cls, world: Vortices, interval: str, count: int) -> "Tests":
        archive = world.archive(count, DAYS, first_member=FIRST_TEST)
        return cls(drift(archive, interval, seed=1), archive)

    def __iter__(self) -> Iterator[tuple[xr.Dataset, np.datetime64, xr.Dataset]]:
        moment = self.archive["time"].values[1]
        for label in self.archive["member"].values:
            mine = self.tracks.sel(trajectory=self.tracks["member"] == label)
            # A window whose drifters are all lost before their second fix has nothing to assimilate.
            if has_segment(mine):
                yield mine, moment, self.archive.sel(member=label, time=moment)


@dataclass(frozen=True)
class Method:
    """A fitted method: what it makes of tracks, and how long fitting took."""

    analyse: Callable[[xr.Dataset, np.datetime64, int], xr.Dataset]
    seconds: float
    windows: int | None = None


def main() -> None:
    command = argparse.ArgumentParser(prog="python -m benchmarks.ocean_vortices", description=__doc__)
    command.add_argument("--vortices", type=int, nargs="+", default=[1, 2])
    command.add_argument("--intervals", nargs="+", default=["12h", "48h", "120h"])
    command.add_argument("--members", type=int, default=30_000, help="of the archive")
    command.add_argument("--windows", type=int, default=205, help="to test on")
    command.add_argument("--rounds", type=int, default=3, help="pairs for each member, each with other drifters")
    command.add_argument("--epochs", type=int, default=27, help="of the contrastive routes")
    command.add_argument("--slow-windows", type=int, default=200, help="of these, for ES-MDA and the sampler")
    command.add_argument("--exact-windows", type=int, default=60, help="of these, for the exact posterior")
    command.add_argument("--classical", action="store_true", help="without the learned methods and the exact posterior")
    command.add_argument("--seed", type=int, default=0)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    for count in arguments.vortices:
        archive = Vortices(count).archive(arguments.members, DAYS, seed=arguments.seed)
        for interval in arguments.intervals:
            measure(Vortices(count), archive, interval, arguments)


def measure(world: Vortices, archive: xr.Dataset, interval: str, arguments: argparse.Namespace) -> None:
    """Print and write the table of one world and interval between fixes."""
    tests, climatology = Tests.of(world, interval, arguments.windows), archive.mean(("member", "time"))
    methods = classical(archive, interval, arguments)
    learned, quality = ({}, "") if arguments.classical else learn(archive, interval, arguments)
    title = f"{world.n_vortices} vortices, fixes every {interval}, {len(list(tests))} windows, seed {arguments.seed}"
    rows = []
    truly = VortexPosterior(world)
    exact = Method(lambda t, m, seed: truly.analyse(t, m, MEMBERS, seed), 0.0, arguments.exact_windows)
    methods |= learned | ({} if arguments.classical else {"exact posterior": exact})
    for name, method in methods.items():
        rows.append(row(name, method, tests, climatology))
        print(rows[-1], flush=True)
    name = f"ocean-vortices-{world.n_vortices}-{interval}{'-classical' * arguments.classical}"
    report(title, rows, OUTPUT / name, f"{NOTE} {quality} {machine(torch.device('cpu'))}.")


def row(name: str, method: Method, tests: Tests, climatology: xr.Dataset) -> Row:
    """Score one method."""
    cases = list(tests)[: method.windows]
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbclWarning)
        analyses = [method.analyse(tracks, moment, k) for k, (tracks, moment, _) in enumerate(cases)]
    each = (time.process_time() - started) / len(cases)
    card = scorecard(analyses, [truth for *_, truth in cases], climatology)
    said = {key: f"{card[key].value:.3f} [{card[key].low:.3f}, {card[key].high:.3f}]" for key in ("nrmse", "crps")}
    sizes = [float(found["effective_sample_size"]) for found in analyses if "effective_sample_size" in found]
    return {
        "method": name,
        "nRMSE": said["nrmse"],
        "CRPS": said["crps"],
        "spread/skill": f"{card['spread_skill'].value:.2f}",
        "cover90": f"{card['coverage90'].value:.2f}",
        "ESS": f"{np.median(sizes):.0f}" if sizes else "",
        "trusted": f"{np.mean(['warning' not in found.attrs for found in analyses]):.2f}",
        "windows": str(len(cases)),
        "train s": f"{method.seconds:.0f}",
        "ms": f"{1000 * each:.0f}",
    }


def classical(archive: xr.Dataset, interval: str, arguments: argparse.Namespace) -> dict[str, Method]:
    """Fit the baselines, each with the error floor, and the number of analogs, that suit the interval."""
    few, many = (archive.isel(member=slice(count)) for count in (OPTIMAL_INTERPOLATION, ENSEMBLE))
    rest, last = archive.isel(member=slice(-TUNING_WINDOWS)), archive.isel(member=slice(-TUNING_WINDOWS, None))
    tracks, moment = drift(last, interval, seed=2), last["time"].values[1]
    cases = [
        baselines.Case(tracks.sel(trajectory=tracks["member"] == label), moment, last.sel(member=label, time=moment))
        for label in last["member"].values
    ]
    cases = [case for case in cases if has_segment(case.tracks)]

    def tuned(variants: Iterable[baselines.Baseline], of: xr.Dataset, windows: int | None = None) -> Method:
        started = time.process_time()
        known = Archive.of(of)
        methods = {str(number): method.fit_to(known) for number, method in enumerate(variants)}
        best = methods[baselines.tune(methods, cases[:windows]).best]
        return Method(lambda t, m, seed: best.analyse(t, m, MEMBERS, seed), time.process_time() - started)

    def interpolation(kind: Literal["stream function", "isotropic"]) -> Method:
        fitted = baselines.OptimalInterpolation(kind, shape="gaussian").fit(few).hyperparameters
        return tuned(
            [baselines.OptimalInterpolation(kind, hyperparameters=fitted, error_floor=floor) for floor in FLOORS], few
        )

    nothing = baselines.Climatology().fit(few)
    diagonal = Archive.of(few).grid.diagonal
    localised = [
        baselines.EnsembleOptimalInterpolation(radius=reach * diagonal, error_floor=floor)
        for reach in REACHES
        for floor in FLOORS
    ]
    smoothers = [baselines.EnsembleSmoother(predict_tracks, model_error=error) for error in MODEL_ERRORS]
    smoother = tuned(smoothers, few, SMOOTHER_TUNING_WINDOWS)
    transform = {}
    if find_spec("dapper") is None:
        print("the ETKF is left out: DAPPER, the extra probcl[dapper], is not installed")
    else:
        transform["ETKF"] = tuned([baselines.ETKF(error_floor=floor) for floor in FLOORS], few)
    return {
        "climatology": Method(lambda t, m, seed: nothing.analyse(t, m, MEMBERS, seed), 0.0),
        "OI, stream function": interpolation("stream function"),
        "OI, isotropic": interpolation("isotropic"),
        "EnOI": tuned(
            [baselines.EnsembleOptimalInterpolation(radius=None, error_floor=floor) for floor in FLOORS], many
        ),
        "EnOI, localised": tuned(localised, many),
        **transform,
        "analogs": tuned(
            [baselines.Analogs(count, error_floor=floor) for count in NEIGHBOURS for floor in FLOORS], rest
        ),
        "ES-MDA": replace(smoother, windows=arguments.slow_windows),
    }


def learn(archive: xr.Dataset, interval: str, arguments: argparse.Namespace) -> tuple[dict[str, Method], str]:
    """Train the routes; also say how good the decoder is."""
    campaign, seed = Campaign(WINDOW, interval, DRIFTERS, POSITION_ERROR), arguments.seed
    parts = hold_out(archive, 0.1, "32D", campaign.length)
    # The currents stand still: one map tells all of a window.
    prior = FieldPrior.eofs(Archive.of(parts.train), np.zeros(1, "timedelta64[ns]"), 256, seed)
    once = parts.train.sizes["member"]
    train = simulate_pairs(parts.train, prior, campaign, arguments.rounds * once, seed)
    check = simulate_pairs(parts.held_out, prior, campaign, 1000, seed + 1)
    truth = truths(Archive.of(parts.held_out), check)
    times = parts.train["time"].values

    def fitted(route: Route, pairs: WindowPairs | None, **settings: Any) -> Method:
        started = time.process_time()
        if pairs is not None:
            route.train(pairs, check, seed=seed, **settings)
        route.remember(train)
        route.calibrate(check, truth)
        return Method(lambda t, m, s: posterior(route, prior, t, m, s, times), time.process_time() - started)

    first = WindowPairs(train.x[:once], train.tokens[:once], train.index[:once])
    information = InformationRoute(prior, InformationRoute.build(prior, seed))
    retrieval = RetrievalRoute(prior, RetrievalRoute.build(prior, seed))
    methods = {
        "probcl, information": fitted(information, first),
        "probcl, retrieval": fitted(retrieval, train, epochs=arguments.epochs),
    }
    sampler = SamplerRoute(prior, retrieval.model)
    found = fitted(sampler, None)
    methods["probcl, sampler"] = Method(found.analyse, found.seconds, arguments.slow_windows)
    return methods, decoder_quality(sampler, prior, check, seed)


def posterior(
    route: Route, prior: FieldPrior, tracks: xr.Dataset, moment: np.datetime64, seed: int, times: Any
) -> xr.Dataset:
    """Analyse as `Assimilator.analyse` does."""
    window = np.zeros(tracks.sizes["trajectory"], dtype=int)
    tokens = torch.from_numpy(Tokenizer(prior)(tracks, window, np.array([moment])))
    return to_dataset(route.analyse(tokens, MEMBERS, np.random.default_rng(seed)), prior.grid, times, moment)


def decoder_quality(route: SamplerRoute, prior: FieldPrior, held_out: WindowPairs, seed: int) -> str:
    """Return what the decoder leaves out of held-out currents, and how well its draws are told from them."""
    decoder = route.fields
    assert isinstance(decoder, FieldDecoderPrior)
    x = held_out.x
    left = prior.decode((x - decoder.reconstruct(x)).numpy()) - prior.mean[prior.now]
    whole = prior.decode(x.numpy()) - prior.mean[prior.now]
    part = np.square(left).sum() / np.square(whole).sum()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = decoder.sample((len(x),)) + decoder.unresolved * torch.randn(x.shape)
    return f"Decoder: {part:.3f} of held-out variance lost, C2ST of {len(x)} draws {c2st(x, drawn).accuracy:.2f}."


def drift(archive: xr.Dataset, interval: str, seed: int) -> xr.Dataset:
    return simulate_tracks(
        archive, n_drifters=DRIFTERS, window=WINDOW, fix_interval=interval, position_error=POSITION_ERROR, seed=seed
    )


if __name__ == "__main__":
    main()
