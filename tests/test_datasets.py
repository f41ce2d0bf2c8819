import copy
import gzip
import hashlib
import math
import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from sklearn import datasets as sklearn_datasets
from small_models import seeded
from torch import Tensor

from probcl.datasets import (
    GaussianProcessPairs,
    Pairs,
    Split,
    gaussian_pairs,
    load_digits,
    load_mnist,
    mnist,
    read_idx,
)
from probcl.errors import DataFileError
from probcl.gaussian import canonical_correlations, optimum

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

# THEORY §5, as printed there.
CORRELATIONS = [0.9674, 0.8299, 0.5889, 0.3920, 0.2656]
FLOORS_V_GIVEN_U = [2.196, 1.260, 0.571, 0.224, 0.071, 0]
FLOORS_U_GIVEN_V = [0.0441, 0.0075, 0.0020, 0.0006, 0.0002, 0]


def encode_idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, IDX_CODES[values.dtype.str[1:]], values.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + sizes + values.astype(values.dtype.newbyteorder(">")).tobytes()


def flip(content: bytes, bits: list[int]) -> bytes:
    damaged = bytearray(content)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def same_pairs(a: Pairs, b: Pairs) -> bool:
    return torch.equal(a.u, b.u) and torch.equal(a.v, b.v)


# Pairs


def test_pairs_are_a_tuple_that_unpacks():
    u, v = Pairs(torch.zeros(3, 2), torch.arange(3))
    assert u.shape == (3, 2)
    assert v.tolist() == [0, 1, 2]
    assert isinstance(Pairs(u, v), tuple)
    assert Pairs(u, v).n_pairs == 3


def test_taken_pairs_stay_matched():
    taken = Pairs(torch.arange(5.0), 10 * torch.arange(5)).take(torch.tensor([4, 0]))
    assert taken.u.tolist() == [4, 0]
    assert taken.v.tolist() == [40, 0]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pairs: pickle.loads(pickle.dumps(pairs))])
def test_pairs_survive_copying_and_pickling(duplicate):
    pairs = Pairs(torch.arange(4.0), torch.arange(4))
    assert type(duplicate(pairs)) is Pairs
    assert same_pairs(duplicate(pairs), pairs)


def test_pairs_refuse_what_does_not_match():
    with pytest.raises(ValueError, match="u and v must hold equally many rows, got 3 and 4"):
        Pairs(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="v must have a first dimension"):
        Pairs(torch.zeros(3), torch.tensor(1.0))
    with pytest.raises(TypeError):
        Pairs([1.0], torch.zeros(1))


# Digits


def test_digits_have_the_promised_shapes_types_and_range():
    split = load_digits()
    assert [part.n_pairs for part in split] == [1258, 180, 359]
    for u, v in split:
        assert u.shape == (len(v), 1, 8, 8)
        assert (u.dtype, v.dtype) == (torch.float32, torch.int64)
        assert (u.min(), u.max()) == (0, 1)
        assert v.unique().tolist() == list(range(10))


def test_digits_parts_are_disjoint_and_together_the_whole_set():
    source = sklearn_datasets.load_digits()
    expected = sorted((row.tobytes(), label) for row, label in zip(source.data, source.target, strict=True))
    assert len(set(expected)) == len(expected)
    got = [
        ((image.double().numpy().ravel() * 16).tobytes(), int(label))
        for part in load_digits(test_fraction=0.3, validation_fraction=0.2, seed=4)
        for image, label in zip(*part, strict=True)
    ]
    assert sorted(got) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_digits_parts_have_every_label_in_proportion(seed):
    totals = np.bincount(sklearn_datasets.load_digits().target)
    for part, fraction in zip(load_digits(0.25, 0.15, seed), [0.6, 0.15, 0.25], strict=True):
        np.testing.assert_allclose(part.v.bincount(), fraction * totals, atol=1.5)


def test_digits_split_depends_on_the_seed_alone():
    np.random.seed(1)  # noqa: NPY002 - the legacy generator is what must not matter
    first = load_digits(seed=3)
    np.random.seed(2)  # noqa: NPY002
    for part, again, other in zip(first, load_digits(seed=3), load_digits(seed=5), strict=True):
        assert same_pairs(part, again)
        assert not torch.equal(part.u, other.u)


