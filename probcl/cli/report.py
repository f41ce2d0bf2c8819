"""A report as one HTML file with everything in it, figures too."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

import probcl
from probcl.cli.findings import Figure, Finding, reading

_DOTS_AN_INCH = 160
_INCHES = (5.4, 3.9)
# Of p-values: smaller ones are of approximations that do not reach so far.
_SMALLEST_P = 1e-12
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 66rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin: 0 0 0.2rem; }
section { border-top: 1px solid #ddd; padding: 1.2rem 0; }
.question { color: #555; margin: 0 0 0.8rem; }
table { border-collapse: collapse; margin: 0.4rem 0 0.8rem; }
th { text-align: left; font-weight: 400; color: #555; padding: 0.1rem 1.5rem 0.1rem 0; vertical-align: top; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 18rem; max-width: 30rem; } img { width: 100%; height: auto; }
figcaption, footer { color: #555; font-size: 0.88rem; }
.remark { margin: 0.3rem 0; padding-left: 0.8rem; border-left: 3px solid #0072B2; }
"""


def html(title: str, facts: Mapping[str, str], findings: Sequence[Finding]) -> str:
    """Return the page."""
    sections = "\n".join(_section(finding) for finding in findings)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{_table(facts)}\n{sections}\n</main>\n"
        f"<footer><p>Written by probcl {escape(probcl.__version__)}.</p></footer>\n</body>\n</html>\n"
    )


def shown(name: str, value: float) -> str:
    """Write a number of this name for people."""
    if math.isnan(value):
        return "none"
    if name.startswith("p-value") and value < _SMALLEST_P:
        return f"< {_SMALLEST_P:.0e}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def _section(finding: Finding) -> str:
    numbers = _table({name: _read(name, value) for name, value in finding.numbers.items()})
    figures = "".join(_figure(figure) for figure in finding.figures)
    remarks = "".join(f'<p class="remark">{escape(remark)}</p>' for remark in finding.remarks)
    return (
        f'<section>\n<h2>{escape(finding.name.capitalize())}</h2>\n<p class="question">{escape(finding.question)}</p>\n'
        f'{numbers}\n<div class="figures">{figures}</div>\n{remarks}\n</section>'
    )


def _read(name: str, value: float) -> str:
    meaning = reading(name, value)
    return shown(name, value) + (f", {meaning}" if meaning else "")


def _table(rows: Mapping[str, str]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows.items()
    )
    return f"<table>{lines}</table>"


def _figure(figure: Figure) -> str:
    caption, draw = figure
    picture = base64.b64encode(png(draw)).decode()
    return (
        f'<figure><img src="data:image/png;base64,{picture}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def png(draw: Callable[[Axes], object]) -> bytes:
    """Draw a figure of its own, which no window of the process knows of."""
    canvas = Canvas(figsize=_INCHES, layout="constrained")
    draw(canvas.subplots())
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=_DOTS_AN_INCH)
    return buffer.getvalue()
