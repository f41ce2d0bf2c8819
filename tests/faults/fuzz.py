"""Damaged bytes for every reader of files, by the thousand: they are read, or refused in words."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from damaged_files import WAYS
from damaged_files import damaged as spoiled

from faults import things
from faults.processes import Ended, Row, allow, run
from probcl.cli.config import read_config
from probcl.cli.errors import ConfigError
from probcl.errors import CheckpointError, DataFileError

CHUNK, SECONDS_EACH = 2000, 20.0
REFUSALS = (DataFileError, CheckpointError, ConfigError, ValueError, TypeError)


def _track_table(folder: Path) -> None:
    things.write_ocean(folder)


def _model(folder: Path) -> None:
    things.model().save(folder / "model")


def _model_file(path: Path) -> str:
    """Read a model whose weights are the damaged file, in a folder of its name."""
    folder = path.parent / f"{path.name}.d"
    shutil.copytree(path.parent / "model", folder, dirs_exist_ok=True)
    shutil.copyfile(path, folder / "model.safetensors")
    return things.of_model(folder)


# By name: what is written, which file is damaged, what reads it, and how many cases are tried.
READERS: dict[str, tuple[Callable[[Path], Any], str, Callable[[Path], Any], int]] = {
    "IDX": (things.write_data, "x.idx", things.READERS[".idx"], 16_000),
    "IDX, gzipped": (things.write_data, "x.idx.gz", things.READERS[".gz"], 14_000),
    ".npy": (things.write_data, "x.npy", things.READERS[".npy"], 14_000),
    ".npz": (things.write_data, "x.npz", things.READERS[".npz"], 14_000),
    ".safetensors": (things.write_data, "x.safetensors", things.READERS[".safetensors"], 14_000),
    "PNG": (things.write_data, "x.png", things.READERS[".png"], 8_000),
    "JPEG": (things.write_data, "x.jpg", things.READERS[".jpg"], 6_000),
    "model": (_model, "model/model.safetensors", _model_file, 6_000),
    "tracks, CSV": (_track_table, "drifters.csv", things.READERS[".csv"], 2_000),
    "configs, YAML": (things.write_fit_inputs, "fit.yaml", read_config, 6_000),
}


def fuzzed(name: str, cases: int, seed: int, scratch: Path) -> Row:
    """Read damaged files; nothing but a refusal by name may be raised."""
    write, file, read, _ = READERS[name]
    row = Row(f"fuzz: {name}")
    assert not run(write, scratch).error
    content, target = (scratch / file).read_bytes(), scratch / f"damaged-{Path(file).name}"
    while row.cases < cases:
        progress = scratch / "progress"
        progress.write_text("")
        ended = run(_read_all, read, target, content, range(row.cases, min(row.cases + CHUNK, cases)), seed, progress)
        for line in progress.read_text().splitlines():
            verdict, _, said = line.partition("\t")
            row.add(verdict, silent=f"{row.fault}: {said}" if verdict == "UNNAMED" else "")
        if ended != Ended(seconds=ended.seconds):
            assert ended.signal, ended
            row.add(f"the process died in a library: {signal.Signals(ended.signal).name}", died=True)
    return row


def _read_all(
    read: Callable[[Path], Any], target: Path, content: bytes, cases: range, seed: int, progress: Path
) -> None:
    with progress.open("w") as lines:
        for case in cases:
            allow(SECONDS_EACH)
            rng = np.random.default_rng([seed, case])
            target.write_bytes(spoiled(content, WAYS[case % len(WAYS)], rng))
            lines.write(_verdict(read, target) + "\n")
            lines.flush()


def _verdict(read: Callable[[Path], Any], target: Path) -> str:
    try:
        read(target)
    except REFUSALS as error:
        said = " ".join(str(error).split())
        # A config is what the user named, and its error lists keys.
        clear = isinstance(error, ConfigError) or target.name in said
        return "refused" if clear else f"UNNAMED\t{type(error).__name__}: {said}"
    except Exception as error:
        return f"UNNAMED\t{type(error).__name__}: {' '.join(str(error).split())}"
    return "read"
