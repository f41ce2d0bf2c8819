"""Importance weights: Pareto smoothing with its diagnostic k̂, effective sample size, resampling."""

import math

import torch
from jaxtyping import Bool, Float, Int
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

# With fewer draws in the tail a generalised Pareto distribution cannot be fitted (Vehtari et al. 2024).
_SMALLEST_TAIL = 5
# Effective fraction of weights that vary by a third or less.
_NEARLY_EQUAL = 0.9
_LOG_TINY = math.log(torch.finfo(torch.float64).tiny)


def pareto_smoothed(
    log_weights: Float[Tensor, "S B"],
) -> tuple[Float[Tensor, "S B"], Float[Tensor, " B"]]:
    r"""Pareto-smoothed log-weights, largest zero or less, and the tail index k̂ of each column.

    The ⌈min(S/5, 3√S)⌉ largest weights are replaced by the expected order statistics of the generalised Pareto
    distribution fitted to them (Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72), algorithm 1), truncated at the
    largest raw weight. k̂ is −∞ where the largest weights are all equal: they are bounded and there is no tail to fit;
    +∞ where the tail is too short or too extreme for a fit, and nothing is smoothed.
    """
    log_weights = log_weights.double()
    log_weights = log_weights - log_weights.amax(0)
    size = math.ceil(min(len(log_weights) / 5, 3 * math.sqrt(len(log_weights))))
    top, place = log_weights.topk(size + 1, dim=0)
    fits = [_smooth_tail(column) for column in top.unbind(1)]
    smoothed = torch.stack([tail for tail, _ in fits], dim=1)
    return log_weights.scatter(0, place, smoothed), log_weights.new_tensor([k_hat for _, k_hat in fits])


def _smooth_tail(top: Float[Tensor, " tail"]) -> tuple[Float[Tensor, " tail"], float]:
    """Smooth the largest log-weights, in descending order, of which the last is the cutoff."""
    cutoff = top[-1].clamp(min=_LOG_TINY)
    length = int((top > cutoff).sum())
    if length < _SMALLEST_TAIL:
        return top, -math.inf if bool(top[0] == top[-1]) else math.inf
    excess = top[:length].exp() - cutoff.exp()
    try:
        k_hat, scale = fit_generalized_pareto(excess.cpu())
    except ZeroDivisionError:  # pyro's answer to a tail whose smallest weights are lost to rounding beside its largest
        return top, math.inf
    if not (math.isfinite(k_hat) and math.isfinite(scale) and scale > 0):
        return top, math.inf
    probabilities = 1 - torch.arange(0.5, length, dtype=top.dtype, device=top.device) / length
    smoothed = (_pareto_quantile(probabilities, k_hat, scale) + cutoff.exp()).log().clamp(max=0)
    return torch.cat([smoothed, top[length:]]), k_hat


def _pareto_quantile(probabilities: Tensor, shape: float, scale: float) -> Tensor:
    log_survival = torch.log1p(-probabilities)
    if abs(shape) < torch.finfo(probabilities.dtype).eps:
        return -scale * log_survival
    return scale * torch.expm1(-shape * log_survival) / shape


def k_hat_threshold(count: int) -> float:
    """Return the k̂ from which on that many weights are not to be trusted (Vehtari et al. 2024, §3.2.4)."""
    return min(1 - 1 / math.log10(max(count, 11)), 0.7)


def weights_pass(k_hat: Float[Tensor, " B"], ess: Float[Tensor, " B"], count: int) -> Bool[Tensor, " B"]:
    """Whether k̂ says that this many weights can be trusted.

    Weights that are nearly equal may have a tail of large k̂ that carries next to nothing; below 1, where its mean
    exists, it is let pass.
    """
    return (k_hat < k_hat_threshold(count)) | ((k_hat < 1) & (ess > _NEARLY_EQUAL * count))


def effective_sample_size(log_weights: Float[Tensor, "S *batch"]) -> Float[Tensor, "*batch"]:
    """Kish's effective sample size (Σ w)² / Σ w² along the first axis."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def log_mean_exp(log_weights: Float[Tensor, "S *batch"]) -> Float[Tensor, "*batch"]:
    """Logarithm of the mean weight along the first axis."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def log_mean_exp_se(log_weights: Float[Tensor, "S *batch"]) -> Float[Tensor, "*batch"]:
    """Return the standard error of `log_mean_exp` of independent weights, by the delta method: sd(w) / (mean(w) √S)."""
    count = len(log_weights)
    excess = count / effective_sample_size(log_weights) - 1
    return (excess.clamp(min=0) / max(count - 1, 1)).sqrt()


def systematic_resample(log_weights: Float[Tensor, "S *batch"], count: int) -> Int[Tensor, "count *batch"]:
    """Draw `count` indices along the first axis with probabilities softmax(log_weights), in ascending order.

    Each index comes ⌊count·p⌋ or ⌈count·p⌉ times (systematic resampling: Douc, Cappé & Moulines 2005, §2.4).
    """
    weights = (log_weights.double() - log_weights.amax(0)).exp().movedim(0, -1).contiguous()
    cumulative = weights.cumsum(-1)
    offset = torch.rand(*cumulative.shape[:-1], 1, dtype=cumulative.dtype, device=cumulative.device)
    steps = torch.arange(count, dtype=cumulative.dtype, device=cumulative.device)
    marks = (steps + offset) / count * cumulative[..., -1:]
    # right=True passes over weights of zero; rounding may carry the last mark to the very end.
    index = torch.searchsorted(cumulative, marks, right=True).clamp(max=len(log_weights) - 1)
    return index.movedim(-1, 0)


def shuffled(index: Int[Tensor, "count *batch"]) -> Int[Tensor, "count *batch"]:
    """Permute each column on its own, so that a part of the draws is a sample as well."""
    order = torch.rand(index.shape, device=index.device).argsort(0)
    return index.gather(0, order)


def take(values: Float[Tensor, "S *shape"], index: Int[Tensor, "count *batch"]) -> Float[Tensor, "count *shape"]:
    """Pick values[index[i, b], b] along the first axis for each position b of the batch axes that follow it."""
    trailing = values.shape[index.ndim :]
    index = index.reshape(*index.shape, *(1 for _ in trailing))
    return values.gather(0, index.expand(*index.shape[: index.ndim - len(trailing)], *trailing))
