"""Label to images: the ways to draw them, and a row of the table for each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

import probcl as pcl
from applications.mnist import experiment
from applications.mnist.experiment import LABELS, N_CLASSES, OBJECTIVES, image_given_label, with_shifts
from applications.mnist.generation.config import Config
from applications.mnist.generation.measures import Yardstick, timed
from applications.seeding import seeded
from applications.tables import Row
from probcl.datasets import Pairs, Split
from probcl.generation import Autoencoder, ImagePrior, draw_codes, fit_image_prior, fit_mixture

TWO_SIDED, LABEL_GIVEN_IMAGE, _ = OBJECTIVES
REAL = "real test images"


class Models(NamedTuple):
    """What is fitted before anything is drawn."""

    two_sided: pcl.BimodalModel
    regauged: pcl.BimodalModel
    prior: ImagePrior
    conditional_vae: Autoencoder


@dataclass(frozen=True)
class Source:
    """A way to draw n images for each label, shape (n, 10, *image_shape), and whose p(label|image) goes with it."""

    name: str
    draw: Callable[[int], Tensor]
    model: pcl.BimodalModel


class Drawn(NamedTuple):
    """Images of a source, with its row of the table."""

    name: str
    images: Tensor
    row: Row


def fit_models(data: Split, fits: experiment.Config, config: Config) -> Models:
    """Fit the contrastive models, the image prior, and a conditional autoencoder of the prior's size."""
    seed = config.seed
    two_sided = next(experiment.fit_objective(TWO_SIDED, data, fits, seed))
    _, regauged = experiment.fit_objective(LABEL_GIVEN_IMAGE, data, fits, seed)
    pairs = with_shifts(data.train) if config.shifted else data.train
    prior = fit_image_prior(pairs.u, latent_images=data.train.u, seed=seed, **config.prior)
    sizes = {name: config.prior[name] for name in ("latent_dim", "levels", "width", "hidden")}
    training = {name: config.prior[name] for name in ("epochs", "batch_size", "lr")}
    with seeded(seed):
        conditional_vae = Autoencoder(pairs.u.shape[1:], context_dim=N_CLASSES, **sizes)
    conditional_vae.fit(pairs.u, one_hot(pairs.v, N_CLASSES).float(), seed=seed, **training)
    return Models(two_sided.model, regauged.model, prior, conditional_vae)


def sources(models: Models, data: Split, config: Config) -> Iterator[Source]:
    """Yield the ways to draw images given labels, from what was fitted to the training images."""
    two_sided, regauged, prior, vae = models
    standard = torch.distributions.Normal(torch.zeros(vae.latent_dim), 1.0)
    mixtures = _label_mixtures(vae, data.train, config)

    def tilted(model: pcl.BimodalModel) -> Callable[[int], Tensor]:
        sampler = pcl.samplers.ImportanceResampling(config.proposals)
        return lambda n: model.u_given_v(prior, sampler=sampler).condition(LABELS).sample((n,))

    def from_bank(n: int) -> Tensor:
        return pcl.generation.resample(image_given_label(two_sided, data.train.u), n).values

    def from_latents(n: int) -> Tensor:
        return _decode(vae, standard.sample((n, N_CLASSES)))

    def from_mixtures(n: int) -> Tensor:
        return _decode(vae, torch.stack([law.sample((n,)) for law in mixtures], dim=1))

    yield Source("prior tilted by two-sided", tilted(two_sided), two_sided)
    yield Source("prior tilted by label|image, re-gauged", tilted(regauged), regauged)
    yield Source("training images resampled by two-sided", from_bank, two_sided)
    yield Source("conditional VAE, z ~ N(0, I)", from_latents, two_sided)
    yield Source("conditional VAE, z ~ mixture per label", from_mixtures, two_sided)
    yield Source("prior not tilted", lambda n: prior.sample((n, N_CLASSES)), two_sided)


def measure(source: Source, yardstick: Yardstick, config: Config) -> Drawn:
    """Draw from a source and fill its row."""
    images, seconds = timed(lambda: source.draw(config.draws), config.seed)
    pairs = Pairs(images.flatten(0, 1), LABELS.repeat(config.draws))
    row = {**_row(source.name, pairs, yardstick, source.model), "ms/image": 1000 * seconds / pairs.n_pairs}
    return Drawn(source.name, images, row)


def real_row(yardstick: Yardstick, model: pcl.BimodalModel) -> Row:
    """Fill the row of the test images."""
    return {**_row(REAL, yardstick.real, yardstick, model), "ms/image": "–"}


def _row(name: str, pairs: Pairs, yardstick: Yardstick, model: pcl.BimodalModel) -> dict[str, str | float]:
    return {
        "images": name,
        "purity": yardstick.purity(pairs),
        "diversity": yardstick.diversity(pairs),
        "Fréchet": yardstick.frechet(pairs),
        "too close": yardstick.too_close(pairs),
        **yardstick.calibration(pairs, model),
    }


def _label_mixtures(vae: Autoencoder, pairs: Pairs, config: Config) -> list[torch.distributions.Distribution]:
    """Fit a mixture to the codes of each label's images, all together with as many components as the prior has."""
    components = max(1, config.prior["components"] // N_CLASSES)
    laws: list[torch.distributions.Distribution] = []
    for label in LABELS:
        images = pairs.u[pairs.v == label]
        context = one_hot(label, N_CLASSES).float().expand(len(images), -1)
        codes = draw_codes(vae, images, config.prior["codes_per_image"], context, config.seed)
        laws.append(fit_mixture(codes, components, config.seed))
    return laws


def _decode(vae: Autoencoder, z: Tensor) -> Tensor:
    """Decode z of shape (n, 10, k), column j with label j."""
    context = torch.eye(N_CLASSES).expand(len(z), -1, -1)
    return vae.decoder(torch.cat([z, context], dim=-1).flatten(0, 1)).unflatten(0, z.shape[:2])
