"""What the pages on the papers say: the tests and commands that they name, and formulas that are printed otherwise."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from small_models import normal
from test_losses import scores_of_table
from torch import Tensor
from torch.testing import assert_close

import probcl as pcl
from probcl import gaussian
from probcl.divergences import VinczeLeCam

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "papers").glob("*.md"))
C = torch.tensor([[2.0, 0.3, 0.9], [0.3, 1.0, 0.2], [0.9, 0.2, 1.5]], dtype=torch.float64)


def names_in(path: Path) -> set[str]:
    """The tests of a file, those in classes as ``Class::test``."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"`(tests/[^`]+)`", page.read_text()):
        file, _, test = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert not test or test in names_in(ROOT / file), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    modules = re.findall(r"`(?:python -m )?((?:applications|benchmarks)\.\w+)", page.read_text())
    assert all(importlib.util.find_spec(module) for module in modules), modules
    files = re.findall(r"`pytest (\S+?)(?:`| )", page.read_text())
    assert all((ROOT / file).is_file() for file in files), files


def whitened(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    law = gaussian.learned_law(C, 2, A, B)
    return law.whitened_A, law.whitened_B, law.whitening.R


def test_the_log_determinant_enters_the_l2_loss_with_a_minus() -> None:
    best = gaussian.optimum(C, 2, 1, "l2", "u|v")
    A, B, R = whitened(best.A, best.B)
    precision = torch.eye(2, dtype=torch.float64) + B
    explained = (A.T @ torch.linalg.solve(precision, A)).trace()
    rest = -(A * R).sum() + 0.5 * B.trace() + 0.5 * explained
    assert float(rest - 0.5 * precision.logdet()) == pytest.approx(best.loss, abs=1e-12)
    assert float(rest + 0.5 * precision.logdet()) > 0  # more than a score of zero has, at what is said to be the best


@pytest.mark.parametrize("seed", range(3))
def test_the_inner_product_loss_is_half_a_squared_distance(seed: int) -> None:
    score = normal(2, 1, seed=seed)
    A, _, R = whitened(score, torch.zeros(2, 2, dtype=torch.float64))
    loss = gaussian.conditional_loss(C, 2, score)
    assert_close(loss, 0.5 * (A - R).square().sum() - 0.5 * R.square().sum())
    assert not torch.isclose(loss, (A - R).square().sum() - R.square().sum())


def test_the_precision_of_a_conditional_has_the_inverse_of_the_covariance() -> None:
    best = gaussian.optimum(C, 2, 1, "l2", "u|v")
    of_u, quadratic = C[:2, :2], best.encoder_u.T @ best.encoder_u
    exact = of_u - C[:2, 2:] @ C[2:, :2] / C[2, 2]  # of u given v, which this optimum recovers
    assert_close(torch.linalg.inv(torch.linalg.inv(of_u) + quadratic), exact)
    assert (torch.linalg.inv(of_u + quadratic) - exact).norm() > 0.5 * exact.norm()


def test_the_predicted_class_has_the_largest_score() -> None:
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 4), pcl.encoders.Label(4))
    u, labels = torch.randn(20, 3), torch.arange(4)
    predicted = pcl.classification.zero_shot(model, labels=labels).predict(u)
    assert torch.equal(predicted, model.scores(u, labels).matrix().argmax(1))


def test_the_printed_conjugate_of_vincze_le_cam_is_not_one() -> None:
    c = torch.tensor([0.0, 1.0], dtype=torch.float64)
    printed, divergence = 3 - 4 / (c.exp() + 1), VinczeLeCam()
    exact = c.exp() * divergence.derivative(c) - divergence.f(c)  # Fenchel and Young
    assert_close(divergence.conjugate(c), exact)
    assert float(printed[0]) == 1
    assert float(exact[0]) == 0


@pytest.mark.parametrize(("log_mu", "convex"), [(0.0, True), (2.0, False)])
def test_vincze_le_cam_is_not_convex_for_a_large_mu(log_mu: float, convex: bool) -> None:
    """The negative term of f-MICL as a function of the squared distance, on the sphere with 2σ² = 1."""
    square = torch.linspace(0, 4, 401, dtype=torch.float64)
    curvature = VinczeLeCam().conjugate(log_mu - square).diff().diff()
    assert bool((curvature > 0).all()) is convex


def test_a_constant_lambda_lowers_all_scores_of_a_large_batch() -> None:
    n = 400
    low, high = (scores_of_table(torch.full((n, n), value, dtype=torch.float64)) for value in (0.0, 1.0))
    with pytest.warns(pcl.ProbclWarning, match="lam times the number of candidates is 8"):
        constant = pcl.RINCELoss(0.5, lam=0.02)(high) - pcl.RINCELoss(0.5, lam=0.02)(low)
    assert constant > 1
    assert abs(float(pcl.RINCELoss(0.5)(high) - pcl.RINCELoss(0.5)(low))) < 1e-12


@pytest.mark.parametrize("rank", [0, 1])
def test_the_diagonal_of_gathered_views_is_not_the_self_pairs(rank: int) -> None:
    """In the order of Kernel-InfoNCE's public code: the first views of all ranks, then the second."""
    n = 3
    first, second = normal(2 * n, 4), normal(2 * n, 4, seed=1)
    own = slice(rank * n, (rank + 1) * n)
    distances = torch.cdist(torch.cat([first[own], second[own]]), torch.cat([first, second]))
    assert (distances.diagonal() < 1e-6).tolist() == [rank == 0] * n + [False] * n
