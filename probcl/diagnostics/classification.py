"""Classification: whether the largest probability is at the right class, and whether it can be believed.

Probabilities and log-probabilities are (B, K), classes are integers 0 … K−1 of shape (B,), and each diagnostic is a
plain number, the mean over the B queries.
"""

import torch
from jaxtyping import Float, Int
from sklearn.metrics import accuracy_score
from torch import Tensor
from torch.nn.functional import nll_loss

from probcl.checks import describe, require_count, require_integers, require_tensor

# Rows of float32 probabilities over thousands of classes sum to one to about this.
_NORMALISED_TO = 1e-3


def accuracy(probs: Float[Tensor, "B K"], labels: Int[Tensor, " B"]) -> float:
    """Fraction of rows whose largest entry is at the label, in [0, 1]; probabilities or log-probabilities.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If shapes do not fit, `probs` has NaN, or a label is outside 0 … K−1.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import accuracy
    >>> accuracy(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([0, 0]))
    0.5
    """
    probs, labels = _check(probs, labels, "probs")
    return float(accuracy_score(labels.numpy(), probs.argmax(1).numpy()))


def negative_log_likelihood(log_probs: Float[Tensor, "B K"], labels: Int[Tensor, " B"]) -> float:
    """Mean of −log p(label) in nats: infinite if a label was given no probability.

    It takes log-probabilities, since probabilities that underflow would have to be clipped, and it is the confident
    mistakes that this is to show.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If shapes do not fit, rows of exp(log_probs) do not sum to one, or a label is outside 0 … K−1.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import negative_log_likelihood
    >>> log_probs = torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log()
    >>> round(negative_log_likelihood(log_probs, torch.tensor([0, 0])), 4)
    0.5108
    """
    log_probs, labels = _check(log_probs, labels, "log_probs")
    _require_normalised("exp(log_probs)", log_probs.exp())
    return float(nll_loss(log_probs, labels))


def expected_calibration_error(probs: Float[Tensor, "B K"], labels: Int[Tensor, " B"], bins: int = 15) -> float:
    r"""Top-label expected calibration error, in [0, 1].

    .. math:: \sum_m \frac{|B_m|}{B} \, |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|

    over bins B_m of predictions whose confidence, the largest probability, lies in ((m−1)/M, m/M]
    (Guo, Pleiss, Sun & Weinberger 2017, *On Calibration of Modern Neural Networks*, eqs. 2, 3 and 5).

    Parameters
    ----------
    probs
        Class probabilities, shape (B, K), whose rows sum to one.
    labels
        The true classes, shape (B,).
    bins
        The number M of bins of equal width.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If shapes do not fit, rows do not sum to one, a label is outside 0 … K−1, or `bins` is not positive.

    Examples
    --------
    >>> import torch
    >>> from probcl.diagnostics import expected_calibration_error
    >>> probs, labels = torch.tensor([[0.9, 0.1]]).expand(10, 2), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    >>> round(expected_calibration_error(probs, labels), 4)  # sure at 0.9, right at 0.6
    0.3
    """
    probs, labels = _check(probs, labels, "probs")
    _require_normalised("probs", probs)
    confidence, predicted = probs.max(1)
    inner_edges = torch.arange(1, require_count("bins", bins), dtype=torch.float64) / bins
    excess = confidence - (predicted == labels).double()
    per_bin = torch.zeros(bins, dtype=torch.float64).index_add(0, torch.bucketize(confidence, inner_edges), excess)
    return float(per_bin.abs().sum() / len(labels))


def _check(probs: Tensor, labels: Tensor, name: str) -> tuple[Float[Tensor, "B K"], Int[Tensor, " B"]]:
    if require_tensor(name, probs).ndim != 2 or probs.numel() == 0 or probs.isnan().any():
        raise ValueError(f"{name} must be a non-empty (B, K) matrix without NaN, got {describe(probs)}")
    batch, classes = probs.shape
    if require_integers("labels", labels).shape != (batch,):
        raise ValueError(f"labels must have shape ({batch},), one for each row of {name}, got {describe(labels)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0 … {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    return probs.detach().cpu().double(), labels.cpu().long()


def _require_normalised(name: str, probs: Float[Tensor, "B K"]) -> None:
    off = float((probs.sum(1) - 1).abs().max())
    if probs.min() < 0 or not off <= _NORMALISED_TO:
        raise ValueError(f"rows of {name} must be non-negative and sum to one, got a sum off by {off:.3g}")
