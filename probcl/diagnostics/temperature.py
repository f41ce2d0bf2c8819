"""Recalibration: the temperature, and potentials if they help, refitted on held-out pairs."""

import copy
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from scipy.optimize import brentq, minimize, minimize_scalar
from torch import Tensor, nn
from torch.func import functional_call

from probcl.alignment import Alignment
from probcl.diagnostics.figures import axes_or_new
from probcl.diagnostics.held_out import EmbeddedPairs, embed_pairs, in_batches, own_direction, spread
from probcl.diagnostics.potentials import LinearPotentials
from probcl.errors import ProbclWarning
from probcl.losses import Loss
from probcl.model import BimodalModel, require_model
from probcl.plotting import PALETTE
from probcl.temperature import Temperature

# The temperature is sought within this factor of the old one.
_SEARCH_FACTOR = 1000.0
_LOG_TOLERANCE = 1e-6
_LOSS_TOLERANCE = 1e-9
_FOLDS = 5
# The figure shows temperatures down and up to this factor from the two, at this many points and where the search was.
_MARGIN = 2.0
_CURVE_POINTS = 15


@dataclass(frozen=True, eq=False, repr=False)
class Recalibration:
    """What a refit has changed, all of it measured on the held-out pairs.

    Attributes
    ----------
    temperature_before, temperature_after
        τ.
    loss_before, loss_after
        The loss in nats; the second is never above the first.
    searched_temperatures, searched_losses
        Where the loss was evaluated with the old potentials, in ascending order of τ, shape (K,).
    potentials_gain
        By how much potentials lowered the loss of pairs left out of their fit, in nats; None if they were not tried.
    potentials
        Whether the new model has them.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> rng = torch.Generator().manual_seed(0)
    >>> u = torch.randn(500, 1, generator=rng)
    >>> v = u + 0.5 * torch.randn(500, 1, generator=rng)
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> _, change = pcl.diagnostics.recalibrate(model, u, v, loss=pcl.ConditionalLoss(2, 0))
    >>> change.temperature_before, round(change.temperature_after, 1), change.loss_after < change.loss_before
    (1.0, 0.3, True)
    """

    temperature_before: float
    temperature_after: float
    loss_before: float
    loss_after: float
    searched_temperatures: Float[Tensor, " K"]
    searched_losses: Float[Tensor, " K"]
    potentials_gain: float | None
    potentials: bool

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss against the temperature, with the model before and after."""
        ax = axes_or_new(ax)
        ax.plot(self.searched_temperatures, self.searched_losses, color=PALETTE[0], linewidth=1.2)
        ax.plot(self.temperature_before, self.loss_before, "o", color=PALETTE[1], label="before")
        ax.plot(self.temperature_after, self.loss_after, "o", color=PALETTE[2], label="after")
        ends = sorted([self.temperature_before, self.temperature_after])
        height = max(self.loss_before, float(self.searched_losses[self._near(ends)].max())) - self.loss_after
        ax.set(xscale="log", xlim=(ends[0] / _MARGIN, ends[1] * _MARGIN))
        ax.set_ylim(self.loss_after - 0.1 * height, self.loss_after + 1.1 * height)
        ax.set(xlabel="temperature", ylabel="held-out loss [nats]")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend(frameon=False, fontsize=8)
        return ax

    def _near(self, ends: list[float]) -> Bool[Tensor, " K"]:
        temperatures = self.searched_temperatures
        return (temperatures >= 0.99 * ends[0] / _MARGIN) & (temperatures <= 1.01 * ends[1] * _MARGIN)

    def __repr__(self) -> str:
        potentials = ", with potentials" if self.potentials else ""
        return (
            f"Recalibration(τ {self.temperature_before:.4g} → {self.temperature_after:.4g}, "
            f"loss {self.loss_before:.4f} → {self.loss_after:.4f}{potentials})"
        )


def recalibrate(
    model: BimodalModel,
    u: Shaped[Tensor, "n *u_event"],
    v: Shaped[Tensor, "n *v_event"],
    *,
    loss: Loss | None = None,
    potentials: bool = False,
    batch_size: int = 2048,
) -> tuple[BimodalModel, Recalibration]:
    r"""Refit the temperature on held-out pairs by the conditional likelihood; it never becomes worse.

    For fixed encoders the conditionals are an exponential family in β = 1/τ, ν_β(u|v) ∝ e^{β a(u,v)} μ_u, so that the
    conditional and the joint losses are convex in β and have one minimum: temperature scaling (Guo, Pleiss, Sun &
    Weinberger 2017, §4.2) for contrastive models. Where it is not found, or is not better than the old value, the old
    value stays. One number cannot overfit by much, but the loss after is still one that was fitted: report that of
    other pairs.

    Parameters
    ----------
    model
        The fitted model, which is left as it is.
    u, v
        Held-out pairs, hundreds or more.
    loss
        By default the conditional loss in the directions that the model's own loss determines.
    potentials
        Whether to try linear functions of the embeddings as well (`LinearPotentials`), which correct the marginals:
        class frequencies, say, that are not those of training. They are fitted jointly with τ, with a standard normal
        prior for their coefficients on standardised embeddings, and kept only if they lower the loss of pairs left
        out in 5-fold cross-validation. Needs ten pairs.
    batch_size
        Pairs are candidates for one another within batches of about this size.

    Returns
    -------
    BimodalModel
        With the same encoders (shared, not copied), gauge and `identifies`.
    Recalibration
        Before and after.

    Raises
    ------
    TypeError
        If `model` is not a `BimodalModel`.
    ValueError
        If there are not as many u as v, or too few.

    Warns
    -----
    ProbclWarning
        If the loss falls up to the end of the search, a factor of 1000 from the old τ: the pairs are told apart
        perfectly, or not at all. What is best for them is then certainty, or none, which one other pair would refute:
        of the temperatures within 1/n nats of the least loss, which n pairs cannot tell apart, the one nearest to the
        old one is taken.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> rng = torch.Generator().manual_seed(0)
    >>> u = torch.randn(500, 1, generator=rng)
    >>> v = u + 0.5 * torch.randn(500, 1, generator=rng)
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2())
    >>> better, _ = pcl.diagnostics.recalibrate(model, u, v, loss=pcl.ConditionalLoss(2, 0))
    >>> round(float(better.temperature()), 1)  # the variance of the noise is 0.25
    0.3
    """
    require_model(model)
    z_u, z_v = embed_pairs(model, u, v, minimum=2 * _FOLDS if potentials else 2)
    loss = own_direction(model) if loss is None else loss
    batches = in_batches(z_u, z_v, batch_size)
    before = _held_out_loss(model, loss, batches)
    search = _Search(model, loss, batches)
    if search.at_end:
        warnings.warn(
            "these pairs do not determine the temperature: the loss falls up to an end of the search, because they are "
            f"told apart perfectly or not at all; τ = {search.best.temperature.value:.3g} is within 1/n nats of the "
            "least",
            ProbclWarning,
            stacklevel=2,
        )
    search.fill_in()
    candidates = [_changed(model, copy.deepcopy(model.temperature)), search.best]
    gain = _potentials_gain(model, loss, z_u, z_v, batch_size) if potentials else None
    if gain is not None and gain > 0:
        candidates.append(_fit_potentials(search.best, loss, batches))
    losses = [_held_out_loss(candidate, loss, batches) for candidate in candidates]
    chosen = losses.index(min(losses))
    best = candidates[chosen]
    report = Recalibration(
        temperature_before=model.temperature.value,
        temperature_after=best.temperature.value,
        loss_before=before,
        loss_after=losses[chosen],
        searched_temperatures=search.temperatures,
        searched_losses=search.losses,
        potentials_gain=gain,
        potentials=chosen == 2,
    )
    return best, report


class _Search:
    """The one-dimensional refit of τ, and where it looked."""

    def __init__(self, model: BimodalModel, loss: Loss, batches: EmbeddedPairs) -> None:
        self.model, self.loss, self.batches = model, loss, batches
        self.seen: dict[float, float] = {}
        bounds = _search_range(model)
        found = minimize_scalar(self, bounds=bounds, method="bounded", options={"xatol": _LOG_TOLERANCE})
        least, end = min((self(bound), bound) for bound in bounds)
        self.at_end = least <= float(found.fun) + _LOSS_TOLERANCE
        place = self._nearest(end, least) if self.at_end else float(found.x)
        self.best = _changed(model, _temperature_like(model, place))

    def _nearest(self, end: float, least: float) -> float:
        """Return the log τ nearest to the old one whose loss is within 1/n of the least, that at an end."""
        old = math.log(self.model.temperature.value)
        allowed = least + 1 / sum(len(z_u) for z_u, _ in self.batches)
        if self(old) <= allowed:
            return old
        return float(brentq(lambda place: self(place) - allowed, end, old, xtol=_LOG_TOLERANCE))

    def fill_in(self) -> None:
        """Evaluate the loss where a figure shows it."""
        ends = sorted([math.log(self.model.temperature.value), math.log(self.best.temperature.value)])
        for log_temperature in np.linspace(ends[0] - math.log(_MARGIN), ends[1] + math.log(_MARGIN), _CURVE_POINTS):
            self(float(log_temperature))

    def __call__(self, log_temperature: float) -> float:
        model = _changed(self.model, _temperature_like(self.model, log_temperature))
        value = _held_out_loss(model, self.loss, self.batches)
        self.seen[model.temperature.value] = value
        return value

    @property
    def temperatures(self) -> Float[Tensor, " K"]:
        return torch.tensor(sorted(self.seen), dtype=torch.float64)

    @property
    def losses(self) -> Float[Tensor, " K"]:
        return torch.tensor([self.seen[temperature] for temperature in sorted(self.seen)], dtype=torch.float64)


class _Objective(nn.Module):
    """The loss of a model on embedded pairs as a function of the model's parameters."""

    def __init__(self, model: BimodalModel, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batches: EmbeddedPairs) -> Float[Tensor, ""]:
        total = sum(len(z_u) for z_u, _ in batches)
        parts = [len(z_u) / total * self.loss(self.model.scores_of_embeddings(z_u, z_v)) for z_u, z_v in batches]
        return torch.stack(parts).sum()


