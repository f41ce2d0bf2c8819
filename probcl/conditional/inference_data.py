"""Draws of a conditional for ArviZ."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Shaped
from torch import Tensor

from probcl.checks import describe, require_tensor
from probcl.conditional.distribution import TiltedDistribution
from probcl.priors import DecoderPrior, EmpiricalPrior, ModelPrior
from probcl.samplers import Draws

if TYPE_CHECKING:
    import arviz

_DIAGNOSTICS = {
    "ess": "effective sample size behind the draws",
    "trusted": "whether the sampler's diagnostics pass",
    "log_evidence": "log of the prior's mean of e^s",
    "log_evidence_se": "standard error of log_evidence",
    "k_hat": "Pareto tail index of the importance weights",
    "r_hat": "split rank-normalised R-hat of the worst coordinate",
    "divergent": "share of the trajectories that diverged",
}


def to_inference_data(
    posterior: TiltedDistribution,
    num_samples: int = 2000,
    *,
    seed: int | None = None,
    draws: Draws | None = None,
    given: Shaped[Tensor, "*batch_and_event"] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> "arviz.InferenceData":
    """Draw from a conditional into an `arviz.InferenceData`: ``arviz.summary(to_inference_data(posterior))``.

    All conditions of the batch go in, along the dimension ``condition``, which a single label, of ``batch_shape`` (),
    does not have. Draws of several chains keep them apart; those that are independent, weighted or of particles are one
    chain, of which R̂ says nothing. Weighted draws were resampled, so that all count alike: how many they are worth is
    ``ess``.

    Parameters
    ----------
    posterior
        ``conditional.condition(v)``.
    num_samples, seed
        As in `TiltedDistribution.draw`. Of several chains, each has ``num_samples // num_chains`` draws.
    draws
        What ``posterior.draw`` returned, to draw no more.
    given
        What it is conditioned on, shape (B, *event): goes into ``observed_data``.
    dims
        Names of the axes of one value, as in ArviZ: ``{"u": ["parameter"]}``.
    coords
        Labels along dimensions, ``condition`` and those of `dims`.

    Returns
    -------
    arviz.InferenceData
        - ``posterior``: `u` (or `v`), and the latent `z` of a prior that decodes one.
        - ``sample_stats``, for every draw: ``score``, s(u, v), and ``lp``, log prior(u) + s(u, v), the log-density up
          to a constant, where the prior has a density; for every condition: ``ess``, ``trusted``, ``log_evidence``,
          ``log_evidence_se``, ``k_hat``, ``r_hat`` and ``divergent`` of `Draws`, as far as the sampler knows them.
          Hamiltonian chains of all conditions move together, so that single draws that diverged are not known.
        - ``observed_data``, with `given`.

        The method and its reason are attributes.

    Raises
    ------
    ImportError
        If arviz is not installed.
    TypeError, ValueError
        If the posterior is none of this package, or draws, dimensions or what is given do not fit it.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    >>> prior = pcl.GaussianPrior(torch.zeros(3), torch.eye(3))
    >>> posterior = model.u_given_v(prior).condition(torch.zeros(4, 3))
    >>> data = pcl.conditional.to_inference_data(posterior, 100, dims={"u": ["parameter"]})
    >>> dict(data.posterior.sizes)
    {'chain': 1, 'draw': 100, 'condition': 4, 'parameter': 3}
    """
    try:
        from arviz import InferenceData
    except ImportError as error:
        raise ImportError('InferenceData needs the extra: pip install "probcl[arviz]"') from error
    if not isinstance(posterior, TiltedDistribution):
        raise TypeError(f"posterior must be what a Conditional's condition() returns, got {describe(posterior)}")
    draws = posterior.draw(num_samples, seed=seed) if draws is None else draws
    if draws.z.shape[1] != posterior.batch_shape.numel():
        raise ValueError(f"draws must be of {posterior.batch_shape.numel()} conditions, got {draws.z.shape[1]}")
    if len(draws.z) < draws.num_chains:
        raise ValueError(f"draws must be at least one of each of {draws.num_chains} chains, got {len(draws.z)}")
    labelled = _Labelled(posterior, draws.num_chains, dict(dims or {}), dict(coords or {}))
    groups: dict[str, Any] = {"posterior": labelled.posterior(draws), "sample_stats": labelled.sample_stats(draws)}
    if given is not None:
        groups["observed_data"] = labelled.observed(require_tensor("given", given))
    return InferenceData(**groups)


class _Labelled:
    """Gives tensors over draws and conditions their dimensions."""

    def __init__(
        self, posterior: TiltedDistribution, num_chains: int, dims: dict[str, Sequence[str]], coords: dict[str, Any]
    ) -> None:
        self.law, self.num_chains, self.dims, self.coords = posterior, num_chains, dims, coords
        self.target = posterior.conditional.target
        self.batch = ["condition"] if posterior.batch_shape else []

    def posterior(self, draws: Draws) -> xr.Dataset:
        """Return the values, and the latent variables where these are something else."""
        found: dict[str, xr.Variable] = {self.target: self._of_draws(self.target, self._values(draws))}
        if isinstance(self.law.prior, DecoderPrior | ModelPrior):
            found["z"] = self._of_draws("z", draws.z)
        return self._dataset(found, draws)

    def sample_stats(self, draws: Draws) -> xr.Dataset:
        """Return what is known of each draw and of each condition."""
        values = self._values(draws)
        values = values.reshape(len(values), *self.law.batch_shape, *self.law.event_shape)
        found = {}
        for name, function in (("score", self.law._scores_at), ("lp", self.law.unnormalized_log_prob)):
            try:
                found[name] = self._of_draws(name, function(values).detach().reshape(draws.z.shape[:2]))
            except NotImplementedError:  # a decoder's law has no density that is known
                continue
        for name, meaning in _DIAGNOSTICS.items():
            value = getattr(draws, name)
            if value is not None:
                array = _numpy(value) if self.batch else _numpy(value)[0]
                found[name] = xr.Variable(self.batch, array, {"long_name": meaning})
        return self._dataset(found, draws)

    def observed(self, given: Tensor) -> xr.Dataset:
        """Return what is conditioned on."""
        if given.shape[: len(self.batch)].numel() != self.law.batch_shape.numel():
            raise ValueError(f"given must be of {self.law.batch_shape.numel()} conditions, got {describe(given)}")
        name = "v" if self.target == "u" else "u"
        events = self._events(name, given.ndim - len(self.batch))
        return self._dataset({name: xr.Variable([*self.batch, *events], _numpy(given))})

    @torch.no_grad()
    def _values(self, draws: Draws) -> Tensor:
        prior = self.law.prior
        return draws.z if isinstance(prior, EmpiricalPrior) else prior.decode(draws.z)

    def _of_draws(self, name: str, values: Tensor) -> xr.Variable:
        """Return values (S, B, *event) on chains, draws and conditions."""
        chains, length = self.num_chains, len(values) // self.num_chains
        array = _numpy(values[: chains * length].unflatten(0, (length, chains)).movedim(1, 0))
        array = array if self.batch else array[:, :, 0]
        events = self._events(name, values.ndim - 2)
        return xr.Variable(["chain", "draw", *self.batch, *events], array)

    def _events(self, name: str, count: int) -> list[str]:
        events = list(self.dims.get(name, [f"{name}_dim_{axis}" for axis in range(count)]))
        if len(events) != count:
            raise ValueError(f"dims must name the {count} axes of {name}, got {events}")
        return events

    def _dataset(self, variables: dict[str, xr.Variable], draws: Draws | None = None) -> xr.Dataset:
        from probcl import __version__

        sizes = {str(name): size for variable in variables.values() for name, size in variable.sizes.items()}
        coords = {name: self.coords.get(name, np.arange(size)) for name, size in sizes.items()}
        told = {} if draws is None else {"method": draws.method, "reason": draws.reason}
        attributes = {"inference_library": "probcl", "inference_library_version": __version__, **told}
        return xr.Dataset(variables, coords, attributes)


def _numpy(values: Tensor) -> Shaped[np.ndarray, "*shape"]:
    return values.detach().cpu().numpy()
