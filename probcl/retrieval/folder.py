"""A library on disk: shards as safetensors files, listed in a manifest.

Shards are never changed, only replaced: what a manifest lists is complete before the manifest is renamed into place,
and files that no manifest lists are left-overs. A reader finds the library before a change or after it.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack
from torch import nn

from probcl.errors import CheckpointError
from probcl.files import digest_of_file, left_behind, write_atomically
from probcl.locks import sole_writer
from probcl.retrieval.shards import Shard, Source, next_id_after
from probcl.serialization import digest_of, to_config

KIND, FORMAT_VERSION = "probcl library", 1
MANIFEST, SHARDS = "library.json", "shard-*.safetensors"


@dataclass(frozen=True)
class ShardFile:
    """A shard in a file, mapped into memory when it is loaded."""

    path: Path
    rows: int
    size: int
    sha256: str

    def __len__(self) -> int:
        return self.rows

    def load(self) -> Shard:
        """Map the file: only what is used of it is read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            shard = Shard(tensors["embeddings"], tensors["ids"], tensors.get("log_prior"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{self.path} is missing: if another process changed the library, open it anew"
            ) from error
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"{self.path} is damaged or not a shard of a library: {error}") from error
        if len(shard) != self.rows or len(shard.embeddings) != self.rows:
            raise CheckpointError(f"{self.path} was altered: it has {len(shard)} items, its manifest says {self.rows}")
        return shard

    def require_intact(self, contents: bool) -> None:
        """Raise `CheckpointError` if the file is missing or has another length or, if asked for, other contents."""
        try:
            size = self.path.stat().st_size
            if size != self.size:
                raise CheckpointError(f"{self.path} was truncated or altered: it has {size} bytes, not {self.size}")
            if contents and digest_of_file(self.path) != self.sha256:
                raise CheckpointError(f"{self.path} was altered: its contents do not match the digest in its manifest")
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error


def write_library(
    folder: Path,
    record: Mapping[str, Any],
    shards: Iterable[Source],
    next_id: int,
    before: Iterable[Source] | None = None,
) -> tuple[list[ShardFile], int]:
    """Make these shards the library in a folder; those that are in it already are left as they are.

    Parameters
    ----------
    folder
        Where to write.
    record
        What else the manifest is to hold.
    shards
        May be computed while they are written.
    next_id
        What the id of the next item would have been before.
    before
        The shards that the library in the folder must have, where this is a change of it; None to replace any.

    Returns
    -------
    files, next_id
        The shards, as files, and what the id of the next item is now.

    Raises
    ------
    BlockingIOError
        If another process is writing to the folder.
    CheckpointError
        If another has changed the library, which then has other shards than `before`.
    """
    with sole_writer(folder):
        if before is not None:
            _require_unchanged(folder, before)
        return _write(folder, record, shards, next_id)


def _require_unchanged(folder: Path, before: Iterable[Source]) -> None:
    known = [file.path.name for file in before if isinstance(file, ShardFile)]
    listed = _listed(folder / MANIFEST)
    if listed is not None and listed != known:
        raise CheckpointError(
            f"the library at {folder} was changed by another process since this one opened it: open it anew"
        )


def _listed(manifest: Path) -> list[str] | None:
    """Return the names of a library's shards, none if there is no library; None if that cannot be told."""
    try:
        return [entry["path"] for entry in json.loads(manifest.read_bytes())["shards"]] if manifest.exists() else []
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(
    folder: Path, record: Mapping[str, Any], shards: Iterable[Source], next_id: int
) -> tuple[list[ShardFile], int]:
    files: list[ShardFile] = []
    try:
        for shard in shards:
            if not (isinstance(shard, ShardFile) and shard.path.parent == folder):
                shard = _write_shard(folder, shard.load())
            files.append(shard)
        next_id = next_id_after(files, next_id)
        entries = [asdict(file) | {"path": file.path.name} for file in files]
        manifest = {"kind": KIND, "format_version": FORMAT_VERSION, **record, "next_id": next_id, "shards": entries}
        manifest["sha256"] = digest_of(manifest, {})
        write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    finally:
        _remove_unlisted(folder)
    return files, next_id


def _write_shard(folder: Path, shard: Shard) -> ShardFile:
    named = {"embeddings": shard.embeddings, "ids": shard.ids, "log_prior": shard.log_prior}
    content = pack({name: part.detach().cpu().contiguous() for name, part in named.items() if part is not None})
    path = folder / SHARDS.replace("*", secrets.token_hex(8))
    write_atomically(path, content)
    return ShardFile(path, len(shard), len(content), hashlib.sha256(content).hexdigest())


def _remove_unlisted(folder: Path) -> None:
    """Remove the shards that are not, or no longer, part of the library; none if that cannot be told."""
    listed = _listed(folder / MANIFEST)
    if listed is None:
        return
    for path in folder.glob(SHARDS):
        if path.name not in listed:
            path.unlink(missing_ok=True)
    for temporary in left_behind(folder, SHARDS):
        temporary.unlink(missing_ok=True)


def read_library(folder: Path, contents: bool) -> tuple[dict[str, Any], list[ShardFile]]:
    """Return the record, with ``next_id``, and the shards of what `write_library` wrote.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated, altered (in its contents too, if asked for), of another kind or version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"no library at {folder}: it has no {MANIFEST}")
    try:
        manifest = json.loads(path.read_bytes())
        kind, version, digest = (manifest.pop(name, None) for name in ("kind", "format_version", "sha256"))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if kind != KIND:
        raise CheckpointError(f"{path} is not of a {KIND}: it says {kind!r}")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} is of format version {version!r}; this probcl reads version {FORMAT_VERSION}")
    if digest_of({"kind": kind, "format_version": version, **manifest}, {}) != digest:
        raise CheckpointError(f"{path} was altered: it does not match its digest")
    files = [ShardFile(**entry | {"path": folder / entry["path"]}) for entry in manifest.pop("shards")]
    for file in files:
        file.require_intact(contents)
    return manifest, files


def fingerprint(encoder: nn.Module) -> str:
    """Digest of an encoder's recipe and weights: of all that embeddings depend on."""
    return digest_of(to_config(encoder), encoder.state_dict())
