"""Modules in files: weights as safetensors, the recipe to rebuild a module as JSON, never a pickle.

A file is one safetensors archive whose header also holds a JSON record and a digest of the contents. It is there whole
or not at all (`probcl.files`), and read back only if its digest agrees.
"""

import copy
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack
from torch import Tensor, nn

from probcl.errors import CheckpointError
from probcl.files import write_atomically

FORMAT_VERSION = 1

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


def write_archive(path: Path, kind: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record as one file of this `kind`, atomically."""
    # Copied, because safetensors refuses tensors that share memory, as those of one encoder for both sides do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {
        "kind": kind,
        "format_version": str(FORMAT_VERSION),
        "record": json.dumps(record),
    }
    header["sha256"] = digest_of(header, tensors)
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
    if digest_of(header, tensors) != expected:
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


def digest_of(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return what tells a JSON record and tensors, with their names, types and shapes, from all others."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``name.``, without that beginning."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
