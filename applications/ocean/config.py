"""The configuration file, read."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probcl.assimilation import Campaign

DEFAULT = Path(__file__).with_name("config.toml")


@dataclass(frozen=True)
class Config:
    """How the currents of a world are observed, learned and judged.

    Attributes
    ----------
    n_train, n_test
        Members of each part; of `currents`, days of the first.
    days
        Of the archive's maps.
    window, trained_intervals, trained_drifters, position_error
        The tracks that are trained on: times between fixes, the fewest and most drifters, and metres of error.
    fix_interval, n_drifters, windows, members
        Of the table.
    method, rank, pairs, epochs, gap
        Of `Assimilator.fit`; as many epochs as each route takes of itself, if None.
    tuning_windows
        That the classical methods are tuned on.
    smoother
        Whether the ensemble smoother is among the classical methods; over a large region it takes seconds a case.
    swept_intervals, swept_drifters, swept_windows
        Of the figure of skill.
    seed
        Of everything.
    """

    n_train: int
    n_test: int
    days: tuple[float, ...]
    window: str
    trained_intervals: tuple[str, ...]
    trained_drifters: tuple[int, int]
    fix_interval: str
    n_drifters: int
    position_error: float
    method: str
    smoother: bool
    rank: int
    pairs: int
    gap: str
    windows: int
    members: int
    swept_intervals: tuple[str, ...]
    swept_drifters: tuple[int, ...]
    swept_windows: int
    seed: int
    epochs: int | None = None
    tuning_windows: int = 24

    @classmethod
    def read(cls, world: str, path: Path = DEFAULT, *, quick: bool = False) -> "Config":
        """Read a world's table of a TOML file: with what its table [quick] replaces, if `quick`."""
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        chosen: dict[str, Any] = settings[world] | (settings["quick"] if quick else {})
        lists: dict[str, Any] = {name: tuple(value) for name, value in chosen.items() if isinstance(value, list)}
        return cls(**(chosen | lists))

    @property
    def campaign(self) -> Campaign:
        """The tracks that are trained on."""
        return Campaign(self.window, list(self.trained_intervals), self.trained_drifters, self.position_error)
