"""Digits without labels: two views of an image are neighbours, under one kernel or another."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn.functional import normalize, pad

import probcl as pcl
from applications.spectral.losses import views_info_nce
from probcl.datasets import Split

KERNELS = ("Gaussian", "Laplace", "Power(½)", "sum")


@dataclass(frozen=True)
class Views:
    """How to make views, and how to train on them."""

    shift: int
    masked: float
    noise: float
    hidden: tuple[int, ...]
    dim: int
    epochs: int
    batch_size: int
    lr: float
    neighbours: int


def kernel(name: str, tau: float) -> tuple[pcl.Alignment, float]:
    """Return the log-kernel of this name at τ: an alignment, and the temperature for `probcl.Scores`."""
    if name == "sum":  # its components have temperatures of their own
        return pcl.SumMixture(tau_2=tau, tau_1=tau), 1.0
    gamma = {"Gaussian": 2.0, "Laplace": 1.0, "Power(½)": 0.5}[name]
    return pcl.Power(gamma), tau


def augmented(images: Float[Tensor, "n 1 h w"], config: Views, generator: torch.Generator) -> Float[Tensor, "n 1 h w"]:
    """Return views: each image shifted, some of its pixels set to zero, and noise added."""
    n, _, height, width = images.shape
    framed = pad(images, 4 * (config.shift,))
    offsets = torch.randint(2 * config.shift + 1, (2, n, 1), generator=generator)
    rows, columns = (offsets[axis] + torch.arange(size) for axis, size in enumerate((height, width)))
    shifted = framed[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    kept = torch.rand(shifted.shape, generator=generator) >= config.masked
    return (shifted * kept + config.noise * torch.randn(shifted.shape, generator=generator))[:, None]


def train(
    images: Float[Tensor, "n 1 h w"], alignment: pcl.Alignment, temperature: float, config: Views, seed: int
) -> pcl.encoders.MLP:
    """Return an encoder trained on two views of each image of a batch."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = pcl.encoders.MLP(images[0].numel(), config.dim, config.hidden)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=config.lr)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(images), generator=generator).split(config.batch_size):
            one, other = (normalize(encoder(augmented(images[rows], config, generator))) for _ in range(2))
            optimizer.zero_grad()
            views_info_nce(one, other, alignment, temperature).backward()
            optimizer.step()
    return encoder


def neighbour_accuracy(encoder: pcl.encoders.MLP, data: Split, neighbours: int) -> float:
    """Return how often the nearest embedded training images vote for the label of a test image."""
    with torch.no_grad():
        train_z, test_z = (normalize(encoder(part.u)).numpy() for part in (data.train, data.test))
    classifier = KNeighborsClassifier(neighbours).fit(train_z, data.train.v.numpy())
    return float(classifier.score(test_z, data.test.v.numpy()))
