"""`Approximation`: a conditional by its most probable items, and by a sample of all others."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probcl.checks import require_count
from probcl.retrieval.queries import Queries
from probcl.scores import TopK

if TYPE_CHECKING:
    from probcl.retrieval.library import Library


@dataclass(frozen=True)
class Approximation:
    """The conditional of a library given B queries: k items with their own weights, and t random ones for all others.

    With H the k items that were found, and J the t that were drawn uniformly from all N with replacement,

        Ẑ = Σ_{j ∈ H} e^{s_j + φ_j} + (N / t) Σ_{j ∈ J, j ∉ H} e^{s_j + φ_j}.

    Whatever H is, Ẑ is an unbiased estimate of Z = Σ_j e^{s_j + φ_j}; its logarithm is not, and is too small on
    average. The better H is, the smaller the standard error. Queries share J, so that their errors are correlated.

    Attributes
    ----------
    log_normalizer
        log Ẑ, shape (B,), in float64.
    standard_error
        Estimate of the standard deviation of Ẑ, relative to Ẑ, shape (B,): about that of log Ẑ where it is small. Too
        small where a few items that neither H nor J has would matter.
    ids
        H and J, shape (B, k + t); −1 for items that an index did not find.
    log_weights
        Logarithms of their terms in Ẑ, shape (B, k + t); −inf for those in J that are in H.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> from probcl.retrieval import Library
    >>> model = pcl.BimodalModel(torch.nn.Identity(), torch.nn.Identity(), alignment=pcl.L2(), temperature=0.1)
    >>> library = Library(model, u=torch.linspace(-3, 3, 1001)[:, None])
    >>> query = torch.tensor([[0.5]])
    >>> approximation = library.approximate(query, k=200, tail=100, generator=torch.Generator().manual_seed(0))
    >>> approximation.ids.shape
    torch.Size([1, 300])
    >>> approximation.sample(5).shape
    torch.Size([5, 1])
    """

    log_normalizer: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]
    ids: Int[Tensor, "B c"]
    log_weights: Float[Tensor, "B c"]

    def sample(self, num_samples: int = 1, *, generator: torch.Generator | None = None) -> Int[Tensor, "num_samples B"]:
        """Draw ids with probabilities in proportion to the terms of Ẑ.

        Draws from the same approximation have its error in common: given it they are independent, but their law is
        that of ν only as the standard error goes to zero.
        """
        probabilities = (self.log_weights - self.log_normalizer[:, None]).exp()
        count = require_count("num_samples", num_samples)
        drawn = torch.multinomial(probabilities, count, replacement=True, generator=generator)
        return self.ids.gather(1, drawn).mT


def approximate(
    library: "Library", queries: Queries, head: TopK, tail: int, generator: torch.Generator | None
) -> Approximation:
    """Return the approximation that `Library.approximate` promises, with this head."""
    count, device = require_count("tail", tail, 2), queries.z.device
    place = "cpu" if generator is None else generator.device
    positions = torch.randint(len(library), (count,), generator=generator, device=place).cpu()
    drawn = library.at(positions)
    ids = drawn.ids.to(device).expand(len(queries), -1)
    scores = queries.matrix(drawn).double().masked_fill(_is_among(ids, head.indices), -torch.inf)
    log_tail = scores + math.log(len(library) / count)
    log_weights = torch.cat([head.values.double(), log_tail], 1)
    log_normalizer = log_weights.logsumexp(1)
    if log_normalizer.isneginf().any():
        raise ValueError("log_prior leaves none of the items found or drawn that is possible")
    # Ẑ is a constant plus the mean of t independent terms, of which these are the shares in Ẑ.
    terms = count * (log_tail - log_normalizer[:, None]).exp()
    standard_error = terms.std(1) / math.sqrt(count)
    return Approximation(log_normalizer, standard_error, torch.cat([head.indices, ids], 1), log_weights)


def _is_among(ids: Int[Tensor, "B t"], head: Int[Tensor, "B k"]) -> Bool[Tensor, "B t"]:
    ascending = head.sort(1).values
    place = torch.searchsorted(ascending, ids.contiguous()).clamp(max=head.shape[1] - 1)
    return ascending.gather(1, place) == ids
