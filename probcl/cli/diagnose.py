"""``probcl diagnose``: whether the conditional is right."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from probcl.cli import report
from probcl.cli.errors import Misuse
from probcl.cli.findings import TRAINING, UNANSWERED, Finding, Subject, questions, reading
from probcl.cli.folder import ModelFolder, open_folder
from probcl.cli.info import facts
from probcl.cli.inputs import read_pairs
from probcl.cli.outputs import require_suffix
from probcl.cli.screen import current
from probcl.cli.use import FILE, ModelPath
from probcl.datasets import Pairs
from probcl.files import write_atomically

# Fewer say nothing, and more take long and say the same.
_FEWEST, _MOST = 20, 5000
# Of columns on the screen, the same under every question.
_NAME_WIDTH, _NUMBER_WIDTH = 27, 9


def diagnose(
    model: ModelPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The report, an .html.")],
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar=FILE,
            help="Held-out pairs: an .npz or .safetensors with u and v, a folder of classes, or a config with data; "
            "by default the test pairs of the data that the model was fitted to.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the draws.")] = 0,
) -> None:
    """Test a model on pairs that it has not seen, and write a report with figures.

    It is one HTML file with everything in it.
    """
    screen = current()
    require_suffix(output, ".html", ".htm")
    folder = open_folder(model)
    held_out = read_pairs(pairs, folder, screen)
    if held_out.n_pairs < _FEWEST:
        raise Misuse(f"{pairs}: needs at least {_FEWEST} pairs, got {held_out.n_pairs}")
    subject = Subject(folder, Pairs(held_out.u[:_MOST], held_out.v[:_MOST]), seed)
    findings = [question() for question in screen.track(questions(subject), "asking")]
    _require_answers(findings, pairs)
    write_atomically(output, _page(folder, subject, findings).encode())
    numbers = {finding.name: _record(finding) for finding in findings}
    data = {"report": str(output), "pairs": subject.pairs.n_pairs, "findings": numbers}
    screen.show(data, *_shown(findings), f"report: {output}")


def _require_answers(findings: list[Finding], pairs: str | None) -> None:
    """Raise if the pairs answer no question, so that a report of them would be empty."""
    refused = [remark for finding in findings for remark in finding.remarks if remark.startswith(UNANSWERED)]
    answered = [finding for finding in findings if finding.numbers and finding.name != TRAINING]
    if refused and not answered:
        raise ValueError(f"{pairs or 'the test pairs'}: no question could be answered, the first of them: {refused[0]}")


def _page(folder: ModelFolder, subject: Subject, findings: list[Finding]) -> str:
    told = {**facts(folder), "pairs": f"{subject.pairs.n_pairs} held out", "seed": str(subject.seed)}
    return report.html(f"{folder.path.name}: is the conditional right?", told, findings)


def _record(finding: Finding) -> dict[str, object]:
    numbers = {name: value if math.isfinite(value) else None for name, value in finding.numbers.items()}
    return {**numbers, "remarks": finding.remarks}


def _shown(findings: list[Finding]) -> Iterator[RenderableType]:
    """Yield each question with its numbers, what they mean, and what to bear in mind."""
    for finding in findings:
        yield Text.assemble((finding.name, "bold"), "  ", (finding.question, "dim"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(min_width=_NAME_WIDTH)
        table.add_column(min_width=_NUMBER_WIDTH)
        table.add_column(style="dim")
        for name, value in finding.numbers.items():
            table.add_row(f"  {name}", report.shown(name, value), reading(name, value))
        if finding.numbers:
            yield table
        for remark in finding.remarks:
            style = "yellow" if remark.startswith(UNANSWERED) else "dim"
            yield Padding(Text(remark, style=style), (0, 0, 0, 2))
        yield ""
