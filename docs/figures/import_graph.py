"""What imports what in probcl, read from its source: the graph behind the architecture page and its test."""

import ast
import functools
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LAYERS = Path(__file__).with_name("layers.toml")


class When(StrEnum):
    """When an import is carried out."""

    IMPORT = "when the module is imported"
    CALL = "when a function is called"
    TYPING = "by type checkers only"


class Import(NamedTuple):
    """One module's import of another, both by their dotted names."""

    importer: str
    imported: str
    when: When


class Layers(NamedTuple):
    """The storeys from the ground up with their rooms, and the reasons of the imports that reach up."""

    storeys: dict[str, list[str]]
    reach_up: dict[str, dict[str, str]]

    @property
    def rooms(self) -> list[str]:
        """The rooms from the ground up."""
        return [room for rooms in self.storeys.values() for room in rooms]


def layers() -> Layers:
    """Read the table of storeys."""
    return Layers(**tomllib.loads(LAYERS.read_text(encoding="utf-8")))


def room(module: str) -> str:
    """Return the file or folder of probcl that a module is, or is in."""
    return module.split(".")[1] if "." in module else module


def modules(package: str) -> dict[str, Path]:
    """Return the files of a package by the dotted names of their modules."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(*packages: str) -> tuple[Import, ...]:
    """Return every import, of a module of these packages by another, in the order of the source."""
    files = {name: path for package in packages for name, path in modules(package).items()}
    return tuple(
        Import(name, imported, when)
        for name, path in files.items()
        for imported, when in _imports_of(ast.parse(path.read_text(encoding="utf-8")), files)
        if imported != name
    )


def _imports_of(node: ast.AST, known: dict[str, Path], when: When = When.IMPORT) -> Iterator[tuple[str, When]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from ((alias.name, when) for alias in names if alias.name in known)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                targets = {f"{module}.{alias.name}" for alias in names}
                yield from ((target, when) for target in sorted(targets & known.keys()))
                if targets - known.keys() and module in known:
                    yield module, when
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports_of(child, known, When.CALL)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from _imports_of(child, known, When.TYPING)
            case _:
                yield from _imports_of(child, known, when)


def room_imports() -> dict[str, set[str]]:
    """Return which rooms each room imports when it is imported, its own and the package's names apart."""
    graph: dict[str, set[str]] = {room(module): set() for module in modules("probcl") if module != "probcl"}
    for importer, imported, when in imports("probcl"):
        if when is When.IMPORT and imported != "probcl" and room(importer) != room(imported):
            graph[room(importer)].add(room(imported))
    return graph
