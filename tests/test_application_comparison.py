"""The family of losses by name: on one Gaussian, against the closed forms, and on images and labels."""

import sys
from contextlib import nullcontext

import pytest
import torch
from tables_read import rows_of

import probcl as pcl
from applications.family import ALIGNMENTS, EXCLUDED, LOSSES, VARIANTS, make_loss
from applications.gaussians import comparison
from applications.gaussians.__main__ import main as gaussians
from applications.gaussians.comparison import NO_CONDITIONAL, NO_MINIMUM, QUADRATIC, Objective
from applications.gaussians.config import Config
from applications.gaussians.constant import PlusConstant
from applications.gaussians.experiment_illustration import stratified_pairs
from applications.mnist.__main__ import main as mnist
from applications.mnist.experiment import same_label
from probcl.gaussian import optimum

CONFIG = Config.read().comparison
TRUTH = pytest.approx((2 / 3, 5 / 6), abs=1e-4)
F_MICL = [name for name in LOSSES if name.startswith("f-micl") and name not in EXCLUDED + VARIANTS]


def learned(loss: str, alignment: str, constant: bool = False):
    return comparison.in_population(Objective(loss, alignment, constant), CONFIG)


@pytest.mark.parametrize("alignment", QUADRATIC)
@pytest.mark.parametrize(("name", "row"), [("conditional", "conditional"), ("joint", "joint"), ("u-given-v", "u|v")])
def test_the_minimum_by_quadrature_is_the_closed_form(name: str, row: str, alignment: str) -> None:
    law = optimum(CONFIG.C, 1, 1, alignment, row).law
    expected = law.mean_map_u_given_v.item(), law.cov_u_given_v.item()
    assert learned(name, alignment) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in F_MICL if name != "f-micl-pearson"])
def test_with_potentials_and_a_constant_every_divergence_recovers_everything_and_without_it_none(name: str) -> None:
    assert learned(name, "potentials", constant=True) == TRUTH
    assert learned(name, "potentials") != pytest.approx((2 / 3, 5 / 6), abs=0.05)


@pytest.mark.parametrize("name", F_MICL)
def test_with_l2_and_a_constant_every_divergence_is_the_joint_loss(name: str) -> None:
    """The score is a function of u − v, whose law, and that of unmatched u − v, are Gaussian: the ratio is in reach."""
    assert learned(name, "l2", constant=True) == pytest.approx((0.5, 0.75), abs=1e-4)


def test_f_micl_of_kl_with_a_constant_is_the_joint_loss_for_every_alignment() -> None:
    for alignment in QUADRATIC:
        assert learned("f-micl-kl", alignment, constant=True) == pytest.approx(learned("joint", alignment), abs=1e-4)


def test_conditional_mmd_recovers_the_mean_with_inner_products_and_everything_with_potentials() -> None:
    assert learned("mmd", "inner") == pytest.approx((2 / 3, 1.5), abs=1e-4)
    assert learned("mmd", "potentials") == TRUTH
    assert learned("joint-mmd", "potentials") == TRUTH


def test_rince_has_a_minimum_only_where_scores_are_bounded_and_at_q_1_no_conditional() -> None:
    for name in ("rince", "rince-1"):
        assert learned(name, "inner") == learned(name, "potentials") == NO_MINIMUM
        assert learned(name, "l2", constant=True) == NO_MINIMUM
    slope, variance = learned("rince", "l2")
    assert (slope, variance) == pytest.approx((0.4314, 0.8528), abs=1e-3)
    assert learned("rince-1", "l2") == NO_CONDITIONAL


@pytest.mark.parametrize(
    ("name", "alignment", "constant"),
    [("f-micl-js", "l2", True), ("f-micl-vincze-le-cam", "inner", False), ("rince", "l2", False), ("mmd", "l2", False)],
)
def test_training_finds_the_minimum(name: str, alignment: str, constant: bool) -> None:
    objective, pairs = Objective(name, alignment, constant), stratified_pairs(CONFIG.C, 256, CONFIG.seed)
    found = comparison.in_training(objective, pairs, CONFIG)
    assert found == pytest.approx(comparison.in_population(objective, CONFIG), abs=0.02)


