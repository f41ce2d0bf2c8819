"""Learning-rate schedules: factors of the rate, as functions of the fraction of training done."""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(fraction: float) -> float:
    """One, throughout."""
    return 1.0


def linear(fraction: float) -> float:
    """From one straight down to zero."""
    return 1.0 - fraction


def cosine(fraction: float) -> float:
    """From one to zero along half a period of a cosine (Loshchilov & Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * fraction))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "linear": linear}


def multiplier(schedule: Schedule, position: float, step: float, epochs: int, warmup: float) -> float:
    """Return the factor for a step that begins at `position` and is `step` long, all in epochs.

    The first `warmup` epochs rise linearly, from above zero; the schedule runs over what is left, from its value at 0.

    Raises
    ------
    ValueError
        If the schedule's value is negative or not finite.
    """
    if position < warmup:
        return min(1.0, (position + step) / warmup)
    fraction = (position - warmup) / (epochs - warmup)
    value = schedule(fraction)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"schedule must return a finite factor that is not negative, got {value} at {fraction:.3g}")
    return value
