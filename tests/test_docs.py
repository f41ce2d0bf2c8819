"""Every block of the README and of the pages runs, and what they name or link to exists.

Python runs here, as printed and page by page; the commands of docs/command_line.md in test_cli_docs.py, all others in
test_docs_commands.py.
"""

import doctest
import pkgutil
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from docs_blocks import APPLICATIONS, PAGES, ROOT, SHELL, blocks, links
from hub_cases import Hub

from probcl.assimilation.baselines import hyperparameters

OBJECT = re.compile(r"\{py:obj\}`(?:[^`<]*<|~)?([\w.]+)>?`")
DIRECTIVES = {"{figure}", "{image}", "{include}", "{toctree}"}
# What a block of text may be: a drawing, and what a command said.
SHOWN = ("data  →  encoders", "interrupted after step")


def python_of(page):
    return [block.text for block in blocks(page, "python")]


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Enough to see that a covariance is fitted; how well is tested elsewhere, and takes a few seconds each time.
    monkeypatch.setattr(hyperparameters, "_VIEWS", 4)
    if page.name == "hooks.md":
        Hub(tmp_path / "hub", monkeypatch, token=None)
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(python_of(page)):
        if block.startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block, namespace, f"{page.name}[{number}]", str(page), 0)
            results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
            assert results.failed == 0
            namespace.update(test.globs)
        else:
            exec(compile(block, f"{page.name}[{number}]", "exec"), namespace)
    plt.close("all")


@pytest.mark.parametrize("page", [*PAGES, *APPLICATIONS], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_run_or_is_no_code(page):
    for block in blocks(page):
        runs = block.kind == "python" and page in PAGES
        runs |= block.kind in SHELL or (block.kind == "yaml" and page.name == "command_line.md")
        shows = block.kind.partition(" ")[0] in DIRECTIVES or (block.kind == "text" and block.text.startswith(SHOWN))
        assert runs or shows, f"{block}: nothing runs a block of {block.kind or 'no kind'!r}"


def test_the_wrapper_of_the_questions_embeds_tokens_of_several_lengths():
    (block,) = (text for text in python_of(ROOT / "docs" / "faq.md") if "class Text" in text)
    namespace = {"torch": torch}
    exec(compile(block, "faq.md", "exec"), namespace)

    class Network(torch.nn.Embedding):
        def forward(self, input_ids, attention_mask):
            hidden = super().forward(input_ids) * attention_mask[..., None]
            return SimpleNamespace(last_hidden_state=hidden.cumsum(1).flip(1))

    embed = namespace["Text"](Network(5, 6), width=6, d=3)
    embedded = embed(torch.tensor([[1, 2, 0], [1, 2, 4]]))
    assert embedded.shape == (2, 3)
    assert not torch.equal(*embedded)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_object_that_a_page_names_exists(page):
    for name in OBJECT.findall(page.read_text()):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("page", [*PAGES, *APPLICATIONS], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_something_in_a_clone(page):
    made = ROOT / "docs" / "gallery"
    for target in links(page):
        path = (page.parent / target).resolve()
        assert path.exists(), f"{page.name}: {target}"
        assert made not in path.parents, f"{page.name}: {target}"
