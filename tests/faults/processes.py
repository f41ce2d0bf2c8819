"""Work in forked processes, which may be killed, crash or hang, and what became of it.

The parent imports everything once and computes nothing: no threads of libraries are there to be lost in a fork.
"""

import os
import pickle
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 600.0


@dataclass
class Row:
    """A line of the table.

    Attributes
    ----------
    lost, silent
        Cases that must not be: see `docs/faults.md`.
    unseen
        Cases in which what was read is wrong and no reader can know, as the format has no checksum.
    died
        Cases in which a library that reads the file crashed, or looped for ever, and its process with it.
    """

    fault: str
    cases: int = 0
    lost: int = 0
    silent: int = 0
    unseen: int = 0
    died: int = 0
    messages: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(
        self, message: str = "", *, lost: str = "", silent: str = "", unseen: bool = False, died: bool = False
    ) -> None:
        """Count a case, with what was said, and what was lost or went unsaid."""
        self.cases += 1
        self.lost += bool(lost)
        self.silent += bool(silent)
        self.unseen += unseen
        self.died += died
        self.messages[message] += 1
        self.failures += [text for text in (lost, silent) if text]


@dataclass(frozen=True)
class Ended:
    """How a process ended: what it returned, the error that it raised, or the signal that killed it."""

    value: Any = None
    error: str = ""
    signal: int = 0
    seconds: float = 0.0  # of a processor


class Running:
    """A process forked from this one."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        receiver, sender = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(receiver)
            _work(sender, work, arguments)
        os.close(sender)
        self._receiver = receiver

    def kill_after(self, seconds: float) -> Ended:
        """Let it use a processor for so long, which others may use too, kill it, and return how it ended."""
        while _processor_seconds(self.pid) < seconds and not select.select([self._receiver], [], [], 1e-3)[0]:
            pass
        os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self, seconds: float = SECONDS) -> Ended:
        """Wait for its end; one that takes too long is killed."""
        content = b""
        deadline = self.began + seconds
        with os.fdopen(self._receiver, "rb") as pipe:
            while True:
                if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    os.kill(self.pid, signal.SIGKILL)
                    break
                piece = os.read(pipe.fileno(), 2**20)
                if not piece:
                    break
                content += piece
        _, status, used = os.wait4(self.pid, 0)
        killed = os.waitstatus_to_exitcode(status)
        took = used.ru_utime + used.ru_stime
        if killed < 0 or not content:
            return Ended(signal=-killed, seconds=took)
        value, error = pickle.loads(content)
        return Ended(value, error, 0, took)


def _processor_seconds(process: int) -> float:
    """Return what a process has used, by its clock on Linux."""
    return time.clock_gettime((~process << 3) | 2)


def allow(seconds: float) -> None:
    """Let this process be killed once it has used a processor for so long from now, as in a loop for ever."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def run(work: Callable[..., Any], *arguments: Any) -> Ended:
    """Do some work in a process of its own, to its end."""
    return Running(work, *arguments).end()


def _work(sender: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            answer = (work(*arguments), "")
        except Exception as error:
            answer = (None, f"{type(error).__name__}: {' '.join(str(error).split())}")
        with os.fdopen(sender, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
    finally:
        os._exit(0)


def changes(folder: Path, die_at: int = -1) -> list[str]:
    """Write down what this process does to the files of a folder from now on, and kill it before one such event."""
    seen: list[str] = []
    root = str(folder)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and any(root in str(argument) for argument in arguments[:2]):
            if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                return
            if len(seen) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(event)

    sys.addaudithook(watch)
    return seen


_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"})


def files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of all files of a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files(path)}


def temporaries(folder: Path) -> list[str]:
    """Return the names of hidden files, other than zarr's, that were left behind."""
    return [path.name for path in folder.rglob(".*") if not path.name.startswith(".z")]
