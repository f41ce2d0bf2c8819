"""``probcl fit``: a model from a config."""

import dataclasses
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from rich.text import Text
from torch import Tensor

import probcl
from probcl.cli import folder
from probcl.cli.config import FitConfig, changed, read_config, written
from probcl.cli.errors import Interruption, Misuse
from probcl.cli.inputs import as_input_of
from probcl.cli.schema import Part
from probcl.cli.screen import Screen, current
from probcl.cli.shapes import require_taken
from probcl.cli.sources import Data
from probcl.datasets import Pairs
from probcl.files import require_writable
from probcl.gauge import Side
from probcl.locks import sole_writer
from probcl.model import WEIGHTS_FILE
from probcl.named import ENCODERS
from probcl.training import Callback, FitState, History
from probcl.training.data import batch_count
from probcl.training.settings import DEFAULT_BATCH_SIZE

_SIDES: tuple[Side, Side] = ("u", "v")
# Of the pairs in a batch: fewer are little contrast.
_FEWEST = 16


def fit(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML or TOML file; see the documentation, The command line.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the model, instead of the config's output.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the config's seed.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the config's training.epochs.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the fit that was interrupted in the output folder.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the fit in the output folder.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the config in full, with its defaults, and do nothing.")
    ] = False,
) -> None:
    """Fit a model as a config says, and write it into a folder.

    Ctrl-C leaves a checkpoint, from which --resume goes on to the same model.
    """
    screen = current()
    settings = changed(read_config(config), output=None if output is None else str(output), seed=seed, epochs=epochs)
    if print_config:
        screen.out.file.write(written(settings))
        return
    path = _output_folder(settings, resume, overwrite)
    settings, data, model = _prepared(settings, screen)
    again = ["probcl", "fit", str(config), *_options(output, seed, epochs), "--resume"]
    with ExitStack() as held:
        watch = _Watch(path, settings, resume, overwrite, held)
        history = _trained(model, data, watch, screen, resume, shlex.join(again))
        folder.write_results(path, settings, model, history)
        if not settings.checkpoint.keep:
            (path / folder.CHECKPOINT).unlink(missing_ok=True)
    screen.show(_summary(path, history), _table(path, history))


def _output_folder(settings: FitConfig, resume: bool, overwrite: bool) -> Path:
    if settings.output is None:
        raise Misuse("where to write the model is not said: give --output DIR, or output in the config")
    if resume and overwrite:
        raise Misuse("--resume and --overwrite exclude each other")
    path = Path(settings.output)
    if path.exists() and not path.is_dir():
        raise Misuse(f"{path} is a file, and a folder was expected")
    if not (resume or overwrite):
        _require_no_fit(path)
    require_writable(path / folder.CHECKPOINT)
    return path


def _require_no_fit(path: Path) -> None:
    if folder.holds_fit(path):
        raise Misuse(f"{path} holds a fit already: --resume goes on with it, --overwrite replaces it")


def _options(output: Path | None, seed: int | None, epochs: int | None) -> list[str]:
    given = {"--output": output, "--seed": seed, "--epochs": epochs}
    return [text for name, value in given.items() if value is not None for text in (name, str(value))]


