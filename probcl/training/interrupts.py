"""Ctrl-C that waits for the end of a step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class DeferredInterrupt:
    """Context in which a first Ctrl-C is `pending` until told to `take_effect`, so that no step is left half done.

    A second one takes effect at once. Does nothing outside the main thread, where no signal arrives, or where the
    program has a handler of its own.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self.pending = False
        self._previous: Any = None

    def __enter__(self) -> "DeferredInterrupt":
        on_main_thread = threading.current_thread() is threading.main_thread()
        if self._enabled and on_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def take_effect(self) -> None:
        """Raise the `KeyboardInterrupt` that was held back."""
        self.pending = False
        raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if kind is None and self.pending:
            self.take_effect()
