"""Conditionals on small banks, and the test that draws have the probabilities claimed for them."""

import numpy as np
import torch
from scipy.stats import chisquare
from small_models import linear_model, normal, table_model
from torch import Tensor

import probcl as pcl
from probcl.conditional import EmpiricalConditional


def chi_square(draws: Tensor, probabilities: Tensor) -> float:
    """P-value of counts of 0 … K−1, those expected fewer than five times taken together."""
    expected = probabilities.double().numpy() * len(draws)
    counts = np.bincount(draws.numpy(), minlength=len(expected))
    rare = expected < 5
    pooled = [np.append(x[~rare], x[rare].sum()) for x in (counts, expected)]
    if pooled[1][-1] < 5:
        assert pooled[0][-1] <= 20
        pooled = [x[:-1] for x in pooled]
    return 1.0 if len(pooled[0]) < 2 else chisquare(pooled[0], pooled[1] * pooled[0].sum() / pooled[1].sum()).pvalue


def vectors(temperature: float, distinct: bool = True, weighted: bool = False) -> EmpiricalConditional:
    """A conditional of u in R², given three v, on a bank of 30 float vectors."""
    bank = normal(30, 2, seed=1)
    bank = bank if distinct else bank[torch.arange(30) % 11]
    weights = normal(30, seed=2).exp() * (torch.arange(30) != 4) if weighted else None
    model = linear_model(2, 3, 4, temperature=temperature)
    return model.u_given_v(pcl.EmpiricalPrior(bank, weights)).condition(0.3 * normal(3, 3, seed=3))


def labels(temperature: float, distinct: bool = True, weighted: bool = False) -> EmpiricalConditional:
    """A conditional of a label v, given three labels u, on a bank of 20 of them."""
    bank = torch.arange(20) if distinct else torch.arange(20) % 7
    weights = normal(20, seed=2).exp() * (torch.arange(20) != 4) if weighted else None
    model = table_model(0.3 * normal(5, 20, seed=4), temperature=temperature)
    return model.v_given_u(pcl.EmpiricalPrior(bank, weights)).condition(torch.tensor([0, 3, 4]))
