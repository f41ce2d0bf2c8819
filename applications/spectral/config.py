"""The configuration file, read."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from applications.spectral.embedding import Descent, Space
from applications.spectral.views import Views

DEFAULT = Path(__file__).with_name("config.toml")


@dataclass(frozen=True)
class Config:
    """The graphs, where to embed them, and the views of digits."""

    seeds: tuple[int, ...]
    blocks: dict[str, Any]
    bipartite: dict[str, Any]
    digits: dict[str, Any]
    descent: Descent
    spaces: dict[str, tuple[Space, ...]]
    view_seeds: tuple[int, ...]
    taus: tuple[float, ...]
    views: Views

    @classmethod
    def read(cls, path: Path = DEFAULT, *, quick: bool = False) -> "Config":
        """Read a TOML file: with what its table [quick] replaces, if `quick`."""
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        graphs, views = settings["graphs"], settings["views"]
        if quick:
            graphs |= settings["quick"]["graphs"]
            views |= settings["quick"]["views"]
            views["training"]["epochs"] = settings["quick"]["epochs"]
        return cls(
            seeds=tuple(graphs["seeds"]),
            blocks=graphs["blocks"],
            bipartite=graphs["bipartite"],
            digits=graphs["digits"],
            descent=Descent(**graphs["descent"]),
            spaces={name: tuple(Space(**space) for space in spaces) for name, spaces in settings["spaces"].items()},
            view_seeds=tuple(views["seeds"]),
            taus=tuple(views["taus"]),
            views=Views(**views["training"]),
        )