def test_digits_test_set_does_not_depend_on_the_validation_set():
    without = load_digits(validation_fraction=0.0)
    assert without.validation.u.shape == (0, 1, 8, 8)
    assert same_pairs(without.test, load_digits(validation_fraction=0.4).test)


@pytest.mark.parametrize("name", ["test_fraction", "validation_fraction"])
@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1e-5, math.nan])
def test_digits_refuse_fractions_that_make_no_sense(name, fraction):
    with pytest.raises(ValueError, match=f"{name} must be 0, or in"):
        load_digits(**{name: fraction})


@pytest.mark.parametrize("fractions", [(0.6, 0.6), (0.002, 0.1), (0.5, 0.499)])
def test_digits_refuse_a_split_that_leaves_a_part_without_some_label(fractions):
    with pytest.raises(ValueError, match="with every label in both parts"):
        load_digits(*fractions)


# IDX files


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "idx"


def test_idx_values_are_big_endian(tmp_path):
    (tmp_path / "x").write_bytes(bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x01, 0x02, 0xFF, 0xFE]))
    values = read_idx(tmp_path / "x")
    assert values.tolist() == [[258, -2]]
    assert values.dtype == np.dtype("int16")


@pytest.mark.parametrize("kind", sorted(IDX_CODES))
@settings(derandomize=True, max_examples=40, deadline=None)
@given(data=st.data(), gzipped=st.booleans())
def test_idx_reading_inverts_writing(scratch, kind, data, gzipped):
    shape = st_numpy.array_shapes(max_dims=4, min_side=0, max_side=4)
    values = data.draw(st_numpy.arrays(kind, shape, fill=st.nothing()))
    content = encode_idx(values)
    scratch.write_bytes(gzip.compress(content) if gzipped else content)
    read = read_idx(scratch)
    assert (read.dtype, read.shape) == (values.dtype, values.shape)
    assert read.tobytes() == values.tobytes()
    assert read.flags.writeable


