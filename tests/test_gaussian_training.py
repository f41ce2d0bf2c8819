"""Models trained by `fit` on samples of a Gaussian law reach the closed forms of `probcl.gaussian`."""

import numpy as np
import pytest
import torch
from gaussian_cases import C_2D
from scipy.optimize import brentq, fsolve
from scipy.stats import norm, qmc
from small_models import seeded
from torch import Tensor

import probcl as pcl
from probcl.datasets import Pairs, gaussian_pairs

N = 20_000
TRAINING = {"lr": 0.03, "schedule": "cosine", "device": "cpu", "progress": False}
ROWS = {
    "inner, conditional": (pcl.InnerProduct, pcl.ConditionalLoss(), ("inner", "conditional")),
    "inner, u|v": (pcl.InnerProduct, pcl.ConditionalLoss(2, 0), ("inner", "u|v")),
    "inner, joint": (pcl.InnerProduct, pcl.JointLoss(), ("inner", "joint")),
    "l2, u|v": (pcl.L2, pcl.ConditionalLoss(2, 0), ("l2", "u|v")),
    "l2, two-sided": (pcl.L2, pcl.ConditionalLoss(), ("l2", "conditional")),
    "l2, joint": (pcl.L2, pcl.JointLoss(), ("l2", "joint")),
    "potentials, two-sided": (pcl.WithPotentials, pcl.ConditionalLoss(), ("potentials", "conditional")),
}
# Canonical correlations, dimensions of u and v, and of the embedding. Where the embedding is too narrow for all of
# them, those kept and those left out are further apart than a sample of this size can confuse.
SMALL = ((0.7, 0.5, 0.3), 4, 3, 3)
LARGER = [((0.6, 0.5, 0.1, 0.05), 6, 6, 2), ((0.6, 0.5, 0.4, 0.3, 0.2), 5, 5, 5), ((0.7, 0.5, 0.3), 6, 3, 3)]
pytestmark = pytest.mark.usefixtures("one_thread")


def covariance(correlations: tuple[float, ...], n_u: int, n_v: int, seed: int) -> Tensor:
    """A covariance with these canonical correlations, whose marginals have variances from 0.3 to 3."""
    generator, k = seeded(seed), len(correlations)

    def rotation(n: int) -> Tensor:
        return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q

    roots = [rotation(n) * torch.logspace(-0.25, 0.25, n, dtype=torch.float64) for n in (n_u, n_v)]
    roots = [root @ rotation(len(root)) for root in roots]
    sigma = torch.zeros(n_u, n_v, dtype=torch.float64)
    sigma[range(k), range(k)] = torch.tensor(correlations, dtype=torch.float64)
    white = torch.cat([torch.cat([torch.eye(n_u), sigma], dim=1), torch.cat([sigma.T, torch.eye(n_v)], dim=1)])
    root = torch.block_diag(*roots)
    return root @ white @ root.T


def trained(row: str, pairs: Pairs, rank: int, **options) -> pcl.BimodalModel:
    alignment, loss, (name, _) = ROWS[row]
    width = 2 * rank if name == "potentials" else rank
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = pcl.BimodalModel(*(pcl.encoders.Linear(side.shape[1], width) for side in pairs), alignment=alignment())
    if name == "potentials":
        # Large potentials of the wrong directions are a saddle; small ones grow where they are wanted.
        for encoder in (model.encoder_u, model.encoder_v):
            encoder.weight.data[rank:] *= 0.1
    model.to(pairs.u.dtype)
    pcl.fit(model, pairs, loss, **options)
    return model


def learned_law(model: pcl.BimodalModel, C: Tensor, n_u: int) -> pcl.gaussian.TiltedGaussian:
    G, H = model.encoder_u.weight.detach().double(), model.encoder_v.weight.detach().double()
    if isinstance(model.alignment, pcl.InnerProduct):
        return pcl.gaussian.learned_law(C, n_u, G.T @ H)
    if isinstance(model.alignment, pcl.L2):
        return pcl.gaussian.learned_law(C, n_u, G.T @ H, G.T @ G, H.T @ H)
    (G, K), (H, L) = G.chunk(2), H.chunk(2)
    return pcl.gaussian.learned_law(C, n_u, G.T @ H, K.T @ K, L.T @ L)


def distances(law, reference, one_sided: bool) -> dict[str, float]:
    """How far a law is from a reference, in whitened coordinates."""
    W = reference.whitening

    def relative(ours: Tensor, theirs: Tensor, left: Tensor, right: Tensor) -> float:
        return float((left @ (ours - theirs) @ right).norm() / (left @ theirs @ right).norm())

    found = {
        "A": float(torch.linalg.matrix_norm(law.whitened_A - reference.whitened_A, ord=2)),
        "mean u|v": relative(law.mean_map_u_given_v, reference.mean_map_u_given_v, W.inverse_root_u, W.root_v),
        "cov u|v": relative(law.cov_u_given_v, reference.cov_u_given_v, W.inverse_root_u, W.inverse_root_u),
    }
    if one_sided:
        return found
    return found | {
        "mean v|u": relative(law.mean_map_v_given_u, reference.mean_map_v_given_u, W.inverse_root_v, W.root_u),
        "cov v|u": relative(law.cov_v_given_u, reference.cov_v_given_u, W.inverse_root_v, W.inverse_root_v),
    }


