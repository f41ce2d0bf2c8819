"""What every loader returns: matched pairs, and their split into training, validation and test sets."""

from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from probcl.checks import describe, require_count, require_tensor


class _Pairs(NamedTuple):
    u: Shaped[Tensor, "n *event_u"]
    v: Shaped[Tensor, "n *event_v"]


class Pairs(_Pairs):
    """Matched pairs: row i of `u` belongs to row i of `v`.

    A plain tuple in every other respect, ``u, v = pairs``, so that its ``len`` is two.

    Parameters
    ----------
    u : Tensor, shape (n, ...)
    v : Tensor, shape (n, ...)

    Raises
    ------
    TypeError
        If `u` or `v` is not a tensor.
    ValueError
        If either has no leading dimension, or their leading dimensions differ.

    Examples
    --------
    >>> import torch
    >>> from probcl.datasets import Pairs
    >>> pairs = Pairs(torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 1]))
    >>> u, v = pairs
    >>> pairs.n_pairs, pairs.take(torch.tensor([2, 0])).v
    (3, tensor([1, 0]))
    """

    __slots__ = ()

    def __new__(cls, u: Tensor, v: Tensor) -> "Pairs":
        """Check that the rows match."""
        for name, value in (("u", u), ("v", v)):
            if require_tensor(name, value).ndim == 0:
                raise ValueError(f"{name} must have a first dimension for the pairs, got {describe(value)}")
        if len(u) != len(v):
            raise ValueError(f"u and v must hold equally many rows, got {len(u)} and {len(v)}")
        return super().__new__(cls, u, v)

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return len(self.u)

    def take(self, rows: Int[Tensor, " k"]) -> "Pairs":
        """Copy the pairs at these positions, in this order."""
        return Pairs(self.u[rows], self.v[rows])


class Split(NamedTuple):
    """Disjoint pairs to learn from, to choose with, and to judge by.

    Examples
    --------
    >>> import probcl as pcl
    >>> train, validation, test = pcl.datasets.load_digits()
    >>> [part.n_pairs for part in (train, validation, test)]
    [1258, 180, 359]
    """

    train: Pairs
    validation: Pairs
    test: Pairs


def part_size(name: str, fraction: float, total: int) -> int:
    """Return how many of `total` pairs the argument `name` asks for; raise `ValueError` if that makes no sense."""
    size = round(fraction * total) if 0 <= fraction < 1 else 0
    if size == 0 and fraction != 0:
        raise ValueError(f"{name} must be 0, or in (0, 1) and enough for one of {total} pairs, got {fraction}")
    return size


def hold_out(
    rows: Int[Tensor, " n"], labels: Int[Tensor, " n"], count: int, seed: int
) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held"]]:
    """Set `count` of the rows aside at random, every label in proportion; both parts keep their order.

    Raises
    ------
    ValueError
        If `rows` cannot be divided so that each part has every label.
    """
    from sklearn.model_selection import train_test_split

    require_count("seed", seed, minimum=0)
    if count == 0:
        return rows, rows[:0]
    try:
        kept, held = train_test_split(range(len(rows)), test_size=count, stratify=labels, random_state=seed)
    except ValueError as error:
        message = f"cannot hold out {count} of {len(rows)} pairs with every label in both parts: {error}"
        raise ValueError(message) from error
    return rows[torch.tensor(sorted(kept))], rows[torch.tensor(sorted(held))]
