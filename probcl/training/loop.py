"""The training loop."""

import math
import time
from collections.abc import Generator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor, nn

from probcl.errors import CheckpointError
from probcl.frozen import evaluating
from probcl.losses import ConditionalLoss, Identifies, Loss, loss_of_pairs
from probcl.model import BimodalModel
from probcl.randomness import Stream, derive_seed, rank_seed
from probcl.scores import Scores
from probcl.serialization import load_weights, under
from probcl.training.callbacks import Callbacks, FitState
from probcl.training.checkpoint import CheckpointFile, Contents
from probcl.training.data import PairSource
from probcl.training.embedding import Embedded, Embedder
from probcl.training.history import History, Recorder
from probcl.training.interrupts import DeferredInterrupt
from probcl.training.optimizers import build_optimizer, flatten_state, unflatten_state
from probcl.training.pairs import Batch
from probcl.training.ranks import Ranks
from probcl.training.schedules import multiplier
from probcl.training.settings import Settings, resolve_amp


class Sources(NamedTuple):
    """Where pairs come from."""

    train: PairSource
    validation: PairSource | None


class Evaluation(NamedTuple):
    """Loss and bound on the mutual information on a batch, or their means over batches, and the gradient's norm."""

    loss: float
    mi_bound: float
    grad_norm: float = math.nan


