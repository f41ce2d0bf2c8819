"""Tables that the applications write, read back."""

import csv
from pathlib import Path


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by column."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
