"""What is public, with its signatures, as text: ``python tests/public_api.py`` writes it to tests/public_api.txt."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import probcl

LISTED = Path(__file__).with_name("public_api.txt")


def public_modules(package: ModuleType = probcl) -> Iterator[ModuleType]:
    """Yield a package and those of its parts that it lists among its names."""
    yield package
    for name in sorted(getattr(package, "__all__", ())):
        part = getattr(package, name)
        if inspect.ismodule(part):
            yield from public_modules(part)


def names_in(module: ModuleType) -> list[str]:
    """Return the public names of a module: its ``__all__``, or else what it defines."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def described(module: ModuleType) -> Iterator[str]:
    """Yield a line for each public object, and for each public member that the package defines of a class."""
    for name in names_in(module):
        value, path = getattr(module, name), f"{module.__name__}.{name}"
        if inspect.ismodule(value):
            continue
        yield f"{path}{signature(value)}"
        if inspect.isclass(value) and (module is probcl or name not in probcl.__all__):
            yield from (f"{path}.{line}" for line in sorted(set(members(value))))


def members(cls: type) -> Iterator[str]:
    """Yield the public methods and properties of a class."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] != "probcl":
            continue
        for name, member in vars(base).items():
            if name.startswith("_") or getattr(cls, name, None) is None:
                continue
            if isinstance(member, property):
                yield name
            elif callable(bound := getattr(cls, name)) and inspect.getattr_static(cls, name) is member:
                yield f"{name}{signature(bound)}"


def signature(value: object) -> str:
    """Return the names and defaults of what is taken, or nothing if nothing can be called."""
    if not callable(value):
        return ""
    try:
        taken = inspect.signature(value)
    except ValueError:
        return "(...)"
    bare = [parameter.replace(annotation=parameter.empty) for parameter in taken.parameters.values()]
    return re.sub(r" at 0x\w+", "", str(taken.replace(parameters=bare, return_annotation=taken.empty)))


def listing() -> str:
    """Return the whole text."""
    lines: list[str] = []
    for module in public_modules():
        lines += [line for line in described(module) if line not in lines]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    LISTED.write_text(listing(), encoding="utf-8")
