"""A Gaussian process against its theory: errors of learned conditional means (Baptista, Stuart & Tran 2025, §6.1)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

import probcl as pcl
from applications.gaussians.learned import learned_law
from applications.seeding import seeded
from probcl.datasets import GaussianProcessPairs
from probcl.gaussian import canonical_correlations_from_data, optimum

DIRECTIONS = ("u|v", "v|u")
SYMBOLS = {"rank": "r", "batch_size": "batch", "n_pairs": "N"}
SWEEPS = tuple(SYMBOLS)
# Added to the seed for the draws that errors are averaged over, so that they are none of the pairs fitted to.
DRAWS_SEED = 1_000_000


@dataclass(frozen=True)
class Setting:
    """What varies from fit to fit; the seed is that of the pairs, the initial weights and their order in training."""

    rank: int
    batch_size: int
    n_pairs: int
    seed: int


@dataclass(frozen=True, eq=False)
class Curve:
    """A way to fit, and the values of rank, batch size and number of pairs to fit with.

    Each sweep varies one of them, takes the others from `base`, and is repeated on as many samples of pairs as
    `samples` says, one by default. A fit goes on until it has seen `pairs_seen` pairs.
    """

    name: str
    alignment: str
    base: dict[str, int]
    sweeps: dict[str, list[int]]
    pairs_seen: int
    whiten: bool
    fit: dict[str, Any]
    samples: dict[str, int] = field(default_factory=dict)
    long: bool = False

    def settings(self, first_seed: int) -> Iterator[tuple[str, Setting]]:
        """Every fit of every sweep."""
        for sweep, values in self.sweeps.items():
            for value in values:
                for sample in range(self.samples.get(sweep, 1)):
                    yield sweep, Setting(**(self.base | {sweep: value}), seed=first_seed + sample)


@dataclass(frozen=True)
class Config:
    """What to fit; the table [process] of the configuration file."""

    curves: list[Curve]
    n_draws: int
    seed: int
    process: GaussianProcessPairs = field(default_factory=GaussianProcessPairs)

    @property
    def full_rank(self) -> int:
        """Number of canonical pairs: from this rank on the floors are zero."""
        return min(self.process.n_u, self.process.n_v)


class Errors(NamedTuple):
    """E|Ê[u|v] − E[u|v]|² and its mirror, and how far they exceed those of the best encoders of the same rank."""

    error: tuple[float, float]
    excess: tuple[float, float]


class Result(NamedTuple):
    """One point of a sweep."""

    curve: str
    sweep: str
    setting: Setting
    errors: Errors


def run(config: Config, show: Callable[[Result, float], object]) -> list[Result]:
    """Fit every setting of every curve, each once, and measure its errors; `show` is told of each fit, and its time."""
    results = []
    for curve in config.curves:
        measured: dict[Setting, Errors] = {}
        for sweep, setting in curve.settings(config.seed):
            began = time.perf_counter()
            fresh = setting not in measured
            if fresh:
                measured[setting] = measure(fit_setting(curve, setting, config.process), setting.rank, config)
            results.append(Result(curve.name, sweep, setting, measured[setting]))
            if fresh:
                show(results[-1], time.perf_counter() - began)
    return results


def fit_setting(curve: Curve, setting: Setting, process: GaussianProcessPairs) -> pcl.BimodalModel:
    """Fit linear encoders with the two-sided loss."""
    alignment = getattr(pcl, curve.alignment)()
    width = 2 * setting.rank if isinstance(alignment, pcl.WithPotentials) else setting.rank
    with seeded(setting.seed):
        encoders = pcl.encoders.Linear(process.n_u, width), pcl.encoders.Linear(process.n_v, width)
    model = pcl.BimodalModel(*encoders, alignment=alignment)
    (fit_whitened if curve.whiten else pcl.fit)(
        model,
        process.sample(setting.n_pairs, seed=setting.seed),
        loss=pcl.ConditionalLoss(),
        epochs=max(1, round(curve.pairs_seen / setting.n_pairs)),
        batch_size=setting.batch_size,
        seed=setting.seed,
        **curve.fit,
    )
    return model


def fit_whitened(model: pcl.BimodalModel, pairs: tuple[Tensor, Tensor], **options: Any) -> pcl.History:
    """Fit on whitened pairs, and let the linear encoders absorb the whitening: the result takes pairs as they are.

    Every canonical pair then moves at a rate of its own correlation; as they are, directions of u with small variance
    hardly move.
    """
    u, v = pairs
    canonical = canonical_correlations_from_data(u, v)
    whitener_u, whitener_v = canonical.whitener_u.to(u), canonical.whitener_v.to(v)
    history = pcl.fit(model, (u @ whitener_u, v @ whitener_v), **options)
    for encoder, whitener in ((model.encoder_u, whitener_u), (model.encoder_v, whitener_v)):
        linear = cast(pcl.encoders.Linear, encoder)
        linear.weight.data = linear.weight.data @ whitener
    return history


def measure(model: pcl.BimodalModel, rank: int, config: Config) -> Errors:
    """Compare the model's conditional means with the true ones, at fresh draws of what is conditioned on."""
    process = config.process
    draws = process.sample(config.n_draws, seed=config.seed + DRAWS_SEED, dtype=torch.float64)
    C = process.covariance()
    learned, best = learned_law(model, C, process.n_u)[1], optimum(C, process.n_u, rank).law

    def error(law: pcl.gaussian.TiltedGaussian) -> tuple[float, float]:
        return (
            mean_square(draws.v, law.mean_map_u_given_v - process.mean_map_u_given_v),
            mean_square(draws.u, law.mean_map_v_given_u - process.mean_map_v_given_u),
        )

    reached, floor = error(learned), error(best)
    # Over the same draws, so that their scatter cancels.
    return Errors(reached, (reached[0] - floor[0], reached[1] - floor[1]))


def mean_square(x: Tensor, M: Tensor) -> float:
    """Mean of |Mx|² over the rows of x."""
    return float((x @ M.mT).square().sum(1).mean())


def floors(config: Config, rank: int) -> tuple[float, float]:
    """Return the errors that the best encoders of this rank leave, u|v and v|u."""
    exact = config.process.error_floors()
    kept = min(rank, config.full_rank)
    return float(exact.u_given_v[kept]), float(exact.v_given_u[kept])


def yardstick(config: Config, rank: int) -> tuple[float, float]:
    """Return what excesses are compared with: the floors, or from full rank on, where they are zero, the last above."""
    return floors(config, min(rank, config.full_rank - 1))
