"""What ``probcl info`` and ``probcl cite`` say of what ``probcl assimilate`` has learned."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probcl.model import WEIGHTS_FILE

if TYPE_CHECKING:
    from probcl.assimilation import Assimilator


def load_if_assimilator(path: Path) -> "Assimilator | None":
    """Read the learned analysis in a folder; None if what is there is something else."""
    # A model has its weights here; reading one needs nothing of assimilation.
    if (path / WEIGHTS_FILE).is_file():
        return None
    from probcl.assimilation import Assimilator
    from probcl.assimilation.storage import STATE_FILE

    return Assimilator.load(path) if (path / STATE_FILE).is_file() else None


def describe(learned: "Assimilator", path: Path) -> dict[str, Any]:
    """Return what a learned analysis is, as JSON values."""
    campaign, record = learned.campaign, learned.record
    return {
        "path": str(path),
        "method": learned.route.name,
        "why": record["choice"].get("why"),
        "prior": learned.prior.kind,
        "modes": learned.prior.rank,
        "parameters": sum(parameter.numel() for parameter in learned.route.model.parameters()),
        "window_days": campaign.length / np.timedelta64(1, "D"),
        "fix_interval_hours": campaign.hours,
        "n_drifters": list(campaign.fleet),
        "position_error": campaign.position_error,
        "patch": learned.patch,
        "spread": learned.route.spread,
        **{part: {name: record[part].get(name) for name in ("times", "maps")} for part in ("trained_on", "held_out")},
        "version": record["version"],
    }


def facts(learned: "Assimilator", path: Path) -> dict[str, str]:
    """Return the same for people, by name."""
    said = describe(learned, path)
    first, last = (time[:10] for time in said["trained_on"]["times"])
    return {
        "method": said["method"] + (f": {said['why']}" if said["why"] else ""),
        "prior": f"{said['prior']}, {said['modes']} modes",
        "learned for": f"{learned.campaign}, errors of {said['position_error']:g} m",
        "analyses": "the whole grid" if said["patch"] is None else f"patches of {said['patch']} cells",
        "trained on": f"{said['trained_on']['maps']} maps, {first} to {last}",
        "spread": f"{said['spread']:.3g} of the model's own, by calibration",
    }
