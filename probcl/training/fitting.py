"""`fit`: train a bimodal model on pairs."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from probcl.checks import describe, require_count, require_positive
from probcl.errors import ProbclWarning
from probcl.files import require_writable
from probcl.frozen import modes_restored
from probcl.losses import ConditionalLoss, Loss
from probcl.model import BimodalModel, require_model
from probcl.randomness import randomness_restored
from probcl.training.callbacks import Callback, Callbacks, FitState
from probcl.training.checkpoint import CheckpointFile, describe_model
from probcl.training.data import Pairs, PairSource, Plan, pair_source, split
from probcl.training.embedding import batch_normalizations
from probcl.training.history import History
from probcl.training.loop import Sources, Trainer
from probcl.training.progress import ProgressBar, on_terminal
from probcl.training.ranks import Ranks, joined
from probcl.training.schedules import Schedule
from probcl.training.settings import DEFAULT_BATCH_SIZE, Amp, OptimizerFactory, Settings, resolve_device
from probcl.training.trial import require_scores, require_working


def fit(
    model: BimodalModel,
    pairs: Pairs,
    loss: Loss | None = None,
    *,
    epochs: int = 100,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: str | OptimizerFactory = "adam",
    weight_decay: float | None = None,
    schedule: str | Schedule = "constant",
    warmup: float = 0.0,
    clip_norm: float | None = None,
    validation: Pairs | float | None = None,
    patience: int | None = None,
    restore_best: bool = True,
    seed: int = 0,
    device: str | torch.device = "auto",
    amp: Amp = "auto",
    chunk_size: int | None = None,
    timeout: float | None = None,
    progress: bool | Literal["auto"] = "auto",
    callbacks: Iterable[Callback | Callable[[FitState], object]] = (),
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool | str | Path = False,
) -> History:
    r"""Train a model on matched pairs.

    Trains every parameter of the model (and of the loss, if it has any) that requires a gradient. The caller's random
    number generators, the mode (training or evaluation) of the model's parts and the device of the model are afterwards
    what they were.

    Parameters
    ----------
    model
        Trained in place.
    pairs
        A tuple (u, v) of tensors whose first dimension counts pairs, a map-style `torch.utils.data.Dataset` of items
        (u_i, v_i), or a `torch.utils.data.DataLoader` of batches (u, v).
    loss
        `ConditionalLoss` with weights (1, 1) by default.
    epochs
        Passes over the pairs, at most.
    batch_size
        Pairs in a batch, at most; 512 by default. An epoch is cut into as few batches as that allows, of equal size
        give or take one pair, so that every pair is used once and there is no short batch at the end. (An odd number of
        pairs in batches of two has one batch of three, as a single pair makes no contrast.) A `DataLoader` makes its
        own batches; those of one pair are passed over.
    lr
        Learning rate; by default 1e-3, for "sgd" 1e-2, for "lbfgs" 1.
    optimizer
        "adam", "adamw", "sgd" (momentum 0.9), "lbfgs" (all pairs at once, strong Wolfe line search, up to 20
        iterations in an epoch), or a function from the parameters to a `torch.optim.Optimizer`.
    weight_decay
        By default the optimiser's own: 0.01 for "adamw", else 0. The temperature does not decay.
    schedule
        "constant", "cosine", "linear" (both down to zero), or a function from the fraction of training done, in [0, 1),
        to the factor by which `lr` is multiplied.
    warmup
        Epochs (or a part of one) over which the learning rate first rises linearly.
    clip_norm
        Largest norm of the gradient; longer ones are shortened to it.
    validation
        Pairs of any of the kinds above, or a fraction of `pairs` to set aside at random.
    patience
        Stop when the validation loss has not fallen for this many epochs.
    restore_best
        With `patience`: whether to end with the weights of the lowest validation loss rather than the last.
    seed
        Fixes the split, the order of the pairs, dropout and all other randomness during training. The initial weights
        are the caller's.
    device
        Where to train; "auto" is a CUDA GPU if there is one, else the CPU.
    amp
        Whether the encoders run in bfloat16 (scores and loss never do); "auto" does so on a GPU that has it.
    chunk_size
        Pairs that are embedded at a time (on each rank), so that no more activations than theirs are ever held: a batch
        is embedded in chunks, and once the loss has a gradient in the embeddings each chunk is embedded again, with the
        same noise, to take it to the parameters (gradient caching, Gao et al. 2021). The gradient is that of the whole
        batch, for one more forward pass. By default a batch is embedded at once.
    timeout
        Seconds that a rank waits for another, if `fit` initialises `torch.distributed`; by default as long as torch.
    progress
        Whether to show a progress bar on stderr; "auto" does so on a terminal.
    callbacks
        `Callback` objects, or functions of a `FitState` to be called at the end of each epoch. They stop the fit by
        returning True, or with ``state.stop = True``. Their own state is not part of a checkpoint.
    checkpoint
        File to write the state of the fit to, atomically, at the end of each epoch, and upon Ctrl-C.
    checkpoint_every
        Steps after which to write it within an epoch, too.
    resume
        Continue from `checkpoint` (True) or from another file, if it exists, and start anew if not: the same call can
        be repeated until it is done. On a CPU a fit that was killed and resumed ends with bitwise the same weights and
        history (but for its wall times) as one that was not. A file name alone implies ``checkpoint=``.

    Returns
    -------
    History
        Losses, the lower bound −L_cond on the mutual information I(u; v), and more, as arrays.

    Raises
    ------
    RuntimeError
        If another rank failed, was killed, or did not answer in time.
    TypeError, ValueError
        Before any training, on arguments that cannot work. Pairs from data sets and loaders can only be checked as they
        come.
    FloatingPointError
        If the loss or its gradient is no longer finite. The model has the weights of the last step, and a checkpoint of
        an earlier moment stays.
    CheckpointError
        If the checkpoint to resume from is damaged, of another version, or of a fit with other settings, model or data.
        Only `epochs` may differ, upwards, and only if the schedule is constant.

    Warns
    -----
    ProbclWarning
        If a batch normalisation is to be trained on several ranks.

    Notes
    -----
    Started by ``torchrun``, or with `torch.distributed` initialised, all ranks together fit one model: each embeds its
    share of every batch, and losses and weights are those of one process, but for rounding and for what is drawn at
    random (dropout, augmentation), which every rank draws anew. Weights at the start are those of rank 0, which alone
    writes checkpoints and progress. See :doc:`/distributed`.

    A loader is resumed by reading again, and dropping, the batches of the epoch that were already used. What its
    workers draw at random is repeatable, unless they persist from epoch to epoch.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> u = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))
    >>> model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    >>> history = pcl.fit(model, (u, 0.5 * u), loss=pcl.ConditionalLoss(2, 0), epochs=3, batch_size=64)
    >>> history.loss.shape, history.step_loss.shape
    ((3,), (12,))
    """
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        clip_norm=clip_norm,
        patience=patience,
        restore_best=restore_best,
        seed=seed,
        amp=amp,
        chunk_size=chunk_size,
    )
    loss = ConditionalLoss() if loss is None else loss
    _check_model(model, loss)
    _check_waiting(patience, validation, timeout)
    listeners = Callbacks(callbacks)
    path, origin = _checkpoint_paths(checkpoint, checkpoint_every, resume)
    place = resolve_device(device)

    with ExitStack() as restored:
        restored.enter_context(randomness_restored(place))
        ranks = restored.enter_context(joined(place, timeout))
        _check_normalizations(nn.ModuleDict({"model": model, "loss": loss}), chunk_size, ranks)
        if ranks.first and (progress is True or (progress == "auto" and on_terminal())):
            listeners.members.append(ProgressBar())
        for module in (model, loss):
            restored.enter_context(_in_training(module, place))
        with ranks.failing_together():
            plan = Plan(_batch_size(settings), settings.seed, place, True, ranks.rank, ranks.size)
            sources = _sources(pairs, validation, settings, plan)
            described, first_batch = _try_out(model, loss, sources)
        fingerprint = {"settings": settings.describe(), "model": describe_model(model, loss), "pairs": described}
        files = {"checkpoint": path is not None, "resume": origin is not None, "checkpoint_every": checkpoint_every}
        ranks.require_same({**fingerprint, "first_batch": first_batch, **files})
        with ranks.failing_together():
            if path is not None and ranks.first:
                require_writable(path)
            file = None if path is None else CheckpointFile(path, origin, checkpoint_every, fingerprint)
            trainer = Trainer(model, loss, settings, sources, listeners, file, place, ranks)
        return trainer.run()


def _check_model(model: BimodalModel, loss: Loss) -> None:
    if not isinstance(loss, nn.Module):
        raise TypeError(f"loss must be a Loss, got {describe(loss)}")
    if require_model(model).gauge is not None:
        raise ValueError("model must not be re-gauged: fit the original, and re-gauge the result")


def _check_waiting(patience: int | None, validation: Pairs | float | None, timeout: float | None) -> None:
    if patience is not None and validation is None:
        raise ValueError("patience needs validation pairs, got validation=None")
    if timeout is not None:
        require_positive("timeout", timeout)


def _checkpoint_paths(
    checkpoint: str | Path | None, every: int | None, resume: bool | str | Path
) -> tuple[Path | None, Path | None]:
    """Return the file to write and the file to read."""
    if isinstance(resume, bool):
        if resume and checkpoint is None:
            raise ValueError("resume=True needs checkpoint=, the file to continue from")
        path = None if checkpoint is None else Path(checkpoint)
        origin = path if resume else None
    else:
        origin = Path(resume)
        path = origin if checkpoint is None else Path(checkpoint)
    if every is not None:
        require_count("checkpoint_every", every)
        if path is None:
            raise ValueError("checkpoint_every needs checkpoint=, the file to write")
    for name, file in (("checkpoint", path), ("resume", origin)):
        if file is not None and file.is_dir():
            raise ValueError(f"{name} must be a file, got the directory {file}")
    return path, origin


def _check_normalizations(modules: nn.Module, chunk_size: int | None, ranks: Ranks) -> None:
    found = batch_normalizations(modules)
    if found and chunk_size is not None:
        raise ValueError(
            f"chunk_size must be left out, got {chunk_size}: {found[0]} normalises a batch as a whole, and would "
            "normalise chunks instead; use another normalisation, such as torch.nn.GroupNorm"
        )
    alone = [name for name in found if not isinstance(modules.get_submodule(name), nn.SyncBatchNorm)]
    if alone and ranks.size > 1:
        warnings.warn(
            f"{alone[0]} normalises each rank's share of a batch by itself, so that the fit depends on the number of "
            "ranks; use another normalisation, or torch.nn.SyncBatchNorm",
            ProbclWarning,
            stacklevel=3,
        )


def _batch_size(settings: Settings) -> int | None:
    return None if settings.full_batch else settings.batch_size or DEFAULT_BATCH_SIZE


def _sources(pairs: Pairs, validation: Pairs | float | None, settings: Settings, plan: Plan) -> Sources:
    if settings.full_batch and isinstance(pairs, torch.utils.data.DataLoader):
        raise ValueError("optimizer='lbfgs' takes all pairs at once: give tensors or a Dataset, not a DataLoader")
    if validation is None:
        return Sources(pair_source(pairs, plan), None)
    if isinstance(validation, float | int):
        pairs, validation = split(pairs, validation, settings.seed)
    held_out: PairSource = pair_source(validation, plan._replace(shuffle=False), "validation ")
    return Sources(pair_source(pairs, plan), held_out)


def _try_out(model: BimodalModel, loss: Loss, sources: Sources) -> tuple[dict[str, Any], dict[str, Any]]:
    """Try the model on a few pairs of each source; return what checkpoints remember of them, and what ranks compare."""
    described: dict[str, Any] = dict.fromkeys(Sources._fields)
    first_batch: dict[str, Any] = dict.fromkeys(Sources._fields)
    for role, name in zip(Sources._fields, ("", "validation "), strict=True):
        source: PairSource | None = getattr(sources, role)
        if source is not None:
            sample = source.sample()
            require_working(model, loss, sample, name)
            require_scores(model, source, name)
            described[role], first_batch[role] = source.describe(sample), source.describe_first(sample)
    return described, first_batch


@contextmanager
def _in_training(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Put a module on a device and into training mode, and both back as they were."""
    home = next((tensor.device for tensor in [*module.parameters(), *module.buffers()]), device)
    with modes_restored(module):
        module.to(device).train()
        try:
            yield
        finally:
            module.to(home)
