import math

import pytest
import torch
from tilted_cases import F64, LinearGaussian, eight_sigma, evidence_errors, standard_normal, target_of

from probcl import ProbclWarning
from probcl.samplers import NUTS, AutoSampler, CrankNicolson, Draws, ImportanceResampling, Target, TemperedSMC

CRIPPLED = TemperedSMC(512, ess_target=0.05, move=CrankNicolson(repeats=1))


def test_mild_tilts_are_left_to_importance_resampling():
    law = LinearGaussian.random(batch=3, dim=2, strength=0.5, seed=0)
    draws = AutoSampler().draw(law.target, 500, seed=0)
    alone = ImportanceResampling().draw(law.target, 500, seed=0)
    assert torch.equal(draws.z, alone.z)
    assert draws.method == "importance resampling"
    assert "passes its diagnostics for every condition" in draws.reason


def test_only_the_conditions_that_need_it_go_on_to_smc():
    law = eight_sigma()
    draws = AutoSampler().draw(law.target, 500, seed=0)
    alone = ImportanceResampling()._draw
    assert draws.trusted.all()
    assert draws.method == "importance resampling + tempered SMC"
    assert "tempered SMC after importance resampling for 1 of 2 conditions [1]" in draws.reason
    assert "k̂" in draws.reason
    assert draws.k_hat is not None
    assert draws.k_hat.isnan().tolist() == [False, True]
    assert (evidence_errors(draws, law.log_evidence) < 3).all()
    assert (law.whitened(draws.z).mean(0).abs() < 4 / math.sqrt(500)).all()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(draws.z[:, 0], alone(law.target, 500).z[:, 0])


def test_an_effective_sample_below_half_of_the_draws_goes_on_to_smc():
    law = LinearGaussian.random(batch=2, dim=2, strength=1.5, seed=0)
    few = AutoSampler(ImportanceResampling(2000)).draw(law.target, 100, seed=0)
    many = AutoSampler(ImportanceResampling(2000)).draw(law.target, 2000, seed=0)
    assert few.method == "importance resampling"
    assert "tempered SMC" in many.method
    assert (many.ess > 1000).all()


@pytest.mark.parametrize(
    ("count", "needed"),
    [
        (100, "effective sample size 100, the least that is trusted, and k̂ below 0.70"),
        (1000, "effective sample size 500, half of the draws asked for, and k̂ below 0.70"),
        (5000, "effective sample size 1024, half of SMC's particles, and k̂ below 0.70"),
    ],
)
def test_the_reason_names_the_diagnostics_and_what_they_were_held_to(count, needed):
    law = LinearGaussian.random(batch=2, dim=2, strength=0.5, seed=0)
    draws = AutoSampler().draw(law.target, count, seed=0)
    assert draws.reason.endswith(f"; needed: {needed}")
    assert f"at worst effective sample size {draws.ess.min():.0f}, k̂ {draws.k_hat.max():.2f}" in draws.reason


def test_the_reason_for_smc_names_an_effective_sample_that_missed_its_threshold():
    law = LinearGaussian.random(batch=2, dim=2, strength=1.5, seed=0)
    alone = ImportanceResampling(2000).draw(law.target, 2000, seed=0)
    draws = AutoSampler(ImportanceResampling(2000)).draw(law.target, 2000, seed=0)
    assert alone.trusted.all()
    assert alone.ess.min() < 1000
    assert f"at worst effective sample size {alone.ess.min():.0f}" in draws.reason
    assert "needed: effective sample size 1000, half of the draws asked for" in draws.reason


def test_what_smc_fails_at_goes_on_to_nuts():
    law = LinearGaussian.random(batch=2, dim=4, strength=6.0, seed=1)
    assert not CRIPPLED._draw(law.target, 500).trusted.any()
    draws = AutoSampler(smc=CRIPPLED, nuts=NUTS(warmup=100, num_draws=100)).draw(law.target, 500, seed=0)
    assert draws.trusted.all()
    assert draws.method == "NUTS"
    assert "NUTS after tempered SMC for 2 of 2 conditions [0, 1]" in draws.reason
    assert "needed: effective sample size 100 and log-evidence ± 0.3" in draws.reason
    assert draws.r_hat is not None
    assert (draws.r_hat < 1.05).all()
    error = (1 / draws.ess + 1 / 500).sqrt()[:, None]
    assert (law.whitened(draws.z).mean(0).abs() < 4 * error).all()


def test_nuts_is_not_tried_for_too_many_conditions_and_the_user_is_warned():
    law = LinearGaussian.random(batch=3, dim=8, strength=6.0, seed=1)
    sampler = AutoSampler(smc=CRIPPLED, max_nuts_conditions=0)
    with pytest.warns(ProbclWarning, match=r"tempered SMC are not to be trusted for .* of 3 conditions"):
        draws = sampler.draw(law.target, 500, seed=0)
    assert "too many for NUTS" in draws.reason
    assert draws.method == "tempered SMC"


def spike() -> Target:
    """A broad law with a spike that holds 99.99% of the mass in a place that few prior draws reach."""

    def score(z, v):
        narrow = 20 - 0.5 * ((z - 1) / 0.1).square().sum(-1)
        return torch.logaddexp(torch.zeros_like(narrow), narrow) + 0 * v[:, 0]

    return target_of(standard_normal(4), score, torch.zeros(1, 1, dtype=F64))


def test_smc_is_not_trusted_where_importance_resampling_found_more_evidence():
    sampler = AutoSampler()
    seeds = range(8)
    for seed in seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            first = sampler.importance._draw(spike(), 200)
            second = sampler.smc._draw(spike(), 200)
        assert first.log_evidence is not None
        assert second.log_evidence is not None
        if second.trusted.all() and float(first.log_evidence - second.log_evidence) > 5:
            break
    else:
        pytest.fail("no seed makes SMC miss the spike unawares")
    with pytest.warns(ProbclWarning, match=r"not to be trusted for 1 of 1"):
        draws = sampler.draw(spike(), 200, seed=seed)
    assert "found less evidence than importance resampling for 1 of 1 conditions [0]" in draws.reason
    assert "NUTS" not in draws.reason


def test_put_fills_in_nan_for_diagnostics_that_a_method_lacks():
    z, three = torch.zeros(4, 3, 2), torch.arange(3.0)
    old = Draws(z, three + 1, three > 0, "a", log_evidence=three, log_evidence_se=three, k_hat=three)
    index = torch.tensor([2, 0])
    new = old.put(index, Draws(z[:, :2] + 1, three[:2] + 10, three[:2] < 5, "b", r_hat=three[:2]))
    assert new.method == "a + b"
    assert new.ess.tolist() == [11, 2, 10]
    assert new.trusted.tolist() == [True, True, True]
    assert new.k_hat.isnan().tolist() == [True, False, True]
    assert new.k_hat[1] == 1
    assert new.r_hat[index].tolist() == [0, 1]
    assert new.r_hat.isnan().tolist() == [False, True, False]
    assert new.z[0, :, 0].tolist() == [1, 0, 1]
    back = new.select(torch.tensor([1]))
    assert back.z.shape == (4, 1, 2)
    assert back.ess.tolist() == [2]


def test_chains_are_known_where_all_conditions_were_drawn_in_chains():
    z, three = torch.zeros(4, 3, 2), torch.arange(3.0)
    old, chains = (Draws(z, three, three > 0, name, num_chains=count) for name, count in (("a", 1), ("b", 2)))
    for index, expected in ((torch.arange(3), 2), (torch.tensor([1]), 1), (torch.arange(0), 1)):
        assert old.put(index, chains.select(index)).num_chains == expected
