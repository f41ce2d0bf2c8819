import math

import numpy as np
import pytest
import torch
from gaussian_cases import C_2D, normal, random_covariance
from scipy.linalg import subspace_angles
from scipy.optimize import minimize
from small_models import seeded
from torch import Tensor

from probcl import gaussian

# name: (alignment, loss, weights given to `optimum`)
ROWS = {
    "inner conditional": ("inner", "conditional", {}),
    "inner weighted": ("inner", "conditional", {"lambda_u": 0.3, "lambda_v": 1.9}),
    "inner u|v": ("inner", "u|v", {}),
    "inner v|u": ("inner", "v|u", {}),
    "inner joint": ("inner", "joint", {}),
    "l2 u|v": ("l2", "u|v", {}),
    "l2 v|u": ("l2", "v|u", {}),
    "l2 two-sided": ("l2", "conditional", {}),
    "l2 two-sided weighted": ("l2", "conditional", {"lambda_u": 0.7, "lambda_v": 0.7}),
    "l2 one-sided weighted": ("l2", "conditional", {"lambda_u": 0.0, "lambda_v": 0.7}),
    "l2 joint": ("l2", "joint", {}),
    "potentials conditional": ("potentials", "conditional", {}),
    "potentials weighted": ("potentials", "conditional", {"lambda_u": 0.3, "lambda_v": 1.9}),
    "potentials u|v": ("potentials", "u|v", {}),
    "potentials joint": ("potentials", "joint", {}),
}
SIZES = [(1, 1, 1), (1, 1, 2), (2, 2, 1), (3, 2, 2), (2, 4, 3), (4, 4, 2), (5, 6, 3), (6, 6, 6)]


def weights_of(loss: str, weights: dict) -> dict:
    return {"u|v": {"lambda_u": 2.0, "lambda_v": 0.0}, "v|u": {"lambda_u": 0.0, "lambda_v": 2.0}}.get(loss, weights)


def evaluate(C: Tensor, n_u: int, loss: str, weights: dict, A: Tensor, B: Tensor, C_: Tensor) -> Tensor:
    if loss == "joint":
        return gaussian.joint_loss(C, n_u, A, B, C_)
    return gaussian.conditional_loss(C, n_u, A, B, C_, **weights_of(loss, weights))


def numerical_minimum(C: Tensor, n_u: int, rank: int, alignment: str, loss: str, weights: dict, seed: int) -> float:
    """L-BFGS over the factors of A (and of the potentials, of full rank), in coordinates whitened by Cholesky."""
    n_v = len(C) - n_u
    T_u = torch.linalg.inv(torch.linalg.cholesky(C[:n_u, :n_u]))
    T_v = torch.linalg.inv(torch.linalg.cholesky(C[n_u:, n_u:]))
    shapes = [(rank, n_u), (rank, n_v)]
    if alignment == "potentials":
        shapes += [(n_u, n_u), (n_v, n_v)]
    sizes = [math.prod(shape) for shape in shapes]

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(flat, requires_grad=True)
        G, H, *K = (x.reshape(s) for x, s in zip(parameters.split(sizes), shapes, strict=True))
        G, H = G @ T_u, H @ T_v
        if alignment == "inner":
            B, C_ = torch.zeros_like(C[:n_u, :n_u]), torch.zeros_like(C[n_u:, n_u:])
        else:
            K_u, K_v = (G, H) if alignment == "l2" else (K[0] @ T_u, K[1] @ T_v)
            B, C_ = K_u.T @ K_u, K_v.T @ K_v
        value = evaluate(C, n_u, loss, weights, G.T @ H, B, C_)
        value.backward()
        # A line search backs off from a high wall; it cannot interpolate towards infinity.
        return min(value.item(), 1e3), parameters.grad.numpy()

    start = 0.2 * normal(seeded(seed), sum(sizes)).numpy()
    options = {"ftol": 0.0, "gtol": 1e-8, "maxiter": 3000, "maxcor": 30}
    return float(minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options).fun)


