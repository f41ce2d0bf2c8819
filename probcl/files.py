"""Files and folders that are there whole or not at all: written under a temporary name, and renamed."""

import ctypes
import errno
import glob
import hashlib
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probcl.checks import describe

# Stands in the name of a temporary file beside its writer's number, which says nothing to other machines.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]

# What is new, and what is old where the two cannot be exchanged at once.
_TEMPORARY, _ASIDE = ".tmp", ".old"

# AT_FDCWD and RENAME_EXCHANGE of Linux.
_HERE, _RENAME_EXCHANGE = -100, 2


def require_path(name: str, value: object) -> Path:
    """Return `value` as a path if it is one or its name; raise `TypeError` otherwise."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path or its name, got {describe(value)}")
    return Path(value)


def require_writable(path: Path) -> None:
    """Raise `OSError` if nothing can be written at `path`, before long is spent on what is to be written there."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "nothing can be written here", str(folder))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment it is absent, the old one, or the new one, whole."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write a file or a folder to, which takes its place when it is whole.

    Until then, and if anything fails, what is at `path` stays.

    Raises
    ------
    OSError
        If it cannot be written; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # First, for they may be what fills the disk.
    remove_stale_temporaries(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        _take_place(temporary, path)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError) and error.errno and _is_within(error.filename, temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def temporary_beside(path: Path) -> Path:
    """Return a name beside `path` to write to and then rename."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")


def _is_within(filename: object, temporary: Path) -> bool:
    """Whether an error is about the temporary, as one is that names no file."""
    return filename is None or str(filename).startswith(str(temporary))


def _take_place(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except OSError:
        if not temporary.is_dir() or not path.exists():
            raise
        _exchange(temporary, path)  # which a folder that is there asks for
        remove(temporary)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names: at once where Linux and the file system can, else with a moment without `other`."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    aside = temporary_beside(other).with_suffix(_ASIDE)
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_stale_temporaries(path: Path) -> None:
    """Remove what writers of `path` left behind that were killed on this machine; those still at work are let be."""
    put_back(path)
    for suffix in (_TEMPORARY, _ASIDE):
        for temporary in left_behind(path.parent, glob.escape(path.name), suffix):
            remove(temporary)


def put_back(path: Path) -> None:
    """Give its name back to what a writer had set aside that was killed before the new one was in its place.

    There is such a moment only where two names cannot be exchanged at once.

    Raises
    ------
    OSError
        If nothing can be renamed there.
    """
    if path.exists():
        return
    for aside in left_behind(path.parent, glob.escape(path.name), _ASIDE):
        try:
            os.rename(aside, path)
        except OSError:
            if not path.exists():  # by another process
                raise


def left_behind(folder: Path, pattern: str, suffix: str = _TEMPORARY) -> Iterator[Path]:
    """Yield the temporary names, for targets of a pattern, of writers that were killed on this machine."""
    for temporary in folder.glob(f".{pattern}.{_HOST}-*-*{suffix}"):
        writer = temporary.name.split("-")[-2]
        if writer.isdecimal() and not _is_running(int(writer)):
            yield temporary


def _is_running(process: int) -> bool:
    if os.name != "posix":  # where there is no asking, and an open file cannot be removed
        return process == os.getpid()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 digest of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
