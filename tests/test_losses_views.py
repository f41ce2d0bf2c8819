"""One modality: f-MICL on two augmented views of the same images (LOSSES.md c)."""

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from small_models import seeded
from torch import Tensor, nn

import probcl as pcl
from probcl.datasets import Split

SEED, EPOCHS, BATCH, NEIGHBOURS = 3, 40, 256, 5


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by up to a pixel, blank some of its pixels, and add noise."""
    count, height, width = len(images), *images.shape[-2:]
    framed = nn.functional.pad(images[:, 0], (1, 1, 1, 1))
    down, across = torch.randint(0, 3, (2, count, 1, 1), generator=generator)
    rows, columns = torch.arange(height)[None, :, None] + down, torch.arange(width)[None, None] + across
    moved = framed[torch.arange(count)[:, None, None], rows, columns]
    kept = torch.rand(moved.shape, generator=generator) > 0.15
    return moved * kept + 0.1 * torch.randn(moved.shape, generator=generator)


def accuracy_of_neighbours(encoder: nn.Module, data: Split) -> float:
    """Of the nearest training images, by cosine in the embedding; labels are used here only."""
    with torch.no_grad():
        train, test = (nn.functional.normalize(encoder(part.u)).numpy() for part in (data.train, data.test))
    return float(KNeighborsClassifier(NEIGHBOURS).fit(train, data.train.v).score(test, data.test.v))


def trained(loss: pcl.Loss, data: Split) -> nn.Module:
    torch.manual_seed(SEED)
    generator = seeded(SEED)
    encoder = pcl.encoders.MLP(64, 64, (256, 256), activation="relu")
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(data.train.n_pairs, generator=generator).split(BATCH):
            images = data.train.u[batch]
            first, second = (encoder(view(images, generator)) for _ in range(2))
            optimizer.zero_grad()
            loss(pcl.Scores(first, second, pcl.FGaussian())).backward()
            optimizer.step()
    return encoder


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["kl", "js", "pearson"])
def test_neighbours_in_a_self_supervised_embedding_share_their_label_if_alpha_is_large(divergence: str) -> None:
    data = pcl.datasets.load_digits(validation_fraction=0, seed=SEED)
    accuracy = {
        alpha: accuracy_of_neighbours(trained(pcl.FMICLLoss(divergence, alpha), data), data) for alpha in (1, 40)
    }
    assert accuracy[40] >= 0.94
    assert accuracy[40] >= accuracy[1] + 0.10