@pytest.mark.parametrize(("n_u", "n_v", "rank"), SIZES)
@pytest.mark.parametrize("name", ROWS)
def test_closed_form_is_the_best_of_direct_minimisations(name, n_u, n_v, rank):
    alignment, loss, weights = ROWS[name]
    C, _ = random_covariance(n_u, n_v)
    expected = gaussian.optimum(C, n_u, rank, alignment, loss, **weights).loss
    found = [numerical_minimum(C, n_u, rank, alignment, loss, weights, seed) for seed in range(3)]
    assert min(found) == pytest.approx(expected, abs=1e-8), [f - expected for f in found]


@pytest.mark.parametrize(("n_u", "n_v", "rank"), SIZES)
@pytest.mark.parametrize("name", ROWS)
def test_values_reported_are_the_losses_of_the_score_reported(name, n_u, n_v, rank):
    alignment, loss, weights = ROWS[name]
    C, _ = random_covariance(n_u, n_v, seed=1)
    best = gaussian.optimum(C, n_u, rank, alignment, loss, **weights)
    score = (best.A, best.B, best.C_)
    divergence = gaussian.joint_divergence(C, n_u, *score) if loss == "joint" else None
    if divergence is None:
        divergence = gaussian.conditional_divergence(C, n_u, *score, **weights_of(loss, weights))
    assert float(evaluate(C, n_u, loss, weights, *score)) == pytest.approx(best.loss, abs=1e-10)
    assert float(divergence) == pytest.approx(best.divergence, abs=1e-10)
    assert best.divergence >= 0


@pytest.mark.parametrize("name", ROWS)
def test_score_reported_is_the_alignment_of_the_factors_reported(name):
    alignment, loss, weights = ROWS[name]
    C, _ = random_covariance(3, 4)
    best = gaussian.optimum(C, 3, 2, alignment, loss, **weights)
    u, v = normal(seeded(0), 50, 3), normal(seeded(1), 50, 4)
    x, y = u @ best.encoder_u.T, v @ best.encoder_v.T
    aligned = -0.5 * (x - y).square().sum(1) if alignment == "l2" else (x * y).sum(1)
    if alignment == "potentials":
        aligned -= 0.5 * (u @ best.potential_u.T).square().sum(1) + 0.5 * (v @ best.potential_v.T).square().sum(1)
    quadratic = 0.5 * ((u @ best.B) * u).sum(1) + 0.5 * ((v @ best.C_) * v).sum(1)
    torch.testing.assert_close(((u @ best.A) * v).sum(1) - quadratic, aligned)


@pytest.mark.parametrize(
    ("alignment", "loss", "A", "B", "slope", "variance", "marginals", "cross"),
    [
        ("inner", "conditional", 0.4444, 0.0, 0.6667, 1.5, (2.7, 2.7), 1.8),
        ("inner", "joint", 0.3333, 0.0, 0.5, 1.5, (2.0, 2.0), 1.0),
        ("l2", "u|v", 0.8, 0.5333, 0.6667, 0.8333, (1.1667, 0.75), 0.5),
        ("l2", "conditional", 0.7908, 0.7908, 0.5426, 0.6861, (0.9724, 0.9724), 0.5276),
        ("l2", "joint", 0.6667, 0.6667, 0.5, 0.75, (1.0, 1.0), 0.5),
        ("potentials", "joint", 0.8, 0.5333, 0.6667, 0.8333, (1.5, 1.5), 1.0),
    ],
)
def test_two_dimensional_illustration(alignment, loss, A, B, slope, variance, marginals, cross):
    best = gaussian.optimum(C_2D, 1, 1, alignment, loss)
    law = best.law
    computed = (best.A, best.B, law.mean_map_u_given_v, law.cov_u_given_v, law.cov_u, law.cov_v, law.cross_cov)
    assert [round(float(x), 4) for x in computed] == [A, B, slope, variance, *marginals, cross]


