import pickle
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import normal, seeded
from test_gaussian_training import covariance
from torch import Tensor, nn

import probcl as pcl
from probcl.conditional import GaussianConditional
from probcl.datasets import GaussianProcessPairs, gaussian_pairs
from probcl.information import (
    GaussianConditionalLoss,
    Information,
    QuadraticFeatures,
    information_log_normalizer,
    split_information,
)
from probcl.losses import Identifies
from probcl.priors import DistributionPrior, GaussianPrior

F64 = torch.float64
LATENT, TOKENS, DESCRIPTION = 3, 5, 2


def encoder(values: int = 1, latent: int = LATENT) -> Information:
    """An encoder that is not at its start, where the gain is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Information(DESCRIPTION, latent, values, hidden=(16,)).double()
        nn.init.normal_(module.gain.weight)
        nn.init.normal_(module.gain.bias)
    return module


def tokens(n: int = 4, count: int = TOKENS, values: int = 1, seed: int = 0) -> Tensor:
    v = normal(n, count, DESCRIPTION + values + 1, seed=seed)
    v[..., -1] = (v[..., -1] > -0.5).double()
    return v


def standard(latent: int = LATENT) -> GaussianPrior:
    return GaussianPrior(torch.zeros(latent, dtype=F64), torch.eye(latent, dtype=F64))


# QuadraticFeatures


def test_quadratic_features_are_x_and_minus_half_its_square():
    prior = GaussianPrior.from_scale(normal(2, 2), normal(4, 3, seed=1))
    u = prior.sample((6,))
    x, square = QuadraticFeatures.of(prior)(u).split([3, 9], dim=1)
    torch.testing.assert_close(x, prior.whiten(u))
    torch.testing.assert_close(square.unflatten(1, (3, 3)), -0.5 * x[:, :, None] * x[:, None])


def test_the_inner_product_of_features_and_information_is_the_quadratic_form():
    b, root = normal(5, LATENT), normal(5, LATENT, LATENT, seed=1)
    precision = root @ root.mT
    u = normal(5, LATENT, seed=2)
    scores = pcl.Scores(QuadraticFeatures.of(standard())(u), torch.cat([b, precision.flatten(1)], dim=1))
    expected = u @ b.mT - 0.5 * torch.einsum("ni,bij,nj->nb", u, precision, u)
    torch.testing.assert_close(scores.matrix(), expected)


@pytest.mark.parametrize(
    ("prior", "error"),
    [
        (GaussianPrior.from_scale(torch.zeros(2), torch.ones(2, 1), torch.ones(2)), ValueError),
        (GaussianPrior.from_scale(torch.zeros(3), torch.ones(3, 2)), ValueError),
        (DistributionPrior(torch.distributions.Normal(torch.zeros(2), 1.0)), TypeError),
    ],
    ids=["more latents than components", "dependent columns", "no gaussian prior"],
)
@pytest.mark.usefixtures("unchecked")
def test_a_prior_whose_x_is_not_standard_normal_is_refused(prior, error):
    with pytest.raises(error, match=r"^prior must (be a GaussianPrior|have a scale with independent columns)"):
        QuadraticFeatures.of(prior)


# Information


@given(st.permutations(range(TOKENS)), st.integers(1, 3))
def test_the_order_of_observations_does_not_matter(order, values):
    v = tokens(values=values)
    torch.testing.assert_close(encoder(values)(v[:, list(order)]), encoder(values)(v))


@given(st.integers(0, TOKENS), st.integers(1, 3))
def test_the_information_of_a_union_is_the_sum(cut, values):
    module, v = encoder(values), tokens(values=values)
    parts = [module(part) for part in (v[:, :cut], v[:, cut:]) if part.shape[1]]
    torch.testing.assert_close(torch.stack(parts).sum(0), module(v))


def test_missing_observations_say_nothing_whatever_stands_in_their_place():
    module, v = encoder(), tokens()
    v[:, 2:, -1] = 0
    v[:, 2:, :-1] = 1e6
    torch.testing.assert_close(module(v), module(v[:, :2]))
    assert not module(v.mul(torch.tensor([1.0, 1.0, 1.0, 0.0]))).any()


@pytest.mark.parametrize("values", [1, 2, 3])
def test_the_precision_is_symmetric_and_not_negative_and_b_linear_in_what_was_observed(values):
    module, v = encoder(values), tokens(values=values)
    b, precision = split_information(module(v))
    torch.testing.assert_close(precision, precision.mT)
    assert torch.linalg.eigvalsh(precision).min() > -1e-10
    doubled = v.clone()
    doubled[..., DESCRIPTION:-1] *= 2
    twice_b, same_precision = split_information(module(doubled))
    torch.testing.assert_close(twice_b, 2 * b)
    torch.testing.assert_close(same_precision, precision)


def test_it_starts_without_information_and_with_a_gradient():
    module = Information(DESCRIPTION, LATENT, hidden=(16,)).double()
    assert not module(tokens()).any()
    u = normal(4, LATENT)
    model = pcl.BimodalModel(QuadraticFeatures.of(standard()), module)
    GaussianConditionalLoss()(model.scores(u, tokens())).backward()
    assert module.gain.weight.grad.abs().max() > 0


def test_observations_with_correlated_errors_are_represented_exactly():
    """y = Hx + e, e ~ N(0, R), R full: A = HᵀR⁻¹ and W = R, here written into the last layers."""
    H, root = normal(2, LATENT), normal(2, 2, seed=1).tril() + 2 * torch.eye(2)
    R = root @ root.mT
    module = Information(DESCRIPTION, LATENT, 2, hidden=(4,)).double()
    for layer in (module.gain, module.root):
        nn.init.zeros_(layer.weight)
    module.gain.bias.data = torch.linalg.solve(R, H).mT.flatten()
    factor = torch.linalg.cholesky(R)
    module.root.bias.data = (factor.tril(-1) + torch.expm1(factor.diagonal()).log().diag()).flatten()
    v = tokens(values=2, count=1)
    v[..., -1] = 1
    b, precision = split_information(module(v))
    torch.testing.assert_close(precision, (H.mT @ torch.linalg.solve(R, H)).expand(4, -1, -1))
    torch.testing.assert_close(b, v[:, 0, DESCRIPTION:-1] @ torch.linalg.solve(R, H))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Information(2, 3, hidden=()), "^hidden must have at least one width"),
        (lambda: Information(2, 0), "^latent must be at least 1"),
        (lambda: Information(2, 3, 0), "^values must be at least 1"),
        (lambda: encoder()(normal(3, 4)), r"^v must have shape \(n, tokens, 2 \+ 1 \+ 1\)"),
        (lambda: encoder()(normal(3, 4, 5)), r"^v must have shape .*\(3, 4, 5\)"),
        (lambda: encoder()(0.5 + torch.zeros(3, 2, 4, dtype=F64)), "^the last column of v, presence, must be 0 or 1"),
        (lambda: encoder()(torch.full((1, 2, 4), torch.nan, dtype=F64)), "presence, must be 0 or 1"),
        (lambda: split_information(normal(3, 7)), r"has width k \+ k², got 7"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# GaussianConditionalLoss


def pairs(n: int = 6, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    return normal(n, LATENT, seed=5).to(dtype), tokens(n, seed=6).to(dtype)


def model_of(temperature: float = 1.0) -> pcl.BimodalModel:
    return pcl.BimodalModel(QuadraticFeatures.of(standard()), encoder(), temperature=temperature)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_the_conditional_s_log_ratio(temperature):
    u, v = pairs()
    model = model_of(temperature)
    loss = GaussianConditionalLoss()(model.scores(u, v))
    d = model.u_given_v(standard()).condition(v)
    assert isinstance(d, GaussianConditional)
    torch.testing.assert_close(loss, -d.log_ratio(u).mean())


def test_the_normaliser_is_the_integral():
    _, v = pairs()
    b, precision = split_information(encoder()(v).detach())
    x = standard().sample((400_000,))
    tilts = x @ b.mT - 0.5 * torch.einsum("ni,bij,nj->nb", x, precision, x)
    torch.testing.assert_close(
        information_log_normalizer(b, precision),
        tilts.logsumexp(0) - torch.tensor(4e5).log().double(),
        rtol=0,
        atol=0.05,
    )


def test_the_loss_is_the_limit_of_the_contrastive_one_for_growing_batches():
    module = encoder()
    module.gain.weight.data *= 0.6
    module.gain.bias.data *= 0.6
    model = pcl.BimodalModel(QuadraticFeatures.of(standard()), module)
    u, v = standard().sample((4000,)), tokens(4000, seed=8)
    model.requires_grad_(False)
    exact = float(GaussianConditionalLoss()(model.scores(u, v)))
    gaps = []
    for n in (4, 40, 4000):
        contrastive = [
            float(pcl.ConditionalLoss(2, 0)(model.scores(u[i : i + n], v[i : i + n]))) for i in range(0, 4000, n)
        ]
        gaps.append(abs(sum(contrastive) / len(contrastive) - exact))
    assert gaps[2] < gaps[1] < gaps[0]
    assert gaps[2] < 0.02


def test_its_gradient_is_right():
    u, v = pairs(3)
    module = encoder()
    weight = module.gain.weight.detach().clone().requires_grad_()

    def loss(weight: Tensor) -> Tensor:
        z_v = torch.func.functional_call(module, {"gain.weight": weight}, (v,))
        return GaussianConditionalLoss()(pcl.Scores(QuadraticFeatures.of(standard())(u), z_v))

    assert torch.autograd.gradcheck(loss, (weight,), fast_mode=True)


def test_it_determines_u_given_v_and_not_the_other_way():
    assert GaussianConditionalLoss().identifies is Identifies.RATIO_UP_TO_V
    u, v = pairs(20)
    model = model_of()
    pcl.fit(model, (u, v), GaussianConditionalLoss(), epochs=1, progress=False)
    model.u_given_v(standard())
    with pytest.warns(pcl.ProbclWarning, match=r"v\|u is not what this model was fitted for"):
        model.v_given_u(pcl.EmpiricalPrior(v))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda u, v: pcl.Scores(u, v, pcl.L2()), "needs InnerProduct"),
        (lambda u, v: pcl.Scores(u, v, bias_u=torch.zeros(6, dtype=F64)), "no biases"),
        (lambda u, v: pcl.Scores(torch.randn_like(u), v), "needs QuadraticFeatures as the encoder of u"),
        (lambda u, v: pcl.Scores(u, v - 3 * torch.eye(12, dtype=F64)[3]), "must be positive definite"),
    ],
)
def test_scores_of_another_form_are_refused(scores, message):
    u, v = pairs()
    model = model_of()
    with pytest.raises(ValueError, match=message):
        GaussianConditionalLoss()(scores(model.embed_u(u), 0 * model.embed_v(v)))


# Saving


def test_a_saved_model_gives_the_same_conditionals(tmp_path):
    model, (_, v) = model_of(0.8), pairs()
    model.save(tmp_path)
    loaded = pcl.BimodalModel.load(tmp_path)
    ours, theirs = (m.u_given_v(standard()).condition(v) for m in (loaded, model))
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.covariance, theirs.covariance)
    assert torch.equal(ours.log_normalizer, theirs.log_normalizer)
    copy = pickle.loads(pickle.dumps(theirs))
    assert torch.equal(copy.mean, theirs.mean)


# Trained, it is Bayes' rule


def basis(t: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(t), torch.sin(3 * t), torch.cos(5 * t)], dim=-1)


def observed(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """x ~ N(0, I), and up to four looks at Σ_k x_k h_k(t) + N(0, 1), at random t; one in five is missing."""
    generator = seeded(seed)
    x, t = torch.randn(n, 3, generator=generator), torch.rand(n, 4, 1, generator=generator)
    y = (basis(t) * x[:, None]).sum(-1, keepdim=True) + torch.randn(n, 4, 1, generator=generator)
    present = (torch.rand(n, 4, 1, generator=generator) < 0.8).float()
    return x, torch.cat([t, y * present, present], dim=-1)


def posterior(v: Tensor) -> tuple[Tensor, Tensor]:
    t, y, present = v.split(1, dim=-1)
    h = basis(t) * present
    covariance = torch.linalg.inv(torch.eye(3) + torch.einsum("ntk,ntl->nkl", h, h))
    return (covariance @ (h * y).sum(1)[..., None])[..., 0], covariance


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("loss", [GaussianConditionalLoss(), pcl.ConditionalLoss(2, 0)], ids=["exact", "contrastive"])
def test_both_losses_reach_the_posterior_of_a_linear_gaussian_problem(loss):
    prior = GaussianPrior(torch.zeros(3), torch.eye(3))
    model = pcl.BimodalModel(QuadraticFeatures.of(prior), Information(1, 3, hidden=(64, 64)))
    settings = {"epochs": 30, "batch_size": 500, "lr": 1e-2, "schedule": "cosine", "device": "cpu", "progress": False}
    pcl.fit(model, observed(40_000, seed=0), loss, **settings)
    _, v = observed(2000, seed=9)
    d, (mean, covariance) = model.u_given_v(prior).condition(v), posterior(v)
    assert relative(d.mean, mean) < 0.02
    assert relative(d.covariance, covariance) < 0.05


def one_token(v: Tensor) -> Tensor:
    """All of a vector as one observation, described by nothing but a constant."""
    one = torch.ones(len(v), 1, dtype=v.dtype)
    return torch.cat([one, v, one], dim=1)[:, None]


CASES = {
    "8-D Gaussian": lambda: (covariance((0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), 8, 8, seed=0), 8),
    "Gaussian process": lambda: (GaussianProcessPairs().covariance(), GaussianProcessPairs().n_u),
}


def whitened_errors(d: GaussianConditional, C: Tensor, n_u: int, v: Tensor) -> tuple[float, float]:
    """Relative errors of conditional means and covariance, with u whitened so that each direction counts."""
    gain = torch.linalg.solve(C[n_u:, n_u:], C[n_u:, :n_u]).mT
    inverse_root = torch.linalg.inv(torch.linalg.cholesky(C[:n_u, :n_u]))
    mean, covariance = v.double() @ gain.mT, C[:n_u, :n_u] - gain @ C[n_u:, :n_u]
    ours = inverse_root @ d.covariance[0].double() @ inverse_root.mT
    return (
        relative(d.mean.double() @ inverse_root.mT, mean @ inverse_root.mT),
        relative(ours, inverse_root @ covariance @ inverse_root.mT),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("route", ["exact", "information"])
@pytest.mark.parametrize("case", CASES)
def test_gaussian_measures_are_learned_to_two_and_five_percent(case, route):
    C, n_u = CASES[case]()
    # At N = 50,000 the sample alone puts the means of the Gaussian process 2% off, its noise against its signal.
    n_v, N = len(C) - n_u, 200_000
    u, v = gaussian_pairs(C, n_u, N, seed=0, dtype=torch.float32)
    prior = GaussianPrior(torch.zeros(n_u), C[:n_u, :n_u].float())
    held_out = gaussian_pairs(C, n_u, 2000, seed=1, dtype=torch.float32).v
    settings = {"batch_size": 500, "schedule": "cosine", "device": "cpu", "progress": False}
    if route == "information":
        model = pcl.BimodalModel(QuadraticFeatures.of(prior), Information(1, n_u, n_v, hidden=(16,)))
        pcl.fit(model, (u, one_token(v)), GaussianConditionalLoss(), epochs=6, lr=1e-2, **settings)
        d = model.u_given_v(prior).condition(one_token(held_out))
    else:
        rank = min(n_u, n_v)
        model = pcl.BimodalModel(pcl.encoders.Linear(n_u, rank), pcl.encoders.Linear(n_v, rank), pcl.L2())
        pcl.fit(model, (u, v), pcl.ConditionalLoss(2, 0), epochs=6, lr=2e-2, **settings)
        d = model.u_given_v(prior).condition(held_out)
    assert isinstance(d, GaussianConditional)
    errors = whitened_errors(d, C, n_u, held_out)
    print("MEASURED", case, route, [round(error, 4) for error in errors])
    assert errors[0] < 0.02
    assert errors[1] < 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_ten_thousand_conditionals_are_sampled_in_less_than_a_second_of_one_core():
    k = 32
    root = normal(k, k).float()
    prior = GaussianPrior(torch.zeros(k), root @ root.mT / k + torch.eye(k))
    model = pcl.BimodalModel(QuadraticFeatures.of(prior), Information(DESCRIPTION, k, hidden=(32,)))
    nn.init.normal_(model.encoder_v.gain.weight, std=0.1)
    v, seconds = tokens(10_000).float(), []
    for _ in range(4):
        started = time.process_time()
        draws = model.u_given_v(prior).condition(v).sample()
        seconds.append(time.process_time() - started)
    print(f"MEASURED {min(seconds):.3f} s for 10,000 conditionals of {k} dimensions")
    assert draws.shape == (10_000, k)
    assert draws.isfinite().all()
    assert min(seconds) < 1