IDX = encode_idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
GZ = gzip.compress(IDX, mtime=0)
BAD_FILES = {
    "empty": (b"", "truncated IDX header: expected at least 4 bytes, got 0"),
    "magic cut": (IDX[:3], "truncated IDX header: expected at least 4 bytes, got 3"),
    "sizes cut": (IDX[:15], "truncated IDX header: expected 16 bytes for 3 dimensions, got 15"),
    "body cut": (IDX[:-1], "truncated IDX body: expected 24 bytes .* got 23"),
    "trailing": (IDX + b"\0", "trailing bytes after the IDX body: expected 24 bytes .* got 25"),
    "not zero": (b"\1" + IDX[1:], "wrong IDX magic: expected 00 00, .* got 01 00 08 03"),
    "unknown type": (b"\0\0\x0a" + IDX[3:], "wrong IDX magic: .* got 00 00 0a 03"),
    "no rank": (b"\0\0\x08\0*", "wrong IDX magic: .* got 00 00 08 00"),
    "rank beyond NumPy's": (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"*", "255 dimensions cannot be held in an array"),
    "too large though empty": (
        b"\0\0\x08\3" + b"\0\0\0\0" + b"\xff" * 8,
        "3 dimensions cannot be held in an array",
    ),
    "image of another kind": (b"\x89PNG\r\n\x1a\n", "wrong IDX magic"),
    "gzip cut": (GZ[:-9], "damaged gzip"),
    "gzip of too little": (gzip.compress(IDX[:-1]), "truncated IDX body"),
    "gzip checksum": (flip(GZ, [8 * len(GZ) - 40]), "damaged gzip.*CRC"),
    "gzip and more": (GZ + b"more", "damaged gzip"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_idx_files_are_refused_with_path_and_reason(tmp_path, content, message):
    path = tmp_path / "some-file"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=f"some-file: {message}"):
        read_idx(path)


def test_missing_and_unreadable_idx_files_are_refused(tmp_path):
    with pytest.raises(DataFileError, match="nowhere: expected an IDX file, got nothing: no such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataFileError, match="expected a readable IDX file, got"):
        read_idx(tmp_path)


fuzz = settings(derandomize=True, max_examples=300, deadline=None)


@fuzz
@given(length=st.integers(0, len(IDX) - 1), tail=st.binary(max_size=3))
def test_a_plain_idx_file_of_another_length_is_never_read(scratch, length, tail):
    scratch.write_bytes(IDX[:length])
    with pytest.raises(DataFileError):
        read_idx(scratch)
    scratch.write_bytes(IDX + tail + b"!")
    with pytest.raises(DataFileError):
        read_idx(scratch)


@fuzz
@given(bits=st.lists(st.integers(0, 8 * len(IDX) - 1), min_size=1, max_size=8, unique=True))
def test_a_plain_idx_file_with_flipped_bits_is_refused_or_read_as_it_says(scratch, bits):
    damaged = flip(IDX, bits)
    scratch.write_bytes(damaged)
    try:
        values = read_idx(scratch)
    except DataFileError:
        return
    assert encode_idx(values) == damaged


@fuzz
@given(length=st.integers(0, len(GZ) - 1))
def test_a_truncated_gzipped_idx_file_is_never_read(scratch, length):
    scratch.write_bytes(GZ[:length])
    with pytest.raises(DataFileError):
        read_idx(scratch)


@fuzz
@given(bits=st.lists(st.integers(0, 8 * len(GZ) - 1), min_size=1, max_size=4, unique=True))
def test_a_gzipped_idx_file_with_flipped_bits_is_refused_or_read_right(scratch, bits):
    scratch.write_bytes(flip(GZ, bits))
    try:
        values = read_idx(scratch)
    except DataFileError:
        return
    assert encode_idx(values) == IDX


# MNIST from files


def made_up_mnist(n_train: int = 120, n_test: int = 30) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    files = {}
    for images, labels, n in [(IMAGES, LABELS, n_train), (TEST_IMAGES, TEST_LABELS, n_test)]:
        files[images] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        files[labels] = rng.permutation(np.arange(n) % 10).astype(np.uint8)
    return files


def write_mnist(root: Path, files: dict[str, np.ndarray], gzipped: bool = True) -> Path:
    root.mkdir(exist_ok=True)
    for name, values in files.items():
        content = encode_idx(values)
        path = root / (f"{name}.gz" if gzipped else name)
        path.write_bytes(gzip.compress(content, mtime=0) if gzipped else content)
    return root


def pairs_of(images: np.ndarray, labels: np.ndarray) -> Pairs:
    return Pairs(torch.from_numpy(images / np.float32(255))[:, None], torch.from_numpy(labels).long())


@pytest.mark.parametrize("gzipped", [True, False])
def test_mnist_from_a_directory_is_what_its_files_hold(tmp_path, gzipped):
    files = made_up_mnist()
    split = load_mnist(write_mnist(tmp_path, files, gzipped), validation_fraction=0.0)
    assert same_pairs(split.train, pairs_of(files[IMAGES], files[LABELS]))
    assert same_pairs(split.test, pairs_of(files[TEST_IMAGES], files[TEST_LABELS]))
    assert split.validation.u.shape == (0, 1, 28, 28)
    assert (split.train.u.min(), split.train.u.max()) == (0, 1)
    assert (split.train.u.dtype, split.train.v.dtype) == (torch.float32, torch.int64)


def test_mnist_validation_is_carved_off_the_training_files_by_the_seed(tmp_path):
    files = made_up_mnist()
    root = write_mnist(tmp_path, files)
    split, again, other = (load_mnist(root, validation_fraction=0.25, seed=seed) for seed in (1, 1, 2))
    official = pairs_of(files[IMAGES], files[LABELS])
    assert split.validation.v.bincount().tolist() == [3] * 10
    rows = [(image.numpy().tobytes(), int(label)) for part in split[:2] for image, label in zip(*part, strict=True)]
    assert sorted(rows) == sorted((i.numpy().tobytes(), int(y)) for i, y in zip(*official, strict=True))
    assert all(same_pairs(a, b) for a, b in zip(split, again, strict=True))
    assert not torch.equal(split.validation.u, other.validation.u)
    assert same_pairs(split.test, other.test)


def test_mnist_prefers_the_gzipped_file_which_has_a_checksum(tmp_path):
    files = made_up_mnist()
    root = write_mnist(tmp_path, files)
    (root / LABELS).write_bytes(b"half-unpacked")
    assert load_mnist(root).train.n_pairs == 110


def changed(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return made_up_mnist() | {name: values}


BAD_MNIST = {
    "one label short": (
        changed(LABELS, np.zeros(119, np.uint8)),
        f"{LABELS}.gz: expected 120 labels, as many as the images of {IMAGES}.gz, got 119",
    ),
    "label 10": (changed(LABELS, np.full(120, 10, np.uint8)), f"{LABELS}.gz: expected labels in 0..9, got 10"),
    "27 columns": (
        changed(TEST_IMAGES, np.zeros((30, 28, 27), np.uint8)),
        rf"{TEST_IMAGES}.gz: expected uint8 of shape \('n', 28, 28\) .* got uint8 of shape \(30, 28, 27\)",
    ),
    "flat images": (changed(IMAGES, np.zeros((120, 784), np.uint8)), f"{IMAGES}.gz: expected uint8 of shape"),
    "signed": (changed(IMAGES, np.zeros((120, 28, 28), np.int8)), "expected uint8 .* got int8"),
    "no images": (changed(IMAGES, np.zeros((0, 28, 28), np.uint8)), "with n ≥ 1"),
    "swapped": (
        made_up_mnist() | {IMAGES: made_up_mnist()[LABELS]},
        f"{IMAGES}.gz: expected uint8 of shape .* got uint8 of shape \\(120,\\)",
    ),
}


@pytest.mark.parametrize(("files", "message"), BAD_MNIST.values(), ids=BAD_MNIST.keys())
def test_mnist_files_that_contradict_each_other_or_mnist_are_refused(tmp_path, files, message):
    with pytest.raises(DataFileError, match=message):
        load_mnist(write_mnist(tmp_path, files))


@pytest.mark.parametrize("name", [IMAGES, LABELS, TEST_IMAGES, TEST_LABELS])
def test_mnist_names_the_file_that_is_missing_or_damaged(tmp_path, name):
    path = write_mnist(tmp_path, made_up_mnist()) / f"{name}.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFileError, match=f"{name}.gz: damaged gzip"):
        load_mnist(tmp_path)
    path.unlink()
    with pytest.raises(DataFileError, match=f"expected a file {name}.gz, or the same without .gz, found neither"):
        load_mnist(tmp_path)


@pytest.mark.parametrize("arguments", [{}, {"root": "somewhere", "download": True}])
def test_mnist_needs_a_directory_or_a_download_and_not_both(arguments):
    with pytest.raises(ValueError, match=r"needs either root.* or download=True"):
        load_mnist(**arguments)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.001, 0.02])
def test_mnist_refuses_validation_fractions_that_make_no_sense(tmp_path, fraction):
    with pytest.raises(ValueError, match=r"validation_fraction|with every label in both parts"):
        load_mnist(write_mnist(tmp_path, made_up_mnist()), validation_fraction=fraction)


# MNIST by download, from a server on this machine


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[tuple[Path, ThreadingHTTPServer]]:
    """A directory with four made-up files, a server that offers it, and their checksums as the official ones."""
    root = write_mnist(tmp_path / "served", made_up_mnist())
    for name in mnist.MNIST_MD5:
        monkeypatch.setitem(mnist.MNIST_MD5, name, hashlib.md5((root / name).read_bytes()).hexdigest())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=root))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield root, server
    server.shutdown()
    server.server_close()