def test_a_constant_is_added_to_every_score_and_learned() -> None:
    x, y = torch.randn(4, 3), torch.randn(5, 3)
    alignment = PlusConstant(pcl.WithPotentials(potential_dim=1))
    with torch.no_grad():
        alignment.constant.fill_(0.7)
    torch.testing.assert_close(alignment(x, y), alignment.base(x, y) + 0.7)
    torch.testing.assert_close(alignment.matched(x, y[:4]), alignment.base.matched(x, y[:4]) + 0.7)
    pcl.Scores(x, y[:4], alignment).diagonal().sum().backward()
    assert float(alignment.constant.grad) == pytest.approx(4)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_table_is_made_and_works_with_every_alignment(name: str) -> None:
    labels = torch.tensor([0, 1, 0, 2, 1, 1])
    warning = pytest.warns(pcl.ProbclWarning, match="outside the theory") if name in EXCLUDED else nullcontext()
    with warning:
        loss = make_loss(name, kernel_v=same_label)
    for alignment in ALIGNMENTS.values():
        scores = pcl.Scores(torch.randn(6, 4), torch.randn(6, 4), alignment())
        assert torch.isfinite(loss.given(torch.randn(6, 3), labels)(scores))


def test_variants_are_had_by_name_and_left_out_of_comparisons() -> None:
    assert not set(VARIANTS) & set(comparison.names())
    assert {make_loss(name).alpha for name in VARIANTS if name.endswith("-40")} == {40}
    assert learned("sum-of-losses", "l2") == comparison.UNKNOWN
    sum_of_losses = make_loss("sum-of-losses")
    assert [type(alignment) for alignment in sum_of_losses.alignments] == [pcl.Laplace, pcl.Power]
    assert ALIGNMENTS["power-2"]().gamma == 2


@pytest.mark.slow
def test_all_of_the_table_is_found_by_training() -> None:
    """The page on the Gaussian oracle: within 0.02; Pearson, whose negatives have no variance, within 0.045."""
    pairs = stratified_pairs(CONFIG.C, CONFIG.n_pairs, CONFIG.seed)
    compared = 0
    for objective in comparison.objectives(comparison.names(), QUADRATIC):
        theory = comparison.in_population(objective, CONFIG)
        if not isinstance(theory, comparison.Learned):
            continue
        found, within = comparison.in_training(objective, pairs, CONFIG), 0.045 if "pearson" in objective.loss else 0.02
        assert found == pytest.approx(theory, abs=within), objective
        compared += 1
    assert compared == 18 * 3 + 1  # RINCE has a minimum with L2 only


def test_gaussians_compares_a_loss_and_an_alignment_by_name(tmp_path) -> None:
    gaussians(["--loss", "rince-0", "--alignment", "l2", "--output", str(tmp_path)])
    truth, theory, found = rows_of(tmp_path / "comparison.csv")
    assert [row["from"] for row in (truth, theory, found)] == ["", "population", "training"]
    assert (truth["loss"], theory["loss"]) == ("truth", "rince-0")
    assert float(found["l2: slope"]) == pytest.approx(float(theory["l2: slope"]), abs=0.02)
    assert (tmp_path / "comparison.md").exists()


def test_mnist_fits_a_loss_and_an_alignment_by_name(tmp_path, monkeypatch) -> None:
    arguments = ["--loss", "mmd", "--alignment", "potentials", "--epochs", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["mnist", *arguments])
    mnist()
    (row,) = rows_of(tmp_path / "comparison-potentials.csv")
    assert row["loss"] == "mmd"
    assert 0 <= float(row["accuracy"]) <= 1
