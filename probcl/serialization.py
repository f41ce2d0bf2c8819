"""Files that survive: weights as safetensors, the recipe to rebuild a module as JSON, never a pickle.

A file is one safetensors archive whose header also holds a JSON record and a digest of the contents. It is written
under a temporary name and renamed, so that it is there whole or not at all, and read back only if its digest agrees.
"""

import copy
import ctypes
import errno
import functools
import glob
import hashlib
import inspect
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack
from torch import Tensor, nn

from probcl.checks import describe
from probcl.errors import CheckpointError

FORMAT_VERSION = 1
# Stands in the name of a temporary file beside its writer's number, which says nothing to other machines.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
# What is new, and what is old where the two cannot be exchanged at once.
_TEMPORARY, _ASIDE = ".tmp", ".old"

# AT_FDCWD and RENAME_EXCHANGE of Linux.
_HERE, _RENAME_EXCHANGE = -100, 2

_REGISTRY: dict[str, type[nn.Module]] = {}
M = TypeVar("M", bound=type[nn.Module])


def register(cls: M) -> M:
    """Class decorator: instances remember their arguments, and `probcl.BimodalModel.load` can rebuild them by name.

    The arguments of ``__init__`` must be JSON values (numbers, strings, lists, None) or registered modules.

    Examples
    --------
    >>> import torch, probcl
    >>> @probcl.register
    ... class Scaled(torch.nn.Module):
    ...     def __init__(self, factor: float) -> None:
    ...         super().__init__()
    ...         self.factor = factor
    ...     def forward(self, x):
    ...         return self.factor * x
    """
    if cls.__module__.partition(".")[0] != "probcl":
        _register_own()
    if cls.__name__ in _REGISTRY and _REGISTRY[cls.__name__].__module__ != cls.__module__:
        raise ValueError(
            f"a module named {cls.__name__!r} is registered already, by {_REGISTRY[cls.__name__].__module__}"
        )
    original = cls.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is cls:
            self.__dict__["_init_arguments"] = _named_arguments(signature, self, *args, **kwargs)

    cls.__init__ = init  # type: ignore[method-assign]
    _REGISTRY[cls.__name__] = cls
    return cls


def to_config(module: nn.Module) -> dict[str, Any]:
    """Describe how to rebuild a module; one for which that is not known is described by its name alone."""
    cls = type(module)
    arguments = module.__dict__.get("_init_arguments") if _REGISTRY.get(cls.__name__) is cls else None
    try:
        return {"class": cls.__name__, "arguments": _to_json(arguments)}
    except TypeError:  # an argument that JSON cannot hold must not cost anyone a trained model
        return {"class": cls.__name__, "arguments": None}


def from_config(config: Mapping[str, Any], role: str) -> nn.Module:
    """Rebuild a registered module. `role` names it in the error a caller sees if that cannot be done."""
    name, arguments = config["class"], config["arguments"]
    if name not in _REGISTRY:
        _register_own()
    if name not in _REGISTRY or arguments is None:
        raise CheckpointError(
            f"{role} is a {name!r}, which is not registered, or was built with arguments that are not JSON values: "
            f"decorate the class with probcl.register before saving, or pass the module itself, load(..., {role}=...)"
        )
    return _REGISTRY[name](**{key: _from_json(value, role) for key, value in arguments.items()})


@functools.cache
def _register_own() -> None:
    """Import what is public, which registers every class of the package: so far only what was asked for is imported."""
    import probcl

    for name in probcl.__all__:
        getattr(probcl, name)


def _named_arguments(signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Every argument but self by name, defaults too: another version's defaults must not change a saved model."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    (_, module), *rest = bound.arguments.items()
    named: dict[str, Any] = {}
    for name, value in rest:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            named[name] = copy.copy(value) if isinstance(value, list | dict) else value
        elif value:
            raise TypeError(f"{type(module).__name__} is registered and cannot take *{name}; name its arguments")
    return named


def _to_json(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return to_config(value)
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, np.generic):
        return _to_json(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is not a JSON value")


def _from_json(value: Any, role: str) -> Any:
    if isinstance(value, list):
        return [_from_json(item, role) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"class", "arguments"}:
        return from_config(value, role)
    return {key: _from_json(item, role) for key, item in value.items()}


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
    except PermissionError:
        return True
    return True


def write_archive(path: Path, kind: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record as one file of this `kind`, atomically."""
    # Copied, because safetensors refuses tensors that share memory, as those of one encoder for both sides do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {
        "kind": kind,
        "format_version": str(FORMAT_VERSION),
        "record": json.dumps(record, allow_nan=True),
    }
    header["sha256"] = _digest(tensors, header)
    write_atomically(path, pack(tensors, metadata=header))


def read_archive(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `write_archive` wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, truncated, of another kind or of another format version.
    """
    if not path.is_file():
        raise CheckpointError(f"no {kind} at {path}: the file does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or not a {kind}: {error}") from error
    if header.get("kind") != kind:
        raise CheckpointError(f"{path} is not a {kind}: its header says {header.get('kind')!r}")
    if header.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path} is of format version {header.get('format_version')!r}; this probcl reads version {FORMAT_VERSION}"
        )
    expected = header.pop("sha256", None)
    if _digest(tensors, header) != expected:
        raise CheckpointError(f"{path} is damaged: its contents do not match the digest in its header")
    return tensors, json.loads(header["record"])


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load a state dict, in the types it was saved in, naming what does not fit.

    Raises
    ------
    CheckpointError
        If names or shapes differ from the module's.
    """
    own = module.state_dict(keep_vars=True)
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(f"{source} was saved for another model: missing {missing}, unknown {unknown}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{source} was saved for other shapes: {name} is {tuple(tensor.shape)} there "
                f"and {tuple(own[name].shape)} in this model"
            )
    for name, tensor in tensors.items():
        own[name].data = own[name].data.to(tensor.dtype)
    module.load_state_dict(dict(tensors))


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(header.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
