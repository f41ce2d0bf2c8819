"""The configuration file, read."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from applications.gaussians import comparison, experiment_illustration, experiment_process
from applications.gaussians.experiment_process import Curve

DEFAULT = Path(__file__).with_name("config.toml")


@dataclass(frozen=True)
class Config:
    """How to fit the experiments."""

    illustration: experiment_illustration.Config
    process: experiment_process.Config
    comparison: comparison.Config

    @classmethod
    def read(cls, path: Path = DEFAULT, *, quick: bool = False, long: bool = False) -> "Config":
        """Read a TOML file: with what its table [quick] replaces, if `quick`; with the long curves too, if `long`."""
        settings = tomllib.loads(path.read_text())
        illustration, process = settings["illustration"], settings["process"]
        process["curves"] = [curve for curve in process["curves"] if long or not curve.get("long", False)]
        if quick:
            illustration["n_pairs"] = settings["quick"]["n_pairs"]
            process["curves"] = [_shortened(curve, settings["quick"]) for curve in process["curves"]]
        process["curves"] = [Curve(**curve) for curve in process["curves"]]
        return cls(
            experiment_illustration.Config(**illustration),
            experiment_process.Config(**process),
            comparison.Config(**settings["comparison"]),
        )


def _shortened(curve: dict[str, Any], quick: dict[str, Any]) -> dict[str, Any]:
    sweeps = {sweep: quick["sweeps"][sweep] for sweep in curve["sweeps"]}
    return curve | {"sweeps": sweeps, "samples": {}, "pairs_seen": quick["pairs_seen"]}
