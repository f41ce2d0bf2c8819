"""The f-mutual information against quadrature (LOSSES.md c), and whether its interval covers."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from loss_cases import ALLOWED, DIVERGENCES, OF_VON_MISES_FISHER
from scipy.integrate import quad
from small_models import normal, seeded
from torch import Tensor

import probcl as pcl
from probcl.diagnostics import f_mutual_information_of_scores, fit_f_gaussian
from probcl.divergences import Divergence

F64 = torch.float64
DIM, KAPPA, RHO = 8, 4.0, 0.7


def marginal(t: float) -> float:
    """Density of the cosine of two independent uniform directions, but for its constant."""
    return (1 - t * t) ** ((DIM - 3) / 2)


def true_f_gaussian() -> pcl.FGaussian:
    """The log density ratio of the von Mises-Fisher pair, log C + κ cos = log(C e^κ) − κ d²/2."""
    constant = quad(marginal, -1, 1)[0] / quad(lambda t: marginal(t) * math.exp(KAPPA * t), -1, 1)[0]
    return pcl.FGaussian(constant * math.exp(KAPPA), KAPPA**-0.5)


def von_mises_fisher_pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """U uniform on the sphere, and v of cosines by inverting their distribution function on a grid."""
    generator = seeded(seed)
    u, other = (torch.randn(n, DIM, generator=generator, dtype=F64) for _ in range(2))
    u = u / u.norm(dim=1, keepdim=True)
    grid = torch.linspace(-1, 1, 20_001, dtype=F64)
    density = (1 - grid.square()) ** ((DIM - 3) / 2) * (KAPPA * grid).exp()
    below = torch.cat([density.new_zeros(1), (density[1:] + density[:-1]).cumsum(0)])
    uniform = torch.rand(n, generator=generator, dtype=F64) * below[-1]
    place = torch.searchsorted(below, uniform).clamp(1, len(grid) - 1)
    share = (uniform - below[place - 1]) / (below[place] - below[place - 1])
    cosine = (grid[place - 1] + share * (grid[place] - grid[place - 1]))[:, None]
    across = other - (other * u).sum(1, keepdim=True) * u
    return u, cosine * u + (1 - cosine.square()).sqrt() * across / across.norm(dim=1, keepdim=True)


def gaussian_pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    u, noise = torch.randn(2, n, 1, generator=seeded(seed))
    return u, RHO * u + math.sqrt(1 - RHO**2) * noise


def of_gaussian_pair(divergence: Divergence) -> float:
    """D_f of a bivariate Gaussian from the product of its marginals, by the trapezoidal rule."""
    t = torch.linspace(-14, 14, 1401, dtype=F64)
    x, y = t[:, None], t
    log_ratio = -0.5 * math.log(1 - RHO**2) - (RHO**2 * (x**2 + y**2) - 2 * RHO * x * y) / (2 * (1 - RHO**2))
    weight = (-0.5 * (x**2 + y**2)).exp() * (0.02**2 / (2 * math.pi))
    return float((weight * divergence.f(log_ratio)).sum())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_value_is_the_variational_form_over_all_pairs_that_do_not_match(name: str) -> None:
    divergence, batches = (
        DIVERGENCES[name],
        [(normal(7, 3), normal(7, 3, seed=1)), (normal(5, 3), normal(5, 3, seed=2))],
    )
    scores = [pcl.Scores(u, v) for u, v in batches]
    expected = 0.0
    for u, v in batches:
        s, apart = u @ v.mT, ~torch.eye(len(u), dtype=torch.bool)
        value = divergence.derivative(s.diagonal()).mean() - divergence.conjugate(s[apart]).mean()
        expected += len(u) / 12 * float(value)
    assert f_mutual_information_of_scores(scores, divergence).value == pytest.approx(expected, abs=1e-10)


def test_the_error_is_that_of_the_jackknife_which_leaves_out_a_pair() -> None:
    u, v = von_mises_fisher_pairs(200, 0)
    kernel, n = true_f_gaussian(), len(u)
    found = f_mutual_information_of_scores(pcl.Scores(u, v, kernel), "kl")
    kept = [torch.arange(n) != i for i in range(n)]
    left_out = [f_mutual_information_of_scores(pcl.Scores(u[k], v[k], kernel), "kl").value for k in kept]
    jackknife = math.sqrt((n - 1) ** 2 / n * float(torch.tensor(left_out, dtype=F64).var()))
    assert found.standard_error == pytest.approx(jackknife, rel=0.02)


@pytest.mark.parametrize("name", ["kl", "js", "squared-hellinger", "vincze-le-cam"])
def test_its_interval_covers_the_truth_as_often_as_it_says(name: str) -> None:
    n, repetitions = 200, 600
    u, v = von_mises_fisher_pairs(n * repetitions, 1)
    kernel, exact = true_f_gaussian(), OF_VON_MISES_FISHER[name]
    samples = [
        f_mutual_information_of_scores(pcl.Scores(x, y, kernel), ALLOWED[name])
        for x, y in zip(u.split(n), v.split(n), strict=True)
    ]
    for confidence in (0.5, 0.95):
        inside = [low < exact < high for low, high in (sample.interval(confidence) for sample in samples)]
        deviation = math.sqrt(confidence * (1 - confidence) / repetitions)
        assert sum(inside) / repetitions == pytest.approx(confidence, abs=3.5 * deviation)
    error = torch.tensor([sample.value - exact for sample in samples], dtype=F64)
    typical = math.sqrt(sum(sample.standard_error**2 for sample in samples) / repetitions)
    assert float(error.std()) == pytest.approx(typical, rel=0.1)


def test_pairs_that_are_independent_have_none() -> None:
    u, v = normal(1000, 3), normal(1000, 3, seed=1)
    for name in ("kl", "js", "pearson"):
        low, high = pcl.f_mutual_information(u, v, name).interval(0.999)
        assert low < 0.0 < high + 1e-3
        assert high < 0.04


def test_the_fitted_kernel_is_the_largest_bound_and_that_of_the_law() -> None:
    u, v = von_mises_fisher_pairs(4000, 2)
    found, exact = fit_f_gaussian(u, v, "js"), true_f_gaussian()
    assert found.fixed[0] == pytest.approx(exact.fixed[0], abs=0.15)
    assert found.fixed[1] == pytest.approx(exact.fixed[1], rel=0.03)
    batches = [pcl.Scores(x, y, found) for x, y in zip(u.split(500), v.split(500), strict=True)]
    best = f_mutual_information_of_scores(batches, "js").value
    for mu, sigma in ((1.05, 1), (0.95, 1), (1, 1.02), (1, 0.98)):
        other = pcl.FGaussian(mu * math.exp(found.fixed[0]), sigma * found.fixed[1])
        scores = [pcl.Scores(batch.u, batch.v, other) for batch in batches]
        assert f_mutual_information_of_scores(scores, "js").value < best


@pytest.mark.parametrize("name", ["js", "vincze-le-cam"])
def test_without_a_critic_a_fitted_f_gaussian_finds_the_information(name: str) -> None:
    u, v = von_mises_fisher_pairs(6000, 3)
    found = pcl.f_mutual_information(u, v, ALLOWED[name])
    low, high = found.interval(0.999)
    assert low < OF_VON_MISES_FISHER[name] < high
    assert high - low < 0.15 * OF_VON_MISES_FISHER[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALLOWED)
def test_with_fitted_scales_it_is_the_information_of_a_von_mises_fisher_pair_to_two_percent(name: str) -> None:
    u, v = von_mises_fisher_pairs(60_000, 5)
    found = pcl.f_mutual_information(u, v, ALLOWED[name])
    assert found.value == pytest.approx(OF_VON_MISES_FISHER[name], rel=0.03 if name == "pearson" else 0.02)


def learned_critic(name: str) -> pcl.BimodalModel:
    torch.manual_seed(0)
    towers = [pcl.encoders.MLP(1, 16, (64, 64)) for _ in range(2)]
    model = pcl.BimodalModel(*towers, alignment=pcl.WithPotentials())
    settings = {"epochs": 8, "batch_size": 512, "lr": 2e-3, "schedule": "cosine", "clip_norm": 1.0, "seed": 0}
    pcl.fit(model, gaussian_pairs(50_000, 1), pcl.FMICLLoss(ALLOWED[name]), **settings)
    return model


def require_information_of_gaussian_pair(critic: pcl.BimodalModel, names: list[str]) -> None:
    u, v = gaussian_pairs(50_000, 2)
    for name in names:
        found = pcl.f_mutual_information(u, v, ALLOWED[name], critic=critic, batch_size=500)
        assert found.value == pytest.approx(of_gaussian_pair(ALLOWED[name]), rel=0.03), name


@pytest.mark.slow
def test_one_learned_critic_serves_every_divergence_of_finite_variance() -> None:
    """The best score is the log density ratio whichever f it was fitted with."""
    require_information_of_gaussian_pair(learned_critic("kl"), [name for name in ALLOWED if name != "pearson"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALLOWED if name != "pearson"])
def test_a_learned_critic_finds_the_information_of_a_gaussian_pair_to_three_percent(name: str) -> None:
    require_information_of_gaussian_pair(learned_critic(name), [name])


def noisy_pairs(n: int, d: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = seeded()
    u = torch.randn(n, d, generator=generator)
    return u, u + noise * torch.randn(n, d, generator=generator)


@pytest.mark.parametrize(("name", "n", "d"), [("pearson", 300, 3), ("neyman", 300, 3), ("tsallis 3", 300, 3)])
def test_steep_divergences_have_a_finite_bound_at_the_next_maximum(name: str, n: int, d: int) -> None:
    """L-BFGS once stepped to e^2c = inf here."""
    pairs, divergence = noisy_pairs(n, d), DIVERGENCES[name]
    found = pcl.f_mutual_information(*pairs, divergence)
    assert math.isfinite(found.value)
    kernel = fit_f_gaussian(*pairs, divergence, batch_size=n)

    def value(mu: float, sigma: float) -> float:
        other = pcl.FGaussian(mu * math.exp(kernel.fixed[0]), sigma * kernel.fixed[1])
        scores = pcl.Scores(pairs[0].double(), pairs[1].double(), other)
        return f_mutual_information_of_scores(scores, divergence).value

    best = value(1, 1)
    assert all(value(*near) < best for near in ((1.03, 1), (0.97, 1), (1, 1.01), (1, 0.99)))


def test_pearson_in_sixteen_dimensions_is_finite_and_says_that_one_half_has_no_maximum() -> None:
    with pytest.warns(pcl.ProbclWarning, match=r"Pearson\(\) rises without end"):
        found = pcl.f_mutual_information(*noisy_pairs(2000, 16), "pearson")
    assert 0 < found.interval()[0] < found.value < math.inf


def test_without_a_maximum_of_its_own_it_takes_the_scales_of_kl_and_says_so() -> None:
    u, v = noisy_pairs(300, 16)
    with pytest.warns(pcl.ProbclWarning, match=r"Neyman\(\) rises without end: mu and sigma are those for KL"):
        found = fit_f_gaussian(u, v, "neyman")
    assert found.fixed == fit_f_gaussian(u, v, "kl").fixed


@pytest.mark.parametrize("name", DIVERGENCES)
def test_pairs_of_equals_have_no_best_scale(name: str) -> None:
    u, _ = noisy_pairs(50, 3)
    with pytest.raises(ValueError, match=r"no sigma is best: got a mean"):
        pcl.f_mutual_information(u, u, DIVERGENCES[name])


@pytest.mark.parametrize("n", [4, 5])
def test_of_the_fewest_pairs_it_is_finite_or_the_pairs_are_to_blame(n: int) -> None:
    with pytest.raises(ValueError, match="unmatched ones are nearer than the matched ones on average"):
        pcl.f_mutual_information(*noisy_pairs(n, 3, noise=0.1), "pearson")
    u, _ = noisy_pairs(n, 2)
    assert math.isfinite(pcl.f_mutual_information(u, u.roll(2, 0), "kl").value)


def test_a_critic_that_is_no_log_ratio_is_warned_of() -> None:
    u, v = gaussian_pairs(200, 3)
    critic = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    critic.identifies = pcl.losses.Identifies.TRANSFORM
    with pytest.warns(pcl.ProbclWarning, match="the critic's loss determines a monotone transform"):
        pcl.f_mutual_information(u, v, "js", critic=critic)
    critic.identifies = None
    with pytest.warns(pcl.ProbclWarning, match="is below the trivial bound, zero"):
        pcl.f_mutual_information(u, -v, "js", critic=critic)


def test_scores_that_overflow_are_refused() -> None:
    critic = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    u, v = gaussian_pairs(200, 3)
    with pytest.raises(ValueError, match=r"of KL\(\) are finite, got \d+ NaN or infinite of 200 terms"):
        pcl.f_mutual_information(100 * u, 100 * v, critic=critic)


def test_it_can_be_drawn_and_says_what_it_is() -> None:
    found = pcl.f_mutual_information(*von_mises_fisher_pairs(500, 4), "js")
    ax = found.plot()
    assert ax.get_xlabel() == "term of a pair (js)"
    plt.close(ax.figure)
    assert repr(found).startswith("FMutualInformation(JensenShannon(), I_f ≥ 0.")


def test_what_cannot_be_is_refused(unchecked: None) -> None:
    z = normal(6, 2)
    with pytest.raises(ValueError, match="at least 4 of them, got 6 u and 5 v"):
        pcl.f_mutual_information(z, z[:5])
    with pytest.raises(ValueError, match="u and v must be pairs, at least 2"):
        fit_f_gaussian(z[:1], z[:1])
    with pytest.raises(TypeError, match="critic must be a BimodalModel"):
        pcl.f_mutual_information(z, z, critic=pcl.FGaussian())
    with pytest.raises(ValueError, match="divergence must be"):
        pcl.f_mutual_information(z, z, "hellinger")
    with pytest.raises(ValueError, match="scores must hold at least one batch"):
        f_mutual_information_of_scores([])
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        pcl.f_mutual_information(z, normal(6, 2, seed=1)).interval(1)
