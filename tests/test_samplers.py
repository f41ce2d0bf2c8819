"""What every sampler owes: right draws, right evidence, determinism, a clean process, honest flags."""

import copy
import pickle
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from small_models import seeded
from tilted_cases import F64, LinearGaussian, eight_sigma, evidence_errors, standard_normal, target_of

from probcl import ProbclWarning
from probcl.samplers import (
    HMC,
    NUTS,
    AmortizedFlow,
    AutoSampler,
    Draws,
    Hamiltonian,
    ImportanceResampling,
    Sampler,
    Target,
    TemperedSMC,
)

COUNT = 1500
SAMPLERS = {
    "importance": ImportanceResampling(20_000),
    "smc": TemperedSMC(),
    "smc with gradients": TemperedSMC(move=Hamiltonian()),
    "auto": AutoSampler(),
    "nuts": NUTS(num_chains=15, warmup=100),
    "hmc": HMC(num_chains=15, warmup=100, num_draws=200),
    "flow": AmortizedFlow(),
}
# Chains take seconds; where it does not matter how good they are, these are run instead.
SHORT_CHAINS = {"nuts": NUTS(num_chains=2, warmup=5, max_tree_depth=3), "hmc": HMC(num_chains=2, warmup=5)}
CASE = LinearGaussian.random(batch=4, dim=2, strength=1.2, seed=3)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Draws]:
    flow = SAMPLERS["flow"]
    assert isinstance(flow, AmortizedFlow)
    # One precision for every condition, because the flow only gets b to tell them apart.
    contexts = 1.5 * torch.randn(100, 2, generator=seeded(7), dtype=F64)
    family = LinearGaussian(torch.cat([CASE.b, contexts]), CASE.precision[:1].expand(104, 2, 2))
    flow.fit(family.target, steps=200, lr=5e-3, seed=0)
    return {name: sampler.draw(case(name).target, COUNT, seed=1) for name, sampler in SAMPLERS.items()}


def case(name: str) -> LinearGaussian:
    return LinearGaussian(CASE.b, CASE.precision[:1].expand(4, 2, 2)) if name == "flow" else CASE


@pytest.mark.parametrize("name", SAMPLERS)
def test_moments_are_those_of_the_posterior_in_closed_form(drawn, name):
    draws = drawn[name]
    assert draws.z.shape == (COUNT, 4, 2)
    assert draws.z.dtype == F64
    assert draws.trusted.all()
    white = case(name).whitened(draws.z)
    # Resampling or thinning to COUNT adds its own noise to what the effective sample size leaves.
    error = (1 / draws.ess + 1 / COUNT).sqrt()[:, None]
    assert (white.mean(0).abs() < 3.5 * error).all()
    covariance = torch.einsum("sbi,sbj->bij", white, white) / COUNT
    assert ((covariance - torch.eye(2, dtype=F64)).abs() < 3.5 * 2**0.5 * error[..., None]).all()


@pytest.mark.parametrize("name", ["importance", "smc", "smc with gradients", "auto", "flow"])
def test_evidence_is_the_closed_form_within_three_standard_errors(drawn, name):
    draws = drawn[name]
    assert (evidence_errors(draws, case(name).log_evidence) < 3).all()
    assert (draws.log_evidence_se < 0.1).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")
