"""The file a fit can be killed and continued from."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from probcl.errors import CheckpointError
from probcl.files import remove_stale_temporaries
from probcl.model import BimodalModel
from probcl.serialization import read_archive, to_config, write_archive

KIND = "probcl training checkpoint"


class Contents(NamedTuple):
    """The state of a fit: its tensors by name, and the rest as JSON."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


class CheckpointFile:
    """One safetensors file, replaced atomically, that knows which fit it belongs to.

    Parameters
    ----------
    path
        Where it is written.
    origin
        Where an earlier state is read from; None to start anew.
    every
        Steps between writes within an epoch; None for the ends of epochs only.
    fingerprint
        What must be equal for one fit to continue another, as nested dicts of JSON values.
    """

    def __init__(self, path: Path, origin: Path | None, every: int | None, fingerprint: Mapping[str, Any]) -> None:
        self.path, self.origin, self._every = path, origin, every
        self._fingerprint = json.loads(json.dumps(fingerprint, default=str))
        remove_stale_temporaries(path)

    def save(self, contents: Contents) -> None:
        """Replace the file."""
        write_archive(self.path, KIND, contents.tensors, {"fingerprint": self._fingerprint, **contents.record})

    def load(self) -> Contents | None:
        """Read the earlier state; None if there is none.

        Raises
        ------
        CheckpointError
            If the file is damaged or of another version, or was written by a fit of other settings, model or data.
        """
        if self.origin is None or not self.origin.exists():
            return None
        contents = Contents(*read_archive(self.origin, KIND))
        found = differences(contents.record["fingerprint"], self._fingerprint)
        changed = [f"{name} was {before!r}, is {now!r}" for name, before, now in found]
        if changed:
            raise CheckpointError(f"cannot resume from {self.origin}, another fit's: {'; '.join(changed)}")
        return contents

    def due(self, step: int) -> bool:
        """Whether to write the file after this many steps."""
        return self._every is not None and step % self._every == 0


def describe_model(model: BimodalModel, loss: nn.Module) -> dict[str, Any]:
    """Return what a checkpoint remembers of a model and its loss, besides the shapes of their weights."""
    temperature = model.temperature
    return {
        "encoder_u": to_config(model.encoder_u),
        "encoder_v": to_config(model.encoder_v),
        "alignment": to_config(model.alignment),
        "temperature": "learnable" if temperature.learnable else float(temperature()),
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "loss": repr(loss),
    }


def differences(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the names and both values of what differs between nested dicts."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from differences(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    elif a != b:
        yield name, a, b