def _held_out_loss(model: BimodalModel, loss: Loss, batches: EmbeddedPairs) -> float:
    with torch.no_grad():
        return float(_Objective(model, loss)(batches))


def _changed(model: BimodalModel, temperature: Temperature, alignment: Alignment | None = None) -> BimodalModel:
    """Return a model that shares the encoders, with another temperature and perhaps alignment."""
    changed = BimodalModel(model.encoder_u, model.encoder_v, model.alignment if alignment is None else alignment)
    changed.temperature, changed.gauge, changed.identifies = temperature, model.gauge, model.identifies
    return changed


def _temperature_like(model: BimodalModel, log_temperature: float) -> Temperature:
    return Temperature(math.exp(log_temperature), model.temperature.learnable).to(model.device)


def _search_range(model: BimodalModel) -> tuple[float, float]:
    middle, reach = math.log(model.temperature.value), math.log(_SEARCH_FACTOR)
    return middle - reach, middle + reach


def _fit_potentials(model: BimodalModel, loss: Loss, batches: EmbeddedPairs) -> BimodalModel:
    """Fit τ and linear potentials jointly, from where `model` is."""
    problem = _PotentialsProblem(model, loss, batches)
    start = np.zeros(1 + problem.spreads.numel())
    start[0] = math.log(model.temperature.value)
    bounds = [_search_range(model)] + [(None, None)] * problem.spreads.numel()
    found = minimize(problem, start, jac=True, method="L-BFGS-B", bounds=bounds)
    log_temperature, weights = problem.unpack(torch.from_numpy(found.x))
    alignment = LinearPotentials(model.alignment, weights.shape[1]).to(model.device)
    with torch.no_grad():
        alignment.weight_u.copy_(weights[0])
        alignment.weight_v.copy_(weights[1])
    return _changed(model, _temperature_like(model, float(log_temperature)), alignment)


