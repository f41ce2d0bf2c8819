"""Resampling: draws from the learned conditional on a data bank.

Item i is drawn with probability softmax_i(s(u_i, v) + log w_i) (Baptista, Stuart & Tran 2025, §4). Draws are only as
various as the bank: look at `Resampled.ess`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from probcl.checks import require_count
from probcl.conditional import EmpiricalConditional


class Resampled(NamedTuple):
    """What `resample` drew, S times for each of the B conditions (B is absent if there is only one, without an axis).

    Attributes
    ----------
    values
        The draws, shape (S, B, *event_shape).
    indices
        Their positions in the bank, shape (S, B).
    ess
        Effective sample size of the bank under each condition, shape (B,): 1 if all mass is on one atom, N if it is
        spread evenly.
    distinct
        How many different values are among the S draws, shape (B,).

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> nu = model.u_given_v(pcl.EmpiricalPrior(torch.tensor([[1.0], [2.0], [3.0]])))
    >>> drawn = pcl.generation.resample(nu.condition(torch.tensor([[0.0], [9.0]])), 100, seed=0)
    >>> drawn.values.shape, drawn.indices.shape
    (torch.Size([100, 2, 1]), torch.Size([100, 2]))
    >>> drawn.ess, drawn.distinct
    (tensor([3.0000, 1.0002]), tensor([3, 1]))
    """

    values: Shaped[Tensor, "S *batch_and_event"]
    indices: Int[Tensor, "S *batch"]
    ess: Float[Tensor, "*batch"]
    distinct: Int[Tensor, "*batch"]


def resample(
    conditional: EmpiricalConditional,
    num_samples: int,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Resampled:
    """Draw from a conditional on a data bank, and say how diverse the draws can be and are.

    Parameters
    ----------
    conditional
        ``model.u_given_v(prior).condition(v)`` or its mirror.
    num_samples
        S, how many draws for each condition.
    seed, generator
        Either makes the draws reproducible and leaves torch's global generator alone; with neither, that one is used.

    Raises
    ------
    TypeError
        If `conditional` is not an `EmpiricalConditional`, or `num_samples` no integer.
    ValueError
        If `num_samples` is not positive, or both `seed` and `generator` are given.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity())
    >>> nu = model.u_given_v(pcl.EmpiricalPrior(torch.tensor([[1.0], [2.0], [3.0]])))
    >>> pcl.generation.resample(nu.condition(torch.tensor([[9.0]])), 4, seed=0).values.flatten()
    tensor([3., 3., 3., 3.])
    """
    if not isinstance(conditional, EmpiricalConditional):
        raise TypeError(f"conditional must be an EmpiricalConditional, got {type(conditional).__name__}")
    require_count("num_samples", num_samples)
    if seed is not None and generator is not None:
        raise ValueError(f"seed and generator must not both be given, got seed={seed} and a generator")
    if seed is not None:
        generator = torch.Generator(conditional.given.device).manual_seed(seed)
    indices = conditional.sample_index((num_samples,), generator=generator)
    values = conditional.atoms[indices.to(conditional.atoms.device)]
    return Resampled(values, indices, conditional.ess(), _count_distinct(conditional.prior.group[indices]))


def _count_distinct(numbers: Int[Tensor, "S *batch"]) -> Int[Tensor, "*batch"]:
    """How many different numbers there are along the first axis."""
    ordered = numbers.sort(0).values
    return 1 + (ordered[1:] != ordered[:-1]).sum(0)
