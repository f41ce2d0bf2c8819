"""Every Python block of the README and of the documentation runs as printed, page by page; what it names exists."""

import doctest
import pkgutil
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from probcl.assimilation.baselines import hyperparameters

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "papers").glob("*.md"))]
OBJECT = re.compile(r"\{py:obj\}`(?:[^`<]*<|~)?([\w.]+)>?`")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    return BLOCK.findall(page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Enough to see that a covariance is fitted; how well is tested elsewhere, and takes a few seconds each time.
    monkeypatch.setattr(hyperparameters, "_VIEWS", 4)
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page)):
        if block.startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block, namespace, f"{page.name}[{number}]", str(page), 0)
            results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
            assert results.failed == 0
            namespace.update(test.globs)
        else:
            exec(compile(block, f"{page.name}[{number}]", "exec"), namespace)
    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_object_that_a_page_names_exists(page):
    for name in OBJECT.findall(page.read_text()):
        pkgutil.resolve_name(name)
