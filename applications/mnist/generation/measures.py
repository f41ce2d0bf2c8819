"""What drawn images are measured by, beside real ones."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

import probcl as pcl
from applications.mnist.experiment import LABELS, label_given_image, label_prior
from applications.mnist.generation.judge import Judge
from applications.seeding import seeded
from probcl.datasets import Pairs, Split

_AT_ONCE = 1000
_COPY_QUANTILE = 0.01


class Yardstick:
    """The measures of images with the labels they were drawn for; distances are Euclidean, between pixels."""

    def __init__(self, data: Split, judge: Judge) -> None:
        self.judge, self.training, self.real = judge, data.train.u, data.test
        self.prior = label_prior(data.train.v)
        self.real_features = judge.features(self.real.u)
        self.real_spread = class_spread(self.real)
        self.closeness = nearest_distance(self.real.u, self.training).quantile(_COPY_QUANTILE)

    def purity(self, drawn: Pairs) -> float:
        """Share of images that the judge gives the label they were drawn for."""
        return self.judge.accuracy(drawn)

    def diversity(self, drawn: Pairs) -> float:
        """Mean distance between two images of a label, over that of the test images, averaged over labels."""
        return float((class_spread(drawn) / self.real_spread).mean())

    def frechet(self, drawn: Pairs) -> float:
        """Fréchet distance to the test images in the judge's features."""
        return frechet_distance(self.judge.features(drawn.u), self.real_features)

    def too_close(self, drawn: Pairs) -> float:
        """Share of images closer to a training image than all but 1% of the test images are."""
        return float((nearest_distance(drawn.u, self.training) < self.closeness).float().mean())

    def calibration(self, drawn: Pairs, model: pcl.BimodalModel) -> dict[str, float]:
        """Judge a model's p(label|image) by the label drawn for, and by the one that the judge sees."""
        implied = label_given_image(model, self.prior, drawn.u)
        return {
            "NLL": pcl.diagnostics.negative_log_likelihood(implied.logits, drawn.v),
            "ECE": pcl.diagnostics.expected_calibration_error(implied.probs, drawn.v),
            "ECE judge": pcl.diagnostics.expected_calibration_error(implied.probs, self.judge.labels(drawn.u)),
        }


def class_spread(pairs: Pairs) -> Tensor:
    """Return the mean distance between two images of each label, shape (10,)."""
    return torch.stack([torch.pdist(pairs.u[pairs.v == label].flatten(1)).mean() for label in LABELS])


def nearest_distance(images: Tensor, others: Tensor) -> Tensor:
    """Return how far the nearest of the others is from each image."""
    bank = others.flatten(1)
    return torch.cat([torch.cdist(part.flatten(1), bank).amin(1) for part in images.split(_AT_ONCE)])


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance of Gaussians with the means and covariances of two samples (n, d) and (m, d).

    |m_a − m_b|² + tr(A + B − 2 (A^½ B A^½)^½) (Heusel et al. 2017, arXiv 1706.08500, eq. 6), of which the last trace is
    the nuclear norm of R_a R_bᵀ for any R with RᵀR the covariance.
    """
    a, b = a.double(), b.double()
    factor_a, factor_b = _covariance_factor(a), _covariance_factor(b)
    overlap = torch.linalg.matrix_norm(factor_a @ factor_b.T, "nuc")
    traces = factor_a.square().sum() + factor_b.square().sum()
    squared = (a.mean(0) - b.mean(0)).square().sum() + traces - 2 * overlap
    return float(squared.clamp(min=0))


def _covariance_factor(x: Tensor) -> Tensor:
    return torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R


def timed(draw: Callable[[], Tensor], seed: int, repeats: int = 3) -> tuple[Tensor, float]:
    """Draw several times from one seed, and return the draw and the shortest of the wall times in seconds.

    The shortest, as whatever else the machine does only adds to it.
    """
    seconds = []
    for _ in range(repeats):
        with seeded(seed), torch.no_grad():
            began = time.perf_counter()
            drawn = draw()
            seconds.append(time.perf_counter() - began)
    return drawn, min(seconds)
