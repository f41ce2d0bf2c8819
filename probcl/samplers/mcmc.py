"""NUTS and HMC through Pyro, all conditions and chains in one run."""

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from pyro.infer import HMC as PyroHMC
from pyro.infer import MCMC
from pyro.infer import NUTS as PyroNUTS
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from scipy.stats import rankdata
from torch import Tensor

from probcl.checks import require_count, require_positive
from probcl.samplers.base import MAX_R_HAT, MIN_ESS, Draws, Sampler, Target, require_scores
from probcl.samplers.unconstrained import Unconstrained
from probcl.samplers.weights import take

_SITE = "x"
_START_CANDIDATES = 16
_FEWEST_ITERATIONS = 100
# A few trajectories of a long run may diverge by chance; more, and there are places the chains cannot enter.
_MOST_DIVERGENT = 0.01


class Potential:
    """Minus the log-density of all conditions and chains together, in unconstrained coordinates, as Pyro wants it.

    It is the potential of the Pyro model that `Conditional.pyro_model` writes down, without running Pyro's handlers at
    every step: two to three times faster, and it takes any latent law, those that are Pyro models themselves included.
    """

    def __init__(self, law: Unconstrained) -> None:
        self.law = law

    def __call__(self, parameters: dict[str, Float[Tensor, "C B D"]]) -> Float[Tensor, ""]:
        log_prior, log_tilt = self.law.log_terms(parameters[_SITE])
        return -(log_prior + log_tilt).sum()


class _PyroChains(Sampler):
    """Pyro's MCMC on the product over conditions and chains of one latent space."""

    advice = "Raise warmup or num_draws; if chains sit in separate modes, use TemperedSMC"

    def __init__(self, num_chains: int = 8, warmup: int = 300, num_draws: int | None = None) -> None:
        self.num_chains = require_count("num_chains", num_chains, minimum=2)
        self.warmup = require_count("warmup", warmup)
        self.num_draws = None if num_draws is None else require_count("num_draws", num_draws, _FEWEST_ITERATIONS)

    @abstractmethod
    def _kernel(self, potential: Potential) -> MCMCKernel:
        """Return the kernel for a potential."""

    def _draw(self, target: Target, num_samples: int) -> Draws:
        iterations = max(_FEWEST_ITERATIONS, self.num_draws or 0, math.ceil(num_samples / self.num_chains))
        law = Unconstrained(target)
        start = self._start(law)
        with torch.enable_grad():
            mcmc = MCMC(
                self._kernel(Potential(law)),
                num_samples=iterations,
                warmup_steps=self.warmup,
                initial_params={_SITE: start},
                disable_progbar=True,
            )
            mcmc.run()
        chains = mcmc.get_samples()[_SITE].detach().movedim(0, 1)
        r_hat, ess = diagnose(chains)
        # A trajectory moves all conditions, so which of them made it diverge is not known.
        divergent = sum(len(chain) for chain in mcmc.diagnostics()["divergences"].values()) / iterations
        return Draws(
            # Pyro goes over to the precision of the scores, float64.
            z=law.constrain(_thin(chains, num_samples).to(start.dtype)),
            ess=ess,
            trusted=(r_hat <= MAX_R_HAT) & (ess >= MIN_ESS) & (divergent <= _MOST_DIVERGENT),
            method=type(self).__name__,
            r_hat=r_hat,
            divergent=torch.full_like(r_hat, divergent),
            num_chains=self.num_chains,
        )

    def _start(self, law: Unconstrained) -> Float[Tensor, "C B D"]:
        """Start the chains at prior draws, which are dispersed, where the score is finite."""
        z = law.latent.sample((_START_CANDIDATES * self.num_chains, law.target.batch_size))
        possible = require_scores(law.target.log_tilt(z)).isfinite()
        possible_first = possible.byte().argsort(dim=0, descending=True, stable=True)
        turn = torch.arange(self.num_chains, device=z.device)[:, None] % possible.sum(0)
        return take(law.unconstrain(z), possible_first.gather(0, turn))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_chains={self.num_chains}, warmup={self.warmup}, num_draws={self.num_draws})"


