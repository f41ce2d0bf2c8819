"""A decoder prior on currents: what an autoencoder has learned of an archive's windows, in the modes of a prior.

The modes of a `FieldPrior` are Gaussian coordinates of currents that need not be Gaussian. The decoder maps a few
latent variables to them, so that a sampler moves among currents like the archive's and not among all combinations of
modes.
"""

from collections.abc import Mapping, Sequence

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions import Independent, MixtureSameFamily, Normal
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import OneCycleLR  # type: ignore[attr-defined]
from torch import Tensor, nn

from probcl.checks import describe, require_count, require_finite, require_positive
from probcl.encoders.vector import MLP
from probcl.frozen import evaluating
from probcl.generation.latent import fit_mixture, mixture, parameters
from probcl.priors import DecoderPrior
from probcl.randomness import seeded

# The Kullback-Leibler term is phased in over this part of the training, lest the latent variables be given up at once.
_WARM_UP = 0.2
# What it counts afterwards: below 1 the decoder is sharper and the codes less normal, which the mixture makes up for.
_WEIGHT = 0.1
_LOG_VARIANCES = (-10.0, 3.0)
# A mode of unit variance is never said to be reproduced better than this.
_LOG_SCALES = (-4.0, 1.0)
_EPOCHS, _STEPS = 20, 1000
_CODES = 30_000
_LATENT, _NETWORK = "latent.", "autoencoder."


