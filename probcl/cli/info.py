"""``probcl info``: what a model is."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import nn

from probcl.cli import assimilator
from probcl.cli.folder import ModelFolder, open_folder
from probcl.cli.screen import current
from probcl.cli.use import ModelPath
from probcl.model import WEIGHTS_FILE
from probcl.serialization import to_config


def info(model: ModelPath) -> None:
    """Say what a model is: its parts, what its conditionals are good for, and how it was fitted."""
    screen = current()
    learned = assimilator.load_if_assimilator(model)
    if learned is not None:
        screen.show(assimilator.describe(learned, model), _table(model, assimilator.facts(learned, model)))
        return
    folder = open_folder(model)
    screen.show(describe(folder), _table(model, facts(folder)))


def describe(folder: ModelFolder) -> dict[str, Any]:
    """Return what a model is, as JSON values."""
    model = folder.model
    record: dict[str, Any] = {
        "path": str(folder.path),
        "bytes": (folder.path / WEIGHTS_FILE).stat().st_size,
        "encoder_u": _part(model.encoder_u),
        "encoder_v": _part(model.encoder_v),
        "alignment": _part(model.alignment),
        "temperature": model.temperature.value,
        "temperature_learned": model.temperature.learnable,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "identifies": None if model.identifies is None else model.identifies.value,
        "gauge": None if model.gauge is None else model.gauge.over,
        "loss": None if folder.config is None else folder.config.loss.name,
        "data": None if folder.config is None else folder.config.data.name,
    }
    kept = ("epochs", "best_epoch", "stopped_early", "loss", "validation_loss", "mi_bound")
    history = folder.history or {}
    return record | {"history": {name: history[name] for name in kept if name in history} or None}


def _part(module: nn.Module) -> dict[str, Any]:
    return {**to_config(module), "parameters": sum(parameter.numel() for parameter in module.parameters())}


def facts(folder: ModelFolder) -> dict[str, str]:
    """Return what a model is, for people, by name."""
    record = describe(folder)
    told = {name.replace("_", " "): _shown(record[name]) for name in ("encoder_u", "encoder_v", "alignment")}
    told["parameters"] = f"{record['parameters']:,} in {record['bytes'] / 1024:,.0f} KiB"
    told["temperature"] = f"{record['temperature']:.4g}" + (", learned" if record["temperature_learned"] else "")
    told["loss"] = record["loss"] or "not recorded"
    told["determines"] = record["identifies"] or "not known: it was not fitted"
    if record["gauge"]:
        told["re-gauged"] = f"over {record['gauge']}"
    told["data"] = record["data"] or "not recorded"
    if record["history"]:
        told["fitted"] = _fitted(record["history"])
    return told


def _table(path: Path, told: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("model", Text(str(path), style="bold"))
    for name, value in told.items():
        table.add_row(name, Text(value))
    return table


def _shown(part: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={_value(value)}" for name, value in (part["arguments"] or {}).items())
    return f"{part['class']}({arguments})"


def _value(value: Any) -> str:
    return value["class"] if isinstance(value, dict) and "class" in value else str(value)


def _fitted(history: dict[str, Any]) -> str:
    parts = [f"{history['epochs']} epochs" + (", stopped early" if history.get("stopped_early") else "")]
    for name in ("loss", "validation_loss"):
        values = history.get(name)
        if values and values[-1] is not None:
            parts.append(f"{name.replace('_', ' ')} {values[-1]:.4f}")
    return ", ".join(parts)