def check_training_reaches_the_optimum(row, correlations, n_u, n_v, rank, seed, epochs=15):
    C = covariance(correlations, n_u, n_v, seed)
    pairs = gaussian_pairs(C, n_u, N, seed)
    # The logarithm of a batch mean is biased by what the batch misses of the tail of e^s, most under the joint loss.
    batch_size = 500 if row == "inner, joint" else 250
    model = trained(row, pairs, rank, epochs=epochs, batch_size=batch_size, **TRAINING)
    alignment, loss = ROWS[row][2]
    law, one_sided = learned_law(model, C, n_u), loss == "u|v" and alignment != "inner"

    optimum = pcl.gaussian.optimum(C, n_u, rank, alignment, loss)
    assert all(distance < 0.05 for distance in distances(law, optimum.law, one_sided).values())

    # Most of that distance is the sample's own: its optimum is closer.
    of_sample = pcl.gaussian.optimum(torch.cov(torch.cat(pairs, dim=1).T.double()), n_u, rank, alignment, loss)
    sample_law = pcl.gaussian.learned_law(C, n_u, of_sample.A, of_sample.B, of_sample.C_)
    assert all(distance < 0.035 for distance in distances(law, sample_law, one_sided).values())


@pytest.mark.usefixtures("unchecked")  # for speed: hundreds of steps
@pytest.mark.parametrize("row", ROWS)
def test_training_on_a_sample_reaches_the_population_optimum(row):
    check_training_reaches_the_optimum(row, *SMALL, seed=0, epochs=10)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", LARGER)
@pytest.mark.parametrize("row", ROWS)
def test_training_on_larger_samples_reaches_the_population_optimum(row, case, seed):
    check_training_reaches_the_optimum(row, *case, seed=seed)


def quantiles(n: int) -> np.ndarray:
    """A sample of n numbers whose first eight moments are those of the standard normal."""
    edges = norm.pdf(norm.ppf(np.arange(n + 1) / n))
    cell_means = n * (edges[:-1] - edges[1:])
    powers = cell_means ** np.array([[1], [3], [5], [7]])

    def excess(coefficients: np.ndarray) -> list[float]:
        return [np.mean((coefficients @ powers) ** p) / moment - 1 for p, moment in ((2, 1), (4, 3), (6, 15), (8, 105))]

    return fsolve(excess, [1.0, 0.0, 0.0, 0.0]) @ powers


def illustration_pairs(n: int = 1024) -> Pairs:
    """Pairs of THEORY's 2-D illustration in which sampling error plays no part, C = [[1.5, 1], [1, 1.5]].

    With linear encoders the losses see a sample through its marginals and its cross-covariance only.
    """
    draws, sorted_values = qmc.MultivariateNormalQMC(np.zeros(2), engine=qmc.Sobol(2, seed=0)).random(n), quantiles(n)

    def pairs(rho: float) -> tuple[np.ndarray, np.ndarray]:
        u, v = draws[:, 0], rho * draws[:, 0] + np.sqrt(1 - rho**2) * draws[:, 1]
        return sorted_values[u.argsort().argsort()], sorted_values[v.argsort().argsort()]

    rho = brentq(lambda rho: np.mean(np.prod(pairs(rho), axis=0)) - 2 / 3, 0.5, 0.8, xtol=1e-9)
    u, v = (np.sqrt(1.5) * torch.from_numpy(side)[:, None] for side in pairs(rho))
    return Pairs(u, v)


# A (B too where it differs), slope, var u|v, marginal variances of u and v, cross-covariance: THEORY §4, BST §5.4.
ILLUSTRATION = {
    "inner, conditional": (0.4444, 0.6667, 1.5, 2.7, 2.7, 1.8),
    "inner, joint": (0.3333, 0.5, 1.5, 2.0, 2.0, 1.0),
    "l2, u|v": (0.8, 0.6667, 0.8333, 1.1667, 0.75, 0.5),
    "l2, two-sided": (0.7908, 0.5426, 0.6861, 0.9725, 0.9725, 0.5276),
    "l2, joint": (0.6667, 0.5, 0.75, 1.0, 1.0, 0.5),
}


def test_the_illustration_s_sample_has_the_covariance_it_should():
    u, v = illustration_pairs()
    C = torch.cov(torch.cat([u, v], dim=1).T, correction=0)
    torch.testing.assert_close(C, C_2D, rtol=0, atol=1e-5)


@pytest.mark.parametrize("row", ILLUSTRATION)
def test_training_reproduces_the_table_of_the_illustration_to_two_decimals(row):
    model = trained(row, illustration_pairs(), rank=1, optimizer="lbfgs", epochs=3, device="cpu", progress=False)
    law = learned_law(model, C_2D, n_u=1)
    A = float(model.encoder_u.weight * model.encoder_v.weight)
    found = (A, law.mean_map_u_given_v, law.cov_u_given_v, law.cov_u, law.cov_v, law.cross_cov)
    np.testing.assert_allclose([float(value) for value in found], ILLUSTRATION[row], rtol=0, atol=0.005)
