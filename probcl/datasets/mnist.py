"""MNIST, from a directory of its four IDX files or by a download whose checksums are verified."""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped

from probcl.datasets.idx import read_idx
from probcl.datasets.pairs import Pairs, Split, hold_out, part_size
from probcl.errors import DataFileError

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_SIDE = 28
_CLASSES = 10
_WHITEST = 255.0


def load_mnist(
    root: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    validation_fraction: float = 1 / 12,
    seed: int = 0,
    base_url: str = MNIST_URL,
    cache: str | os.PathLike[str] | None = None,
) -> Split:
    """Load the MNIST images paired with their labels: 55,000 to train, 5,000 to validate, 10,000 to test.

    Parameters
    ----------
    root : str or path-like, optional
        Directory of the four IDX files, gzipped or not, under their official names. They are taken as they
        are: no checksum is asked of them, and nothing is downloaded.
    download : bool
        Instead of `root`: fetch the four official files, once, and refuse any whose MD5 is not the official.
    validation_fraction : float
        Part of the official 60,000 to set aside, drawn with every label in proportion; 0 for an empty
        validation set. The test set is always the official 10,000.
    seed : int
        Determines which pairs are set aside.
    base_url : str
        Where `download` finds the files.
    cache : str or path-like, optional
        Where `download` keeps them; by default ``mnist`` in pooch's cache directory for probcl.

    Returns
    -------
    Split
        In each part `u` holds the images, float32 of shape (n, 1, 28, 28) in [0, 1], and `v` the labels,
        int64 of shape (n,) in 0..9.

    Raises
    ------
    ValueError
        If not exactly one of `root` and `download` is given, or `validation_fraction` lies outside [0, 1) or
        leaves a part without some label.
    DataFileError
        If a file is missing, cannot be fetched, fails its checksum, is damaged, or does not hold 28 × 28
        images or as many labels in 0..9.

    References
    ----------
    Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", 1998.

    Examples
    --------
    >>> import probcl as pcl
    >>> pcl.datasets.load_mnist(download=True).train.u.shape  # doctest: +SKIP
    torch.Size([55000, 1, 28, 28])
    >>> try:
    ...     pcl.datasets.load_mnist("no/such/folder")
    ... except pcl.DataFileError:
    ...     print("give a folder of the four IDX files, or download=True")
    give a folder of the four IDX files, or download=True
    """
    if download == (root is not None):
        raise ValueError(
            "load_mnist needs either root, a directory of the four IDX files, or download=True, "
            f"got root={root!r} and download={download}"
        )
    paths = _find(Path(root)) if root is not None else _fetch(base_url, cache)
    train_images, train_labels, test_images, test_labels = paths
    official_train, test = _read_pairs(train_images, train_labels), _read_pairs(test_images, test_labels)

    total = official_train.n_pairs
    validation_size = part_size("validation_fraction", validation_fraction, total)
    train, validation = hold_out(torch.arange(total), official_train.v, validation_size, seed)
    return Split(official_train.take(train), official_train.take(validation), test)


def _find(root: Path) -> list[Path]:
    """Find the four files in `root`, gzipped or not; of one there in both forms take the gzip, which has a CRC."""
    paths = []
    for name in MNIST_MD5:
        candidates = [root / name, root / name.removesuffix(".gz")]
        found = [path for path in candidates if path.exists()]
        if not found:
            raise DataFileError(f"{root}: expected a file {name}, or the same without .gz, found neither")
        paths.append(found[0])
    return paths


def _fetch(base_url: str, cache: str | os.PathLike[str] | None) -> list[Path]:
    """Download into the cache those of the four files that are not there already with the right checksum."""
    import pooch

    directory = Path(cache) if cache is not None else Path(pooch.os_cache("probcl")) / "mnist"
    store = pooch.create(
        path=directory,
        base_url=base_url.rstrip("/") + "/",
        registry={name: f"md5:{md5}" for name, md5 in MNIST_MD5.items()},
    )
    paths = []
    for name in MNIST_MD5:
        try:
            paths.append(Path(store.fetch(name)))
        except (ValueError, OSError) as error:  # requests' errors are OSErrors
            raise DataFileError(
                f"{directory / name}: could not be had from {store.get_url(name)}: {error} "
                "(a directory with your own copy can be given as root)"
            ) from error
    return paths


def _read_pairs(images_path: Path, labels_path: Path) -> Pairs:
    images = _require_bytes(images_path, read_idx(images_path), (_SIDE, _SIDE))
    labels = _require_bytes(labels_path, read_idx(labels_path), ())
    if len(images) != len(labels):
        raise DataFileError(
            f"{labels_path}: expected {len(images)} labels, as many as the images of {images_path.name}, "
            f"got {len(labels)}"
        )
    if labels.max() >= _CLASSES:
        raise DataFileError(f"{labels_path}: expected labels in 0..{_CLASSES - 1}, got {labels.max()}")
    scaled = torch.from_numpy(images).to(torch.float32).div_(_WHITEST).unsqueeze(1)
    return Pairs(scaled, torch.from_numpy(labels).to(torch.int64))


def _require_bytes(path: Path, values: Shaped[np.ndarray, "..."], row: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
    """Return `values` if they are unsigned bytes, one or more rows of shape `row`."""
    if values.dtype != np.uint8 or len(values) == 0 or values.shape[1:] != row:
        raise DataFileError(
            f"{path}: expected uint8 of shape {('n', *row)} with n ≥ 1, got {values.dtype} of shape {values.shape}"
        )
    return values
