"""An encoder of trajectories: a transformer over their samples."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from probcl.checks import describe, require_count
from probcl.serialization import register

POOLS = ("mean", "last")


@register
class TrajectoryTransformer(nn.Module):
    """A transformer over the samples of any number of trajectories, at regular or irregular times, with gaps.

    Each sample, a time, a position and what else is known, is lifted to a token. Blocks of attention and a perceptron,
    both after a layer normalisation (Xiong et al. 2020), run within each trajectory. Its tokens are pooled, and if
    `set_depth` is not 0 more blocks run over the trajectories of an item. Their mean is mapped to the embedding.

    The order of trajectories does not matter, and neither does that of samples, as a token knows its time only from
    its features; with ``pool="last"`` the last sample that is present is distinguished.

    Parameters
    ----------
    in_features
        Features of a sample; of order one, preferably.
    out_features
        Width of the embedding.
    width
        Of tokens, a multiple of `heads`.
    depth
        Blocks within trajectories. Baptista, Stuart & Tran (2025, §6.3) take 12 and ``pool="last"``.
    set_depth
        Blocks over the trajectories of an item. Not needed where there is one trajectory.
    heads
        Of the attention.
    pool
        What stands for a trajectory: the ``"mean"`` of its tokens, or the ``"last"`` one.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer (`set_depth`: or 0), `width` is not a multiple of `heads`, or `pool` is
        unknown.

    Notes
    -----
    Input has shape (n, trajectories, samples, in_features + 1), the last feature being presence: 1, or 0 where there is
    no sample (whose features may be anything). A trajectory without samples counts as none; an item may have no
    trajectory. Output has shape (n, out_features). `ValueError` for other shapes, or a presence that is neither 0 nor
    1.

    Examples
    --------
    >>> import torch
    >>> from probcl.encoders import TrajectoryTransformer
    >>> encoder = TrajectoryTransformer(in_features=3, out_features=16, width=32, depth=1)
    >>> v = torch.zeros(2, 5, 10, 3 + 1)  # 2 items of 5 trajectories of 10 samples: time, place, presence
    >>> v[0, :3, :, -1] = 1  # of the first item 3 trajectories are there, of the second none
    >>> encoder(v).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int = 64,
        depth: int = 4,
        set_depth: int = 0,
        heads: int = 4,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        self.in_features = require_count("in_features", in_features)
        require_count("depth", depth)
        require_count("set_depth", set_depth, minimum=0)
        if require_count("width", width) % require_count("heads", heads):
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {POOLS}, got {pool!r}")
        self.pool = pool
        self.lift = nn.Linear(in_features, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.set_blocks = nn.ModuleList(_Block(width, heads) for _ in range(set_depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, require_count("out_features", out_features))

    def forward(self, v: Float[Tensor, "n trajectories samples features"]) -> Float[Tensor, "n out"]:
        """Return embeddings of shape (n, out_features)."""
        if v.ndim != 4 or v.shape[3] != self.in_features + 1:
            raise ValueError(
                f"v must have shape (n, trajectories, samples, {self.in_features} + 1): features and presence, got "
                f"{describe(v)}"
            )
        features, presence = v[..., :-1].flatten(0, 1), v[..., -1].flatten(0, 1)
        present = presence == 1
        if not (present | (presence == 0)).all():
            found = f"values from {float(presence.min()):g} to {float(presence.max()):g}"
            raise ValueError(f"the last feature of v, presence, must be 0 or 1, got {found}")
        tokens = self.lift(features.masked_fill(~present[:, :, None], 0))
        tokens = _through(self.blocks, tokens, present)
        pooled = _mean(tokens, present) if self.pool == "mean" else _last(tokens, present)
        tracks, tracked = pooled.unflatten(0, v.shape[:2]), present.any(1).unflatten(0, v.shape[:2])
        embeddings: Tensor = self.head(self.norm(_mean(_through(self.set_blocks, tracks, tracked), tracked)))
        return embeddings


class _Block(nn.Module):
    """Attention and a perceptron, each added to what goes in, after a layer normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.queries_keys_values = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, x: Float[Tensor, "n tokens width"], mask: Bool[Tensor, "n 1 tokens tokens"] | None
    ) -> Float[Tensor, "n tokens width"]:
        heads = self.queries_keys_values(self.norm1(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.mix(attended.transpose(1, 2).flatten(2))
        mixed: Tensor = x + self.perceptron(self.norm2(x))
        return mixed


def _through(
    blocks: nn.ModuleList, x: Float[Tensor, "n tokens width"], present: Bool[Tensor, "n tokens"]
) -> Float[Tensor, "n tokens width"]:
    """Run blocks in which every token attends to those that are present."""
    mask = None
    if not present.all():
        # And to itself, so that an absent one, which nothing will look at, has something to attend to.
        itself = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
        mask = (present[:, None, :] | itself)[:, None]
    for block in blocks:
        x = block(x, mask)
    return x


def _mean(x: Float[Tensor, "n tokens width"], present: Bool[Tensor, "n tokens"]) -> Float[Tensor, "n width"]:
    """Return the mean of the tokens that are present, zero if none is."""
    return (x * present[:, :, None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1)


def _last(x: Float[Tensor, "n tokens width"], present: Bool[Tensor, "n tokens"]) -> Float[Tensor, "n width"]:
    """Return the last token that is present, zero if none is."""
    places = torch.arange(x.shape[1], device=x.device)
    last = places.masked_fill(~present, -1).amax(1)
    return x[torch.arange(len(x), device=x.device), last] * present.any(1, keepdim=True)
