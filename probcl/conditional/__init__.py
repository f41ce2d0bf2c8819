"""Conditionals ν(u|v) and ν(v|u) as Pyro distributions.

`Conditional` is what `BimodalModel.u_given_v` returns: a `pyro.distributions.ConditionalDistribution` whose
``condition`` gives a `TorchDistribution`, batched over what it is conditioned on. Which one depends on the prior: on a
data bank an `EmpiricalConditional`; with a Gaussian prior and a quadratic score a `GaussianConditional`, in closed
form; with any other continuous prior a `TiltedConditional`, by a sampler.
"""

from probcl.conditional.base import Conditional
from probcl.conditional.distribution import TiltedDistribution
from probcl.conditional.empirical import EmpiricalConditional
from probcl.conditional.gaussian import GaussianConditional
from probcl.conditional.inference_data import to_inference_data
from probcl.conditional.tilted import TiltedConditional

__all__ = [
    "Conditional",
    "EmpiricalConditional",
    "GaussianConditional",
    "TiltedConditional",
    "TiltedDistribution",
    "to_inference_data",
]
