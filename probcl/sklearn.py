"""Estimators for scikit-learn: `BimodalClassifier`, of rows and labels, and `BimodalTransformer`, of two tables.

They rest on `probcl.fit` and `probcl.classification`, follow scikit-learn's conventions and pass its checks: they work
in pipelines, grid searches, ``clone`` and joblib. They are for tables that fit in memory; for images, other encoders or
several machines use `probcl.fit` itself.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor, nn

from probcl.alignment import Alignment
from probcl.classification import zero_shot
from probcl.encoders import MLP, Label
from probcl.losses import ConditionalLoss, Loss
from probcl.model import BimodalModel
from probcl.randomness import seeded
from probcl.training import fit

_LARGEST_SEED = 2**31 - 1


class _Contrastive(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both estimators are: parameters, a fit of X with something else, and embeddings of X."""

    model_: BimodalModel

    def __init__(
        self,
        embedding_dim: int = 8,
        hidden: Sequence[int] = (64,),
        *,
        alignment: Alignment | None = None,
        temperature: float = 1.0,
        loss: Loss | None = None,
        epochs: int = 50,
        batch_size: int = 256,
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        fit_options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.embedding_dim = embedding_dim
        self.hidden = hidden
        self.alignment = alignment
        self.temperature = temperature
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.fit_options = fit_options
        self.random_state = random_state

    def _embedding(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Return embeddings of X, shape (n, embedding_dim)."""
        rows = self._rows(X)
        return self.model_.embed_u(rows).numpy()

    def _rows(self, X: Any) -> Float[Tensor, "n features"]:
        """Check X as in `fit`, and copy it."""
        check_is_fitted(self)
        return torch.tensor(validate_data(self, X, dtype=np.float64, reset=False))

    def _fit(
        self,
        x: Float[np.ndarray, "n features"],
        v: Shaped[np.ndarray, "n *event"],
        encoder_v: Callable[[], nn.Module],
    ) -> None:
        """Fit a model of pairs, in double precision: small batches of a table give the same as large ones."""
        seed = int(check_random_state(self.random_state).randint(_LARGEST_SEED))
        with seeded(seed):
            encode_u = MLP(x.shape[1], self.embedding_dim, self.hidden)
            encode_v = encoder_v()
        # A fit must leave the parameters as they were given, and may train those of an alignment or a loss.
        alignment, loss = copy.deepcopy(self.alignment), copy.deepcopy(self.loss)
        model = BimodalModel(encode_u, encode_v, alignment, self.temperature).double()
        options = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "seed": seed,
            "amp": False,
            "progress": False,
        }
        pairs = torch.tensor(x), torch.tensor(v)
        loss = loss if loss is None else loss.double()
        self.history_ = fit(model, pairs, loss, **options | dict(self.fit_options or {}))
        self.model_ = model
        self._n_features_out = self.embedding_dim


class BimodalClassifier(ClassifierMixin, _Contrastive):
    """Classifier of rows by the learned conditional of their labels, and their embeddings.

    A perceptron embeds rows, a table of vectors embeds labels, and a contrastive loss fits the two. The probability of
    a class is that of `probcl.classification.zero_shot`, p(k|u) ∝ e^{s(u, k)} p(k), where p(k) is the frequency of
    the class in training. Scale the features first, as by ``make_pipeline(StandardScaler(), BimodalClassifier())``.

    Parameters
    ----------
    embedding_dim
        d, the width of the embeddings.
    hidden
        Widths of the hidden layers of the encoders, which are `probcl.encoders.MLP`; ``()`` for linear ones.
    alignment
        a(x, y), an `Alignment`; `InnerProduct` by default.
    temperature
        τ > 0.
    loss
        A `Loss`; `ConditionalLoss` with weights (1, 1) by default.
    epochs, batch_size, lr, weight_decay
        As in `probcl.fit`.
    fit_options
        Further arguments of `probcl.fit`, by name: ``{"validation": 0.1, "patience": 10}``, for one.
    random_state
        Seed of the first weights and of the training, or a ``numpy.random.RandomState``; None for another each time.

    Attributes
    ----------
    classes_
        The labels, sorted, shape (K,).
    model_
        The `BimodalModel`: u are rows in float64, v are numbers of classes. ``model_.save(folder)`` keeps it in a form
        that lasts, as a pickle of the estimator does not.
    classifier_
        The `probcl.classification.Classifier` of it.
    history_
        The `History` of the fit.
    n_features_in_, feature_names_in_
        Of X, as in all of scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from probcl.sklearn import BimodalClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), BimodalClassifier(embedding_dim=2, random_state=0))
    >>> bool(cross_val_score(pipeline, X, y, cv=3).mean() > 0.9)
    True
    >>> pipeline.fit(X, y).predict_proba(X).shape, pipeline.transform(X).shape
    ((150, 3), (150, 2))
    """

    def fit(self, X: Any, y: Any) -> "BimodalClassifier":
        """Fit to rows X, shape (n, n_features), and their labels y, shape (n,)."""
        x, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self._fit(x, numbers, lambda: Label(len(self.classes_), self.embedding_dim))
        frequencies = torch.tensor(np.bincount(numbers) / len(numbers))
        self.classifier_ = zero_shot(self.model_, torch.arange(len(self.classes_)), frequencies)
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Return embeddings of X, shape (n, embedding_dim)."""
        return self._embedding(X)

    def predict_log_proba(self, X: Any) -> Float[np.ndarray, "n K"]:
        """Return log-probabilities of the classes, in the order of `classes_`."""
        rows = self._rows(X)
        log_probabilities: np.ndarray = self.classifier_.log_prob(rows).numpy()
        return log_probabilities

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n K"]:
        """Return probabilities of the classes, in the order of `classes_`."""
        probabilities: np.ndarray = np.exp(self.predict_log_proba(X))
        return probabilities

    def predict(self, X: Any) -> Shaped[np.ndarray, " n"]:
        """Return the most probable label of each row."""
        log_probabilities = self.predict_log_proba(X)
        labels: np.ndarray = self.classes_[log_probabilities.argmax(1)]
        return labels


