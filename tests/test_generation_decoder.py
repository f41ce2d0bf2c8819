"""A prior over images learned by an autoencoder, and what contrastive models make of it."""

import pyro
import pytest
import torch
from small_models import normal, seeded
from torch.distributions import Binomial, Normal, kl_divergence

import probcl as pcl
from probcl.generation import Autoencoder, ImagePrior, draw_codes, fit_image_prior, fit_mixture
from probcl.generation.image_prior import KIND
from probcl.serialization import read_archive, to_config, write_archive

TINY = {"latent_dim": 3, "width": 4, "hidden": 16, "components": 4, "epochs": 2}


def images(n: int = 96, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.rand(n, 1, height, width, generator=seeded())


@pytest.fixture(scope="module")
def prior() -> ImagePrior:
    return fit_image_prior(images(), **TINY)


def test_the_same_seed_learns_the_same_prior_and_another_seed_another(prior):
    again, other = fit_image_prior(images(), **TINY), fit_image_prior(images(), **TINY, seed=1)
    z = normal(5, 3).float()
    assert torch.equal(prior.decode(z), again.decode(z))
    assert torch.equal(prior.latent.log_prob(z), again.latent.log_prob(z))
    assert not torch.allclose(prior.decode(z), other.decode(z))


def test_fitting_leaves_pyros_parameters_and_torchs_generator_as_they_were():
    with pyro.get_param_store().scope():
        pyro.param("mine", torch.ones(2))
        before = torch.get_rng_state()
        fit_image_prior(images(), **TINY)
        assert list(pyro.get_param_store().keys()) == ["mine"]
        assert torch.equal(torch.get_rng_state(), before)


def test_training_raises_the_evidence_lower_bound():
    model = Autoencoder((1, 8, 8), latent_dim=3, width=4, hidden=16)
    before = model.negative_elbo(images())
    losses = model.fit(images(), epochs=15, lr=5e-3)
    assert len(losses) == 15
    assert model.negative_elbo(images()) < before


@pytest.mark.parametrize("likelihood", ["binomial", "normal"])
def test_the_bound_is_the_formula(likelihood):
    model, x = Autoencoder((1, 8, 8), latent_dim=3, width=4, hidden=16, likelihood=likelihood), images(4)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        q = model.posterior(x)
        z = q.rsample()
        natural = model.decoder.natural(z)
        if likelihood == "binomial":
            log_p = Binomial(16, logits=natural).log_prob((16 * x).round())
        else:
            log_p = Normal(natural, model.log_scale.exp()).log_prob(x)
        kl = kl_divergence(q.base_dist, Normal(0.0, 1.0)).sum(1)
        expected = float((kl - log_p.flatten(1).sum(1)).mean())
    assert model.negative_elbo(x, seed=5) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 4, 8), (1, 7, 5)])
def test_images_of_any_size_come_back_in_their_size(shape):
    model = Autoencoder(shape, latent_dim=3, width=4, hidden=8)
    assert model.decoder(torch.zeros(2, 3)).shape == (2, *shape)
    assert model.posterior(torch.rand(2, *shape)).event_shape == (3,)


def test_a_saved_prior_is_the_same_law(prior, tmp_path):
    prior.save(tmp_path)
    loaded, z = ImagePrior.load(tmp_path), normal(6, 3).float()
    assert torch.equal(loaded.decode(z), prior.decode(z))
    torch.testing.assert_close(loaded.latent.log_prob(z), prior.latent.log_prob(z), rtol=1e-5, atol=1e-5)


def test_a_damaged_save_is_refused(prior, tmp_path):
    prior.save(tmp_path)
    path = tmp_path / "prior.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(pcl.CheckpointError, match="damaged"):
        ImagePrior.load(tmp_path)


def test_a_save_of_another_module_is_refused(prior, tmp_path):
    prior.save(tmp_path)
    path = tmp_path / "prior.safetensors"
    tensors, record = read_archive(path, KIND)
    write_archive(path, KIND, tensors, record | {"autoencoder": to_config(pcl.encoders.Label(10))})
    with pytest.raises(pcl.CheckpointError, match="must be an Autoencoder, got Label"):
        ImagePrior.load(tmp_path)


def test_the_codes_are_those_of_the_images_named():
    """Black images have one code; a mixture fitted to theirs alone draws near it, whatever else was seen."""
    black = torch.zeros(32, 1, 8, 8)
    seen = torch.cat([images(), black])
    law = fit_image_prior(seen, **TINY | {"epochs": 20, "components": 1}, latent_images=black)
    q = law.autoencoder.posterior(black[:1])
    torch.testing.assert_close(law.latent.mean[None], q.mean.detach(), atol=0.4, rtol=0)


