"""A data bank as a prior."""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probcl.checks import describe, require_finite, require_tensor


class EmpiricalPrior:
    """A data bank as a prior: Σ_i w_i δ(value_i), with equal weights by default.

    Parameters
    ----------
    values
        The bank, shape (N, *event_shape): real arrays, or integer labels of shape (N,).
    weights
        Non-negative weights, shape (N,), normalised here.

    Raises
    ------
    TypeError
        If `values` is not a tensor.
    ValueError
        If the bank is empty or not finite, or the weights are negative, not finite, all zero, or of another length.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> bank = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]])
    >>> pcl.EmpiricalPrior(bank).distinct().log_weights.exp()
    tensor([0.6667, 0.3333], dtype=torch.float64)
    """

    def __init__(self, values: Shaped[Tensor, "N *event"], weights: Float[Tensor, " N"] | None = None) -> None:
        self.values = require_finite("values", require_tensor("values", values))
        if values.ndim == 0 or values.numel() == 0:
            raise ValueError(f"values must have at least one atom along its first axis, got {describe(values)}")
        self.log_weights = _uniform(values) if weights is None else _normalised_log(weights, len(values))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one atom."""
        return self.values.shape[1:]

    def __repr__(self) -> str:
        return f"EmpiricalPrior({len(self)} atoms of shape {tuple(self.event_shape)})"

    @cached_property
    def _index(self) -> "_AtomIndex":
        return _AtomIndex(self.values)

    @property
    def group(self) -> Int[Tensor, " N"]:
        """Number of the first atom with the same value, for each atom."""
        return self._index.group

    def distinct(self) -> "EmpiricalPrior":
        """Return the same law with equal atoms made one, their weights added up."""
        first, place = self.group.unique(return_inverse=True)
        weights = torch.zeros(len(first), dtype=torch.float64, device=place.device)
        return EmpiricalPrior(self.values[first], weights.index_add(0, place, self.log_weights.double().exp()))

    def find(self, values: Shaped[Tensor, "*shape"]) -> Int[Tensor, "*batch"]:
        """Position in the bank of the first atom equal to each value, −1 where there is none.

        Parameters
        ----------
        values
            Shape (*batch, *event_shape).
        """
        batch = values.shape[: values.ndim - len(self.event_shape)]
        if values.shape[len(batch) :] != self.event_shape:
            raise ValueError(
                f"values must end in the bank's event shape {tuple(self.event_shape)}, got {describe(values)}"
            )
        return self._index.find(values.reshape(-1, *self.event_shape)).reshape(batch)


class _AtomIndex:
    """Finds atoms by value through a sorted view of their bytes, in O(log N) comparisons each."""

    def __init__(self, values: Shaped[Tensor, "N *event"]) -> None:
        self.dtype, self.width = values.dtype, values[0].numel()
        keys = self._keys(values)
        self.keys, self.first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        self.group = torch.from_numpy(self.first[inverse.reshape(-1)]).to(values.device)

    def _keys(self, values: Shaped[Tensor, "n *event"]) -> np.ndarray:
        rows = values.detach().to("cpu", self.dtype).reshape(len(values), self.width)
        # Adding zero turns −0.0 into 0.0, which is equal to it but has other bytes.
        rows = rows + 0 if rows.is_floating_point() or rows.is_complex() else rows
        array = rows.contiguous().view(torch.uint8).numpy()
        return array.view(np.dtype((np.void, array.shape[1]))).reshape(-1)

    def _representable(self, values: Shaped[Tensor, "n *event"]) -> np.ndarray:
        """Whether the bank could hold each value: real numbers are rounded to its precision, but not to integers."""
        if self.dtype.is_floating_point or self.dtype.is_complex:
            return np.ones(len(values), dtype=bool)
        return (values.to(self.dtype) == values).reshape(len(values), self.width).all(1).cpu().numpy()

    def find(self, values: Shaped[Tensor, "n *event"]) -> Int[Tensor, " n"]:
        keys = self._keys(values)
        place = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        found = np.where((self.keys[place] == keys) & self._representable(values), self.first[place], -1)
        return torch.from_numpy(found).to(values.device)


def _uniform(values: Shaped[Tensor, "N *event"]) -> Float[Tensor, " N"]:
    dtype = values.dtype if values.is_floating_point() else torch.get_default_dtype()
    return torch.full((len(values),), -np.log(len(values)), dtype=dtype, device=values.device)


def _normalised_log(weights: Tensor, length: int) -> Float[Tensor, " N"]:
    if require_tensor("weights", weights).shape != (length,):
        raise ValueError(f"weights must have shape ({length},), one for each atom, got {describe(weights)}")
    require_finite("weights", weights)
    if (weights < 0).any() or not weights.any():
        found = f"values from {float(weights.min()):g} to {float(weights.max()):g}"
        raise ValueError(f"weights must be non-negative and not all zero, got {found}")
    relative = weights / weights.max()  # whose sum cannot overflow
    return (relative / relative.sum()).log()
