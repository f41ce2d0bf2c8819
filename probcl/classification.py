"""Classification of u by the learned conditional of a label: zero-shot, or with label embeddings fitted to examples.

Both are the softmax over K classes of s(u, v_k) plus a log-prior (Baptista, Stuart & Tran 2025, Alg. 2 and eq. 34).
To classify v, exchange the encoders: ``BimodalModel(encoder_v, encoder_u, ...)``.
"""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from probcl.alignment import L2, Alignment, Cosine, InnerProduct, WithPotentials
from probcl.checks import describe, require_count, require_finite, require_integers, require_positive, require_tensor
from probcl.errors import ProbclWarning
from probcl.losses import Identifies
from probcl.model import BimodalModel, require_model
from probcl.priors import EmpiricalPrior

# Of the mean negative log-likelihood of standardised features, whose gradient starts at order one.
_CONVERGED_GRADIENT = 1e-6
# Embeddings that vary by less than this part of their size do so by the rounding of their mean.
_CONSTANT_TO = 1e-12


class Classifier(nn.Module):
    """Class probabilities p(k|u) ∝ exp(s(u, v_k) + log prior_k), computed in float64 and rounded once.

    Made by `zero_shot` and `fine_tune`. It shares the model's encoders, embeds in evaluation mode and carries no
    gradients. Its ``state_dict`` holds the encoders, the class embeddings and the log-priors.

    Parameters
    ----------
    model
        The model that embeds u and scores it.
    class_embeddings
        g_v(v_k), shape (K, d).
    log_prior
        Log-priors up to a constant, shape (K,); −inf for a class that cannot occur.
    """

    class_embeddings: Tensor
    log_prior: Tensor

    def __init__(
        self, model: BimodalModel, class_embeddings: Float[Tensor, "K d"], log_prior: Float[Tensor, " K"]
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("class_embeddings", class_embeddings)
        self.register_buffer("log_prior", log_prior)

    def forward(self, u: Shaped[Tensor, "B *event"]) -> Float[Tensor, "B K"]:
        """Return class probabilities, shape (B, K)."""
        return self.log_prob(u).exp()

    @torch.no_grad()
    def log_prob(self, u: Shaped[Tensor, "B *event"]) -> Float[Tensor, "B K"]:
        """Return class log-probabilities, shape (B, K).

        Raises
        ------
        TypeError
            If `u` is not a tensor.
        ValueError
            If `u` is empty or not finite.
        """
        z = self.model.embed_u(require_finite("u", require_tensor("u", u)))
        scores = self.model.scores_of_embeddings(
            z.double(), self.class_embeddings.double(), bias_v=self.log_prior.double()
        )
        return scores.normalized(dim=1).matrix().to(z)

    def predict(self, u: Shaped[Tensor, "B *event"]) -> Int[Tensor, " B"]:
        """Return the most probable class of each u, a number in 0 … K−1, shape (B,)."""
        return self.log_prob(u).argmax(1)

    def extra_repr(self) -> str:
        return f"classes={len(self.log_prior)}"


def zero_shot(
    model: BimodalModel, labels: Shaped[Tensor, "K *event"], prior: Float[Tensor, " K"] | None = None
) -> Classifier:
    """Classify u by the conditional of v given u on K candidate labels, with nothing more to learn.

    Parameters
    ----------
    model
        The fitted model.
    labels
        One v for each class, shape (K, *v_event): ``torch.arange(K)`` for a `Label` encoder.
    prior
        Non-negative weights of the classes, shape (K,), normalised here; uniform by default.

    Returns
    -------
    Classifier
        ``classifier(u)`` are probabilities of shape (B, K).

    Raises
    ------
    TypeError
        If `model` is not a `BimodalModel`, or `labels` is not a tensor.
    ValueError
        If there are no labels, they are not finite, or `prior` is negative, not finite, all zero or of another length.

    Warns
    -----
    ProbclWarning
        If the model was fitted by a loss that leaves v|u open; see `BimodalModel.regauged`.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.classification import zero_shot
    >>> model = pcl.BimodalModel(torch.nn.Identity(), pcl.encoders.Label(2))
    >>> zero_shot(model, labels=torch.arange(2))(torch.tensor([[1.0, 0.0]]))
    tensor([[0.7311, 0.2689]])
    """
    require_model(model)
    try:
        classes = EmpiricalPrior(labels, prior)
    except (TypeError, ValueError) as error:
        raise type(error)(f"labels and prior (its values and weights) make no EmpiricalPrior: {error}") from error
    conditional = model.v_given_u(classes)
    return Classifier(model, conditional.bank, classes.log_weights.to(conditional.bank))


def fine_tune(
    model: BimodalModel,
    u_few: Shaped[Tensor, "n *event"],
    y_few: Int[Tensor, " n"],
    *,
    ridge: float = 1e-4,
    max_iter: int = 1000,
) -> Classifier:
    r"""Classify u by label embeddings and log-priors fitted to examples, on the frozen encoder of u.

    Minimises the one-sided v|u loss over the label embeddings G (d × K) and the log-priors F (K)
    (Baptista, Stuart & Tran 2025, eq. 34), whose class scores are Gᵀx(u)/τ + F:

    .. math::
        -\frac1n \sum_i \log \mathrm{softmax}(G^\top x_i / τ + F)_{y_i}
        + \frac{\mathtt{ridge}}{2} \, V \, \|G / τ\|_F^2,
        \qquad V = \frac1n \sum_i |x_i - \bar x|^2 .

    The problem is convex, and is solved to convergence from zero in float64. The factor V makes the result the same
    whatever the scale of the embeddings and the temperature. F is not penalised.

    The features x(u) are those in which the scores are linear once the label embeddings are free:

    - `InnerProduct`: x = g_u(u).
    - `Cosine`: x = g_u(u) / |g_u(u)|. The label embeddings are not normalised, each has its own temperature.
    - `L2`: x = g_u(u). −½|x − G_k|²/τ + F_k differs from G_kᵀx/τ + F_k by a function of k, which F takes in, and one of
      u, which no class probability sees: the two families of classifiers are one.
    - `WithPotentials`: the features of its base. The potentials, like the gauge of a re-gauged model, are functions of
      k or of u alone and go the same way.

    Parameters
    ----------
    model
        The fitted model; it is not changed.
    u_few
        Examples, shape (n, *u_event).
    y_few
        Their classes, integers 0 … K−1, each of them at least once, shape (n,).
    ridge
        Strength of the penalty. scikit-learn's ``LogisticRegression`` on x has ``C = 1 / (ridge · n · V)``, and twice
        that for K = 2.
    max_iter
        Most iterations of L-BFGS.

    Returns
    -------
    Classifier
        Its ``model`` is a `BimodalModel` of the features with the fitted label embeddings.

    Raises
    ------
    TypeError
        If `model` is not a `BimodalModel`, examples are not tensors, classes are not integers, or the alignment is none
        of those above.
    ValueError
        If examples and classes differ in number, are not finite, a class below the largest has no example, there are
        fewer than two classes, or `ridge` is not positive.

    Warns
    -----
    ProbclWarning
        If `max_iter` was too small.
    """
    require_model(model)
    require_positive("ridge", ridge)
    require_count("max_iter", max_iter)
    alignment, temperature = _linear(model.alignment), model.temperature.value
    classes = _check_examples(u_few, y_few)
    x = _features(alignment, model.embed_u(u_few))
    weights, bias = _logistic_regression(x.double(), y_few.to(x.device).long(), classes, ridge, max_iter)
    embeddings = (weights * temperature).to(x)
    encoder_v = nn.Embedding.from_pretrained(embeddings.clone())
    tuned = BimodalModel(_Features(model.encoder_u, alignment), encoder_v, InnerProduct(), temperature)
    tuned.identifies = Identifies.RATIO_UP_TO_U
    return Classifier(tuned, embeddings, bias.to(x))


class _Features(nn.Module):
    """The encoder of u, followed by what the alignment does to its embeddings before it multiplies them."""

    def __init__(self, encoder: nn.Module, alignment: Alignment) -> None:
        super().__init__()
        self.encoder, self.alignment = encoder, alignment

    def forward(self, u: Shaped[Tensor, "n *event"]) -> Float[Tensor, "n k"]:
        return _features(self.alignment, self.encoder(u))


def _features(alignment: Alignment, z: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    return alignment.factorize(z, z).x


def _linear(alignment: Alignment) -> Alignment:
    """Return the alignment less what class probabilities do not see, or log-priors take in."""
    if isinstance(alignment, WithPotentials):
        return WithPotentials(_linear(alignment.base), alignment.potential_dim)
    if isinstance(alignment, L2):
        return InnerProduct()
    if isinstance(alignment, InnerProduct | Cosine):
        return alignment
    raise TypeError(f"fine_tune needs an alignment that is linear in free label embeddings, got {alignment!r}")


def _check_examples(u: Tensor, y: Tensor) -> int:
    """Return the number of classes; raises on examples that cannot be learned from."""
    require_finite("u_few", require_tensor("u_few", u))
    if require_integers("y_few", y).ndim != 1 or u.shape[:1] != y.shape:
        raise ValueError(f"y_few must have shape ({len(u)},), a class for each of u_few, got {describe(y)}")
    if y.numel() == 0 or y.min() < 0:
        raise ValueError(f"y_few must hold classes 0 … K−1, got {y.unique().tolist()}")
    counts = torch.bincount(y.cpu())
    if len(counts) < 2 or (counts == 0).any():
        raise ValueError(
            f"y_few must hold at least two classes 0 … K−1, and an example of each, got {y.unique().tolist()}"
        )
    return len(counts)


def _logistic_regression(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], classes: int, ridge: float, max_iter: int
) -> tuple[Float[Tensor, "K d"], Float[Tensor, " K"]]:
    """Weights and biases of the penalised multinomial logistic regression, on features of mean zero and V = 1."""
    centre = x.mean(0)
    scale = (x - centre).square().sum(1).mean().sqrt()
    if scale <= _CONSTANT_TO * x.abs().max():
        scale = torch.ones_like(scale)
    standardised = (x - centre) / scale
    weights = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)

    def objective() -> Tensor:
        return cross_entropy(standardised @ weights.mT + bias, y) + ridge / 2 * weights.square().sum()

    _minimise(objective, [weights, bias], max_iter)
    weights = weights.detach() / scale
    return weights, bias.detach() - weights @ centre


def _minimise(objective: Callable[[], Tensor], parameters: list[Tensor], max_iter: int) -> None:
    """Minimise by L-BFGS; warns if the gradient is not down to `_CONVERGED_GRADIENT`."""
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=max_iter,
        tolerance_grad=_CONVERGED_GRADIENT * 1e-3,
        tolerance_change=0.0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
        closure()
    largest = max(float(parameter.grad.abs().max()) for parameter in parameters if parameter.grad is not None)
    if not largest <= _CONVERGED_GRADIENT:
        warnings.warn(
            f"fine_tune stopped at a gradient of {largest:.1e} after {max_iter} iterations; raise max_iter or ridge",
            ProbclWarning,
            stacklevel=4,
        )
