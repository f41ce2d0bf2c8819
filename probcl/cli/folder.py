"""The folder of a fitted model: the model, the config it was fitted with and the course of the fit."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from probcl.cli import documents
from probcl.cli.config import FitConfig, config_from, written
from probcl.cli.errors import ConfigError
from probcl.conditional import Conditional
from probcl.errors import CheckpointError
from probcl.files import remove, remove_stale_temporaries, temporary_beside, write_atomically
from probcl.gauge import Side
from probcl.model import CONFIG_FILE, WEIGHTS_FILE, BimodalModel
from probcl.priors import EmpiricalPrior, Prior
from probcl.samplers import Sampler
from probcl.training import History

CONFIG, HISTORY, CHECKPOINT = "fit.yaml", "history.json", "checkpoint.safetensors"
_RESULTS = "results"


@dataclass(frozen=True)
class ModelFolder:
    """What is in the folder of a model; the config and the history only if ``probcl fit`` wrote it."""

    path: Path
    model: BimodalModel
    config: FitConfig | None
    history: dict[str, Any] | None

    def encoder(self, side: Side) -> nn.Module:
        """Return the encoder of a modality."""
        encoder: nn.Module = self.model.encoder_u if side == "u" else self.model.encoder_v
        return encoder

    def conditional(self, side: Side, prior: EmpiricalPrior | Prior, sampler: Sampler | None = None) -> Conditional:
        """Return the conditional of a modality given the other."""
        return self.model.u_given_v(prior, sampler) if side == "u" else self.model.v_given_u(prior, sampler)


def other(side: Side) -> Side:
    """Return the other modality."""
    return "v" if side == "u" else "u"


def open_folder(path: Path) -> ModelFolder:
    """Read a folder.

    Raises
    ------
    CheckpointError
        If there is no model in it, or a file is damaged.
    """
    if not (path / WEIGHTS_FILE).is_file():
        unfinished = " (a fit that is not finished: go on with probcl fit --resume)" if holds_fit(path) else ""
        raise CheckpointError(f"{path}: no model there{unfinished}; a folder with {WEIGHTS_FILE} was expected")
    model = BimodalModel.load(path)
    return ModelFolder(path, model, _config(path / CONFIG), _history(path / HISTORY))


def holds_fit(path: Path) -> bool:
    """Whether there is a fit in a folder, finished or not."""
    return any((path / name).exists() for name in (WEIGHTS_FILE, CHECKPOINT))


def write_config(path: Path, config: FitConfig) -> None:
    """Write the config into the folder."""
    write_atomically(path / CONFIG, written(config).encode())


def write_results(path: Path, config: FitConfig, model: BimodalModel, history: History) -> None:
    """Write config, history and model, so that a folder with a model is of one fit.

    They are written aside first, where a full disk shows. Then an earlier model goes, and these take the places, the
    model last; a process that ends in between leaves a checkpoint, from which ``--resume`` comes here again.
    """
    remove_stale_temporaries(path / _RESULTS)
    aside = temporary_beside(path / _RESULTS)
    try:
        write_config(aside, config)
        write_atomically(aside / HISTORY, (json.dumps(history_record(history), allow_nan=False) + "\n").encode())
        model.save(aside)
        (path / WEIGHTS_FILE).unlink(missing_ok=True)
        for name in (CONFIG, HISTORY, CONFIG_FILE, WEIGHTS_FILE):
            os.replace(aside / name, path / name)
    finally:
        remove(aside)


def history_record(history: History) -> dict[str, Any]:
    """Return a history as JSON values, null where there is none."""
    columns = {name: value for name, value in vars(history).items() if isinstance(value, np.ndarray)}
    record: dict[str, Any] = {name: [_finite(x) for x in column.tolist()] for name, column in columns.items()}
    return {
        "epochs": history.epochs,
        "stopped_early": history.stopped_early,
        "best_epoch": history.best_epoch,
        **record,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _config(path: Path) -> FitConfig | None:
    if not path.exists():
        return None
    try:
        return config_from(documents.read(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged, or of another version: {error.problems[0]}") from error


def _history(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} is damaged: it holds no mapping")
    return record
