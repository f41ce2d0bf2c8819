"""Fit parameters and simulations, and hold the posterior against the exact one."""

import time
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import probcl as pcl
from applications.inference.encoder import encoder
from applications.seeding import seeded
from applications.tables import Row
from probcl.datasets import GaussianMixture, Simulator, TwoMoons
from probcl.samplers import ImportanceResampling

SIMULATORS: dict[str, Simulator] = {"two moons": TwoMoons(), "Gaussian mixture": GaussianMixture()}
Classifier = Literal["network", "boosting"]
# Added to the seed of the pairs fitted to, so that simulations to judge by are none of them.
OBSERVATIONS, CALIBRATION = 1_000_000, 2_000_000
# Draws that a true parameter is ranked among, the prior draws they are resampled from, and conditions that share these:
# for so many conditions this is many times faster than tempered SMC.
RANKS, PROPOSALS, SHARED_BY = 100, 400_000, 25


@dataclass(frozen=True)
class Config:
    """How to fit and what to measure; read from `config.toml`."""

    seed: int
    n_pairs: int
    n_observations: int
    n_draws: int
    n_calibration: int
    averaging: float
    encoder: dict[str, Any]
    fit: dict[str, Any]

    @classmethod
    def read(cls, path: Path, *, quick: bool = False) -> "Config":
        """Read a TOML file: with what its table [quick] replaces, if `quick`."""
        settings = tomllib.loads(path.read_text())
        replaced = settings.pop("quick")
        return cls(**_merged(settings, replaced) if quick else settings)


class Learned(NamedTuple):
    """A task, the model fitted to its simulations, and how long that took."""

    name: str
    simulator: Simulator
    model: pcl.BimodalModel
    seconds: float


class Posteriors(NamedTuple):
    """Draws of the learned and of the exact posterior for observations that were not fitted to."""

    x: Tensor  # (B, 2)
    learned: Tensor  # (S, B, 2)
    exact: Tensor  # (S, B, 2)
    trusted: float
    seconds: float


def learn(name: str, config: Config) -> Learned:
    """Simulate pairs and fit a model to them."""
    simulator = SIMULATORS[name]
    theta, x = simulator.sample(config.n_pairs, seed=config.seed)
    began = time.perf_counter()
    with seeded(config.seed):
        model = pcl.BimodalModel(encoder(theta, **config.encoder), encoder(x, **config.encoder))
    average = pcl.training.AverageWeights(config.averaging)
    pcl.fit(model, (theta, x), seed=config.seed, device="cpu", callbacks=[average], **config.fit)
    return Learned(name, simulator, model, time.perf_counter() - began)


def infer(learned: Learned, config: Config) -> Posteriors:
    """Draw from both posteriors, given each of the observations."""
    x = learned.simulator.sample(config.n_observations, seed=config.seed + OBSERVATIONS).v
    began = time.perf_counter()
    posterior = learned.model.u_given_v(learned.simulator.prior).condition(x)
    draws = posterior.draw(config.n_draws, seed=config.seed)
    seconds = time.perf_counter() - began
    exact = learned.simulator.posterior(x, config.n_draws, seed=config.seed)
    return Posteriors(x, draws.z, exact, draws.trusted.float().mean().item(), seconds)


class Calibration(NamedTuple):
    """Whether the truth behaves like a draw of its posterior, over fresh simulations."""

    ranks: pcl.diagnostics.SBC
    balls: pcl.diagnostics.TARP
    regions: pcl.diagnostics.Coverage
    ess: float  # the smallest effective sample size that draws were resampled from


def calibrate(learned: Learned, config: Config) -> Calibration:
    """Draw from the posteriors of fresh simulations, and test where their parameters lie in them."""
    theta, x = learned.simulator.sample(config.n_calibration, seed=config.seed + CALIBRATION)
    conditional = learned.model.u_given_v(learned.simulator.prior, sampler=ImportanceResampling(PROPOSALS))
    with warnings.catch_warnings():
        # k̂ fits a tail to the 3√N largest weights. Here they are more than the posterior's whole share of the prior
        # draws, so that it flags what is no tail; the effective sample size is in the table.
        warnings.simplefilter("ignore", pcl.ProbclWarning)
        parts = [conditional.condition(part).draw(RANKS, seed=seed) for seed, part in enumerate(x.split(SHARED_BY))]
    draws = torch.cat([part.z for part in parts], 1)
    posterior = conditional.condition(x)
    with torch.no_grad():
        density = [posterior.unnormalized_log_prob(value) for value in (draws, theta)]
    return Calibration(
        pcl.diagnostics.sbc(draws, theta, seed=config.seed),
        # References that depend on x: a posterior that ignores it fails.
        pcl.diagnostics.tarp(draws, theta, references=x, seed=config.seed),
        pcl.diagnostics.hpd_coverage(density[0], density[1], seed=config.seed),
        min(part.ess.min().item() for part in parts),
    )


def mean_c2st(x: Float[Tensor, "S B 2"], y: Float[Tensor, "S B 2"], classifier: Classifier, seed: int) -> float:
    """Mean over conditions of the accuracy with which a classifier tells draws apart."""
    kind = _network(seed) if classifier == "network" else classifier
    pairs = zip(x.unbind(1), y.unbind(1), strict=True)
    accuracies = [pcl.diagnostics.c2st(one, other, classifier=kind, seed=seed).accuracy for one, other in pairs]
    return sum(accuracies) / len(accuracies)


def measure(learned: Learned, posteriors: Posteriors, config: Config) -> Row:
    """Return a row of the table."""
    seed = config.seed
    again = learned.simulator.posterior(posteriors.x, config.n_draws, seed=seed + 1)
    calibration = calibrate(learned, config)
    return {
        "task": learned.name,
        "C2ST": mean_c2st(posteriors.learned, posteriors.exact, "network", seed),
        "by trees": mean_c2st(posteriors.learned, posteriors.exact, "boosting", seed),
        "of exact": mean_c2st(again, posteriors.exact, "network", seed),
        "SBC p": calibration.ranks.p_value,
        "TARP p": calibration.balls.p_value,
        "HPD p": calibration.regions.p_value,
        "50% region": calibration.regions.at(0.5).item(),
        "90% region": calibration.regions.at(0.9).item(),
        "ESS": calibration.ess,
        "trusted": posteriors.trusted,
        "fit s": learned.seconds,
        "draw s": posteriors.seconds,
    }


def _network(seed: int) -> Pipeline:
    """Build the network of sbi-benchmark, trained to the end: it finds more than the one that is stopped early."""
    return make_pipeline(StandardScaler(), MLPClassifier((20, 20), max_iter=1000, random_state=seed))


def _merged(settings: dict[str, Any], replaced: dict[str, Any]) -> dict[str, Any]:
    """Replace settings, inside of tables too."""
    inside = {key: settings[key] | value for key, value in replaced.items() if isinstance(value, dict)}
    return settings | replaced | inside