@pytest.mark.parametrize("seed", range(4))
def test_canonical_correlations_and_directions_are_those_the_covariance_was_made_with(seed):
    C, sigma = random_covariance(3, 5, seed)
    pairs = gaussian.canonical_correlations(C, 3)
    torch.testing.assert_close(pairs.correlations, sigma)
    x, y = pairs.whitener_u @ pairs.U, pairs.whitener_v @ pairs.V
    torch.testing.assert_close(x.T @ C[:3, :3] @ x, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(y.T @ C[3:, 3:] @ y, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(x.T @ C[:3, 3:] @ y, sigma.diag())
    torch.testing.assert_close(pairs.whitener_u, pairs.whitener_u.T)
    information = 0.5 * (torch.logdet(C[:3, :3]) + torch.logdet(C[3:, 3:]) - torch.logdet(C))
    assert gaussian.mutual_information(C, 3) == pytest.approx(float(information), abs=1e-12)


def test_canonical_correlations_from_data_are_cosines_of_principal_angles():
    C, _ = random_covariance(3, 2)
    data = normal(seeded(0), 200, 5) @ torch.linalg.cholesky(C).T + 7.0
    pairs = gaussian.canonical_correlations_from_data(data[:, :3], data[:, 3:])
    centred = (data - data.mean(0)).numpy()
    expected = np.cos(np.sort(subspace_angles(centred[:, :3], centred[:, 3:])))
    np.testing.assert_allclose(pairs.correlations.numpy(), expected, rtol=1e-12)
    in_float32 = gaussian.canonical_correlations_from_data(data[:, :3].float(), data[:, 3:].float())
    assert in_float32.correlations.dtype == torch.float64
    np.testing.assert_allclose(in_float32.correlations.numpy(), expected, atol=1e-5)


def test_high_dimensional_gaussian_process_has_the_published_correlations_and_error_floors():
    modes = np.arange(1, 1001)
    variances = (modes**2 * np.pi**2 + 9.0) ** -2
    at_points = np.sqrt(2) * np.cos(np.pi * np.outer(np.linspace(0, 1, 12), modes))
    C_uu = torch.tensor((at_points * variances) @ at_points.T + 0.05**2 * np.eye(12))
    C_uv = torch.tensor(at_points[:, :5] * np.sqrt(variances[:5]))
    C = torch.cat([torch.cat([C_uu, C_uv], 1), torch.cat([C_uv.T, torch.eye(5, dtype=torch.float64)], 1)])

    correlations = gaussian.canonical_correlations(C, 12).correlations
    np.testing.assert_allclose(correlations, [0.9674, 0.8299, 0.5889, 0.3920, 0.2656], atol=5e-5)

    u_floors, v_floors = [], []
    for rank in range(6):
        law = gaussian.optimum(C, 12, rank).law
        u_error = law.mean_map_u_given_v - C_uv
        v_error = law.mean_map_v_given_u - C_uv.T @ torch.linalg.inv(C_uu)
        u_floors.append(float((u_error @ u_error.T).trace()))
        v_floors.append(float((v_error @ C_uu @ v_error.T).trace()))
    np.testing.assert_allclose(u_floors, [0.0441, 0.0075, 0.0020, 0.0006, 0.0002, 0.0], atol=5e-5)
    np.testing.assert_allclose(v_floors, [2.196, 1.260, 0.571, 0.224, 0.071, 0.0], atol=5e-4)


def test_pair_formulas_are_those_of_the_table():
    sigma = torch.linspace(0.0, 0.99, 34, dtype=torch.float64)
    one_sided, reverse = (gaussian.pair_optimum(sigma, "l2", loss) for loss in ("u|v", "v|u"))
    inner, two_sided, joint = (
        gaussian.pair_optimum(sigma, *row) for row in (("inner", "joint"), ("l2", "conditional"), ("l2", "joint"))
    )
    x = (torch.sqrt(9 - 8 * sigma) - 1) / 2
    for computed, expected in [
        (inner.a / (1 - inner.a**2), sigma),
        (one_sided.slope_u_given_v, sigma),
        (one_sided.var_u_given_v, 1 - sigma**2),
        (reverse.slope_v_given_u, sigma),
        (reverse.var_v_given_u, 1 - sigma**2),
        (two_sided.slope_u_given_v, 1 - x),
        (two_sided.var_v_given_u, x),
        (joint.slope_v_given_u, sigma / (2 - sigma)),
        (joint.var_u_given_v, 2 * (1 - sigma) / (2 - sigma)),
    ]:
        torch.testing.assert_close(computed, expected)


@pytest.mark.parametrize(("loss", "expected"), [("joint", 0.597), ("conditional", 0.519)])
def test_inner_product_and_l2_are_equally_good_at_the_crossover_only(loss, expected):
    sigma = gaussian.crossover(loss)
    assert round(sigma, 3) == expected

    def inner_excess(sigma: float) -> float:
        C = torch.tensor([[1.0, sigma], [sigma, 1.0]], dtype=torch.float64)
        inner, l2 = (gaussian.optimum(C, 1, 1, alignment, loss).divergence for alignment in ("inner", "l2"))
        return inner - l2

    assert inner_excess(sigma) == pytest.approx(0.0, abs=1e-13)
    assert all(inner_excess(s) < 0 for s in np.linspace(0.01, sigma - 0.001, 50))
    assert all(inner_excess(s) > 0 for s in np.linspace(sigma + 0.001, 0.99, 50))


def conditional_moments(C: Tensor, n_u: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    C_uu, C_uv, C_vv = C[:n_u, :n_u], C[:n_u, n_u:], C[n_u:, n_u:]
    M_u, M_v = C_uv @ torch.linalg.inv(C_vv), C_uv.T @ torch.linalg.inv(C_uu)
    return M_u, M_v, C_uu - M_u @ C_uv.T, C_vv - M_v @ C_uv


@pytest.mark.parametrize(("n_u", "n_v"), [(1, 1), (3, 3), (2, 4), (5, 3)])
def test_what_each_full_rank_optimum_recovers(n_u, n_v):
    C, sigma = random_covariance(n_u, n_v)
    C_uu, C_vv = C[:n_u, :n_u], C[n_u:, n_u:]
    M_u, M_v, S_u, S_v = conditional_moments(C, n_u)
    full = min(n_u, n_v)

    inner = gaussian.optimum(C, n_u, full, "inner", "conditional").law
    torch.testing.assert_close(inner.mean_map_u_given_v, M_u)
    torch.testing.assert_close(inner.mean_map_v_given_u, M_v)
    torch.testing.assert_close(inner.cov_u_given_v, C_uu)
    torch.testing.assert_close(inner.cov_v_given_u, C_vv)

    torch.testing.assert_close(gaussian.optimum(C, n_u, full, "inner", "joint").law.cross_cov, C[:n_u, n_u:])

    u_given_v = gaussian.optimum(C, n_u, full, "l2", "u|v")
    torch.testing.assert_close(u_given_v.law.mean_map_u_given_v, M_u)
    torch.testing.assert_close(u_given_v.law.cov_u_given_v, S_u)
    v_given_u = gaussian.optimum(C, n_u, full, "l2", "v|u")
    torch.testing.assert_close(v_given_u.law.mean_map_v_given_u, M_v)
    torch.testing.assert_close(v_given_u.law.cov_v_given_u, S_v)
    assert u_given_v.divergence == v_given_u.divergence == 0

    exact = gaussian.optimum(C, n_u, full, "potentials", "joint")
    torch.testing.assert_close(exact.law.covariance, C)
    assert exact.divergence == 0

    l2 = gaussian.optimum(C, n_u, full, "l2", "joint")
    difference = torch.cat([l2.pairs.whitener_u @ l2.pairs.U, -l2.pairs.whitener_v @ l2.pairs.V])
    learned = difference.T @ l2.law.covariance @ difference
    torch.testing.assert_close(learned, (2 * (1 - sigma)).diag())


@pytest.mark.parametrize("name", [name for name in ROWS if not name.startswith("inner")])
def test_what_low_rank_leaves_out_is_the_information_of_the_pairs_left_out(name):
    alignment, loss, weights = ROWS[name]
    C, sigma = random_covariance(4, 3)
    values = [gaussian.optimum(C, 4, rank, alignment, loss, **weights) for rank in range(5)]
    weight = sum(weights.values()) / 2 if weights else 1.0
    assert values[0].divergence == pytest.approx(weight * gaussian.mutual_information(C, 4))
    assert values[3].divergence == values[4].divergence
    assert not values[4].encoder_u[3].any()
    if alignment == "potentials":
        for rank in range(4):
            left_out = -0.5 * weight * float(torch.log1p(-(sigma[rank:] ** 2)).sum())
            assert values[rank].divergence == pytest.approx(left_out, abs=1e-12)


ONE = torch.ones(1, 1, dtype=torch.float64)
DATA = torch.arange(12.0).reshape(6, 2) ** 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gaussian.optimum([[1.0]], 1), TypeError, r"^C must be a torch.Tensor"),
        (lambda: gaussian.optimum(C_2D.int(), 1), TypeError, r"^C must be of a floating-point type"),
        (lambda: gaussian.optimum(C_2D[:1], 1), ValueError, r"^C must be a square"),
        (lambda: gaussian.optimum(C_2D[0], 1), ValueError, r"^C must have 2 dimensions"),
        (lambda: gaussian.optimum(C_2D * math.nan, 1), ValueError, r"^C must be finite"),
        (lambda: gaussian.optimum(C_2D.triu(), 1), ValueError, r"^C must be symmetric"),
        (lambda: gaussian.optimum(torch.ones_like(C_2D), 1), ValueError, r"^C must be positive definite.* 1$"),
        (lambda: gaussian.optimum(C_2D - C_2D.diag().diag(), 1), ValueError, r"^C_uu.*positive definite"),
        (lambda: gaussian.optimum(torch.diag(ONE.new_tensor([1, -1])), 1), ValueError, r"^C_vv.*definite"),
        (lambda: gaussian.optimum(C_2D, 0), ValueError, r"^n_u must be at least 1"),
        (lambda: gaussian.optimum(C_2D, 2), ValueError, r"^n_u must leave .* got 2"),
        (lambda: gaussian.optimum(C_2D, 1.0), TypeError, r"^n_u must be an integer"),
        (lambda: gaussian.optimum(C_2D, 1, rank=-1), ValueError, r"^rank must be at least 0"),
        (lambda: gaussian.optimum(C_2D, 1, 1, "cosine"), ValueError, r"^alignment must be one of .*'cosine'"),
        (lambda: gaussian.optimum(C_2D, 1, 1, "l2", "mmd"), ValueError, r"^loss must be one of .*'mmd'"),
        (
            lambda: gaussian.optimum(C_2D, 1, 1, "l2", lambda_u=1.5, lambda_v=0.5),
            ValueError,
            r"lambda_v must be equal, or one of them zero, for alignment='l2'.*1\.5 and 0\.5",
        ),
        (lambda: gaussian.optimum(C_2D, 1, loss="joint", lambda_u=1.0), ValueError, r"loss='conditional' only"),
        (lambda: gaussian.optimum(C_2D, 1, lambda_v=-1.0), ValueError, r"^lambda_v must .*not negative"),
        (lambda: gaussian.conditional_loss(C_2D, 1, ONE, lambda_u=0, lambda_v=0), ValueError, "both be zero"),
        (lambda: gaussian.joint_loss(C_2D, 1, ONE[0]), ValueError, r"^A must have 2 dimensions"),
        (lambda: gaussian.joint_loss(C_2D, 1, ONE, B=C_2D), ValueError, r"^B must have shape \(1, 1\)"),
        (lambda: gaussian.learned_law(C_2D, 1, ONE, C_=ONE / 0), ValueError, r"^C_ must be finite"),
        (lambda: gaussian.pair_optimum(ONE[0]), ValueError, r"^correlations must be in \[0, 1\)"),
        (lambda: gaussian.crossover("u|v"), ValueError, r"^loss must be 'joint' or 'conditional'"),
        (
            lambda: gaussian.canonical_correlations_from_data(DATA, DATA[:5]),
            ValueError,
            r"u and v must have one row per pair, got 6 and 5",
        ),
        (lambda: gaussian.canonical_correlations_from_data(DATA[:4], DATA[:4]), ValueError, r"more than 4 rows"),
        (lambda: gaussian.canonical_correlations_from_data(DATA, DATA), ValueError, r"canonical correlations"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
