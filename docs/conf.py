"""Sphinx configuration; ``make docs`` builds with warnings as errors."""

import re

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject

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
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
# The gallery is made of docs/examples, the pages of single objects by autosummary.
exclude_patterns = ["_build", "examples", "gallery/*.ipynb", "gallery/*.py", "sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "py:obj"
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "gallery/uses",
    "doc_module": ("probcl",),
    "image_srcset": ["2x"],
    "thumbnail_size": (480, 320),
    "download_all_examples": False,
    "write_computation_times": False,
    "min_reported_time": 3600,
    "capture_repr": (),
    "show_signature": False,
    "remove_config_comments": True,
}

# What stands between backquotes is left as it is.
LITERAL = re.compile(r"(`[^`]*`)")
# Several attributes told of together, of which Sphinx would take all but the last for a type.
IVAR = re.compile(r"^:ivar [\w, ]+:")

# `make docs-links` asks the sites that pages link to. One that wants a login, or asks robots to wait, is not broken.
# One that turns robots away belongs in the list.
linkcheck_ignore: list[str] = []
linkcheck_timeout = 30
linkcheck_retries = 2
linkcheck_rate_limit_timeout = 60
linkcheck_report_timeouts_as_broken = True
linkcheck_allow_unauthorized = True

html_theme = "pydata_sphinx_theme"
html_title = "probcl"
html_logo = html_favicon = "_static/probcl.svg"
html_static_path = ["_static"]
html_css_files = ["probcl.css"]
html_js_files = ["probcl.js"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "probcl", "alt_text": ""},
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "navigation_depth": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}


def setup(app: Sphinx) -> None:
    """Let docstrings be read as text: |x| and *shape are norms and shapes, not markup."""
    app.connect("autodoc-process-docstring", _escape_norms_and_shapes)
    # The name of an attribute would be linked to whatever else has that name.
    next(field for field in PyObject.doc_field_types if field.name == "variable").rolename = ""


def _escape_norms_and_shapes(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    in_math = False
    for number, line in enumerate(lines):
        in_math = line.lstrip().startswith(".. math::") or (in_math and (not line or line.startswith("    ")))
        if not in_math:
            parts = LITERAL.split(line)
            parts[::2] = [re.sub(r"(?<!\*)\*(?=\w)|\|", r"\\\g<0>", part) for part in parts[::2]]
            lines[number] = IVAR.sub(lambda found: found[0].replace(", ", ","), "".join(parts))
