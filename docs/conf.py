"""Sphinx configuration; ``make docs`` builds with warnings as errors."""

import re

from sphinx.application import Sphinx

import probcl

project = "probcl"
author = "The probcl developers"
copyright = "The probcl developers, Apache-2.0"
version = release = probcl.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
exclude_patterns = ["_build"]
default_role = "py:obj"
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# What stands between backquotes is left as it is.
LITERAL = re.compile(r"(`[^`]*`)")

html_theme = "furo"
html_title = "probcl"


def setup(app: Sphinx) -> None:
    """Let docstrings be read as text: |x| and *shape are norms and shapes, not markup."""
    app.connect("autodoc-process-docstring", _escape_norms_and_shapes)


def _escape_norms_and_shapes(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    in_math = False
    for number, line in enumerate(lines):
        in_math = line.lstrip().startswith(".. math::") or (in_math and (not line or line.startswith("    ")))
        if not in_math:
            parts = LITERAL.split(line)
            parts[::2] = [re.sub(r"(?<!\*)\*(?=\w)|\|", r"\\\g<0>", part) for part in parts[::2]]
            lines[number] = "".join(parts)