@pytest.fixture
def download(served, tmp_path):
    _, server = served
    return partial(
        load_mnist,
        download=True,
        base_url=f"http://127.0.0.1:{server.server_port}",
        cache=tmp_path / "cache",
    )


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def test_downloaded_mnist_is_the_served_one(served, download, tmp_path):
    for part, expected in zip(download(), load_mnist(served[0]), strict=True):
        assert same_pairs(part, expected)
    assert files_in(tmp_path / "cache") == sorted(mnist.MNIST_MD5)


def test_downloaded_mnist_needs_no_network_the_second_time(served, download):
    first = download()
    for path in served[0].iterdir():
        path.unlink()
    assert all(same_pairs(a, b) for a, b in zip(first, download(), strict=True))


def test_a_file_damaged_in_the_cache_is_fetched_again(served, download, tmp_path):
    first = download()
    (tmp_path / "cache" / f"{TEST_LABELS}.gz").write_bytes(b"damaged")
    assert same_pairs(download().test, first.test)


@pytest.mark.parametrize("damage", [lambda content: flip(content, [100]), lambda content: content[:-1]])
def test_a_download_with_a_wrong_checksum_is_refused_and_not_kept(served, download, tmp_path, damage):
    path = served[0] / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    got = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(DataFileError, match=rf"{IMAGES}.gz: .*expected md5:\w+ but got {got}"):
        download()
    assert files_in(tmp_path / "cache") == []


