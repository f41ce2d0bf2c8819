"""Confidence limits of an estimate that is nearly normal."""

from scipy.stats import norm


def normal_interval(value: float, standard_error: float, confidence: float) -> tuple[float, float]:
    """Return the limits of the central interval of this confidence.

    Raises
    ------
    ValueError
        If the confidence does not lie between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    half_width = float(norm.ppf((1 + confidence) / 2)) * standard_error
    return value - half_width, value + half_width
