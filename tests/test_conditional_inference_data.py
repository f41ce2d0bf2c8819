"""Draws as ArviZ has them, and what ArviZ says of them."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import linear_model, normal
from torch import nn

import probcl as pcl
from probcl.conditional import to_inference_data
from probcl.samplers import HMC, ImportanceResampling
from probcl.samplers.mcmc import _thin

CONDITIONS = normal(3, 4, seed=1)


def posterior(sampler=None, prior=None, given=CONDITIONS):
    prior = pcl.GaussianPrior(torch.zeros(2).double(), torch.eye(2).double()) if prior is None else prior
    return linear_model(2, 4, 2).u_given_v(prior, sampler).condition(given)


@pytest.fixture(scope="module")
def by_hmc(arviz):
    law = posterior(HMC(num_chains=4, warmup=60))
    draws = law.draw(800, seed=0)
    return law, draws, to_inference_data(law, draws=draws, given=CONDITIONS, dims={"u": ["parameter"]})


def test_arviz_says_of_chains_what_the_sampler_said(arviz, by_hmc):
    _, draws, data = by_hmc
    assert dict(data.posterior["u"].sizes) == {"chain": 4, "draw": 200, "condition": 3, "parameter": 2}
    r_hat = arviz.rhat(data)["u"].max("parameter").values
    np.testing.assert_allclose(r_hat, draws.r_hat.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(data.sample_stats["r_hat"], draws.r_hat.numpy())
    # Pyro weighs late autocorrelations otherwise than ArviZ does.
    np.testing.assert_allclose(arviz.ess(data)["u"].min("parameter"), draws.ess.numpy(), rtol=0.3)


def test_a_summary_has_the_moments_of_the_exact_conditional(arviz, by_hmc):
    summary = arviz.summary(by_hmc[2], var_names=["u"])
    exact = posterior()
    error = summary["mcse_mean"].to_numpy()
    assert (np.abs(summary["mean"].to_numpy() - exact.mean.flatten().numpy()) < 4 * error + 1e-3).all()
    deviation = exact.variance.sqrt().flatten().numpy()
    assert (np.abs(summary["sd"].to_numpy() - deviation) < 4 * summary["mcse_sd"].to_numpy() + 1e-3).all()


def test_statistics_of_draws_are_their_score_and_log_density(by_hmc):
    law, draws, data = by_hmc
    u = torch.tensor(data.posterior["u"].values).movedim(0, 1).flatten(0, 1)
    assert torch.equal(u, law.prior.decode(draws.z))
    score = law.conditional.model.scores(u.flatten(0, 1), CONDITIONS).matrix()
    score = score.detach().unflatten(0, (800, 3)).diagonal(dim1=1, dim2=2)
    stored = torch.tensor(data.sample_stats["score"].values).movedim(0, 1).flatten(0, 1)
    torch.testing.assert_close(stored, score)
    stored = torch.tensor(data.sample_stats["lp"].values).movedim(0, 1).flatten(0, 1)
    torch.testing.assert_close(stored, law.prior.log_prob(u) + score)


def test_survives_netcdf(arviz, by_hmc, tmp_path):
    data = by_hmc[2]
    again = arviz.from_netcdf(data.to_netcdf(str(tmp_path / "draws.nc")))
    assert set(again.groups()) == {"posterior", "sample_stats", "observed_data"}
    for group in again.groups():
        for name in data[group].variables:
            np.testing.assert_array_equal(again[group][name], data[group][name])
    assert again.posterior.attrs["method"] == "HMC"
    assert again.posterior.attrs["inference_library"] == "probcl"


def test_weighted_draws_are_one_chain_with_what_they_are_worth(arviz):
    law = posterior(ImportanceResampling(4000), given=0.3 * CONDITIONS)
    draws = law.draw(500, seed=0)
    data = to_inference_data(law, 500, seed=0)
    assert dict(data.posterior.sizes) == {"chain": 1, "draw": 500, "condition": 3, "u_dim_0": 2}
    for name in ("ess", "k_hat", "log_evidence", "log_evidence_se", "trusted"):
        np.testing.assert_array_equal(data.sample_stats[name], getattr(draws, name).numpy())
    assert not {"r_hat", "divergent"} & set(data.sample_stats)


def test_the_latent_variables_of_a_decoder_come_along_and_it_has_no_density(arviz):
    torch.manual_seed(0)
    latent = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1), 1.0), 1)
    prior = pcl.DecoderPrior(nn.Linear(1, 2), latent)
    data = to_inference_data(posterior(ImportanceResampling(4000), prior, 0.3 * CONDITIONS), 100, seed=0)
    assert data.posterior["z"].shape == (1, 100, 3, 1)
    assert data.posterior["u"].shape == (1, 100, 3, 2)
    assert "score" in data.sample_stats
    assert "lp" not in data.sample_stats


def test_draws_from_a_bank_are_its_items_with_their_probabilities(arviz):
    model = linear_model(2, 4, 2)
    law = model.v_given_u(pcl.EmpiricalPrior(normal(20, 4, seed=5))).condition(normal(3, 2))
    data = to_inference_data(law, 50, seed=0, given=normal(3, 2), coords={"condition": ["a", "b", "c"]})
    assert list(data.posterior["condition"].values) == ["a", "b", "c"]
    assert data.observed_data["u"].shape == (3, 2)
    v = torch.tensor(data.posterior["v"].values[0])
    lp = torch.tensor(data.sample_stats["lp"].values[0])
    torch.testing.assert_close(lp - law.log_normalizer, law.log_prob(v))


def test_a_single_label_has_no_dimension_of_conditions(arviz):
    model = pcl.BimodalModel(pcl.encoders.Linear(2, 3), pcl.encoders.Label(3))
    law = model.u_given_v(pcl.GaussianPrior(torch.zeros(2), torch.eye(2))).condition(torch.tensor(1))
    data = to_inference_data(law, 50, seed=0, given=torch.tensor(1))
    assert data.posterior["u"].dims == ("chain", "draw", "u_dim_0")
    assert data.sample_stats["ess"].dims == data.observed_data["v"].dims == ()


@pytest.mark.parametrize("count", [5, 100, 300, 800])
def test_thinned_draws_are_of_all_chains_in_turn(count):
    chains = torch.arange(8.0)[:, None, None, None].expand(8, 100, 2, 1)
    assert torch.equal(_thin(chains, count)[:, 0, 0], torch.arange(count) % 8.0)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(arviz):
    with pytest.raises(TypeError, match="posterior must be what a Conditional's condition"):
        to_inference_data(torch.zeros(3))
    law = posterior()
    with pytest.raises(ValueError, match="draws must be of 3 conditions, got 2"):
        to_inference_data(law, draws=posterior(given=CONDITIONS[:2]).draw(10))
    with pytest.raises(ValueError, match="draws must be at least one of each of 4 chains, got 3"):
        to_inference_data(law, draws=replace(law.draw(3), num_chains=4))
    with pytest.raises(ValueError, match="given must be of 3 conditions"):
        to_inference_data(law, 10, given=CONDITIONS[:2])
    with pytest.raises(ValueError, match=r"dims must name the 1 axes of u, got \['a', 'b'\]"):
        to_inference_data(law, 10, dims={"u": ["a", "b"]})


def test_without_arviz_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r'pip install "probcl\[arviz\]"'):
        to_inference_data(posterior(), 10)