def _prepared(settings: FitConfig, screen: Screen) -> tuple[FitConfig, Data, probcl.BimodalModel]:
    """Load the data, complete the config with what they tell, and make the model and its input."""
    source = settings.data.build()
    described = settings.data
    if None in described.parameters.values():
        described = described.completed(**source.found())
    loaded: Data = described.build().load(screen.track)
    encoders = (settings.model.encoder_u, settings.model.encoder_v)
    validation = None if loaded.validation is None else _inputs(encoders, loaded.validation, source)
    data = Data(_inputs(encoders, loaded.train, source), validation)
    completed = [part.completed(**_told_by(values)) for part, values in zip(encoders, data.train, strict=True)]
    model = dataclasses.replace(settings.model, encoder_u=completed[0], encoder_v=completed[1])
    settings = dataclasses.replace(settings, data=described, model=model)
    screen.say(f"{data.train.n_pairs} pairs: u {_shape(data.train.u)}, v {_shape(data.train.v)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        made = _model(settings)
    for side, encoder, values in zip(_SIDES, (made.encoder_u, made.encoder_v), data.train, strict=True):
        require_taken(encoder, values, source.origin(side), f"{side} for model.encoder_{side}")
    _advise(settings, data, screen)
    return settings, data, made


def _inputs(encoders: tuple[Part, Part], pairs: Pairs, source: Any) -> Pairs:
    u, v = (
        as_input_of(ENCODERS[part.name], values, f"{source.origin(side)}: {side}")
        for part, values, side in zip(encoders, pairs, _SIDES, strict=True)
    )
    return Pairs(u, v)


def _advise(settings: FitConfig, data: Data, screen: Screen) -> None:
    """Say so if an epoch has one step only, because a batch holds all of the pairs, or nearly all."""
    said = settings.training
    if said.optimizer == "lbfgs":
        return
    aside = round((said.validation or 0.0) * data.train.n_pairs)
    pairs, batch_size = data.train.n_pairs - aside, said.batch_size or DEFAULT_BATCH_SIZE
    steps = batch_count(pairs, batch_size)
    if steps <= 2 and pairs > 2 * _FEWEST:
        counted = "1 step" if steps == 1 else f"{steps} steps"
        screen.say(
            f"advice: {pairs} pairs in batches of up to {batch_size} are {counted} an epoch, {steps * said.epochs} in "
            f"all; a smaller training.batch_size, such as {max(_FEWEST, pairs // 10)}, makes more of them"
        )


def _told_by(values: Tensor) -> dict[str, Any]:
    """Return what the data tell of the encoder that takes them."""
    told: dict[str, Any] = {"in_features": values[0].numel()}
    if values.ndim == 4:
        told |= {"in_channels": values.shape[1], "image_size": values.shape[2]}
    if not values.is_floating_point():
        told["n_classes"] = int(values.max()) + 1
    return told


def _model(settings: FitConfig) -> probcl.BimodalModel:
    said = settings.model
    for name, part in (("encoder_u", said.encoder_u), ("encoder_v", said.encoder_v)):
        open_ones = [key for key in part.kind.from_data if part.parameters.get(key, 0) is None]
        if open_ones:
            named = ", ".join(sorted(open_ones))
            raise Misuse(f"model.{name}: {part.name} does not fit these data, which do not tell its {named}")
    return probcl.BimodalModel(
        said.encoder_u.build(),
        said.encoder_v.build(),
        said.alignment.build(),
        said.temperature,
        said.learn_temperature,
    )


def _trained(
    model: probcl.BimodalModel, data: Data, watch: "_Watch", screen: Screen, resume: bool, again: str
) -> History:
    settings = watch.settings
    options = vars(settings.training) | {"seed": settings.seed}
    if options["validation"] is None:
        options["validation"] = data.validation
    checkpoint = watch.path / folder.CHECKPOINT
    if resume:
        found = checkpoint.exists()
        screen.say(f"going on from {checkpoint}" if found else f"nothing to go on from at {checkpoint}: starting anew")
    try:
        return probcl.fit(
            model,
            data.train,
            settings.loss.build(),
            **options,
            checkpoint=checkpoint,
            checkpoint_every=settings.checkpoint.every,
            resume=resume,
            progress=screen.shows_progress,
            callbacks=[watch],
        )
    except KeyboardInterrupt as error:
        if not checkpoint.exists():
            raise
        message = f"interrupted after {watch.reached}; nothing is lost. To go on:\n  {again}"
        raise Interruption(message) from error


class _Watch(Callback):
    """Touches the folder only once the fit begins, when all has been checked, and knows how far it has come.

    An earlier model stays until this one takes its place, but not its checkpoint, from which nobody shall go on.
    """

    def __init__(self, path: Path, settings: FitConfig, resume: bool, overwrite: bool, held: ExitStack) -> None:
        self.path, self.settings, self._held = path, settings, held
        self._resume, self._overwrite = resume, overwrite
        self._state: FitState | None = None

    def on_fit_start(self, state: FitState) -> None:
        self._state = state
        if state.rank:
            return
        self._held.enter_context(sole_writer(self.path))
        if self._overwrite:
            (self.path / folder.CHECKPOINT).unlink(missing_ok=True)
        elif not self._resume:
            _require_no_fit(self.path)  # which another process may have finished since
        if not (self.path / WEIGHTS_FILE).exists():
            folder.write_config(self.path, self.settings)

    @property
    def reached(self) -> str:
        """How far the fit has come."""
        if self._state is None:
            return "no step"
        return f"step {self._state.step}, {self._state.recorder.epochs} of {self._state.epochs} epochs"


def _summary(path: Path, history: History) -> dict[str, Any]:
    record = folder.history_record(history)
    last = {name: record[name][-1] for name in ("loss", "validation_loss", "mi_bound")}
    kept = {name: record[name] for name in ("epochs", "best_epoch", "stopped_early")}
    return {"model": str(path), **kept, "steps": history.steps, **last, "seconds": float(history.seconds.sum())}


def _table(path: Path, history: History) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    best = history.best_epoch
    stopped = ", stopped early" if history.stopped_early else ""
    table.add_row("model", Text(str(path)))
    table.add_row("trained", f"{history.epochs} epochs{stopped}, {history.steps} steps, {history.seconds.sum():.1f} s")
    table.add_row("loss", f"{history.loss[-1]:.4f}")
    if best is not None:
        table.add_row(
            "validation loss",
            f"{history.validation_loss[-1]:.4f}, lowest {history.validation_loss[best]:.4f} after epoch {best + 1}",
        )
    table.add_row("next", Text(f"probcl info {shlex.quote(str(path))}"))
    return table


def _shape(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape[1:])}"
