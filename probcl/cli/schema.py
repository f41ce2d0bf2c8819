"""What a config may hold: named parts with their parameters, ranges of numbers, and both as plain values."""

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

from probcl.alignment import Alignment
from probcl.divergences import Divergence
from probcl.losses import Loss
from probcl.losses.mmd import DataKernel
from probcl.named import ALIGNMENTS, DIVERGENCES, KERNELS, LOSSES

REQUIRED = inspect.Parameter.empty


class Range(NamedTuple):
    """The values that a number may have; `ends` says which ends are among them."""

    low: float = -math.inf
    high: float = math.inf
    ends: Literal["[]", "(]", "[)", "()"] = "[]"

    def holds(self, value: float) -> bool:
        """Whether a number is among them."""
        above = value > self.low if self.ends[0] == "(" else value >= self.low
        below = value < self.high if self.ends[1] == ")" else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.ends[0] == "(" else f"at least {self.low:g}"
        high = f"below {self.high:g}" if self.ends[1] == ")" else f"at most {self.high:g}"
        return " and ".join(text for text, end in ((low, self.low), (high, self.high)) if math.isfinite(end))


class Kind(NamedTuple):
    """A kind of named parts.

    Attributes
    ----------
    what
        What one is called.
    table
        The parts by name.
    default
        The part that is meant where none is given.
    unnamed
        The part that a mapping without a name means.
    from_data
        Parameters that may be left to the data.
    ranges
        Bounds of parameters that the parts themselves do not check.
    meanings
        Of parameters that have no default, to be told where one is missing.
    """

    what: str
    table: Mapping[str, Callable[..., Any]]
    default: str | None = None
    unnamed: str | None = None
    from_data: frozenset[str] = frozenset()
    ranges: Mapping[str, Range] = types.MappingProxyType({})
    meanings: Mapping[str, str] = types.MappingProxyType({})


@dataclass(frozen=True)
class Part:
    """A part by its name, with all its parameters; None for what the data will say."""

    kind: Kind
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """Make it."""
        return self.kind.table[self.name](**{name: _built(value) for name, value in self.parameters.items()})

    def completed(self, **from_data: Any) -> "Part":
        """Return the part with what was left to the data."""
        missing = {name: value for name, value in from_data.items() if self.parameters.get(name, 0) is None}
        return dataclasses.replace(self, parameters={**self.parameters, **missing})


ALIGNMENT = Kind("alignment", ALIGNMENTS, default="inner")
LOSS = Kind("loss", LOSSES, default="conditional")
DIVERGENCE = Kind("divergence", DIVERGENCES)
KERNEL = Kind("kernel", KERNELS)
KIND_OF_TYPE: tuple[tuple[Any, Kind], ...] = (
    (Alignment, ALIGNMENT),
    (Loss, LOSS),
    (Divergence, DIVERGENCE),
    (DataKernel, KERNEL),
)


def parameters(make: Any, kind: Kind | None = None) -> dict[str, tuple[Any, Any]]:
    """Return the annotation and the default, or `REQUIRED`, of all that a class or a part of this kind is made from."""
    hints = get_type_hints(make if dataclasses.is_dataclass(make) else make.__init__, include_extras=True)
    described = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation, default = hints[name], parameter.default
        if kind is not None and name in kind.ranges:
            annotation = Annotated[annotation, kind.ranges[name]]
        if kind is not None and name in kind.from_data:
            annotation, default = annotation | None, None
        described[name] = (annotation, list(default) if isinstance(default, tuple) else default)
    return described


def plain(value: Any) -> Any:
    """Return what was read as plain values, which are read as the same again."""
    if isinstance(value, Part):
        return {"name": value.name, **{name: plain(item) for name, item in value.parameters.items()}}
    if dataclasses.is_dataclass(value):
        return {entry.name: plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _built(value: Any) -> Any:
    if isinstance(value, Part):
        return value.build()
    return [_built(item) for item in value] if isinstance(value, list) else value