def test_a_download_that_fails_says_what_and_from_where(served, download):
    _, server = served
    (served[0] / f"{TEST_IMAGES}.gz").unlink()
    with pytest.raises(DataFileError, match=f"{TEST_IMAGES}.gz: could not be had from http://127.0.0.1:.*404"):
        download()
    server.shutdown()
    server.server_close()
    with pytest.raises(DataFileError, match="given as root"):
        download()


def test_downloads_are_kept_in_the_users_cache_by_default(download, tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "user-cache" / project)
    download(cache=None)
    assert files_in(tmp_path / "user-cache" / "probcl" / "mnist") == sorted(mnist.MNIST_MD5)


# The real MNIST


@pytest.fixture(scope="module")
def real_mnist() -> Path:
    if "PROBCL_DATA" not in os.environ:
        pytest.skip("set PROBCL_DATA to a folder with mnist/ in it to test on the real MNIST files")
    return Path(os.environ["PROBCL_DATA"]) / "mnist"


def test_the_real_mnist_has_its_published_counts_and_grey_levels(real_mnist):
    train, validation, test = load_mnist(real_mnist)
    assert (train.n_pairs, validation.n_pairs, test.n_pairs) == (55_000, 5_000, 10_000)
    training_counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (train.v.bincount() + validation.v.bincount()).tolist() == training_counts
    assert test.v.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.v[:5].tolist() == [7, 2, 1, 0, 4]
    pixels = torch.cat([train.u, validation.u]).double()
    assert (round(float(pixels.mean()), 4), round(float(pixels.std()), 4)) == (0.1307, 0.3081)


@pytest.mark.parametrize("name", [LABELS, TEST_IMAGES, TEST_LABELS])
def test_the_real_files_have_the_checksums_that_downloads_are_held_to(real_mnist, name):
    path = real_mnist / f"{name}.gz"
    assert hashlib.md5(path.read_bytes()).hexdigest() == mnist.MNIST_MD5[path.name]


# Gaussian pairs


def random_covariance(n: int, seed: int = 0) -> Tensor:
    factor = torch.randn(n, 2 * n, generator=seeded(seed), dtype=torch.float64)
    return factor @ factor.mT / n


def test_gaussian_pairs_have_the_covariance_asked_for():
    C, n = random_covariance(5), 200_000
    u, v = gaussian_pairs(C, 2, n, dtype=torch.float64)
    assert (u.shape, v.shape) == ((n, 2), (n, 3))
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(C), torch.cat([u, v], 1).mT, upper=False)
    standard_error = n**-0.5
    assert white.mean(1).abs().max() < 4 * standard_error
    assert (white @ white.mT / n - torch.eye(5)).abs().max() < 4 * 2**0.5 * standard_error
    assert float((white**4).mean()) == pytest.approx(3, abs=4 * (96 / (5 * n)) ** 0.5)


def test_gaussian_pairs_of_two_types_differ_by_rounding_only():
    C = random_covariance(4)
    single, double = gaussian_pairs(C, 1, 50, seed=7), gaussian_pairs(C, 1, 50, seed=7, dtype=torch.float64)
    assert single.u.dtype == single.v.dtype == torch.float32
    assert torch.equal(single.u, double.u.float())
    assert torch.equal(single.v, double.v.float())


