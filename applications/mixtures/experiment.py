"""Fit linear maps to pairs, and hold their columns against the Fisher subspace."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

import probcl as pcl
from applications.mixtures.mixture import Mixture, draw_mixture, pairs_of_one, pairs_of_two
from applications.mixtures.population import minimise
from applications.mixtures.simsiam import SimSiam, simsiam
from probcl.datasets import Pairs

IMAGE_GROUPS = (0, 1, 2, 3)
TEXT_GROUPS = (0, 0, 1, 1)  # what an image shows in four kinds, its text says in two


@dataclass(frozen=True)
class Fit:
    """How large the first weights are, and how `probcl.fit` goes on from there."""

    start: float
    fit: dict[str, Any]


@dataclass(frozen=True)
class Config:
    """How to fit and what to measure; read from `config.toml`."""

    seeds: tuple[int, ...]
    rank: int
    wide: int
    kept: tuple[float, ...]
    n_clustered: int
    mixture: dict[str, Any]
    n_pairs: int
    pairs: Fit
    clusters: Fit
    simsiam: SimSiam
    digits_rank: int
    partners: int
    digits: Fit

    @classmethod
    def read(cls, path: Path, *, quick: bool = False) -> "Config":
        """Read a TOML file: with what its table [quick] replaces, if `quick`."""
        settings = tomllib.loads(path.read_text())
        replaced = settings.pop("quick")
        for name, value in replaced.items() if quick else ():
            settings[name] = settings[name] | value if isinstance(value, dict) else value
        pairs, digits = settings["pairs"], settings["digits"]
        return cls(
            seeds=tuple(settings.pop("seeds")),
            kept=tuple(settings.pop("kept")),
            n_pairs=pairs.pop("n"),
            digits_rank=digits.pop("rank"),
            partners=digits.pop("partners"),
            pairs=Fit(**settings.pop("pairs")),
            clusters=Fit(**settings.pop("clusters")),
            simsiam=SimSiam(**settings.pop("simsiam")),
            digits=Fit(**settings.pop("digits")),
            **settings,
        )


class Found(NamedTuple):
    """The linear map x ↦ Aᵀx that a method has found, and the subspace that it was to find."""

    method: str
    A: Float[Tensor, "d r"]
    fisher: Float[Tensor, "d f"]
    visible: int  # dimensions of the Fisher subspace that pairs tell of

    @property
    def singular_values(self) -> Float[Tensor, " r"]:
        """Those of A."""
        return torch.linalg.svdvals(self.A)

    @property
    def angle(self) -> float:
        """Largest angle, in degrees, of the leading left singular vectors of A to the Fisher subspace."""
        leading = torch.linalg.svd(self.A.double(), full_matrices=False)[0][:, : self.visible]
        return float(np.rad2deg(subspace_angles(leading.numpy(), self.fisher.numpy()).max()))

    @property
    def gap(self) -> float:
        """The last singular value that should not vanish, over the next; NaN if there is none."""
        values = self.singular_values
        return float(values[self.visible - 1] / values[self.visible]) if len(values) > self.visible else float("nan")


class World(NamedTuple):
    """An image modality, a text modality, and the randomness to draw from them with."""

    image: Mixture
    text: Mixture
    generator: torch.Generator


def draw_world(config: Config, seed: int) -> World:
    """Draw both modalities' mixtures."""
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        draw_mixture(groups=groups, generator=generator, **config.mixture) for groups in (IMAGE_GROUPS, TEXT_GROUPS)
    )
    return World(image, text, generator)


def methods(config: Config, seed: int) -> Iterator[Found]:
    """Yield what each method finds."""
    world = draw_world(config, seed)
    image, text, generator = world
    S_F = image.fisher_subspace()
    dimensions = S_F.shape[1]
    for kept in config.kept:
        pairs = pairs_of_one(image, config.n_pairs, kept, generator)
        noise = "" if kept == 1 else f", {kept:.0%} kept"
        yield Found(f"InfoNCE{noise}", fit_one(pairs, config.rank, config.pairs, seed), S_F, dimensions)
        population = minimise(image, config.rank, config.pairs.start, seed, kept)
        yield Found(f"InfoNCE{noise}, population", population, S_F, dimensions)
    pairs = pairs_of_one(image, config.n_pairs, 1.0, generator)
    yield Found("InfoNCE, wide", fit_one(pairs, config.wide, config.pairs, seed), S_F, dimensions)
    yield Found("SimSiam", simsiam(pairs, config.rank, config.simsiam, seed), S_F, dimensions)
    yield Found("PCA", principal_directions(pairs.u, config.rank), S_F, dimensions)
    of_image, of_text = fit_two(pairs_of_two(image, text, config.n_pairs, generator), config.rank, config.pairs, seed)
    seen = text.fisher_subspace()
    yield Found("CLIP, image", of_image, S_F, seen.shape[1])
    yield Found("CLIP, text", of_text, seen, seen.shape[1])


def fit_one(pairs: Pairs, rank: int, config: Fit, seed: int) -> Float[Tensor, "d rank"]:
    """Return the map that InfoNCE learns, the same for both members of a pair."""
    encoder = linear(pairs.u.shape[1], rank, config.start, seed)
    model = pcl.BimodalModel(encoder, encoder, alignment=pcl.InnerProduct())
    pcl.fit(model, pairs, seed=seed, device="cpu", **config.fit)
    return encoder.weight.detach().mT


def fit_two(pairs: Pairs, rank: int, config: Fit, seed: int) -> tuple[Tensor, Tensor]:
    """Return the maps that CLIP learns, one for each modality."""
    first, second = (linear(part.shape[1], rank, config.start, seed + side) for side, part in enumerate(pairs))
    model = pcl.BimodalModel(first, second, alignment=pcl.InnerProduct())
    pcl.fit(model, pairs, seed=seed, device="cpu", **config.fit)
    return first.weight.detach().mT, second.weight.detach().mT


def linear(dim: int, rank: int, start: float, seed: int) -> pcl.encoders.Linear:
    """Return a linear encoder with normal weights of standard deviation `start`."""
    with torch.random.fork_rng(devices=[]):  # torch's own first weights, replaced below, come from its global generator
        encoder = pcl.encoders.Linear(dim, rank)
    torch.nn.init.normal_(encoder.weight, std=start, generator=torch.Generator().manual_seed(seed))
    return encoder


def principal_directions(x: Float[Tensor, "n d"], rank: int) -> Float[Tensor, "d rank"]:
    """Return the leading eigenvectors of the covariance."""
    return torch.linalg.eigh(torch.cov(x.double().mT)).eigenvectors[:, -rank:]
