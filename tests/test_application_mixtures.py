"""The application of Gaussian mixtures: its maps find the Fisher subspace, and it writes what it promises."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from small_models import seeded
from tables_read import rows_of

from applications.mixtures.__main__ import CONFIG, main
from applications.mixtures.clusters import digits_row, mixture_row, same_class
from applications.mixtures.experiment import Config, Found, draw_world, methods
from applications.mixtures.mixture import Mixture, draw_mixture, even_points, labelled, pairs_of_one, pairs_of_two
from applications.mixtures.population import minimise, population_loss
from probcl.datasets import Pairs

SETTINGS = Config.read(CONFIG)
SLOW_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 1)]


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return draw_world(SETTINGS, seed=0).image


def test_means_are_centred_and_the_noise_has_the_deviations_asked_for(mixture):
    torch.testing.assert_close(mixture.means.sum(0), torch.zeros(20), atol=1e-4, rtol=0)
    deviations = torch.linalg.eigvalsh(mixture.covariance).sqrt()
    torch.testing.assert_close(deviations, torch.tensor([1.0] * 15 + [8.0] * 5), atol=1e-3, rtol=0)


def test_means_that_share_a_group_are_one_and_all_lie_as_far_out_as_asked():
    mixture = draw_mixture(dim=500, groups=(0, 0, 1, 1), noisy=2, deviation=8.0, distance=3.0, generator=seeded())
    assert torch.equal(mixture.means[0], mixture.means[1])
    apart = torch.linalg.solve(mixture.root, mixture.means[2] - mixture.means[0]).norm()
    assert apart == pytest.approx(3 * math.sqrt(2), rel=0.1)  # nearly orthogonal in so many dimensions


def test_the_fisher_subspace_is_what_discriminant_analysis_estimates(mixture):
    data = labelled(mixture, 100_000, seeded())
    lda = LinearDiscriminantAnalysis(solver="eigen").fit(data.u.numpy(), data.v.numpy())
    found = mixture.fisher_subspace()
    assert found.shape == (20, 3)
    assert np.rad2deg(subspace_angles(lda.scalings_[:, :3], found.numpy()).max()) < 2


def test_merged_components_leave_one_direction_to_be_seen():
    assert draw_world(SETTINGS, seed=0).text.fisher_subspace().shape == (20, 1)


def test_even_points_have_the_moments_of_the_mixture_exactly(mixture):
    parts = even_points(mixture, 256, seed=0).reshape(4, 256, 20)
    torch.testing.assert_close(parts.mean(1), mixture.means.double(), atol=1e-9, rtol=0)
    for part in parts:
        centred = part - part.mean(0)
        torch.testing.assert_close(centred.mT @ centred / 256, mixture.covariance.double(), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_members_of_a_pair_share_the_between_class_covariance_as_often_as_they_are_kept(mixture, kept):
    pairs = pairs_of_one(mixture, 200_000, kept, seeded())
    white = torch.linalg.inv(mixture.root)
    means = mixture.means @ white
    expected = kept * means.mT @ means / 4
    found = (pairs.u @ white).mT @ (pairs.v @ white) / pairs.n_pairs
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_two_modalities_share_the_component():
    world = draw_world(SETTINGS, seed=0)
    image, text = pairs_of_two(world.image, world.text, 200_000, seeded())
    white = [torch.linalg.inv(part.root) for part in (world.image, world.text)]
    expected = (world.image.means @ white[0]).mT @ (world.text.means @ white[1]) / 4
    torch.testing.assert_close((image @ white[0]).mT @ (text @ white[1]) / 200_000, expected, atol=0.02, rtol=0)


def test_the_population_loss_is_info_nce_with_many_negatives(mixture):
    n, rank = 200_000, 2
    A = 0.05 * torch.randn(20, rank, generator=seeded(1)).double()
    x = labelled(mixture, 200, seeded(2)).u.double()
    negatives = labelled(mixture, n, seeded(3)).u.double()
    sampled = ((x @ A) @ (negatives @ A).mT).logsumexp(1) - math.log(n)
    positive = (mixture.means.double() @ A).square().sum() / 4
    expected = float(sampled.mean() - positive)
    assert float(population_loss(A, mixture, x)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("rank", "kept"), [(3, 1.0), (3, 0.5), (3, 0.2), (6, 1.0)])
def test_the_minimiser_in_the_population_spans_the_fisher_subspace_however_noisy_the_pairs(mixture, rank, kept):
    found = Found("", minimise(mixture, rank, 0.02, seed=0, kept=kept), mixture.fisher_subspace(), 3)
    assert found.angle < 0.3
    if rank == 6:
        assert found.gap > 10


def test_partners_are_others_of_the_same_class():
    data = Pairs(torch.arange(12.0)[:, None], torch.arange(12) % 3)
    pairs = same_class(data, 5, seeded())
    assert pairs.n_pairs == 60
    assert torch.equal(pairs.u[:, 0] % 3, pairs.v[:, 0] % 3)
    assert (pairs.u != pairs.v).all()


@pytest.mark.parametrize("seed", SLOW_SEEDS)
def test_every_method_meets_its_bar(seed):
    found = {one.method: one for one in methods(SETTINGS, seed)}
    assert found["PCA"].angle > 60
    bars = {"InfoNCE": 3, "InfoNCE, wide": 3, "InfoNCE, 50% kept": 6, "InfoNCE, 20% kept": 12, "CLIP, image": 3}
    for method, bar in (bars | {"CLIP, text": 3, "SimSiam": 4}).items():
        assert found[method].angle < bar, method
    for method in ("InfoNCE, wide", "CLIP, image", "CLIP, text"):
        assert found[method].gap > 4, method


@pytest.mark.parametrize("seed", SLOW_SEEDS)
def test_clusters_of_a_finite_sample_are_those_of_discriminant_analysis(seed):
    row = mixture_row(SETTINGS, seed)
    assert row["InfoNCE"] == pytest.approx(row["LDA"], abs=0.02)
    assert row["LDA"] > 0.8
    assert row["PCA"] < 0.05
    assert row["raw"] < 0.05


@pytest.mark.parametrize("seed", SLOW_SEEDS)
def test_same_class_pairs_of_digits_are_worth_their_labels(seed):
    row = digits_row(SETTINGS, seed)
    assert row["InfoNCE"] >= row["LDA"] - 0.03
    assert row["InfoNCE"] >= row["PCA"] + 0.15


def test_the_module_writes_tables_and_a_figure(tmp_path, process_state):
    state, random_state = process_state(), torch.get_rng_state()
    main(["--quick", "--output", str(tmp_path)])
    tables = [f"{name}.{kind}" for name in ("subspaces", "clusters") for kind in ("csv", "md")]
    assert {path.name for path in tmp_path.iterdir()} == {
        *tables,
        "subspaces-seeds.csv",
        "clusters-seeds.csv",
        "figure.png",
    }
    rows = {row["method"]: row for row in rows_of(tmp_path / "subspaces.csv")}
    assert len(rows) == 7
    assert all(0 < float(row["mean angle"]) <= float(row["largest angle"]) <= 90 for row in rows.values())
    assert {name for name, row in rows.items() if row["gap"]} == {"InfoNCE, wide", "CLIP, image", "CLIP, text"}
    assert [row["data"] for row in rows_of(tmp_path / "clusters.csv")] == ["mixture", "digits, held out"]
    assert plt.imread(tmp_path / "figure.png").std() > 0
    assert not plt.get_fignums()
    assert process_state() == state
    assert torch.equal(torch.get_rng_state(), random_state)