def test_gaussian_pairs_depend_on_the_seed_and_leave_the_global_generator_alone():
    C, state = random_covariance(4), torch.get_rng_state()
    first = gaussian_pairs(C, 2, 10, seed=1)
    torch.manual_seed(123)
    assert same_pairs(first, gaussian_pairs(C, 2, 10, seed=1))
    assert not torch.equal(first.u, gaussian_pairs(C, 2, 10, seed=2).u)
    torch.set_rng_state(state)
    gaussian_pairs(C, 2, 10)
    assert torch.equal(torch.get_rng_state(), state)


def test_gaussian_pairs_take_nearly_deterministic_laws():
    C = torch.tensor([[1.0, 1 - 1e-9], [1 - 1e-9, 1.0]], dtype=torch.float64)
    u, v = gaussian_pairs(C, 1, 1000, dtype=torch.float64)
    assert float((u - v).std()) == pytest.approx(2e-9**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"C": torch.tensor([[1.0, 2.0], [2.0, 1.0]])}, ValueError),
        ({"C": torch.tensor([[1.0, 1.0], [1.0, 1.0]])}, ValueError),
        ({"C": torch.tensor([[1.0, 0.5], [0.4, 1.0]])}, ValueError),
        ({"C": torch.tensor([[1.0, math.nan], [math.nan, 1.0]])}, ValueError),
        ({"C": torch.eye(2, dtype=torch.int64)}, TypeError),
        ({"C": torch.ones(2, 3)}, (TypeError, ValueError)),
        ({"n_u": 0}, ValueError),
        ({"n_u": 2}, ValueError),
        ({"n": 0}, ValueError),
        ({"n": 2.5}, TypeError),
        ({"seed": -1}, ValueError),
        ({"dtype": torch.int32}, TypeError),
    ],
)
def test_gaussian_pairs_refuse_bad_arguments(change, kind):
    arguments = {"C": torch.eye(2), "n_u": 1, "n": 5} | change
    with pytest.raises(kind):
        gaussian_pairs(**arguments)


# The Gaussian process


@pytest.fixture(scope="module")
def process() -> GaussianProcessPairs:
    return GaussianProcessPairs()


def field_covariance(x: Tensor, y: Tensor, shift: float) -> Tensor:
    """Green's function of (−Δ + s)², minus the s-derivative of that of −Δ + s, less its constant mode."""
    s = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
    low, high = torch.minimum(x, y), torch.maximum(x, y)

    def green(s: Tensor) -> Tensor:
        return torch.cosh(s.sqrt() * low) * torch.cosh(s.sqrt() * (1 - high)) / (s.sqrt() * torch.sinh(s.sqrt()))

    return -torch.autograd.functional.jvp(green, s, torch.ones_like(s))[1].detach() - 1 / shift**2


def test_gaussian_process_covariance_of_u_is_the_greens_function(process):
    x = process.points
    expected = field_covariance(x[:, None], x[None, :], 9.0) + 0.05**2 * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(process.covariance()[:12, :12], expected, atol=1e-11, rtol=0)


def test_gaussian_process_covariances_with_v_are_projections_of_the_greens_function(process):
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    weights = torch.full_like(grid, 1 / 2000)
    weights[[0, -1]] /= 2
    j = torch.arange(1, 6, dtype=torch.float64)
    project = weights[:, None] * 2**0.5 * torch.cos(torch.pi * grid[:, None] * j) * (j**2 * torch.pi**2 + 9)
    C = process.covariance()
    C_uv = field_covariance(process.points[:, None], grid[None, :], 9.0) @ project
    C_vv = project.mT @ field_covariance(grid[:, None], grid[None, :], 9.0) @ project
    torch.testing.assert_close(C[:12, 12:], C_uv, atol=1e-6, rtol=0)
    torch.testing.assert_close(C[12:, 12:], C_vv, atol=1e-4, rtol=0)


def test_gaussian_process_reproduces_the_printed_correlations_and_floors(process):
    correlations = canonical_correlations(process.covariance(), 12).correlations
    np.testing.assert_allclose(correlations, CORRELATIONS, atol=0.5e-4)
    floors = process.error_floors()
    np.testing.assert_allclose(floors.v_given_u, FLOORS_V_GIVEN_U, atol=0.5e-3)
    np.testing.assert_allclose(floors.u_given_v, FLOORS_U_GIVEN_V, atol=0.5e-4)


