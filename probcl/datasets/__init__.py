"""Pairs to learn from: real digits, MNIST, laws whose conditionals are known exactly, and oceans."""

from probcl.datasets import ocean
from probcl.datasets.digits import load_digits
from probcl.datasets.gaussian import gaussian_pairs
from probcl.datasets.gaussian_process import ErrorFloors, GaussianProcessPairs
from probcl.datasets.idx import read_idx
from probcl.datasets.mnist import load_mnist
from probcl.datasets.pairs import Pairs, Split
from probcl.datasets.simulators import GaussianMixture, Simulator, TwoMoons

__all__ = [
    "ErrorFloors",
    "GaussianMixture",
    "GaussianProcessPairs",
    "Pairs",
    "Simulator",
    "Split",
    "TwoMoons",
    "gaussian_pairs",
    "load_digits",
    "load_mnist",
    "ocean",
    "read_idx",
]
