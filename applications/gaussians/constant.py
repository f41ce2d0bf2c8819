"""An alignment with a learned constant, for losses that are not blind to one."""

import torch
from torch import Tensor, nn

import probcl as pcl
from probcl.alignment import Factors, Potentials


class PlusConstant(pcl.Alignment):
    """A base alignment plus a constant that is learned: what f-MICL needs to represent a density ratio."""

    def __init__(self, base: pcl.Alignment) -> None:
        super().__init__()
        self.base = base
        self.constant = nn.Parameter(torch.zeros(()))

    def factorize(self, x: Tensor, y: Tensor) -> Factors:
        return self.base.factorize(x, y)

    def potentials(self, x: Tensor, y: Tensor) -> Potentials:
        row, column = self.base.potentials(x, y)
        constant = self.constant.expand(len(x))
        return Potentials(constant if row is None else row + constant, column)

    def matched(self, x: Tensor, y: Tensor) -> Tensor:
        return self.base.matched(x, y) + self.constant
