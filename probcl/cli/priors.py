"""Priors as the command line names them."""

from pathlib import Path

import torch

from probcl.cli.arrays import array_suffix
from probcl.cli.errors import Misuse
from probcl.cli.folder import ModelFolder
from probcl.cli.inputs import read_values
from probcl.cli.screen import Screen
from probcl.encoders import MLP, Linear
from probcl.gauge import Side
from probcl.priors import EmpiricalPrior, GaussianPrior

_FITTED = "gaussian:"


def read_prior(text: str, folder: ModelFolder, side: Side, screen: Screen) -> EmpiricalPrior | GaussianPrior:
    """Return the prior of a modality: ``normal``, ``gaussian:FILE`` fitted to a file, or the values in a file.

    Raises
    ------
    Misuse
        If it is none of these, or a prior of real numbers is asked for labels, or for values whose number the encoder
        does not tell.
    DataFileError
        If a file cannot be read.
    """
    if text == "normal":
        shape = _event_shape(folder, side)
        return GaussianPrior.from_scale(torch.zeros(shape), torch.eye(shape.numel()))
    if not text.startswith(_FITTED):
        _require_prior(text)
        return EmpiricalPrior(read_values(text, folder, side, screen))
    values = read_values(text.removeprefix(_FITTED), folder, side, screen)
    if not values.is_floating_point():
        raise Misuse(f"--prior {text}: {side} are labels, which have no Gaussian law; give a FILE of labels")
    return GaussianPrior.fit(values)


def _require_prior(text: str) -> None:
    """Raise `Misuse` for what is neither meant as a file nor is one."""
    if Path(text).exists() or array_suffix(text):
        return
    raise Misuse(
        f"--prior {text} is neither the name of a prior (normal, gaussian:FILE) nor a file or folder that is there"
    )


def _event_shape(folder: ModelFolder, side: Side) -> torch.Size:
    match folder.encoder(side):
        case Linear() as encoder:
            return torch.Size([encoder.in_features])
        case MLP() as encoder:
            return torch.Size([encoder.layers[1].in_features])  # type: ignore[list-item]
        case encoder:
            raise Misuse(
                f"--prior normal needs an encoder of vectors, and {side} has a {type(encoder).__name__}; "
                "give a FILE, or gaussian:FILE"
            )
