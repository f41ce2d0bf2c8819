"""Pairs of which some are shuffled, and the fits of InfoNCE and RINCE to them."""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import probcl as pcl
from applications.seeding import seeded
from probcl.datasets import Pairs, Split


@dataclass(frozen=True)
class Config:
    """How to fit; read from a TOML file beside this module."""

    n_train: int
    n_test: int
    hidden: list[int]
    width: int
    epochs: int
    batch_size: int
    lr: float
    q: float
    temperatures: list[float]
    rince_temperature: float
    noise: list[float]
    seeds: list[int]

    @classmethod
    def read(cls, path: Path, **overrides: Any) -> "Config":
        settings = tomllib.loads(path.read_text())
        return cls(**settings | {name: value for name, value in overrides.items() if value is not None})


class Setting(NamedTuple):
    """One fit. Of InfoNCE several temperatures are tried and the best is kept, of RINCE one."""

    loss: str
    temperature: float
    noise: float
    seed: int


def settings(config: Config) -> list[Setting]:
    """List every fit, those of a level of noise and a seed together."""
    kinds = [("InfoNCE", temperature) for temperature in config.temperatures]
    kinds.append(("RINCE", config.rince_temperature))
    return [Setting(*kind, noise, seed) for noise in config.noise for seed in config.seeds for kind in kinds]


def loss_of(setting: Setting, config: Config) -> pcl.Loss:
    """Return the loss of a setting."""
    return pcl.ConditionalLoss() if setting.loss == "InfoNCE" else pcl.RINCELoss(config.q)


def second_view(images: Float[Tensor, "n 1 h w"], seed: int) -> Float[Tensor, "n k"]:
    """Return tanh(3xW) + 0.1 noise: another modality of the same objects, with a random W."""
    x = images.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(x.shape[1], x.shape[1], generator=generator) / math.sqrt(x.shape[1])
    return torch.tanh(3 * x @ projection) + 0.1 * torch.randn(x.shape, generator=generator)


def views(data: Split, config: Config, seed: int) -> tuple[Pairs, Pairs]:
    """Return pairs (image, second view) to fit and to judge by: the first of the training and of the test images."""
    images = torch.cat([data.train.u[: config.n_train], data.test.u[: config.n_test]])
    pairs, n_train = Pairs(images, second_view(images, seed)), min(config.n_train, data.train.n_pairs)
    return pairs.take(torch.arange(n_train)), pairs.take(torch.arange(n_train, pairs.n_pairs))


def shuffled(pairs: Pairs, noise: float, seed: int) -> Pairs:
    """Return the pairs with this share of the v exchanged among themselves at random, once."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(pairs.n_pairs, generator=generator)[: round(noise * pairs.n_pairs)]
    order = torch.arange(pairs.n_pairs)
    order[wrong] = wrong[torch.randperm(len(wrong), generator=generator)]
    return Pairs(pairs.u, pairs.v[order])


def fit_setting(setting: Setting, train: Pairs, config: Config) -> pcl.BimodalModel:
    """Fit two towers to pairs of which some were shuffled."""
    with seeded(setting.seed):
        of_u, of_v = (pcl.encoders.MLP(x[0].numel(), config.width, config.hidden) for x in train)
    model = pcl.BimodalModel(of_u, of_v, alignment=pcl.Cosine(), temperature=setting.temperature)
    pcl.fit(
        model,
        shuffled(train, setting.noise, setting.seed),
        loss=loss_of(setting, config),
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        seed=setting.seed,
        device="cpu",
    )
    return model
