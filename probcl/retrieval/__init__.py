"""Retrieval: the items of a library with the largest scores, which are the modes of a conditional.

The k items with the largest s(·, v) are the k most probable atoms of ν(·|v) under a uniform prior; with a prior
μ_u ∝ e^φ, adding φ to the scores makes them the most probable a posteriori (Baptista, Stuart & Tran 2025, Alg. 1).
A `Library` finds them exactly, sums over all items, and draws from ν(·|v), reading its items a piece at a time from
memory or from disk; an `Index` and an `Approximation` look at a few of them only.
"""

from probcl.retrieval.approximation import Approximation
from probcl.retrieval.index import Index
from probcl.retrieval.library import Library

__all__ = ["Approximation", "Index", "Library"]