@pytest.mark.parametrize("size", [(28, 28), (4, 8)])
def test_labels_tilt_a_prior_over_images_of_any_size(size):
    law = fit_image_prior(images(40, *size), **TINY)
    encoder = pcl.encoders.ResidualConvNet(10, width=4, stages=2)
    model = pcl.BimodalModel(encoder, pcl.encoders.Label(10), pcl.Cosine(), temperature=0.5)
    conditional = model.u_given_v(law, sampler=pcl.samplers.ImportanceResampling(500)).condition(torch.arange(10))
    drawn = conditional.sample((3,))
    assert drawn.shape == (3, 10, 1, *size)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_samplers_that_follow_gradients_in_float64_follow_them_through_the_decoder(prior):
    model = pcl.BimodalModel(pcl.encoders.MLP(64, 10), pcl.encoders.Label(10), pcl.Cosine(), temperature=0.5)
    target = model.u_given_v(prior).condition(torch.arange(2)).target
    z = normal(4, 2, 3).requires_grad_()
    log_prob = target.log_tilt(z)
    (gradient,) = torch.autograd.grad(log_prob.sum(), [z])
    assert gradient.dtype == torch.float64
    step = 1e-2 * normal(4, 2, 3, seed=1)
    with torch.no_grad():
        change = target.log_tilt(z + step) - target.log_tilt(z - step)
    torch.testing.assert_close(change.double(), 2 * (gradient * step).sum(-1), atol=1e-4, rtol=0.02)


def test_the_mixture_finds_separate_clusters():
    centres = torch.tensor([[-8.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    law = fit_mixture((centres[:, None] + 0.5 * normal(3, 200, 2).float()).flatten(0, 1), 3)
    found = law.component_distribution.loc
    assert float(torch.cdist(centres, found).amin(1).max()) < 0.15
    torch.testing.assert_close(law.mixture_distribution.probs, torch.full((3,), 1 / 3), atol=0.01, rtol=0)


def test_codes_are_draws_of_the_guide():
    model, x = Autoencoder((1, 8, 8), latent_dim=3, width=4, hidden=16), images(2)
    z = draw_codes(model, x, 20_000).reshape(20_000, 2, 3)
    q = model.posterior(x)
    torch.testing.assert_close(z.mean(0), q.mean.detach(), atol=0.04, rtol=0)
    torch.testing.assert_close(z.std(0), q.stddev.detach(), atol=0.04, rtol=0)


def test_any_contrastive_model_tilts_the_prior_towards_its_label(prior):
    """With s(u, v) = ±standardised brightness(u), the means move by the covariance: here by importance weights."""
    sampled = prior.sample((20_000,)).flatten(1).mean(1)
    centre, spread = sampled.mean(), sampled.std()

    class Brightness(torch.nn.Module):
        def forward(self, x):
            standard = (x.flatten(1).mean(1, keepdim=True) - centre) / spread
            return torch.cat([standard, -standard], 1)

    sampler = pcl.samplers.ImportanceResampling(20_000)
    conditional = pcl.BimodalModel(Brightness(), pcl.encoders.Label(2)).u_given_v(prior, sampler=sampler)
    drawn = conditional.condition(torch.arange(2)).sample((2000,)).flatten(2).mean((0, 2))
    standard = (sampled - centre) / spread
    expected = torch.stack([((sign * standard).softmax(0) * standard).sum() for sign in (1, -1)])
    torch.testing.assert_close((drawn - centre) / spread, expected, atol=0.1, rtol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_image_prior(torch.rand(8, 64)), r"^images must have shape \(n, channels"),
        (lambda: fit_image_prior(2 * images()), r"^images must lie in \[0, 1\]"),
        (lambda: fit_image_prior(images() * torch.nan), r"^images must be finite"),
        (lambda: Autoencoder((1, 8, 8), likelihood="poisson"), r"^likelihood must be"),
        (lambda: Autoencoder((1, 8, 8)).fit(images(), torch.ones(96, 2)), r"^context must be given"),
        (lambda: fit_mixture(torch.randn(5, 2), 6), r"^components must be no more"),
        (lambda: fit_image_prior(images(), components=300), r"^components must be no more than the 288 codes"),
        (
            lambda: fit_image_prior(images(), latent_images=images(9, 4, 8)),
            r"^latent_images must be of shape \(1",
        ),
        (
            lambda: ImagePrior(Autoencoder((1, 8, 8), context_dim=2), fit_mixture(normal(9, 16), 1)),
            r"^autoencoder must",
        ),
        (lambda: ImagePrior(Autoencoder((1, 8, 8)), fit_mixture(normal(9, 3), 1)), r"^latent must have event_shape"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_image_prior((255 * images()).byte()), r"^images must be of a floating-.* torch.uint8 .* by 255$"),
        (lambda: fit_image_prior(images(), latent_images=images().byte()), r"^latent_images must be of a floating-"),
        (lambda: fit_image_prior("digits"), r"^images must be a torch.Tensor, got 'digits'"),
    ],
)
def test_images_of_another_type_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
def test_a_prior_is_saved_to_a_path(prior):
    with pytest.raises(TypeError, match=r"^directory must be a path or its name, got None"):
        prior.save(None)
    with pytest.raises(TypeError, match=r"^directory must be a path or its name, got None"):
        ImagePrior.load(None)
