"""What ``probcl assimilate`` is told of files and drifters: names and units as KEY=VALUE, and numbers of drifters."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from probcl.cli.errors import Misuse

if TYPE_CHECKING:
    import xarray as xr


def mapping(option: str, text: str | None) -> dict[str, str] | None:
    """Read ``u=ugos,v=vgos``.

    Raises
    ------
    Misuse
        If it is not of this form.
    """
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(key.strip() and value.strip() for key, _, value in pairs):
        raise Misuse(f"{option} must be KEY=VALUE, several with commas between, such as u=ugos,v=vgos, got {text}")
    return {key.strip(): value.strip() for key, _, value in pairs}


@contextmanager
def in_options(names: str) -> Iterator[None]:
    """Let errors of a reader speak of options where they speak of arguments; `names` is the option for those."""
    try:
        yield
    except (TypeError, ValueError) as error:
        told = _with_option(names, "names", "NAME", _with_option("--units", "units", "UNIT", str(error)))
        if "position_error must be given" in told or "give position_error=" in told:
            told = re.sub("; or give position_error=.*", "", told) + "; give --error METRES"
        raise type(error)(told) from error


def _with_option(option: str, argument: str, value: str, told: str) -> str:
    """Return a message with ``--names u=NAME`` for ``names={"u": ...}``, and likewise for ``names['u'] = 'x'``."""

    def listed(found: re.Match[str]) -> str:
        keys = re.findall(r"(\w+)[\"']?: ", found[1])
        return f"{option} {','.join(f'{key}={value}' for key in keys)}"

    told = re.sub(rf"{argument}=\{{([^}}]*)\}}", listed, told)
    return re.sub(rf"{argument}\[[\"'](\w+)[\"']\] = ", rf"{option} \1=", told)


def fleet(
    said: str | None, tracks: "xr.Dataset", moments: Sequence[np.datetime64], window: str
) -> tuple[int | tuple[int, int], str]:
    """Return how many drifters to train for, and a sentence that says so.

    Parameters
    ----------
    said
        ``16``, ``4-16``, or None: as many as have two fixes within a window of the analyses, the fewest and the most.
    tracks, moments, window
        To count them in.

    Raises
    ------
    Misuse
        If `said` is no number of drifters.
    ValueError
        If there is an analysis without drifters.
    """
    if said is not None:
        numbers = [int(number) for number in said.split("-")] if re.fullmatch(r"\d+(-\d+)?", said) else []
        if not numbers or min(numbers) < 1 or numbers != sorted(numbers):
            raise Misuse(f"--drifters must be a number, or the fewest and the most such as 4-16, got {said}")
        return (numbers[0], numbers[-1]), f"training for {said} drifters"
    counts = _counts(tracks, moments, window)
    low, high = min(counts), max(counts)
    number = f"{high} drifters" if low == high else f"{low} to {high} drifters"
    where = "the analysis" if len(moments) == 1 else f"the {len(moments)} analyses"
    return (low, high), (
        f"training for {number}: of {tracks.sizes['trajectory']} in the tracks, those with fixes within {window} about "
        f"{where} (--drifters says otherwise)"
    )


def _counts(tracks: "xr.Dataset", moments: Sequence[np.datetime64], window: str) -> list[int]:
    """Return how many drifters have two fixes in the window about each time."""
    from probcl.assimilation.segments import segments, within
    from probcl.assimilation.simulation import timedelta_of

    observed, length = segments(tracks, error_floor=0.0), timedelta_of("window", window)
    counts = [len(np.unique(within(observed, moment, length).trajectory)) for moment in moments]
    if min(counts) == 0:
        moment = moments[counts.index(0)]
        raise ValueError(f"tracks must have two fixes of a drifter within {window} about {moment}, got none")
    return counts
