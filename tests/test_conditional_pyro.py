import pyro
import pyro.distributions as dist
import pytest
import torch
from conditional_cases import chi_square, labels, vectors
from pyro import poutine
from pyro.infer import EmpiricalMarginal, Importance, Predictive, TraceEnum_ELBO, infer_discrete
from torch import Tensor

import probcl as pcl

# In Pyro: z ~ ν(z|v), y ~ N(z₁ − z₂, ½), for three v at once.
Y = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)


def latent_vectors(observed: Tensor | None = Y):
    d = vectors(0.5, distinct=False)
    with pyro.plate("conditions", 3):
        z = pyro.sample("z", d, infer={"enumerate": "parallel"})
        return pyro.sample("y", dist.Normal(z[..., 0] - z[..., 1], 0.5), obs=observed)


def log_joint() -> Tensor:
    """Log p(z, y) of every value z, for each condition: brute force."""
    d = vectors(0.5, distinct=False)
    z = d.enumerate_support()
    return d.log_prob(z) + dist.Normal(z[..., 0] - z[..., 1], 0.5).log_prob(Y)


def test_an_observed_value_adds_its_log_probability_to_a_pyro_model():
    d = vectors(0.5, distinct=False)

    def model():
        with pyro.plate("conditions", 3):
            pyro.sample("z", d, obs=d.atoms[:3])

    trace = poutine.trace(model).get_trace()
    torch.testing.assert_close(trace.log_prob_sum(), d.log_prob(d.atoms[:3]).sum())


def test_enumeration_in_pyro_sums_over_the_bank_exactly():
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(latent_vectors, lambda: None)
    assert loss == pytest.approx(-float(log_joint().logsumexp(0).sum()), abs=1e-10)


def latent_labels(copies: int):
    with pyro.plate("copies", copies, dim=-2), pyro.plate("conditions", 3, dim=-1):
        z = pyro.sample("z", labels(1.0, distinct=False), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(z.double(), 2.0), obs=Y.expand(copies, 3))


def test_discrete_inference_in_pyro_samples_and_maximises_the_exact_posterior_of_labels():
    d = labels(1.0, distinct=False)
    support = d.enumerate_support()
    posterior = (d.log_prob(support) + dist.Normal(support.double(), 2.0).log_prob(Y)).softmax(0)
    best = poutine.trace(infer_discrete(latent_labels, -3, temperature=0)).get_trace(copies=1)
    assert torch.equal(best.nodes["z"]["value"], posterior.argmax(0))
    draws = poutine.trace(infer_discrete(latent_labels, -3)).get_trace(copies=5000).nodes["z"]["value"]
    for b in range(3):
        assert chi_square(draws[:, b], posterior[:, b]) > 1e-3


@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_draws_from_the_conditional(parallel):
    size = 3000 if parallel else 300
    draws = Predictive(lambda: latent_vectors(None), num_samples=size, parallel=parallel)()
    d = vectors(0.5, distinct=False)
    assert draws["z"].shape[-2:] == (3, 2)
    place = pcl.EmpiricalPrior(d.enumerate_support(False)[:, 0]).find(draws["z"].reshape(size, 3, 2)[:, 1])
    assert chi_square(place, d.log_prob(d.enumerate_support())[:, 1].exp()) > 1e-3


def test_importance_sampling_in_pyro_approaches_the_exact_posterior_mean():
    d = vectors(0.5).conditional.condition(torch.zeros(1, 3, dtype=torch.float64))
    y = torch.tensor([2.0], dtype=torch.float64)

    def model():
        with pyro.plate("condition", 1):
            z = pyro.sample("z", d)
            pyro.sample("y", dist.Normal(z[..., 0] - z[..., 1], 0.5), obs=y)

    posterior = EmpiricalMarginal(Importance(model, num_samples=1000).run(), "z")
    z = d.enumerate_support()
    prior, weights = d.log_prob(z).exp(), dist.Normal(z[..., 0] - z[..., 1], 0.5).log_prob(y).exp()
    exact = prior * weights / (prior * weights).sum()
    mean = (exact[..., None] * z).sum(0)
    # Five standard errors, from the effective number of draws: less than what the observation changed.
    effective = 1000 * float((prior * weights).sum() ** 2 / (prior * weights**2).sum())
    tolerance = 5 * float(z.std()) / effective**0.5
    assert (posterior.mean - mean).abs().max() < tolerance < (d.mean - mean).abs().max()
