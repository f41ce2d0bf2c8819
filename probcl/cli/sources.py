"""Where pairs come from: files of arrays, a folder of images, or the data sets that come along."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from probcl import datasets
from probcl.cli.arrays import ArrayFile, read_array
from probcl.cli.images import Channels, class_folders, read_classes
from probcl.cli.schema import Kind, Range
from probcl.cli.screen import Track
from probcl.datasets import Pairs, Split
from probcl.errors import DataFileError
from probcl.gauge import Side

Fraction = Annotated[float, Range(0, 1, "[)")]
Seed = Annotated[int, Range(0)]


class Data(NamedTuple):
    """Pairs to train with, and those to validate and to test with where the source has them."""

    train: Pairs
    validation: Pairs | None = None
    test: Pairs | None = None


@dataclass(frozen=True)
class _Source:
    @property
    def brings_validation(self) -> bool:
        """Whether it has validation pairs of its own."""
        return False

    def found(self) -> dict[str, Any]:
        """Return the parameters that were left open and that the files tell."""
        return {}

    def origin(self, side: Side) -> str:
        """Return where the values of a modality come from, for messages."""
        return "data"


@dataclass(frozen=True, kw_only=True)
class Arrays(_Source):
    """Two files of arrays, row i of one belonging to row i of the other."""

    u: ArrayFile
    v: ArrayFile

    def load(self, track: Track) -> Data:
        """Load the pairs."""
        u, v = (read_array(file) for file in track([self.u, self.v], "reading arrays"))
        if len(u) != len(v):
            raise DataFileError(
                f"{self.u.path} and {self.v.path} must hold equally many rows, got {len(u)} and {len(v)}"
            )
        return Data(Pairs(u, v))

    def origin(self, side: Side) -> str:
        """Return the file of a modality."""
        return str(self.u if side == "u" else self.v)


@dataclass(frozen=True, kw_only=True)
class Images(_Source):
    """Images as u and the numbers of their classes as v, from one folder for each class."""

    path: str
    size: Annotated[int, Range(4)] | None = None
    channels: Channels = "grey"
    classes: list[str] | None = None

    def load(self, track: Track) -> Data:
        """Load the pairs."""
        classes = self.classes or class_folders(Path(self.path))
        return Data(Pairs(*read_classes(Path(self.path), classes, self.size, self.channels, track)))

    def found(self) -> dict[str, Any]:
        """Return the classes, which are the folders."""
        return {"classes": class_folders(Path(self.path))}

    def origin(self, side: Side) -> str:
        """Return the folder."""
        return self.path


@dataclass(frozen=True)
class _WithSplit(_Source):
    def _data(self, split: Split) -> Data:
        train, validation, test = split
        return Data(train, validation if validation.n_pairs else None, test if test.n_pairs else None)


@dataclass(frozen=True, kw_only=True)
class Digits(_WithSplit):
    """The 8 × 8 digits of scikit-learn; see `probcl.datasets.load_digits`."""

    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    seed: Seed = 0

    @property
    def brings_validation(self) -> bool:
        """Whether it has validation pairs of its own."""
        return self.validation_fraction > 0

    def load(self, track: Track) -> Data:
        """Load the pairs."""
        return self._data(datasets.load_digits(self.test_fraction, self.validation_fraction, self.seed))


@dataclass(frozen=True, kw_only=True)
class Mnist(_WithSplit):
    """MNIST, from the folder of its four files or downloaded; see `probcl.datasets.load_mnist`."""

    path: str | None = None
    download: bool = False
    validation_fraction: Fraction = 1 / 12
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.download == (self.path is not None):
            raise ValueError("needs either path, the folder of the four files, or download: true")

    @property
    def brings_validation(self) -> bool:
        """Whether it has validation pairs of its own."""
        return self.validation_fraction > 0

    def load(self, track: Track) -> Data:
        """Load the pairs."""
        options: dict[str, Any] = {"validation_fraction": self.validation_fraction, "seed": self.seed}
        (split,) = (
            datasets.load_mnist(path, download=self.download, **options) for path in track([self.path], "loading")
        )
        return self._data(split)


@dataclass(frozen=True, kw_only=True)
class _Simulated(_Source):
    n: Annotated[int, Range(2, 2**31)] = 10_000
    seed: Seed = 0
    simulator: ClassVar[type[datasets.Simulator]]

    def load(self, track: Track) -> Data:
        """Draw the pairs."""
        return Data(self.simulator().sample(self.n, self.seed))


class TwoMoons(_Simulated):
    """Parameters u and data v of two moons; see `probcl.datasets.TwoMoons`."""

    simulator = datasets.TwoMoons


class GaussianMixture(_Simulated):
    """Parameters u and data v of a Gaussian mixture; see `probcl.datasets.GaussianMixture`."""

    simulator = datasets.GaussianMixture


DATA = Kind(
    "data source",
    {
        "arrays": Arrays,
        "images": Images,
        "digits": Digits,
        "mnist": Mnist,
        "two-moons": TwoMoons,
        "gaussian-mixture": GaussianMixture,
    },
    unnamed="arrays",
)
