"""Pairs to learn from: real digits, MNIST, and Gaussian laws whose conditionals are known exactly."""

from probcl.datasets.digits import load_digits
from probcl.datasets.gaussian import gaussian_pairs
from probcl.datasets.gaussian_process import ErrorFloors, GaussianProcessPairs
from probcl.datasets.idx import read_idx
from probcl.datasets.mnist import load_mnist
from probcl.datasets.pairs import Pairs, Split

__all__ = [
    "ErrorFloors",
    "GaussianProcessPairs",
    "Pairs",
    "Split",
    "gaussian_pairs",
    "load_digits",
    "load_mnist",
    "read_idx",
]