class BimodalTransformer(_Contrastive):
    """Embeddings of two tables whose rows belong together, fitted by a contrastive loss.

    It is used as ``sklearn.cross_decomposition.CCA``, of which it is the counterpart without linearity: with
    ``hidden=()`` both encoders are linear maps.

    Parameters
    ----------
    embedding_dim, hidden, alignment, temperature, loss, epochs, batch_size, lr, weight_decay, fit_options, random_state
        As in `BimodalClassifier`.

    Attributes
    ----------
    model_
        The `BimodalModel`: u are rows of X and v rows of y, in float64.
    history_
        The `History` of the fit.
    n_features_in_, feature_names_in_
        Of X, as in all of scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.sklearn import BimodalTransformer
    >>> rng = np.random.default_rng(0)
    >>> common = rng.normal(size=(300, 2))
    >>> X, Y = (common @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(300, 5)) for _ in range(2))
    >>> transformer = BimodalTransformer(embedding_dim=2, epochs=20, random_state=0).fit(X, Y)
    >>> x, y = transformer.transform(X, Y)
    >>> x.shape, y.shape
    ((300, 2), (300, 2))
    """

    def fit(self, X: Any, y: Any) -> "BimodalTransformer":
        """Fit to rows of X, shape (n, n_features), and of y, shape (n, n_targets) or (n,), in the same order."""
        x, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, multi_output=True, y_numeric=True)
        targets = _columns(y)
        self._n_targets = targets.shape[1]
        self._fit(x, targets, lambda: MLP(self._n_targets, self.embedding_dim, self.hidden))
        return self

    def transform(
        self, X: Any, y: Any = None
    ) -> Float[np.ndarray, "n d"] | tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
        """Return embeddings of X, shape (n, embedding_dim), or of X and of y, if that is given."""
        x = self._embedding(X)
        return x if y is None else (x, self.model_.embed_v(self._targets(y)).numpy())

    def score(self, X: Any, y: Any) -> float:
        """Return the lower bound −L_cond of the mutual information of X and y, in nats, on these rows.

        On n rows it is at most log n; see `probcl.History`.
        """
        u, v = self._rows(X), self._targets(y)
        with torch.no_grad():
            return -float(ConditionalLoss()(self.model_.scores(u, v)))

    def _targets(self, y: Any) -> Float[Tensor, "n targets"]:
        check_is_fitted(self)
        targets = _columns(check_array(y, dtype=np.float64, ensure_2d=False, input_name="y"))
        if targets.shape[1] != self._n_targets:
            raise ValueError(f"y must have the {self._n_targets} columns it was fitted to, got {targets.shape[1]}")
        return torch.tensor(targets)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def _columns(y: Shaped[np.ndarray, "n *columns"]) -> Float[np.ndarray, "n columns"]:
    """Return a table of float64, of one column if there was no second axis."""
    return np.asarray(y, np.float64).reshape(len(y), -1)
