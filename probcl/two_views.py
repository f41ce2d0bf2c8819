"""Two views of the same things: the one-modality use of contrastive learning."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist

from probcl.alignment import Alignment
from probcl.checks import require_embeddings
from probcl.scores import Method, Scores


def views(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "n d"],
    alignment: Alignment | None = None,
    temperature: float | Tensor = 1.0,
    method: Method = "auto",
    *,
    group: dist.ProcessGroup | None = None,
) -> Scores:
    """Return the scores of two views of n things, each of the 2n with all others (Chen et al. 2020, SimCLR, eq. 1).

    Row i of `a` and row i of `b` are embeddings of one thing. The rows of the scores are a and then b, their columns b
    and then a, so that the other view of a thing is matched with it, and itself, which is no candidate, is excluded:
    each view has 2n − 1 candidates. Any loss takes them: `ConditionalLoss` is NT-Xent, less log(2n − 1).

    Parameters
    ----------
    a, b
        Embeddings of the views, shapes (n, d).
    alignment, temperature, method, group
        As for `Scores`.

    Raises
    ------
    TypeError, ValueError
        As for `Scores`, and if there are not as many a as b.

    Examples
    --------
    >>> import torch, probcl as pcl
    >>> a, b = torch.eye(3), torch.eye(3)
    >>> scores = pcl.views(a, b, pcl.Cosine(), temperature=0.5)
    >>> scores.shape
    (6, 6)
    >>> pcl.ConditionalLoss()(scores)
    tensor(-1.1768)
    """
    if len(require_embeddings("a", a)) != len(require_embeddings("b", b)):
        raise ValueError(f"a and b must be views of the same things, got {len(a)} and {len(b)}")
    itself = torch.arange(2 * len(a), device=a.device).roll(len(a))
    return Scores(torch.cat([a, b]), torch.cat([b, a]), alignment, temperature, method, exclude=itself, group=group)
