"""Values for an encoder, from the files that the command line names."""

from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from probcl.cli.arrays import ArrayFile, array_file, array_suffix, names_in, read_array
from probcl.cli.config import read_config
from probcl.cli.errors import Misuse
from probcl.cli.folder import ModelFolder
from probcl.cli.images import Channels, class_folders, image_files, read_classes, read_images
from probcl.cli.screen import Screen
from probcl.cli.shapes import require_taken
from probcl.cli.sources import Data, Images
from probcl.datasets import Pairs
from probcl.encoders import MLP, Label, LeNet, Linear, ResidualConvNet
from probcl.errors import DataFileError
from probcl.gauge import Side

_SIDES: tuple[Side, Side] = ("u", "v")


def as_input_of(encoder: type[nn.Module], values: Shaped[Tensor, "n *event"], name: str) -> Shaped[Tensor, "n *event2"]:
    """Return values in the type and with the axes that a class of encoders takes.

    Raises
    ------
    ValueError
        If labels are not integers.
    """
    if issubclass(encoder, Label):
        if values.is_floating_point() or values.dtype == torch.bool:
            raise ValueError(f"{name} must be integers for an encoder of labels, got {values.dtype}")
        return values.long().squeeze(1) if values.ndim == 2 and values.shape[1] == 1 else values.long()
    values = values.float()
    is_grey = issubclass(encoder, LeNet | ResidualConvNet) and values.ndim == 3
    is_one_number = issubclass(encoder, Linear | MLP) and values.ndim == 1
    return values.unsqueeze(1) if is_grey or is_one_number else values


def read_values(text: str, folder: ModelFolder, side: Side, screen: Screen) -> Shaped[Tensor, "n *event"]:
    """Read values of one modality of a model: ``FILE``, ``FILE:KEY``, or a folder of images.

    Raises
    ------
    DataFileError
        If they cannot be read, or are not what the model's encoder takes.
    """
    path = Path(text)
    if path.is_dir() and path.suffix.lower() != ".zarr":
        values: Tensor = read_images(image_files(path), *_image_format(folder), screen.track)
    elif not path.exists() and array_suffix(text) is None:
        raise DataFileError(f"{text}: no such file or folder")
    else:
        values = read_array(array_file(text))
    encoder = folder.encoder(side)
    values = as_input_of(type(encoder), values, text)
    require_taken(encoder, values, text, f"{side} of the model")
    return values


def read_pairs(text: str | None, folder: ModelFolder, screen: Screen) -> Pairs:
    """Read held-out pairs: a file with arrays u and v, a folder of classes, or the data of a config.

    Of a config, the test pairs if its data have some, else all pairs. Without any of these, the test pairs of the data
    that the model was fitted to.

    Raises
    ------
    Misuse
        If there are none.
    DataFileError
        If they cannot be read, do not match, or are not what the model's encoders take.
    """
    path = None if text is None else Path(text)
    if path is None or path.suffix.lower() in (".yaml", ".yml", ".toml"):
        pairs = _test_pairs(path, folder, screen)
    elif path.is_dir():
        classes = class_names(folder) or class_folders(path)
        pairs = Pairs(*read_classes(path, classes, *_image_format(folder), screen.track))
    elif not path.exists():
        raise DataFileError(f"{path}: no such file or folder")
    elif path.suffix.lower() in (".npz", ".safetensors"):
        if not {"u", "v"} <= set(names_in(path)):
            raise Misuse(f"{path}: pairs must be arrays called u and v, got {', '.join(names_in(path)) or 'none'}")
        u, v = (read_array(ArrayFile(path=str(path), key=side)) for side in _SIDES)
        if len(u) != len(v):
            raise DataFileError(f"{path}: u and v must hold equally many rows, got {len(u)} and {len(v)}")
        pairs = Pairs(u, v)
    else:
        raise Misuse(f"{path}: pairs must be an .npz or .safetensors, a folder of classes, or a config")
    return Pairs(*(_taken(folder, side, x, text) for side, x in zip(_SIDES, pairs, strict=True)))


def _taken(folder: ModelFolder, side: Side, values: Tensor, text: str | None) -> Tensor:
    encoder = folder.encoder(side)
    values = as_input_of(type(encoder), values, side if text is None else f"{text}: {side}")
    require_taken(encoder, values, text or "the data of the fit", f"{side} of the pairs")
    return values


def _test_pairs(path: Path | None, folder: ModelFolder, screen: Screen) -> Pairs:
    config = folder.config if path is None else read_config(path)
    if config is None:
        raise Misuse("which pairs to look at is not said: give --pairs FILE")
    data: Data = config.data.build().load(screen.track)
    if data.test is not None:
        return data.test
    if path is None:
        raise Misuse("the data that the model was fitted to have no test pairs of their own: give --pairs FILE")
    return data.train


def class_names(folder: ModelFolder) -> list[str] | None:
    """Return the names of the classes of the images that a model was fitted to; None if it was to others."""
    return None if folder.config is None else folder.config.data.parameters.get("classes")


def _image_format(folder: ModelFolder) -> tuple[int | None, Channels]:
    """Return the size and the channels that images had when the model was fitted."""
    source = None if folder.config is None else folder.config.data.build()
    return (source.size, source.channels) if isinstance(source, Images) else (None, "grey")
