"""Digits without labels: two views of an image are neighbours, and an encoder learns where to put them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn.functional import normalize, pad

import probcl as pcl
from applications.seeding import seeded
from probcl.datasets import Pairs


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
    with seeded(seed):
        encoder = pcl.encoders.MLP(images[0].numel(), config.dim, config.hidden)
    loss = pcl.ConditionalLoss()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=config.lr)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(images), generator=generator).split(config.batch_size):
            one, other = (normalize(encoder(augmented(images[rows], config, generator))) for _ in range(2))
            optimizer.zero_grad()
            loss(pcl.views(one, other, alignment, temperature)).backward()
            optimizer.step()
    return encoder


def neighbour_accuracy(encoder: pcl.encoders.MLP, known: Pairs, asked: Pairs, neighbours: int) -> float:
    """Return how often the nearest known images, as embedded, vote for the label of the one asked."""
    with torch.no_grad():
        known_z, asked_z = (normalize(encoder(part.u)).numpy() for part in (known, asked))
    classifier = KNeighborsClassifier(neighbours).fit(known_z, known.v.numpy())
    return float(classifier.score(asked_z, asked.v.numpy()))
