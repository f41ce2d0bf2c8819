"""How the experiment is set up, read from a TOML file beside this module."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class HalvesConfig:
    """The second pairing: the contrastive model of the two halves, and the prior for either.

    Attributes
    ----------
    draws, test_images
        Halves drawn for each given one, and how many test images those come from.
    proposals
        Draws of the prior that are resampled.
    encoder, training, prior
        Arguments of `ResidualConvNet`, `probcl.fit` and `probcl.generation.fit_image_prior`.
    """

    draws: int
    test_images: int
    proposals: int
    encoder: dict[str, Any]
    training: dict[str, Any]
    prior: dict[str, Any]


@dataclass(frozen=True)
class Config:
    """What is fitted, on how many images, and how many are drawn.

    Attributes
    ----------
    shifted
        Whether each training image is also used shifted by one pixel in the four directions.
    train_images
        How many training images to use, the first ones; 0 for all.
    draws, proposals
        Images drawn for each condition, and draws of the prior that they are resampled from.
    judge
        See `Judge.fit`.
    prior
        Arguments of `probcl.generation.fit_image_prior`.
    """

    shifted: bool
    train_images: int
    draws: int
    proposals: int
    judge: dict[str, Any]
    prior: dict[str, Any]
    halves: HalvesConfig
    seed: int = field(default=0)

    @classmethod
    def read(cls, path: Path, *, seed: int = 0, most_epochs: int | None = None) -> "Config":
        """Read a file; `most_epochs` cuts every fit short that would take more."""
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        halves = settings["halves"]
        for fit in (settings["judge"], settings["prior"], halves["training"], halves["prior"]):
            fit["epochs"] = fit["epochs"] if most_epochs is None else min(fit["epochs"], most_epochs)
        settings["halves"] = HalvesConfig(**halves)
        return cls(**settings, seed=seed)
