"""Plain values read strictly into dataclasses and named parts, by the annotations of their fields and parameters.

Every fault is one line that names the path of its key: ``training.lr: must be above 0, got -1``.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from probcl.cli.errors import ConfigError
from probcl.cli.schema import KIND_OF_TYPE, REQUIRED, Kind, Part, Range, parameters
from probcl.divergences import Divergence

_LONGEST = 60
# Integers beyond this are no number of anything, and overflow torch's.
_LARGEST_INTEGER = 2**53
_WANTED: dict[Any, str] = {float: "a number", int: "an integer", bool: "true or false", str: "a text"}

T = TypeVar("T")


def read_as(cls: type[T], value: Any) -> T:
    """Read plain values into a dataclass.

    Raises
    ------
    ConfigError
        Naming everything that is wrong with them.
    """
    reader = _Reader()
    try:
        read: T = reader.read(cls, value, "")
        return read
    except _Fault:
        raise ConfigError(reader.problems) from None
    except RecursionError as error:
        raise ConfigError(["the config is nested too deeply"]) from error


def nearest(name: object, known: Iterable[str]) -> str:
    """Return a suggestion: the known name closest to this one, or else all of them."""
    known = list(known)
    close = difflib.get_close_matches(name[:_LONGEST].lower(), known, n=1) if isinstance(name, str) else []
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known) or 'none'}"


def brief(value: object) -> str:
    """Describe a value in a few words, however large it is."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return "a huge integer"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "…")
    return str(value)[:_LONGEST]


class _Fault(Exception):
    """A value that could not be read; what is wrong with it has been written down."""


class _Reader:
    """Reads values, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, annotation: Any, value: Any, path: str, bounds: Range | None = None) -> Any:
        if get_origin(annotation) is Annotated:
            annotation, note = get_args(annotation)
            return self._part(note, value, path) if isinstance(note, Kind) else self.read(annotation, value, path, note)
        kind = next((kind for known, kind in KIND_OF_TYPE if annotation == known), None)
        if kind is not None:
            return self._part(kind, value, path)
        if get_origin(annotation) in (Union, types.UnionType):
            return self._union(get_args(annotation), value, path)
        if get_origin(annotation) is Literal:
            return self._literal(get_args(annotation), value, path)
        if get_origin(annotation) in (list, Sequence):
            return self._list(get_args(annotation)[0], value, path)
        if dataclasses.is_dataclass(annotation):
            shorthand = getattr(annotation, "SHORTHAND", None)
            value = {shorthand: value} if shorthand and isinstance(value, str) else value
            make: Any = annotation
            arguments = self._arguments(make, value, path)
            try:
                return make(**arguments)
            except ValueError as error:
                raise self._fault(path, str(error)) from error
        return self._scalar(annotation, value, path, bounds)

    def _fault(self, path: str, problem: str) -> _Fault:
        self.problems.append(f"{path or 'config'}: {problem}")
        return _Fault()

    def _scalar(self, annotation: Any, value: Any, path: str, bounds: Range | None) -> Any:
        fits = isinstance(value, int | float if annotation is float else annotation)
        if not fits or (isinstance(value, bool) and annotation is not bool):
            raise self._fault(path, f"must be {_WANTED[annotation]}, got {brief(value)}")
        if isinstance(value, str) and not _is_text(value):
            raise self._fault(path, f"must be a text without control characters, got {brief(value)}")
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise self._fault(path, f"must be an integer of at most 2^53, got {brief(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._fault(path, f"must be finite, got {value}")
        if bounds is not None and not bounds.holds(value):
            raise self._fault(path, f"must be {bounds}, got {brief(value)}")
        return annotation(value)

    def _union(self, options: tuple[Any, ...], value: Any, path: str) -> Any:
        if value is None and type(None) in options:
            return None
        # A divergence may be given by its name alone, and is a part all the same.
        left = [o for o in options if o is not type(None) and not (o is str and Divergence in options)]
        if len(left) == 1:
            return self.read(left[0], value, path)
        wanted: list[str] = []
        for option in left:
            trial = _Reader()
            try:
                return trial.read(option, value, path)
            except _Fault:
                told = [problem.split(": ", 1)[1].rsplit(", got ", 1)[0] for problem in trial.problems]
                wanted += [text.removeprefix("must be ") for text in told]
        raise self._fault(path, f"must be {', or '.join(dict.fromkeys(wanted))}, got {brief(value)}")

    def _literal(self, choices: tuple[Any, ...], value: Any, path: str) -> Any:
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        one_of = "must be one of" if len(choices) > 1 else "must be"
        raise self._fault(path, f"{one_of} {', '.join(map(str, choices))}, got {brief(value)}")

    def _list(self, annotation: Any, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._fault(path, f"must be a list, got {brief(value)}")
        before = len(self.problems)
        items = []
        for index, item in enumerate(value):
            try:
                items.append(self.read(annotation, item, f"{path}[{index}]"))
            except _Fault:
                continue
        if len(self.problems) > before:
            raise _Fault
        return items

    def _part(self, kind: Kind, value: Any, path: str) -> Part:
        value = {"name": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise self._fault(path, f"must be the name of one {kind.what}, or a mapping with it, got {brief(value)}")
        name = value.get("name", kind.unnamed)
        if name is None:
            raise self._fault(path, f"must have a name; known: {', '.join(kind.table)}")
        if not isinstance(name, str) or name not in kind.table:
            raise self._fault(_join(path, "name"), f"no {kind.what} is called {brief(name)}{nearest(name, kind.table)}")
        given = {key: item for key, item in value.items() if key != "name"}
        return Part(kind, name, self._arguments(kind.table[name], given, path, kind))

    def _arguments(self, make: Any, value: Any, path: str, kind: Kind | None = None) -> dict[str, Any]:
        """Read what a class or a part is made from."""
        if not isinstance(value, dict):
            raise self._fault(path, f"must be a mapping, got {brief(value)}")
        before, wanted = len(self.problems), parameters(make, kind)
        for key in value:
            if key not in wanted:
                written = key if isinstance(key, str) and len(key) <= _LONGEST and key.isprintable() else brief(key)
                self._fault(_join(path, written), f"unknown{nearest(key, wanted)}")
        arguments = {}
        for name, (annotation, default) in wanted.items():
            try:
                given_value, meaning = value.get(name, REQUIRED), "" if kind is None else kind.meanings.get(name, "")
                arguments[name] = self._argument(annotation, default, given_value, _join(path, name), meaning)
            except _Fault:
                continue
        if len(self.problems) > before:
            raise _Fault
        return arguments

    def _argument(self, annotation: Any, default: Any, value: Any, path: str, meaning: str) -> Any:
        if value is not REQUIRED:
            return self.read(annotation, value, path)
        if default is not REQUIRED:
            return default
        kinds = [note for note in get_args(annotation)[1:] if isinstance(note, Kind)]
        if kinds and kinds[0].default is not None:
            return self._part(kinds[0], kinds[0].default, path)
        raise self._fault(path, f"is missing: {meaning}" if meaning else "is missing")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _is_text(value: str) -> bool:
    return value.isprintable() or all(part.isprintable() for part in value.split())