@pytest.mark.parametrize("n_points", [12, 3])
def test_floors_are_tail_sums_over_canonical_pairs(n_points):
    process = GaussianProcessPairs(n_u=n_points)
    C = process.covariance().numpy()
    root = np.linalg.cholesky(C[:n_points, :n_points])
    U, sigma, _ = np.linalg.svd(np.linalg.solve(root, C[:n_points, n_points:]), full_matrices=False)
    lost_u, lost_v = ((root @ U * sigma) ** 2).sum(0), sigma**2
    floors = process.error_floors()
    for floor, lost in [(floors.u_given_v, lost_u), (floors.v_given_u, lost_v)]:
        expected = [lost[rank:].sum() for rank in range(len(sigma) + 1)]
        np.testing.assert_allclose(floor, expected, rtol=1e-9, atol=1e-15)


def test_no_map_of_the_same_rank_is_below_the_floors_by_more_than_rounding_of_the_table(process):
    floors = process.error_floors()
    squares_u = torch.linalg.svdvals(process.mean_map_u_given_v) ** 2
    root_u = torch.linalg.cholesky(process.covariance()[:12, :12])
    squares_v = torch.linalg.svdvals(process.mean_map_v_given_u @ root_u) ** 2
    for rank in range(5):
        best_u, best_v = float(squares_u[rank:].sum()), float(squares_v[rank:].sum())
        assert best_u * (1 - 1e-12) <= floors.u_given_v[rank] <= best_u * (1 + 2e-6)
        assert floors.v_given_u[rank] == pytest.approx(best_v, rel=1e-9)


def test_conditional_mean_maps_are_what_regression_on_samples_finds(process):
    u, v = process.sample(100_000, seed=1, dtype=torch.float64)
    for target, given_, M in [(u, v, process.mean_map_u_given_v), (v, u, process.mean_map_v_given_u)]:
        fitted = torch.linalg.lstsq(given_, target).solution.mT
        residual_variance = (target - given_ @ M.mT).var(0)
        standard_errors = torch.outer(residual_variance, torch.linalg.inv(given_.mT @ given_).diagonal()).sqrt()
        assert float(((fitted - M) / standard_errors).abs().max()) < 4.5


def test_floors_are_the_errors_of_truncated_maps_on_samples(process):
    u, v = process.sample(100_000, seed=2, dtype=torch.float64)
    floors = process.error_floors()
    for rank in range(5):
        law = optimum(process.covariance(), 12, rank).law
        u_error = (v @ (law.mean_map_u_given_v - process.mean_map_u_given_v).mT).square().sum(1).mean()
        v_error = (u @ (law.mean_map_v_given_u - process.mean_map_v_given_u).mT).square().sum(1).mean()
        assert float(u_error) == pytest.approx(float(floors.u_given_v[rank]), rel=0.02)
        assert float(v_error) == pytest.approx(float(floors.v_given_u[rank]), rel=0.02)


def test_gaussian_process_samples_are_float32_pairs_fixed_by_the_seed(process):
    pairs = process.sample(20, seed=5)
    assert (pairs.u.shape, pairs.v.shape) == ((20, 12), (20, 5))
    assert pairs.u.dtype == torch.float32
    assert same_pairs(pairs, process.sample(20, seed=5))
    assert not torch.equal(pairs.u, process.sample(20, seed=6).u)


@pytest.mark.parametrize(
    "change", [{"n_u": 1}, {"n_v": 0}, {"n_modes": 4}, {"noise": 0.0}, {"noise": math.nan}, {"shift": -1.0}]
)
def test_gaussian_process_refuses_bad_parameters(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        GaussianProcessPairs(**change)


def test_a_split_names_its_parts():
    parts = [Pairs(torch.zeros(n), torch.zeros(n)) for n in (3, 2, 1)]
    assert [part.n_pairs for part in (Split(*parts).train, Split(*parts).validation, Split(*parts).test)] == [3, 2, 1]
