"""The house holds: imports go the way that docs/figures/layers.toml says, and the page and the figure tell of it."""

import re

import networkx as nx
import pytest
from import_graph import ROOT, When, imports, layers, modules, room, room_imports
from make_architecture import OUTPUT, as_text, drawn
from PIL import Image

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
IMPORTS = imports("probcl", "applications", "benchmarks")
ROOMS = layers().rooms


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_every_file_and_folder_has_its_place_once() -> None:
    assert sorted(ROOMS) == sorted(room_imports()), "docs/figures/layers.toml does not name what is in probcl/"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_from_those_below_it(name: str) -> None:
    above = set(ROOMS[ROOMS.index(name) :])
    wrong = {f"{name} imports {other}, which is above it" for other in room_imports()[name] & above}
    assert not wrong


def test_what_reaches_up_is_listed_with_its_reason_and_nothing_else_does() -> None:
    ups = {
        (importer, imported)
        for importer, imported, when in imports("probcl")
        if when is not When.IMPORT and "probcl" not in (room(importer), room(imported))
        if ROOMS.index(room(imported)) > ROOMS.index(room(importer))
    }
    own_names = {
        (importer, "probcl")
        for importer, imported, when in imports("probcl")
        if imported == "probcl" and when is not When.IMPORT
    }
    listed = {(importer, imported) for importer, reasons in layers().reach_up.items() for imported in reasons}
    assert ups | own_names == listed


def test_no_module_needs_itself_to_be_imported() -> None:
    """Packages are counted too: whoever imports from one has imported its ``__init__``, unless from within."""
    graph = nx.DiGraph()
    for importer, imported, when in imports("probcl"):
        parts = imported.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            if when is When.IMPORT and (package == imported or not within(importer, package)):
                graph.add_edge(importer, package)
    circles = [" → ".join([*circle, circle[0]]) for circle in nx.simple_cycles(graph, length_bound=4)]
    assert not circles
    assert nx.is_directed_acyclic_graph(graph)


@pytest.mark.parametrize(
    ("package", "users"),
    [
        ("applications", {"applications", "benchmarks"}),
        ("benchmarks", {"benchmarks"}),
        ("probcl.cli", {"probcl.cli", "probcl.__main__"}),
    ],
)
def test_nothing_imports_what_is_for_people(package: str, users: set[str]) -> None:
    foreign = {
        f"{importer} imports {imported}"
        for importer, imported, _ in IMPORTS
        if within(imported, package) and not any(within(importer, user) for user in users)
    }
    assert not foreign


def test_the_graph_is_read_rightly() -> None:
    found = set(imports("probcl"))
    assert ("probcl.model", "probcl.scores", When.IMPORT) in found
    assert ("probcl.model", "probcl.conditional", When.CALL) in found
    assert ("probcl.model", "probcl.samplers", When.TYPING) in found
    assert ("probcl.cli.fit", "probcl.cli.folder", When.IMPORT) in found  # as in `from probcl.cli import folder`
    assert set(modules("probcl")) >= {"probcl", "probcl.scores", "probcl.cli", "probcl.cli.fit"}


def test_the_figure_shows_the_imports_of_the_code() -> None:
    shown = Image.open(OUTPUT).info["Imports"]
    assert shown.split() == as_text(drawn()).split(), "run python docs/figures/make_architecture.py, and look at it"


def test_the_page_names_every_file_and_folder_and_none_that_is_not_there() -> None:
    table = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = re.findall(r"`([\w/]+?)(?:/|\.py)`", " ".join(table))
    folders = {"assimilation/routes", "assimilation/readers", "assimilation/baselines", "datasets/ocean"}
    assert sorted(named) == sorted({*ROOMS, *folders})
    assert all((ROOT / "probcl" / folder).is_dir() for folder in folders)


def test_the_page_tells_of_what_reaches_up() -> None:
    for importer in layers().reach_up:
        assert importer.removeprefix("probcl.") in PAGE
