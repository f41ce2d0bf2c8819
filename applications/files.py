"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, in the directory of `path`, and rename it to `path` when that went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure of pyplot, and close it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    plt.close(figure)


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
