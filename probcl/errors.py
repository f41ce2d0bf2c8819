"""The package's own exceptions and warnings.

Bad arguments raise the built-in ``ValueError`` or ``TypeError``; these classes exist where a caller may want to
catch one kind of trouble and not another.
"""


class ProbclWarning(UserWarning):
    """A result that should not be trusted without a second look, or an option that theory advises against."""


class DataFileError(ValueError):
    """A data file is missing, truncated, damaged or not of the format its name promises."""


class CheckpointError(ValueError):
    """A saved model or training checkpoint is damaged, of another version, or made for other shapes."""
