"""The config of a fit."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from probcl.cli import documents
from probcl.cli.errors import ConfigError
from probcl.cli.reader import read_as
from probcl.cli.schema import ALIGNMENT, LOSS, Kind, Part, Range, plain
from probcl.cli.sources import DATA
from probcl.named import ENCODERS
from probcl.training.settings import Settings

ENCODER = Kind(
    "encoder",
    ENCODERS,
    from_data=frozenset({"in_features", "in_channels", "image_size", "n_classes"}),
    # Each stage halves the image: this many are left of none.
    ranges={"stages": Range(1, 12)},
    meanings={"out_features": "the width of the embedding, one number for both encoders, such as out_features: 16"},
)
# What stands in for the data while a config is checked without them.
_ANY_DATA = {"in_features": 1, "in_channels": 1, "image_size": 28, "n_classes": 2}

Count = Annotated[int, Range(1)]
Positive = Annotated[float, Range(0, ends="(]")]
NonNegative = Annotated[float, Range(0)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Two encoders, an alignment and a temperature; see `probcl.BimodalModel`."""

    encoder_u: Annotated[Part, ENCODER]
    encoder_v: Annotated[Part, ENCODER]
    alignment: Annotated[Part, ALIGNMENT]
    temperature: Positive = 1.0
    learn_temperature: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train; see `probcl.fit`. `validation` is a fraction of the training pairs to set aside.

    Without it the validation pairs are those that the data set brings, if it does.
    """

    epochs: Count = 100
    batch_size: Annotated[int, Range(2)] | None = None
    lr: Positive | None = None
    optimizer: Literal["adam", "adamw", "sgd", "lbfgs"] = "adam"
    weight_decay: NonNegative | None = None
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: NonNegative = 0.0
    clip_norm: Positive | None = None
    validation: Annotated[float, Range(0, 1, "()")] | None = None
    patience: Count | None = None
    restore_best: bool = True
    device: str = "auto"
    amp: bool | Literal["auto"] = "auto"
    chunk_size: Count | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to write the checkpoint besides the ends of epochs, every so many steps, and whether to keep it."""

    every: Count | None = None
    keep: bool = True


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Everything ``probcl fit`` is told."""

    data: Annotated[Part, DATA]
    model: ModelConfig
    loss: Annotated[Part, LOSS]
    training: TrainingConfig = field(default=TrainingConfig())
    checkpoint: CheckpointConfig = field(default=CheckpointConfig())
    seed: Annotated[int, Range(0)] = 0
    output: str | None = None


def config_from(value: Any) -> FitConfig:
    """Check plain values, and return the config that they are.

    Raises
    ------
    ConfigError
        With one line for each thing that is wrong.
    """
    config = read_as(FitConfig, value)
    problems = [*_refused_parts(config), *_refused_settings(config)]
    if problems:
        raise ConfigError(problems)
    return config


def read_config(path: Path) -> FitConfig:
    """Read a config from a YAML or TOML file.

    Raises
    ------
    DataFileError
        If it cannot be read.
    ConfigError
        With one line for each thing that is wrong.
    """
    return config_from(documents.read(path))


def written(config: FitConfig) -> str:
    """Return a config in full, as YAML."""
    return documents.to_yaml(plain(config))


def changed(config: FitConfig, *, output: str | None, seed: int | None, epochs: int | None) -> FitConfig:
    """Return the config with what the command line says otherwise.

    Raises
    ------
    ConfigError
        If it cannot say so.
    """
    values = plain(config)
    if epochs is not None:
        values["training"]["epochs"] = epochs
    values |= {name: value for name, value in {"output": output, "seed": seed}.items() if value is not None}
    return config_from(values)


def _refused_parts(config: FitConfig) -> list[str]:
    """Return what the parts themselves have against their parameters."""
    model = config.model
    parts = {
        "data": config.data,
        "model.encoder_u": model.encoder_u.completed(**_ANY_DATA),
        "model.encoder_v": model.encoder_v.completed(**_ANY_DATA),
        "model.alignment": model.alignment,
        "loss": config.loss,
    }
    problems = []
    for path, part in parts.items():
        try:
            with torch.device("meta"):  # nothing is allocated, however large
                part.build()
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            problems.append(f"{path}: {' '.join(str(error).split())}")
    return problems


def _refused_settings(config: FitConfig) -> list[str]:
    options = dataclasses.asdict(config.training)
    validation, patience = options.pop("validation"), options["patience"]
    del options["device"]
    try:
        Settings(**options, seed=config.seed)
    except (TypeError, ValueError) as error:
        name, problem = str(error).split(" ", 1)
        return [f"training.{name}: {problem}"]
    if patience is not None and validation is None and not config.data.build().brings_validation:
        return ["training.patience: needs validation pairs; give training.validation, a fraction of the pairs"]
    return []
