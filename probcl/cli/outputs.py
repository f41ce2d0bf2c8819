"""Results in files: NumPy, safetensors, CSV and JSON, by suffix, written whole or not at all."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save as pack
from torch import Tensor

from probcl.cli.errors import Misuse
from probcl.files import require_writable, write_atomically


def require_suffix(path: Path | None, *suffixes: str) -> None:
    """Raise `Misuse` or `OSError` if a result cannot be written to a file of this name, before it is computed."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise Misuse(f"{path} must end in one of {', '.join(suffixes)}")
    require_writable(path)


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write arrays to an .npz, a .safetensors, or, if it is one only, an .npy."""
    buffer = io.BytesIO()
    match path.suffix.lower():
        case ".npy":
            (array,) = arrays.values()
            np.save(buffer, array.cpu().numpy(), allow_pickle=False)
        case ".npz":
            np.savez(buffer, allow_pickle=False, **{name: array.cpu().numpy() for name, array in arrays.items()})
        case _:
            buffer.write(pack({name: array.cpu().contiguous() for name, array in arrays.items()}))
    write_atomically(path, buffer.getvalue())


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows as .csv, or as .json, a list with a mapping for each row."""
    if path.suffix.lower() == ".json":
        text = json.dumps([dict(zip(header, row, strict=True)) for row in rows], ensure_ascii=False, indent=1) + "\n"
    else:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
        text = buffer.getvalue()
    write_atomically(path, text.encode())
