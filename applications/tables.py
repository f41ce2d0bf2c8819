"""Result tables: printed, and written as CSV and Markdown."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from applications.files import write_text

Row = Mapping[str, str | float]


def report(title: str, rows: Sequence[Row], path: Path, note: str = "") -> None:
    """Print a table and write it to ``path.csv`` (full precision) and ``path.md`` (as printed, with the note)."""
    columns = list(rows[0])
    note = " ".join(note.split())  # the terminal breaks the lines
    console = Console()
    console.rule(title, align="left")
    for part in _fitting(columns, rows, console.width):
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in part:
            table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(_shown(row[column]) for column in part))
        console.print(table)
    if note:
        console.print(note, style="dim")
    write_text(path.with_suffix(".csv"), as_csv(rows))
    write_text(path.with_suffix(".md"), _markdown(title, columns, rows, note))


def means(rows: Iterable[Row], by: Sequence[str]) -> list[Row]:
    """Return a row for each combination of what is in these columns, with the means of the others' numbers."""
    groups: dict[tuple[str | float, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return [
        {
            name: value if isinstance(value, str) else sum(float(row[name]) for row in group) / len(group)
            for name, value in group[0].items()
        }
        for group in groups.values()
    ]


def _fitting(columns: Sequence[str], rows: Sequence[Row], width: int) -> Iterator[list[str]]:
    """Divide the columns into tables no wider than the terminal, each led by the columns that name the rows."""
    names = [column for column in columns if isinstance(rows[0][column], str)]
    space = {column: 3 + max(len(column), *(len(_shown(row[column])) for row in rows)) for column in columns}
    part = list(names)
    for column in columns:
        if column in names:
            continue
        if len(part) > len(names) and sum(space[name] for name in [*part, column]) > width:
            yield part
            part = list(names)
        part.append(column)
    yield part


def _shown(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV, with the first row's names as header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(title: str, columns: Sequence[str], rows: Sequence[Row], note: str) -> str:
    rule = ["---" if isinstance(rows[0][column], str) else "--:" for column in columns]
    lines = [columns, rule, *([_shown(row[column]) for column in columns] for row in rows)]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
    return f"# {title}\n\n{body}\n" + (f"\n{note}\n" if note else "")