class _PotentialsProblem:
    """The penalised loss and its gradient, as a function of log τ and of coefficients on standardised embeddings."""

    def __init__(self, model: BimodalModel, loss: Loss, batches: EmbeddedPairs) -> None:
        self.batches = batches
        z_u, z_v = (torch.cat(side) for side in zip(*batches, strict=True))
        self.spreads, self.count = torch.stack([spread(z_u), spread(z_v)]), len(z_u)
        alignment = LinearPotentials(model.alignment, z_u.shape[1])
        self.objective = _Objective(_changed(model, Temperature(1.0, learnable=True), alignment), loss)

    def unpack(self, parameters: Float[Tensor, " P"]) -> tuple[Float[Tensor, ""], Float[Tensor, "2 d"]]:
        """Return log τ and the weights of the embeddings, which are divided by τ in the score."""
        parameters = parameters.to(self.spreads)
        coefficients = parameters[1:].reshape(self.spreads.shape)
        return parameters[0], coefficients / self.spreads * parameters[0].exp()

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(x).requires_grad_()
        log_temperature, weights = self.unpack(parameters)
        named = {
            "model.temperature.log_value": log_temperature,
            "model.alignment.weight_u": weights[0],
            "model.alignment.weight_v": weights[1],
        }
        fit = functional_call(self.objective, named, (self.batches,))
        value = fit.cpu() + parameters[1:].square().sum() / (2 * self.count)
        (gradient,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), gradient.numpy()


def _potentials_gain(
    model: BimodalModel, loss: Loss, z_u: Float[Tensor, "n d"], z_v: Float[Tensor, "n d"], batch_size: int
) -> float:
    """By how much potentials lower the loss of pairs left out of the fit, beyond what τ alone does."""
    fold = torch.arange(len(z_u), device=z_u.device) % _FOLDS
    gains = []
    for left_out in range(_FOLDS):
        kept, tested = fold != left_out, fold == left_out
        batches = in_batches(z_u[kept], z_v[kept], batch_size)
        test = in_batches(z_u[tested], z_v[tested], batch_size)
        plain = _Search(model, loss, batches).best
        richer = _fit_potentials(plain, loss, batches)
        gains.append(_held_out_loss(plain, loss, test) - _held_out_loss(richer, loss, test))
    return sum(gains) / _FOLDS
