"""k-means on what each map keeps of the data, against the true classes."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

import probcl as pcl
from applications.mixtures.experiment import Config, draw_world, fit_one, principal_directions
from applications.mixtures.mixture import labelled
from applications.tables import Row
from probcl.datasets import Pairs

RESTARTS = 10


def mixture_row(config: Config, seed: int) -> Row:
    """Fit a finite sample of the mixture, and cluster it."""
    image, _, generator = draw_world(config, seed)
    data = labelled(image, config.n_clustered, generator)
    data = Pairs(data.u - data.u.mean(0), data.v)
    pairs = Pairs(data.u, image.sample(data.v, generator) - data.u.mean(0))
    learned = fit_one(pairs, config.rank, config.clusters, seed)
    return {"data": "mixture", "rank": str(config.rank), **_scores(learned, data, data, seed)}


def digits_row(config: Config, seed: int) -> Row:
    """Fit pairs of digits of the same class, and cluster others."""
    split = pcl.datasets.load_digits(validation_fraction=0, seed=seed)
    centre = split.train.u.flatten(1).mean(0)
    train, test = (Pairs(part.u.flatten(1) - centre, part.v) for part in (split.train, split.test))
    pairs = same_class(train, config.partners, torch.Generator().manual_seed(seed))
    learned = fit_one(pairs, config.digits_rank, config.digits, seed)
    return {"data": "digits, held out", "rank": str(config.digits_rank), **_scores(learned, train, test, seed)}


def same_class(data: Pairs, partners: int, generator: torch.Generator) -> Pairs:
    """Pair every u with so many others of its label v."""
    same = (data.v[:, None] == data.v).float().fill_diagonal_(0)
    others = torch.multinomial(same, partners, replacement=True, generator=generator)
    return Pairs(data.u.repeat_interleave(partners, 0), data.u[others.flatten()])


def _scores(learned: Float[Tensor, "d r"], train: Pairs, test: Pairs, seed: int) -> dict[str, float]:
    """Return adjusted Rand indices on `test`, of maps fitted to `train`."""
    return {name: clustering(z, test.v, seed) for name, z in _embeddings(learned, train, test)}


def _embeddings(learned: Float[Tensor, "d r"], train: Pairs, test: Pairs) -> Iterator[tuple[str, Tensor]]:
    yield "raw", test.u
    yield "PCA", test.u @ principal_directions(train.u, learned.shape[1]).to(test.u)
    yield "InfoNCE", test.u @ learned
    lda = LinearDiscriminantAnalysis().fit(train.u.numpy(), train.v.numpy())
    yield "LDA", torch.from_numpy(lda.transform(test.u.numpy()))


def clustering(z: Float[Tensor, "n r"], labels: Int[Tensor, " n"], seed: int) -> float:
    """Return the adjusted Rand index of k-means with as many clusters as there are labels."""
    k_means = KMeans(len(labels.unique()), n_init=RESTARTS, random_state=seed)
    return float(adjusted_rand_score(labels.numpy(), k_means.fit_predict(z.numpy())))