class Trainer:
    """One fit: the model, how far it has come, and how to go on.

    How far it has come is what the recorder holds: one step for each batch, one entry for each epoch that ended.
    """

    def __init__(
        self,
        model: BimodalModel,
        loss: Loss,
        settings: Settings,
        sources: Sources,
        callbacks: Callbacks,
        checkpoint: CheckpointFile | None,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.model, self.loss, self.settings, self.sources = model, loss, settings, sources
        self.callbacks, self.checkpoint, self.device, self.ranks = callbacks, checkpoint, device, ranks
        # A loss may have parameters of its own; as one module, the two are trained and saved alike.
        self.modules = nn.ModuleDict({"model": model, "loss": loss})
        self.optimizer = build_optimizer(
            settings.optimizer,
            settings.lr,
            settings.weight_decay,
            self.modules.parameters(),
            undecayed=[*model.temperature.parameters(), *loss.parameters()],
        )
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._embedder = Embedder(model, device, resolve_amp(settings.amp, device), settings.chunk_size)
        self._noise_seed = rank_seed(settings.seed, ranks.rank)
        self._bound = ConditionalLoss()
        self._loss_is_bound = is_two_sided(loss)
        self.recorder = Recorder()
        self.state = FitState(model, settings.epochs, sources.train.count, self.recorder, rank=ranks.rank)
        self._best_weights: dict[str, Tensor] | None = None
        self._consistent = True
        self._earlier_seconds = 0.0
        self._epoch_began = time.perf_counter()

    def run(self) -> History:
        """Train until the last epoch, or until patience or a callback ends it."""
        self._resume()
        self.ranks.require_same({"steps done before": self.recorder.steps})
        self.ranks.equalize(self.modules)
        self.model.identifies = identified_by(self.loss)
        with DeferredInterrupt(enabled=self.checkpoint is not None) as self._interrupt:
            try:
                self.callbacks.notify("on_fit_start", self.state)
                while not self._finished:
                    self._run_epoch()
                self._restore_best()
            except KeyboardInterrupt:
                if self._consistent:
                    self._save()
                raise
            finally:
                self.optimizer.zero_grad()
                self.callbacks.notify("on_fit_end", self.state)
        return self.recorder.history(self.state.stop)

    def _restore_best(self) -> None:
        if self._best_weights is not None:
            # From here on the weights are no longer those of the last step, which a checkpoint must hold.
            self._consistent = False
            self.modules.load_state_dict(self._best_weights)

    @property
    def _finished(self) -> bool:
        if self.recorder.steps_in_epoch:
            return False
        return self.state.stop or self.recorder.epochs >= self.settings.epochs

    def _run_epoch(self) -> None:
        """Train on what is left of the epoch, and close it."""
        self.state.epoch = self.recorder.epochs
        self._epoch_began = time.perf_counter()
        with closing(self._remaining_batches()) as batches:
            for batch in batches:
                self._step(batch)
                self.callbacks.notify("on_step_end", self.state)
                if self.checkpoint is not None and self.checkpoint.due(self.recorder.steps):
                    self._save()
        if not self.recorder.steps_in_epoch:
            raise ValueError("pairs must yield a batch of two pairs or more in every epoch, got none")
        self._close_epoch()

    def _remaining_batches(self) -> Generator[Batch]:
        batches = self.sources.train.batches(self.recorder.epochs, self.recorder.steps_in_epoch)
        with closing(batches):
            while (batch := self._next(batches)) is not None:
                yield batch

    def _next(self, batches: Generator[Batch]) -> Batch | None:
        """Return the next batch, None after the last and if the fit is to stop."""
        self._heed_all_ranks()
        with self.ranks.failing_together():
            return None if self.state.stop else next(batches, None)

    def _heed_all_ranks(self) -> None:
        """Stop, or be interrupted, everywhere if anywhere."""
        self.state.stop, interrupted = self.ranks.any(self.state.stop, self._interrupt.pending)
        if interrupted:
            self._interrupt.take_effect()

    def _step(self, batch: Batch) -> None:
        self._consistent = False
        lr = self._set_rates()
        first: list[Evaluation] = []

        def closure() -> float:
            self.optimizer.zero_grad()
            # The same noise at every evaluation, so that a line search sees one function.
            embedded = self._embed(batch)
            scores = self._scores(embedded)
            loss = loss_of_pairs(self.loss, scores, batch.u, batch.v)
            loss.backward()
            embedded.pull_back()
            self.ranks.average_gradients(self._parameters)
            norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm or math.inf)
            evaluation = self._evaluate(loss, norm, bound_of=None if first else scores)
            self._require_finite(evaluation)
            first.append(evaluation)
            return evaluation.loss

        self.optimizer.step(closure)
        loss, mi_bound, grad_norm = first[0]
        self.recorder.record_step(loss, mi_bound, grad_norm, lr)
        self._consistent = True
        self.state.loss, self.state.mi_bound, self.state.grad_norm, self.state.lr = loss, mi_bound, grad_norm, lr
        self.state.step, self.state.batch = self.recorder.steps, self.recorder.steps_in_epoch

    def _set_rates(self) -> float:
        step = 1.0 / (self.sources.train.count or 1)
        within = min(self.recorder.steps_in_epoch * step, 1.0) if self.sources.train.count else 0.0
        settings = self.settings
        position = self.recorder.epochs + within
        factor = multiplier(settings.schedule_function, position, step, settings.epochs, settings.warmup)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def _embed(self, batch: Batch, *position: int) -> Embedded:
        """Embed a batch, with noise that is a function of the step, and of this rank's own."""
        seed = derive_seed(self._noise_seed, Stream.MODEL, self.recorder.steps, *position)
        with self.ranks.failing_together():
            embedded = self._embedder(batch, seed)
            # Scores refuse these too, but on this rank alone, while the others wait for its embeddings.
            if self.ranks.size > 1 and not (embedded.u.isfinite().all() and embedded.v.isfinite().all()):
                raise self._divergence("embeddings are not finite")
        return embedded

    def _scores(self, embedded: Embedded) -> Scores:
        z_u, z_v = embedded.u, embedded.v
        try:
            return self.model.scores_of_embeddings(z_u, z_v, group=self.ranks.group)
        except ValueError as error:
            temperature = torch.as_tensor(self.model.temperature())
            # Not finite if an embedding is not, nor if scores cannot be.
            size = z_u.abs().amax() * z_v.abs().amax() * z_u.shape[1] / temperature
            if size.isfinite() and temperature.isfinite() and temperature > 0:
                raise
            raise self._divergence(str(error)) from error

    def _evaluate(self, loss: Tensor, norm: Tensor, bound_of: Scores | None) -> Evaluation:
        with torch.no_grad():
            bound = -loss if self._loss_is_bound or bound_of is None else -self._bound(bound_of)
        # One transfer, so that an accelerator is waited for once.
        numbers = torch.stack([loss.detach(), bound.detach().to(loss), norm.to(loss)])
        return Evaluation(*self.ranks.first_of(numbers).tolist())

    def _require_finite(self, evaluation: Evaluation) -> None:
        if not (math.isfinite(evaluation.loss) and math.isfinite(evaluation.grad_norm)):
            raise self._divergence(f"the loss is {evaluation.loss}, the norm of its gradient {evaluation.grad_norm}")

    def _divergence(self, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"training diverged at step {self.recorder.steps} (epoch {self.state.epoch}): {what}; "
            "try a smaller lr, a larger temperature, or clip_norm"
        )

    def _close_epoch(self) -> None:
        # Statistics of a normalisation are each rank's own.
        self.ranks.equalize(self.modules, buffers_only=True)
        validation = self._validate()
        self._consistent = False
        self.recorder.record_epoch(validation.loss, validation.mi_bound, self._seconds_in_epoch())
        self._earlier_seconds = 0.0
        self._heed_patience()
        self._consistent = True
        self.state.validation_loss, self.state.validation_mi_bound = validation.loss, validation.mi_bound
        self.callbacks.notify("on_epoch_end", self.state)
        (self.state.stop,) = self.ranks.any(self.state.stop)
        self._save()

    def _validate(self) -> Evaluation:
        """Return means over the validation batches, which are the same after every epoch; NaN if there are none."""
        if self.sources.validation is None:
            return Evaluation(math.nan, math.nan)
        evaluations = []
        with evaluating(self.modules), torch.no_grad(), closing(self.sources.validation.batches(0)) as batches:
            for number, batch in enumerate(batches):
                if self.ranks.any(self._interrupt.pending)[0]:
                    self._interrupt.take_effect()
                scores = self._scores(self._embed(batch, number))
                loss = loss_of_pairs(self.loss, scores, batch.u, batch.v)
                evaluations.append(self._evaluate(loss, torch.zeros_like(loss), bound_of=scores))
                self._require_finite(evaluations[-1])
        if not evaluations:
            raise ValueError("validation pairs must yield a batch of two pairs or more, got none")
        losses, bounds, _ = zip(*evaluations, strict=True)
        return Evaluation(math.fsum(losses) / len(losses), math.fsum(bounds) / len(bounds))

    def _heed_patience(self) -> None:
        if self.settings.patience is None:
            return
        since_best = self.recorder.epochs_since_best()
        if since_best == 0 and self.settings.restore_best:
            self._best_weights = {name: tensor.clone() for name, tensor in self.modules.state_dict().items()}
        if since_best >= self.settings.patience:
            self.state.stop = True

    def _seconds_in_epoch(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._epoch_began

    def _save(self) -> None:
        if self.checkpoint is None or not self.ranks.first:
            return
        tensors: dict[str, Tensor] = {}
        record = {
            "optimizer": flatten_state(self.optimizer.state_dict(), "optimizer", tensors),
            "stop": self.state.stop,
            "seconds": self._seconds_in_epoch() if self.recorder.steps_in_epoch else 0.0,
        }
        groups = {
            "weights": self.modules.state_dict(),
            "best": self._best_weights or {},
            "history": self.recorder.state_dict(),
        }
        for group, members in groups.items():
            tensors |= {f"{group}.{name}": tensor for name, tensor in members.items()}
        self.checkpoint.save(Contents(tensors, record))

    def _resume(self) -> None:
        contents = None if self.checkpoint is None else self.checkpoint.load()
        if self.checkpoint is None or contents is None:
            return
        tensors, record = contents
        self.recorder.load_state_dict(under("history", tensors))
        self._require_not_beyond()
        load_weights(self.modules, under("weights", tensors), self.checkpoint.origin or self.checkpoint.path)
        self.optimizer.load_state_dict(unflatten_state(record["optimizer"], tensors))
        self._best_weights = under("best", tensors) or None
        self._earlier_seconds = record["seconds"]
        self.state.stop, self.state.step = record["stop"], self.recorder.steps
        self.state.epoch, self.state.batch = self.recorder.epochs, self.recorder.steps_in_epoch

    def _require_not_beyond(self) -> None:
        begun = self.recorder.epochs + (self.recorder.steps_in_epoch > 0)
        if begun > self.settings.epochs:
            raise CheckpointError(f"epochs must be at least the {begun} of the checkpoint, got {self.settings.epochs}")


def identified_by(loss: Loss) -> Identifies | None:
    """Return what a loss determines of the log density ratio, None if it does not say."""
    try:
        return loss.identifies
    except (AttributeError, NotImplementedError):
        return None


def is_two_sided(loss: Loss) -> bool:
    """Whether −loss is the bound on the mutual information that is reported, so that it need not be computed again."""
    return type(loss) is ConditionalLoss and loss.lambda_u == loss.lambda_v == 1 and loss.diagonal
