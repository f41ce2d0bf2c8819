"""The kernels of Kernel-InfoNCE, by name (Tan et al. 2024, arXiv 2303.15103)."""

import probcl as pcl

EXPONENTS = {"Gaussian": 2.0, "Laplace": 1.0, "Power(½)": 0.5}
KERNELS = (*EXPONENTS, "sum")


def kernel(name: str, tau: float) -> tuple[pcl.Alignment, float]:
    """Return the logarithm of exp(−d^γ/τ), or of the sum of the first two: an alignment and its temperature."""
    if name == "sum":  # its components have temperatures of their own
        return pcl.SumMixture(tau_2=tau, tau_1=tau), 1.0
    return pcl.Power(EXPONENTS[name]), tau
