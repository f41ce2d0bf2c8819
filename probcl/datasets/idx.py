"""The IDX format of the MNIST files: two zero bytes, a type, a rank, big-endian sizes, big-endian values."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from probcl.errors import DataFileError

_GZIP_MAGIC = b"\x1f\x8b"
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAGIC_BYTES = 4
_SIZE_BYTES = 4


def read_idx(path: str | os.PathLike[str]) -> Shaped[np.ndarray, "..."]:
    """Read an array from an IDX file, plain or gzipped (told apart by content, not by name).

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    ndarray
        Of the shape and type the file declares (uint8, int8, int16, int32, float32 or float64), in native
        byte order. A plain file has no checksum: damage that leaves its length consistent goes unseen.

    Raises
    ------
    DataFileError
        If the file is missing or unreadable, is a damaged gzip, does not begin as IDX does, or has fewer or
        more bytes than its header declares.

    Examples
    --------
    >>> import struct, tempfile
    >>> from pathlib import Path
    >>> from probcl.datasets import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.idx")
    ...     _ = path.write_bytes(struct.pack(">HBBI", 0, 0x08, 1, 3) + bytes([5, 0, 4]))  # three bytes along one axis
    ...     read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    path = Path(path)
    content = _read(path)
    code, rank = _parse_magic(path, content)
    dtype = np.dtype(_TYPES[code])
    start = _MAGIC_BYTES + _SIZE_BYTES * rank
    if len(content) < start:
        raise DataFileError(
            f"{path}: truncated IDX header: expected {start} bytes for {rank} dimensions, got {len(content)}"
        )
    shape = tuple(np.frombuffer(content, ">u4", count=rank, offset=_MAGIC_BYTES).tolist())
    expected, got = math.prod(shape) * dtype.itemsize, len(content) - start
    if expected != got:
        problem = "truncated IDX body" if got < expected else "trailing bytes after the IDX body"
        raise DataFileError(
            f"{path}: {problem}: expected {expected} bytes for {shape} values of {dtype.itemsize}, got {got}"
        )
    try:
        values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    except ValueError as error:  # NumPy has limits of its own
        raise DataFileError(f"{path}: {rank} dimensions cannot be held in an array: {error}") from error
    return values.astype(dtype.newbyteorder("="))


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataFileError(f"{path}: expected an IDX file, got nothing: no such file") from error
    except OSError as error:
        raise DataFileError(f"{path}: expected a readable IDX file, got {error.strerror or error}") from error
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(f"{path}: damaged gzip: expected a compressed IDX file, got: {error}") from error


def _parse_magic(path: Path, content: bytes) -> tuple[int, int]:
    """Type code and rank from the first four bytes."""
    magic = content[:_MAGIC_BYTES]
    if len(magic) < _MAGIC_BYTES:
        raise DataFileError(f"{path}: truncated IDX header: expected at least 4 bytes, got {len(magic)}")
    zero, also_zero, code, rank = magic
    if zero or also_zero or code not in _TYPES or rank == 0:
        codes = ", ".join(f"{known:02x}" for known in _TYPES)
        raise DataFileError(
            f"{path}: wrong IDX magic: expected 00 00, a type among {codes}, and a rank of at least 01; "
            f"got {magic.hex(' ')}"
        )
    return code, rank
