"""One writer at a time, for folders whose files belong together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if it is not there, against other writers who hold it too.

    The lock is the system's, on the folder itself: it ends with the process, however that ends, and leaves no file.
    Where there are no such locks, as on some network file systems, nothing is held.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        told = "another process is writing to it; try again when that one is done"
        raise BlockingIOError(error.errno, told, str(folder)) from None
    except OSError:  # no locks here
        return
