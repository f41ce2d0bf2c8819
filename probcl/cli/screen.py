"""What a command shows: results on stdout, everything else on stderr, and progress where somebody is watching."""

import json
import shlex
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

# What is done sooner needs no progress bar.
_PATIENCE_SECONDS = 2.0
_SWITCHES = {"--quiet": "quiet", "-q": "quiet", "--json": "as_json", "--debug": "debug"}


Track = Callable[[Sequence[Any], str], Iterator[Any]]
"""Yields items while a progress bar, of this name, tells how far it has come."""


@dataclass(frozen=True)
class Screen:
    """Where a command writes.

    Attributes
    ----------
    quiet
        Whether to leave out messages and progress.
    as_json
        Whether results are JSON.
    debug
        Whether errors come with their traceback.
    arguments
        What stood after ``probcl``.
    """

    quiet: bool = False
    as_json: bool = False
    debug: bool = False
    arguments: tuple[str, ...] = ()
    out: Console = field(default_factory=lambda: Console(highlight=False))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @property
    def command(self) -> str:
        """The command that is running, as it may be typed again."""
        return shlex.join(["probcl", *self.arguments])

    @property
    def shows_progress(self) -> bool:
        """Whether somebody is watching who wants to see it."""
        return not (self.quiet or self.as_json) and self.err.is_terminal

    def say(self, message: str) -> None:
        """Write a message, unless it is to be quiet."""
        if not self.quiet:
            self.err.print(message, soft_wrap=True, markup=False)

    def warn(self, message: str) -> None:
        """Write a warning."""
        self._label("warning", "yellow", message)

    def error(self, message: str) -> None:
        """Write what went wrong, a line each."""
        for line in message.splitlines():
            self._label("error", "bold red", line)

    def _label(self, label: str, style: str, message: str) -> None:
        self.err.print(Text.assemble((f"{label}: ", style), message), soft_wrap=True)

    def show(self, data: Mapping[str, Any], *shown: RenderableType) -> None:
        """Write a result: the data as JSON, or else what is shown to people."""
        if self.as_json:
            self.out.file.write(json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
            return
        for renderable in shown:
            if isinstance(renderable, str):
                self.out.file.write(renderable + "\n")
            else:
                self.out.print(renderable)

    def track(self, items: Sequence[T], what: str, size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
        """Yield the items, with a progress bar, which counts the `size` of each, if that takes over two seconds."""
        if not self.shows_progress:
            yield from items
            return
        columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        bar = Progress(*columns, console=self.err, transient=True)
        timer = threading.Timer(_PATIENCE_SECONDS, bar.start)
        timer.daemon = True
        timer.start()
        try:
            task = bar.add_task("", total=sum(map(size, items)))
            for item in items:
                yield item
                bar.advance(task, size(item))
        finally:
            timer.cancel()
            timer.join()
            bar.stop()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Be the `current` screen, on which Python's warnings are lines like the others."""
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            for ignored in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning):
                warnings.simplefilter("ignore", ignored)
            warnings.showwarning = lambda message, *_, **__: self.warn(" ".join(str(message).split()))
            token = _CURRENT.set(self)
            try:
                yield
            finally:
                _CURRENT.reset(token)


_CURRENT: ContextVar[Screen] = ContextVar("screen")


def current() -> Screen:
    """Return the screen of the command that is running."""
    return _CURRENT.get()


def screen_and_rest(arguments: Sequence[str]) -> tuple[Screen, list[str]]:
    """Take the switches that every command has out of its arguments, wherever they stand before ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found = {_SWITCHES[argument] for argument in arguments[:end] if argument in _SWITCHES}
    rest = [argument for i, argument in enumerate(arguments) if i >= end or argument not in _SWITCHES]
    return Screen("quiet" in found, "as_json" in found, "debug" in found, tuple(arguments)), rest


def flush() -> None:
    """Write out what is still buffered, before a process ends."""
    sys.stdout.flush()
    sys.stderr.flush()


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed else "", style="progress.data.speed")