class NUTS(_PyroChains):
    """The No-U-Turn sampler (Hoffman & Gelman 2014) of `pyro.infer`, on all conditions and chains at once.

    One trajectory moves the B conditions and the chains of each together, in the product of their spaces. That costs
    one gradient of the (chains × B) scores a step instead of a Python loop over conditions. The step size is common: it
    falls like (chains · B · D)^{-1/4}, and a condition that is hard to sample slows its neighbours, so keep batches
    moderate (B · D up to a few thousand). Conditions do not bias each other. Constrained latent variables are
    transformed to the reals. Chains start at prior draws; they never cross between modes that are far apart, which
    R̂ reports.

    Parameters
    ----------
    num_chains
        Chains of each condition.
    warmup
        Iterations in which the step size and the masses are adapted.
    num_draws
        Iterations kept, of each chain; as many as the draws asked for need by default, and at least 100. More are
        thinned to the number of draws asked for.
    max_tree_depth
        A trajectory has up to 2 to this many steps.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> sampler = pcl.samplers.NUTS(num_chains=4, warmup=100, num_draws=250)
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0), sampler=sampler)
    >>> draws = nu.condition(torch.tensor([[1.0, 0.0]])).draw(1000, seed=0)
    >>> draws.z.shape, draws.r_hat < 1.02
    (torch.Size([1000, 1, 2]), tensor([True]))
    """

    def __init__(
        self, num_chains: int = 8, warmup: int = 300, num_draws: int | None = None, *, max_tree_depth: int = 8
    ) -> None:
        super().__init__(num_chains, warmup, num_draws)
        self.max_tree_depth = require_count("max_tree_depth", max_tree_depth)

    def _kernel(self, potential: Potential) -> MCMCKernel:
        return PyroNUTS(potential_fn=potential, max_tree_depth=self.max_tree_depth)


class HMC(_PyroChains):
    """Hamiltonian Monte Carlo of `pyro.infer` with trajectories of one length; see `NUTS`, which chooses the length.

    Parameters
    ----------
    trajectory_length
        Step size times number of steps, in units of the adapted scales of the posterior.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> sampler = pcl.samplers.HMC(num_chains=4, warmup=100, trajectory_length=1.5)
    >>> nu = model.u_given_v(torch.distributions.Normal(torch.zeros(2), 1.0), sampler=sampler)
    >>> draws = nu.condition(torch.tensor([[1.0, 0.0]])).draw(400, seed=0)
    >>> draws.z.shape, draws.divergent
    (torch.Size([400, 1, 2]), tensor([0.], dtype=torch.float64))
    """

    def __init__(
        self, num_chains: int = 8, warmup: int = 300, num_draws: int | None = None, *, trajectory_length: float = 1.5
    ) -> None:
        super().__init__(num_chains, warmup, num_draws)
        require_positive("trajectory_length", trajectory_length)
        self.trajectory_length = trajectory_length

    def _kernel(self, potential: Potential) -> MCMCKernel:
        return PyroHMC(potential_fn=potential, trajectory_length=self.trajectory_length)


def diagnose(chains: Float[Tensor, "C n B D"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """R̂ and effective sample size of the worst coordinate (Vehtari et al. 2021, Bayesian Analysis 16(2)).

    R̂ is the larger of the split rank-normalised statistics of the draws and of their distances from the median; the
    effective sample size is that of the rank-normalised draws.
    """
    chains = chains.double()
    ranked = _rank_normalised(chains)
    folded = _rank_normalised((chains - _median(chains)).abs())
    r_hat = torch.maximum(split_gelman_rubin(ranked), split_gelman_rubin(folded)).amax(-1)
    total = chains.shape[0] * chains.shape[1]
    # Chains that all stand still have no variance to compare.
    ess = effective_sample_size(_split(ranked)).nan_to_num(0.0).clamp(0, total * math.log10(total)).amin(-1)
    return r_hat.nan_to_num(torch.inf), ess


def _median(chains: Float[Tensor, "C n B D"]) -> Float[Tensor, "B D"]:
    """Mean of the two middle values; torch.median gives the lower of them."""
    ordered = chains.flatten(0, 1).sort(0).values
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _rank_normalised(chains: Float[Tensor, "C n B D"]) -> Float[Tensor, "C n B D"]:
    """Return normal scores of the ranks over all chains, mean ranks for ties (Vehtari et al. 2021, eq. 14)."""
    flat = chains.flatten(0, 1)
    ranks = torch.from_numpy(rankdata(flat.cpu().numpy(), axis=0)).to(flat)
    scores = torch.special.ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4))
    normal: Tensor = scores.unflatten(0, chains.shape[:2])
    return normal


def _split(chains: Float[Tensor, "C n B D"]) -> Float[Tensor, "C2 half B D"]:
    half = chains.shape[1] // 2
    return torch.cat([chains[:, :half], chains[:, -half:]])


def _thin(chains: Float[Tensor, "C n B D"], count: int) -> Float[Tensor, "count B D"]:
    """Take evenly spaced draws of every chain, from the chains in turn."""
    kept = math.ceil(count / len(chains))
    index = torch.arange(kept, device=chains.device) * chains.shape[1] // kept
    return chains[:, index].movedim(0, 1).flatten(0, 1)[:count]