def test_same_seed_same_draws_and_other_seed_other_draws(drawn, name):
    sampler: Sampler = SHORT_CHAINS.get(name, SAMPLERS[name])
    target = case(name).target
    first, second, other = (sampler.draw(target, 50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.ess, second.ess)
    assert not torch.equal(first.z, other.z)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")
def test_with_a_seed_no_global_generator_moves(drawn, name):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    pyro.clear_param_store()
    SHORT_CHAINS.get(name, SAMPLERS[name]).draw(case(name).target, 50, seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert not list(pyro.get_param_store().keys())


def test_without_a_seed_pyro_set_rng_seed_decides():
    def draw() -> torch.Tensor:
        pyro.set_rng_seed(11)
        return ImportanceResampling().draw(CASE.target, 100).z

    state = torch.get_rng_state()
    first = draw()
    assert torch.equal(first, draw())
    assert not torch.equal(first, ImportanceResampling().draw(CASE.target, 100).z)
    torch.set_rng_state(state)


@pytest.mark.parametrize("name", ["importance", "smc", "smc with gradients"])
def test_single_precision_latents_stay_single(name):
    law = LinearGaussian.random(batch=2, dim=3, strength=1.0, seed=5, dtype=torch.float32)
    draws = SAMPLERS[name].draw(law.target, COUNT, seed=0)
    assert draws.z.dtype == torch.float32
    assert (evidence_errors(draws, law.log_evidence) < 3).all()
    error = (1 / draws.ess + 1 / COUNT).sqrt()[:, None]
    assert (law.whitened(draws.z).mean(0).abs() < 3.5 * error).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_survive_pickling(drawn, name):
    sampler = pickle.loads(pickle.dumps(SAMPLERS[name]))
    assert repr(sampler) == repr(SAMPLERS[name])
    if name not in ("nuts", "hmc"):
        target = case(name).target
        assert torch.equal(sampler.draw(target, 50, seed=1).z, SAMPLERS[name].draw(target, 50, seed=1).z)


@pytest.mark.parametrize("name", ["importance", "smc"])
def test_a_score_that_is_nan_somewhere_names_its_condition(name):
    def score(z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (z[..., 0] - v[:, 0]).log()

    target = target_of(standard_normal(1), score, torch.tensor([[-50.0], [0.0], [-60.0]], dtype=F64))
    with pytest.raises(ValueError, match=r"1 of 3 conditions \[1\]"):
        SAMPLERS[name].draw(target, 10, seed=0)


@pytest.mark.parametrize("name", ["importance", "smc", "nuts"])
def test_a_score_that_is_impossible_everywhere_names_its_condition(name):
    def score(z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.where(v[:, 0] > 0, -torch.inf, 0.0) + 0 * z[..., 0]

    target = target_of(standard_normal(1), score, torch.tensor([[-1.0], [1.0]], dtype=F64))
    with pytest.raises(ValueError, match=r"−inf at all .* 1 of 2 conditions \[1\]"):
        SAMPLERS[name].draw(target, 10, seed=0)


@pytest.mark.parametrize("name", ["importance", "smc", "smc with gradients"])
def test_a_score_that_is_impossible_in_places_gives_a_truncated_law(name):
    """N(0, 1) cut at c: evidence P(z > c), mean φ(c)/P(z > c)."""
    cuts = torch.tensor([[0.0], [1.5]], dtype=F64)

    def score(z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.where(z[..., 0] > v[:, 0], 0.0, -torch.inf) + 0 * z[..., 0]

    draws = SAMPLERS[name].draw(target_of(standard_normal(1), score, cuts), COUNT, seed=0)
    normal = torch.distributions.Normal(torch.zeros((), dtype=F64), 1.0)
    beyond = 1 - normal.cdf(cuts[:, 0])
    assert (draws.z[..., 0] > cuts[:, 0]).all()
    assert (evidence_errors(draws, beyond.log()) < 3).all()
    expected = normal.log_prob(cuts[:, 0]).exp() / beyond
    assert torch.allclose(draws.z[..., 0].mean(0), expected, rtol=0.05)


def test_flags_name_the_condition_that_is_eight_deviations_out():
    law = eight_sigma()
    with pytest.warns(ProbclWarning, match=r"1 of 2 conditions \[1\] .*k̂ .*Raise num_proposals, or use TemperedSMC"):
        draws = ImportanceResampling().draw(law.target, 200, seed=0)
    assert draws.trusted.tolist() == [True, False]
    assert draws.k_hat is not None
    assert draws.k_hat[0] < 0.7 < draws.k_hat[1]
    assert draws.ess[1] < 100
    assert (evidence_errors(draws, law.log_evidence)[1]) > 3


def test_tempered_smc_reaches_what_is_eight_deviations_out():
    law = eight_sigma()
    draws = TemperedSMC().draw(law.target, COUNT, seed=0)
    assert draws.trusted.all()
    assert (evidence_errors(draws, law.log_evidence) < 3).all()
    assert (law.whitened(draws.z).mean(0).abs() < 0.1).all()


@pytest.mark.parametrize("sampler", [ImportanceResampling(), TemperedSMC(512)], ids=["importance", "smc"])
def test_a_law_without_a_normaliser_is_not_trusted(sampler):
    """N(0, 1) tilted by z²: the mass runs away for good."""
    target = target_of(standard_normal(1), lambda z, v: v[:, 0] * z[..., 0].square(), torch.ones(1, 1, dtype=F64))
    with pytest.warns(ProbclWarning, match="not to be trusted for 1 of 1"):
        sampler.draw(target, 100, seed=0)


def test_select_keeps_the_scores_of_the_chosen_conditions():
    law = LinearGaussian.random(batch=5, dim=2, strength=1.0, seed=0)
    index = torch.tensor([3, 0])
    chosen = law.target.select(index)
    z = torch.randn(7, 2, 2, generator=seeded(), dtype=F64, requires_grad=True)
    direct = LinearGaussian(law.b[index], law.precision[index]).target
    assert torch.allclose(chosen.log_tilt(z), direct.log_tilt(z))
    assert torch.allclose(chosen.log_tilt_shared(z[:, 0]), direct.log_tilt_shared(z[:, 0]))
    assert torch.equal(chosen.context, law.b[index])
    gradients = [torch.autograd.grad(target.log_tilt(z).sum(), z)[0] for target in (chosen, direct)]
    assert torch.allclose(*gradients)


def test_select_uses_the_target_s_own_subset_when_it_has_one():
    law = LinearGaussian.random(batch=5, dim=2, strength=1.0, seed=0)
    seen = []

    def subset(index: torch.Tensor) -> Target:
        seen.append(index)
        return LinearGaussian(law.b[index], law.precision[index]).target

    target = Target(law.target.prior, law.target.log_tilt, law.target.log_tilt_shared, 5, subset=subset)
    assert target.select(torch.tensor([1, 4])).batch_size == 2
    assert seen[0].tolist() == [1, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"context": torch.zeros(3, 2)}, "context must have 4 rows"),
    ],
)
def test_a_target_that_contradicts_itself_is_refused(change, message):
    settings = {"prior": CASE.target.prior, "log_tilt": CASE.target.log_tilt, "batch_size": 4, "context": None}
    with pytest.raises(ValueError, match=message):
        Target(log_tilt_shared=CASE.target.log_tilt_shared, **{**settings, **change})


def test_a_latent_with_a_batch_shape_is_refused():
    prior = copy.copy(CASE.target.prior)
    object.__setattr__(prior, "latent", dist.Normal(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match=r"batch_shape \(\), got \(2,\)"):
        Target(prior, CASE.target.log_tilt, CASE.target.log_tilt_shared, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImportanceResampling(0), "num_proposals must be at least 25"),
        (lambda: TemperedSMC(100), "num_particles must be at least 512"),
        (lambda: TemperedSMC(ess_target=1.0), "ess_target must be between 0 and 1"),
        (lambda: NUTS(num_chains=1), "num_chains must be at least 2"),
        (lambda: NUTS(num_draws=10), "num_draws must be at least 100"),
        (lambda: HMC(trajectory_length=0.0), "trajectory_length"),
        (lambda: AmortizedFlow(prior_share=0.0), "prior_share must be between 0 and 1"),
        (lambda: ImportanceResampling().draw(CASE.target, 0), "num_samples must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
