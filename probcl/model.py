"""`BimodalModel`: two encoders, an alignment and a temperature, which together are a learned joint law."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch import distributed as dist

from probcl import __version__
from probcl.alignment import Alignment, InnerProduct, require_alignment
from probcl.checks import describe, require_count, require_tensor
from probcl.embed import as_input, embed
from probcl.errors import CheckpointError, ProbclWarning
from probcl.files import require_path, write_atomically
from probcl.frozen import evaluating
from probcl.gauge import Gauge, Side
from probcl.hub import HubMixin
from probcl.losses import Identifies
from probcl.priors import EmpiricalPrior
from probcl.scores import Scores
from probcl.serialization import from_config, load_weights, read_archive, to_config, write_archive
from probcl.temperature import Temperature

if TYPE_CHECKING:
    from probcl.conditional import Conditional
    from probcl.samplers import Sampler

KIND = "probcl model"
# Scores of a gauge's bank or of a library that are held at once: 64 MB in single precision.
SCORES_AT_ONCE = 2**24
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"


class BimodalModel(nn.Module, HubMixin):
    """Two encoders and an alignment: the learned law ν(u, v) ∝ e^{s(u,v)} μ_u μ_v, s(u, v) = a(g_u(u), g_v(v)) / τ.

    Parameters
    ----------
    encoder_u, encoder_v
        Modules that map a batch of each modality to embeddings of one width, ``(n, ...) -> (n, d)``.
    alignment
        a(x, y); `InnerProduct` by default.
    temperature
        τ > 0.
    learn_temperature
        Whether training may change τ (through its logarithm).

    Attributes
    ----------
    identifies
        What the loss of the last fit determines of the log density ratio, or None before any; a conditional that was
        left open warns.
    gauge
        The bank over which the score is normalised, in a model made by `regauged`; otherwise None.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(5, 2), pcl.encoders.Label(3, 2), alignment=pcl.Cosine())
    >>> model.scores(torch.randn(4, 5), torch.tensor([0, 1, 2])).shape
    (4, 3)
    """

    def __init__(
        self,
        encoder_u: nn.Module,
        encoder_v: nn.Module,
        alignment: Alignment | None = None,
        temperature: float = 1.0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        for name, encoder in (("encoder_u", encoder_u), ("encoder_v", encoder_v)):
            if not isinstance(encoder, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {describe(encoder)}")
        self.encoder_u, self.encoder_v = encoder_u, encoder_v
        self.alignment = InnerProduct() if alignment is None else require_alignment("alignment", alignment)
        self.temperature = Temperature(temperature, learn_temperature)
        self.gauge: Gauge | None = None
        self.identifies: Identifies | None = None

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next((tensor.device for tensor in [*self.parameters(), *self.buffers()]), torch.device("cpu"))

    def forward(self, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "m *v_event"]) -> Scores:
        """Return the scores s(u_i, v_j) of every u with every v, differentiable in the model's parameters."""
        z_u = embed(self.encoder_u, require_tensor("u", u), "encoder_u", "u")
        z_v = embed(self.encoder_v, require_tensor("v", v), "encoder_v", "v")
        return self.scores_of_embeddings(z_u, z_v)

    def scores(self, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "m *v_event"]) -> Scores:
        """Return the scores s(u_i, v_j) of every u with every v, differentiable in the model's parameters.

        Raises
        ------
        TypeError
            If `u` or `v` is not a tensor.
        ValueError
            If its encoder cannot take it, as where the two were exchanged.
        """
        scores: Scores = self(u, v)
        return scores

    def log_ratio(self, u: Shaped[Tensor, "n *u_event"], v: Shaped[Tensor, "n *v_event"]) -> Float[Tensor, " n"]:
        """Return s(u_i, v_i), the learned log dμ/(dμ_u dμ_v) up to what the loss leaves open (`Loss.identifies`)."""
        return self.scores(u, v).diagonal()

    def scores_of_embeddings(
        self,
        z_u: Float[Tensor, "n d"],
        z_v: Float[Tensor, "m d"],
        bias_u: Float[Tensor, " n"] | None = None,
        bias_v: Float[Tensor, " m"] | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> Scores:
        """Return the scores of embeddings, in the model's gauge, with further biases for rows and columns.

        With a `group` these are the embeddings and biases of this rank, and the scores those of all (see `Scores`).
        """
        scores = Scores(z_u, z_v, self.alignment, self.temperature(), bias_u=bias_u, bias_v=bias_v, group=group)
        if self.gauge is None:
            return scores
        return scores.shifted(bias_u=self.gauge_bias("u", z_u), bias_v=self.gauge_bias("v", z_v))

    def gauge_bias(self, side: Side, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"] | None:
        """Return what the gauge adds to the scores of these embeddings, one value each; None if nothing."""
        if self.gauge is None or self.gauge.over == side:
            return None
        bank, log_weights = self.gauge.bank.to(z), self.gauge.log_weights.to(z)
        chunks = z.split(max(1, SCORES_AT_ONCE // len(bank)))
        if side == "u":
            scores = (Scores(x, bank, self.alignment, self.temperature(), bias_v=log_weights) for x in chunks)
            return -torch.cat([chunk.logsumexp(dim=1) for chunk in scores])
        scores = (Scores(bank, y, self.alignment, self.temperature(), bias_u=log_weights) for y in chunks)
        return -torch.cat([chunk.logsumexp(dim=0) for chunk in scores])

    def regauged(self, over: Side, prior: EmpiricalPrior) -> "BimodalModel":
        r"""Return this model, sharing its encoders, with the score less its log-normaliser over one variable.

        The bank is embedded here and kept: re-gauge anew after training on.

        With ``over="v"`` the score becomes s(u, v) − log E_{v'~prior} e^{s(u,v')}: the right thing after a fit of v|u
        only, which leaves v|u as it was and makes u|v the one that Bayes' rule gives. ``over="u"`` is its mirror.

        Raises
        ------
        TypeError
            If `prior` is not an `EmpiricalPrior`.
        ValueError
            If the model has been re-gauged already, or its loss did not determine the normaliser to be subtracted.
        """
        if not isinstance(prior, EmpiricalPrior):
            raise TypeError(f"prior must be an EmpiricalPrior, got {describe(prior)}")
        if self.gauge is not None:
            raise ValueError(f"the model is re-gauged already, over {self.gauge.over!r}; start from the original")
        if self.identifies is (Identifies.RATIO_UP_TO_V if over == "v" else Identifies.RATIO_UP_TO_U):
            trained = "u" if over == "v" else "v"
            raise ValueError(f"the model's loss determines {self.identifies.value}; re-gauge over={trained!r} instead")
        if self.identifies is Identifies.TRANSFORM:
            raise ValueError(f"the model's loss determines {self.identifies.value}, so there is no gauge to change")
        prior = prior.distinct()  # A bank of training labels is long and has few values.
        bank = self.embed_u(prior.values) if over == "u" else self.embed_v(prior.values)
        model = BimodalModel(self.encoder_u, self.encoder_v, self.alignment)
        model.temperature = self.temperature
        model.gauge = Gauge(over, bank, prior.log_weights.to(bank))
        model.identifies = None if self.identifies is None else Identifies.RATIO
        return model

    def embed_u(self, u: Shaped[Tensor, "n *event"], batch_size: int = 4096) -> Float[Tensor, "n d"]:
        """Embed u for use, not for training: in evaluation mode, without gradients, `batch_size` at a time."""
        return self._embed("u", u, batch_size)

    def embed_v(self, v: Shaped[Tensor, "n *event"], batch_size: int = 4096) -> Float[Tensor, "n d"]:
        """Embed v for use, not for training: in evaluation mode, without gradients, `batch_size` at a time."""
        return self._embed("v", v, batch_size)

    def _embed(self, name: Side, values: Tensor, batch_size: int) -> Tensor:
        encoder = self.encoder_u if name == "u" else self.encoder_v
        require_count("batch_size", batch_size)
        with evaluating(encoder), torch.no_grad():
            chunks = require_tensor(name, values).split(batch_size)
            return torch.cat([embed(encoder, as_input(encoder, chunk), f"encoder_{name}", name) for chunk in chunks])

    def u_given_v(self, prior: object, sampler: "Sampler | None" = None) -> "Conditional":
        """Return the learned conditional ν(u|v) ∝ e^{s(u,v)} prior(u); ``.condition(v)`` is a Pyro distribution.

        Parameters
        ----------
        prior
            A data bank (`EmpiricalPrior`), a prior of `probcl.priors`, or any continuous distribution.
        sampler
            How to draw where there is no closed form, one of `probcl.samplers`; chosen automatically by default.
        """
        from probcl.conditional import Conditional

        return Conditional(self, prior, "u", sampler)

    def v_given_u(self, prior: object, sampler: "Sampler | None" = None) -> "Conditional":
        """Return the learned conditional ν(v|u) ∝ e^{s(u,v)} prior(v), as `u_given_v` does the other."""
        from probcl.conditional import Conditional

        return Conditional(self, prior, "v", sampler)

    def save(self, directory: str | Path) -> None:
        """Save into a directory: ``model.safetensors``, which holds everything, and ``config.json`` for people to read.

        An existing save is replaced atomically: a reader, or a later run after a crash, finds the old model or the new.

        Raises
        ------
        TypeError
            If `directory` is not a path.
        """
        directory = require_path("directory", directory)
        record = self._record()
        write_archive(directory / WEIGHTS_FILE, KIND, self.state_dict(), record)
        write_atomically(directory / CONFIG_FILE, (json.dumps(record, indent=2) + "\n").encode())

    def _record(self) -> dict[str, Any]:
        gauge = self.gauge
        return {
            "probcl_version": __version__,
            "encoder_u": to_config(self.encoder_u),
            "encoder_v": to_config(self.encoder_v),
            "one_encoder": self.encoder_u is self.encoder_v,
            "alignment": to_config(self.alignment),
            "temperature": {"value": self.temperature.value, "learnable": self.temperature.learnable},
            "identifies": None if self.identifies is None else self.identifies.name,
            "gauge": None if gauge is None else {"over": gauge.over, "shape": list(gauge.bank.shape)},
        }

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        encoder_u: nn.Module | None = None,
        encoder_v: nn.Module | None = None,
        alignment: Alignment | None = None,
    ) -> "BimodalModel":
        """Load a saved model, on the CPU. No code is read from the files.

        Parameters
        ----------
        directory
            What `save` was given.
        encoder_u, encoder_v, alignment
            Modules to load the weights into, for classes that `probcl.register` does not know.

        Raises
        ------
        CheckpointError
            If the files are missing, damaged, of another format version, of other shapes than the modules given, or
            name a class that is not registered.

        Warns
        -----
        ProbclWarning
            If ``config.json`` is not the copy of what was loaded.
        """
        path = require_path("directory", directory) / WEIGHTS_FILE
        tensors, record = read_archive(path, KIND)
        try:
            if encoder_u is None:
                encoder_u = from_config(record["encoder_u"], "encoder_u")
            if encoder_v is None:
                encoder_v = encoder_u if record["one_encoder"] else from_config(record["encoder_v"], "encoder_v")
            if alignment is None:
                alignment = cast(Alignment, from_config(record["alignment"], "alignment"))
            model = cls(
                encoder_u,
                encoder_v,
                alignment,
                record["temperature"]["value"],
                record["temperature"]["learnable"],
            )
            model.identifies = None if record["identifies"] is None else Identifies[record["identifies"]]
            if record["gauge"] is not None:
                model.gauge = Gauge.empty(record["gauge"]["over"], *record["gauge"]["shape"])
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not describe a model this probcl can build: {error!r}") from error
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), None)
        model = model if dtype is None else model.to(dtype)
        load_weights(model, tensors, path)
        _compare_config(path.with_name(CONFIG_FILE), record)
        return model


def require_model(model: object) -> BimodalModel:
    """Return `model` if it is a `BimodalModel`; raise `TypeError` otherwise."""
    if not isinstance(model, BimodalModel):
        raise TypeError(f"model must be a BimodalModel, got {describe(model)}")
    return model


def _compare_config(path: Path, record: dict[str, Any]) -> None:
    """Warn if the copy for people says something else than the record that was loaded."""
    try:
        same = not path.exists() or json.loads(path.read_text()) == record
    except ValueError:
        same = False
    if not same:
        warnings.warn(
            f"{path} was edited, or is of another save: {WEIGHTS_FILE} decides, and saving again makes them agree",
            ProbclWarning,
            stacklevel=3,
        )
