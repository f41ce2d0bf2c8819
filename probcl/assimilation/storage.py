"""Assimilators as folders: a model, and everything else as one safetensors file. Nothing is unpickled."""

import secrets
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
import xarray as xr

from probcl.assimilation.fields import FieldPrior, Outlook
from probcl.assimilation.frames import Frame
from probcl.assimilation.grid import Grid
from probcl.assimilation.pairs import Campaign
from probcl.assimilation.routes import ROUTES, Route
from probcl.errors import CheckpointError
from probcl.files import remove
from probcl.locks import sole_writer
from probcl.model import BimodalModel
from probcl.serialization import read_archive, write_archive

if TYPE_CHECKING:
    from probcl.assimilation.assimilator import Assimilator

KIND = "probcl assimilator"
STATE_FILE, MODEL_FOLDER = "assimilator.safetensors", "model"

Arrays = Mapping[str, np.ndarray]


def save(learned: "Assimilator", folder: Path) -> None:
    """Write an assimilator: its model under a name of its own, and then the state, which says that name.

    Until the state is in its place, the folder holds the one that was there before.
    """
    with sole_writer(folder):
        first = not (folder / STATE_FILE).exists()
        model = folder / (MODEL_FOLDER if first else f"{MODEL_FOLDER}-{secrets.token_hex(4)}")
        try:
            learned.route.model.save(model)
            _write_state(learned, folder / STATE_FILE, model.name)
        except Exception:
            remove(model)
            raise
        for earlier in (folder / MODEL_FOLDER, *folder.glob(f"{MODEL_FOLDER}-{'[0-9a-f]' * 8}")):
            if earlier != model:
                remove(earlier)


def _write_state(learned: "Assimilator", path: Path, model: str) -> None:
    prior, campaign = learned.prior, learned.campaign
    arrays = {
        **_under("prior", {part: getattr(prior, part) for part in ("mean", "modes", "unresolved")}),
        **_under("prior", _parts(prior.grid)),
        **({} if prior.around is None else _under("around", _parts(prior.around))),
        **_under("frame", _parts(learned.frame.grid)),
        "prior.lags": prior.lags.astype("timedelta64[ns]").astype(np.int64),
        "times": learned.times.astype("datetime64[ns]").astype(np.int64),
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    tensors |= {f"memory.{name}": tensor for name, tensor in learned.route.memory.items()}
    record = {
        "model": model,
        "route": learned.route.name,
        "spread": learned.route.spread,
        "prior": prior.kind,
        "campaign": {
            "window": _nanoseconds(campaign.window),
            "fix_interval": [_nanoseconds(interval) for interval in campaign.intervals],
            "n_drifters": list(campaign.fleet),
            "position_error": campaign.position_error,
        },
        "patch": learned.patch,
        "origins": {str(name): values.values.tolist() for name, values in learned.origins.coords.items()},
        "frame": {"attributes": learned.frame.attributes, "checksum": learned.frame.checksum},
        "record": learned.record,
    }
    write_archive(path, KIND, tensors, record)


def load(folder: Path) -> dict[str, Any]:
    """Return the parts of an assimilator, as its constructor takes them.

    Raises
    ------
    probcl.CheckpointError
        If the folder is missing, damaged or of another version.
    """
    tensors, said = read_archive(folder / STATE_FILE, KIND)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    parts = _within("prior", arrays)
    grid, lags = _read_grid(parts), parts.pop("lags").astype("timedelta64[ns]")
    around = _within("around", arrays)
    if said["patch"] is not None and not around:
        raise CheckpointError(
            f"{folder} has patches that see nothing beyond their edge, of an earlier version; fit it again"
        )
    prior = FieldPrior(grid=grid, lags=lags, kind=said["prior"], around=Outlook(**around) if around else None, **parts)
    campaign = said["campaign"]
    return {
        "prior": prior,
        "campaign": Campaign(**{**campaign, "n_drifters": tuple(campaign["n_drifters"])}),
        "route": _route(said, prior, folder, _within("memory", arrays)),
        "record": said["record"],
        "frame": Frame(grid=_read_grid(_within("frame", arrays)), **said["frame"]),
        "origins": xr.Dataset(coords={name: ("member", values) for name, values in said["origins"].items()}),
        "times": arrays["times"].astype("datetime64[ns]"),
        "patch": tuple(said["patch"]) if isinstance(said["patch"], list) else said["patch"],
    }


def _route(said: Mapping[str, Any], prior: FieldPrior, folder: Path, memory: Arrays) -> Route:
    if said["route"] not in ROUTES:
        raise CheckpointError(f"{folder} has the route {said['route']!r}; this probcl knows {sorted(ROUTES)}")
    route = ROUTES[said["route"]](prior, BimodalModel.load(folder / said.get("model", MODEL_FOLDER)))
    route.spread = said["spread"]
    route.recall({name: torch.from_numpy(array) for name, array in memory.items()})
    return route


def _parts(of: Grid | Outlook) -> dict[str, np.ndarray]:
    return {part.name: getattr(of, part.name) for part in fields(of)}


def _read_grid(arrays: dict[str, np.ndarray]) -> Grid:
    return Grid(**{part.name: arrays.pop(part.name) for part in fields(Grid)})


def _under(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _within(prefix: str, arrays: Arrays) -> dict[str, np.ndarray]:
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _nanoseconds(duration: Any) -> str:
    return f"{pd.Timedelta(duration).as_unit('ns').value}ns"
