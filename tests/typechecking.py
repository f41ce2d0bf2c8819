"""The run-time type checker that jaxtyping's pytest plugin applies to the whole package."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# As type checkers do (PEP 484), take an int where a float is asked for.
_beartype: Callable[[Any], Any] = beartype(conf=BeartypeConf(is_pep484_tower=True))
_compiled: dict[tuple[Any, ...], Any] = {}


def checked(annotated: Any) -> Any:
    """Return a class or function whose annotations are checked.

    A function within a function is made anew at every call of the outer one, each step of a fit for one, and compiling
    its checks takes a millisecond. They are compiled once: what jaxtyping gives has its signature and no body.
    """
    if "<locals>" not in annotated.__qualname__ or not hasattr(annotated, "__code__"):
        return _beartype(annotated)
    key = annotated.__module__, annotated.__qualname__, annotated.__code__.co_varnames
    if key not in _compiled:
        _compiled[key] = _beartype(annotated)
    return _compiled[key]