class FieldAutoencoder(nn.Module):
    """A variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114) of vectors of unit variance, in Pyro.

    z ~ N(0, I), x ~ N(decoder(z), diag(scale²)); the guide is N(mean(x), diag(variance(x))). Both are perceptrons.

    Parameters
    ----------
    modes
        Width of x.
    latent
        Width of z.
    hidden
        Widths of the hidden layers of both networks, from x to z.
    """

    def __init__(self, modes: int, latent: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.latent = require_count("latent", latent)
        self.encoder = MLP(require_count("modes", modes), 2 * latent, hidden)
        self.decoder = MLP(latent, modes, hidden[::-1])
        self.log_scale = nn.Parameter(torch.full((modes,), -2.0))

    @property
    def scale(self) -> Float[Tensor, " modes"]:
        """Standard deviation of what the decoder leaves out of each component."""
        return self.log_scale.clamp(*_LOG_SCALES).exp()

    def posterior(self, x: Float[Tensor, "n modes"]) -> Independent:
        """Return the guide's law of z."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return Independent(Normal(mean, (log_variance.clamp(*_LOG_VARIANCES) / 2).exp()), 1)

    def model(self, x: Float[Tensor, "n modes"], weight: float = 1.0) -> None:
        """Pyro model; log-densities of z count `weight` times."""
        pyro.module("autoencoder", self)
        with pyro.plate("windows", len(x)):
            with poutine.scale(scale=weight):
                z = pyro.sample("z", Normal(x.new_zeros(self.latent), 1.0).to_event(1))
            pyro.sample("x", Normal(self.decoder(z), self.scale).to_event(1), obs=x)

    def guide(self, x: Float[Tensor, "n modes"], weight: float = 1.0) -> None:
        """Pyro guide of `model`."""
        with pyro.plate("windows", len(x)), poutine.scale(scale=weight):
            pyro.sample("z", self.posterior(x))

    def fit(self, x: Float[Tensor, "n modes"], *, epochs: int, batch_size: int, lr: float, seed: int) -> list[float]:
        """Fit by stochastic variational inference; return the mean loss of each epoch.

        The loss is the negative evidence lower bound with a Kullback-Leibler term that counts for less.
        """
        batches = -(-len(x) // require_count("batch_size", batch_size))
        steps = require_count("epochs", epochs) * batches
        # Its first update is made before the first step of the schedule, and its last needs one more.
        schedule = {"optimizer": torch.optim.Adam, "optim_args": {"lr": lr}, "max_lr": lr, "total_steps": steps + 1}
        with pyro.get_param_store().scope(), seeded(seed), torch.enable_grad():
            optimizer = OneCycleLR({**schedule, "pct_start": 0.1})
            svi = SVI(self.model, self.guide, optimizer, TraceMeanField_ELBO())
            losses = []
            for epoch in range(epochs):
                total = 0.0
                for k, rows in enumerate(torch.randperm(len(x)).tensor_split(batches)):
                    weight = _WEIGHT * min(1.0, (epoch * batches + k + 1) / (_WARM_UP * steps))
                    total += svi.step(x[rows], weight)
                    optimizer.step()
                losses.append(total / len(x))
        self.requires_grad_(True).zero_grad()
        return losses


class FieldDecoderPrior(DecoderPrior):
    """The decoder of an autoencoder of currents, with a mixture of Gaussians for its latent variables.

    Values are means that the decoder gives; `unresolved` says what they leave out. Made by `fit_decoder`.

    Parameters
    ----------
    autoencoder
        A fitted one.
    latent
        Law of z.
    """

    latent: MixtureSameFamily

    def __init__(self, autoencoder: FieldAutoencoder, latent: MixtureSameFamily) -> None:
        super().__init__(autoencoder.decoder, latent)
        self.autoencoder = autoencoder

    @property
    def unresolved(self) -> Float[Tensor, " modes"]:
        """Standard deviation of what the decoder leaves out of each component."""
        return self.autoencoder.scale.detach()

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "n modes"]) -> Float[Tensor, "n modes"]:
        """Return what the decoder makes of the mean codes of x."""
        with evaluating(self.autoencoder):
            decoded: Tensor = self.autoencoder.decoder(self.autoencoder.posterior(x).mean)
            return decoded

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that the prior is made of, to be saved."""
        law = {_LATENT + name: tensor for name, tensor in parameters(self.latent).items()}
        return law | {_NETWORK + name: tensor for name, tensor in self.autoencoder.state_dict().items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "FieldDecoderPrior":
        """Make a prior of what `tensors` returned."""
        law, network = (
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in (_LATENT, _NETWORK)
        )
        widths = [
            len(tensor) for name, tensor in network.items() if name.startswith("encoder") and name.endswith("bias")
        ]
        autoencoder = FieldAutoencoder(len(network["log_scale"]), widths[-1] // 2, widths[:-1])
        autoencoder.load_state_dict(network)
        return cls(autoencoder, mixture(**law))

    def __repr__(self) -> str:
        components, k = parameters(self.latent)["means"].shape
        return f"FieldDecoderPrior(modes={len(self.unresolved)}, latent={k}, components={components})"


def fit_decoder(
    x: Float[Tensor, "n modes"],
    latent: int = 16,
    *,
    components: int = 30,
    hidden: Sequence[int] = (256, 256),
    epochs: int | None = None,
    batch_size: int = 512,
    lr: float = 3e-3,
    seed: int = 0,
) -> FieldDecoderPrior:
    """Learn a law of currents: a variational autoencoder, then a mixture of Gaussians on the codes of the data.

    The mixture is fitted to draws of the guide, the law of z that the decoder was trained on (Ghosh et al. 2020, arXiv
    1903.12436, ex-post density estimation), as `probcl.generation.fit_image_prior` does for images.

    Parameters
    ----------
    x
        Windows in a prior's modes, of unit variance.
    latent
        Width of z: some more than the currents have degrees of freedom, lest the codes be cut apart.
    components
        Of the mixture, at most: no more than there are windows.
    hidden
        Widths of the hidden layers, from x to z.
    epochs, batch_size, lr
        Passes over the windows (20, or as many as a thousand steps need), windows in a batch, largest learning rate.
    seed
        Makes the fit deterministic; neither torch's generators nor Pyro's parameter store are touched.

    Returns
    -------
    FieldDecoderPrior
        A `DecoderPrior` for ``model.u_given_v(prior)``.

    Raises
    ------
    ValueError
        If x is not a table of finite numbers, or an argument is out of its range.
    """
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x must have shape (n, modes) with n of 2 or more, got {describe(x)}")
    require_finite("x", x)
    require_positive("lr", lr)
    require_count("components", components)
    with seeded(seed):
        autoencoder = FieldAutoencoder(x.shape[1], latent, hidden).to(x)
    if epochs is None:
        batches = -(-len(x) // require_count("batch_size", batch_size))
        epochs = max(_EPOCHS, -(-_STEPS // batches))
    autoencoder.fit(x, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed)
    with seeded(seed), torch.no_grad(), evaluating(autoencoder):
        codes = autoencoder.posterior(x[torch.randperm(len(x))[:_CODES]]).sample()
    return FieldDecoderPrior(autoencoder, fit_mixture(codes, min(components, len(codes)), seed))
