"""Encoders of fields and of sets of track segments, for learned analyses.

Both encoders of tracks read the tokens of `probcl.assimilation.tokens`: any number of drifters and fixes, in any order,
with gaps. `TrackInformation` adds over tokens and gives an analysis in closed form (THEORY: information form);
`TrackTransformer` lets tokens speak with each other, and gives an embedding for retrieval or a sampler.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, gelu, scaled_dot_product_attention, softplus

from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.interpolation import trilinear
from probcl.assimilation.segments import SIMPSON
from probcl.assimilation.tokens import COORDINATES, DESCRIPTION, PLACES, VALUES, WIDTH
from probcl.checks import describe, require_count
from probcl.encoders.vector import MLP
from probcl.information import information_factor, split_information
from probcl.serialization import register

# Standard deviation of an observation about the state's velocity, over the prior's, before training.
_FIRST_ERROR = 0.3


class Tokens:
    """The columns of a batch of tokens, by name."""

    def __init__(self, v: Float[Tensor, "n tokens width"]) -> None:
        if v.ndim != 3 or v.shape[2] != WIDTH:
            raise ValueError(f"v must be tokens of tracks, of shape (n, tokens, {WIDTH}), got {describe(v)}")
        # What is padding in the whole batch need not be computed with.
        longest = int(v[..., -1].bool().any(0).nonzero().amax()) + 1 if v[..., -1].any() else 1
        places, self.description, self.velocity, present = v[:, :longest].split(
            [PLACES * COORDINATES, DESCRIPTION, VALUES, 1], dim=2
        )
        self.places = places.unflatten(2, (PLACES, COORDINATES))
        self.present = present[..., 0].bool()

    @property
    def duration(self) -> Float[Tensor, "n tokens 1"]:
        """Logarithm of the duration in days."""
        duration: Tensor = self.description[..., :1]
        return duration

    @property
    def error(self) -> Float[Tensor, "n tokens"]:
        """Standard deviation that the fixes' errors give a velocity, over the prior's scale."""
        error: Tensor = self.description[..., 1].exp()
        return error

    def normalized_places(self, shape: Sequence[int]) -> Float[Tensor, "n tokens places 3"]:
        """Return places with −1 and 1 at the ends of the lags and of the grid."""
        last = (torch.tensor(list(shape)) - 1).to(self.places)
        places: Tensor = (self.places - 0.5 * last) / (0.5 * last.clamp(min=1))
        return places


@register
class TrackInformation(nn.Module):
    """The additive encoder of tracks: b = Σ_k A_k y_k and Λ = Σ_k A_k S_k A_kᵀ over segments k.

    A_k = (Σ_p E_kp P_kp) W_k S_k⁻¹ and S_k = W_k + ε_k² I. E_kp is a map of modes, interpolated at the start, the
    middle and the end of the segment; P_kp and W_k ≻ 0 are 2 × 2 functions, a network's, of where, when and how long
    the segment is; y_k is its velocity and ε_k the error that its fixes give it, whose effect is so known, also for
    errors that none of the training had. Where maps are the prior's modes, observation of velocities is linear and
    exact at P = R⁻¹ and W = R (optimal interpolation in the modes); the network learns what errors R the fixes do not
    explain: unresolved currents, and drifters that do not go straight.

    Parameters
    ----------
    shape
        Lags, rows and columns of the maps.
    latent
        Number of modes.
    maps
        ``"modes"``: fixed; a prior's (make the encoder with `TrackInformation.of`), or found by regression
        (`TrackInformation.of_maps` of a `LearnedOperator`). ``"learned"``: parameters that start at random, which
        overfit.
    hidden
        Widths of the network's hidden layers.

    Notes
    -----
    Input has shape (n, tokens, WIDTH), output (n, latent + latent²): (b, Λ), as `QuadraticFeatures` asks for.
    """

    maps: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        maps: str = "modes",
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        if maps not in ("modes", "learned"):
            raise ValueError(f"maps must be 'modes' or 'learned', got {maps!r}")
        self.shape, self.latent = tuple(shape), require_count("latent", latent)
        lags, rows, columns = self.shape
        table = torch.zeros(lags * rows * columns, VALUES * latent)
        if maps == "learned":
            self.maps = nn.Parameter(table.normal_(std=latent**-0.5))
        else:
            self.register_buffer("maps", table)
        self.net = MLP(2 * COORDINATES + 1 + 2, VALUES**2 * (PLACES + 1) - 1, hidden)
        with torch.no_grad():
            cast(nn.Linear, self.net.layers[-1]).weight.mul_(0.01)
        self._start(_FIRST_ERROR if maps == "modes" else 1.0)

    @torch.no_grad()
    def _start(self, error: float, shares: Sequence[float] = SIMPSON) -> None:
        """Start at optimal interpolation with independent errors of this size, wherever the segment is."""
        last = cast(nn.Linear, self.net.layers[-1])
        first = torch.zeros(PLACES + 1, VALUES, VALUES)
        first[:PLACES] = torch.tensor(shares)[:, None, None] * torch.eye(VALUES) / error**2
        free = torch.tensor([error, 0.0, error]).expm1().log().nan_to_num(neginf=0.0)
        last.bias.copy_(torch.cat([first[:PLACES].flatten(), free]))

    @classmethod
    def of(cls, prior: FieldPrior, hidden: Sequence[int] = (64, 64)) -> "TrackInformation":
        """Return an encoder with a prior's modes as maps, over its scale."""
        maps = torch.from_numpy(prior.outlook.modes / prior.scale).float()
        return cls.of_maps(maps.permute(1, 3, 4, 2, 0), hidden=hidden)

    @classmethod
    def of_maps(
        cls,
        maps: Float[Tensor, "lags rows columns values rank"],
        error: float = _FIRST_ERROR,
        shares: Sequence[float] = SIMPSON,
        hidden: Sequence[int] = (64, 64),
    ) -> "TrackInformation":
        """Return an encoder with these maps, fixed.

        Parameters
        ----------
        maps
            Velocity of each mode at each place, over the prior's scale.
        error
            Standard deviation over that scale, before training, of velocities about what the maps say.
        shares
            Of a segment's start, middle and end in its velocity, before training.
        hidden
            Widths of the network's hidden layers.
        """
        encoder = cls(maps.shape[:3], maps.shape[-1], hidden=hidden)
        encoder.maps.copy_(maps.reshape(encoder.maps.shape))
        encoder._start(error, shares)
        return encoder

    def forward(self, v: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n features"]:
        tokens = Tokens(v)
        n, count = tokens.present.shape
        free = self.net(self._description(tokens).flatten(0, 1)).view(n, count, -1)
        weights, root = self._split(free)
        gain = torch.einsum("ntpck,ntpcd->ntdk", self._at(tokens), weights) * tokens.present[..., None, None]
        own = root @ root.mT
        both = own + (tokens.error**2)[..., None, None] * torch.eye(VALUES).to(own)
        gain = _inverse(both) @ own @ gain
        b = torch.einsum("ntdk,ntd->nk", gain, tokens.velocity)
        # (tokens · values, latent): Λ is one product of matrices, which adds up over tokens.
        precision = gain.flatten(1, 2).mT @ (both @ gain).flatten(1, 2)
        return torch.cat([b, precision.flatten(1)], dim=1)

    def _description(self, tokens: Tokens) -> Float[Tensor, "n tokens features"]:
        """Describe tokens evenly about the grid's centre, as its edges are alike, but for their place."""
        places = tokens.normalized_places(self.shape)
        middle, across = places[:, :, 1], (places[:, :, 2] - places[:, :, 0])[..., 1:]
        return torch.cat([middle, middle.square(), tokens.duration, across.square()], dim=2)

    def _at(self, tokens: Tokens) -> Float[Tensor, "n tokens places values latent"]:
        """Return the maps at the places of tokens."""
        index, weight = trilinear(tokens.places, self.shape)
        found = embedding_bag(
            index.flatten(0, -2), self.maps, per_sample_weights=weight.flatten(0, -2).to(self.maps), mode="sum"
        )
        return found.view(*tokens.places.shape[:3], VALUES, self.latent)

    def _split(
        self, free: Float[Tensor, "n tokens outputs"]
    ) -> tuple[Float[Tensor, "n tokens places 2 2"], Float[Tensor, "n tokens 2 2"]]:
        """Return the weights of places and the Cholesky factor of W."""
        weights, factor = free.split([PLACES * VALUES**2, VALUES * (VALUES + 1) // 2], dim=2)
        first, below, second = factor.unbind(2)
        rows = [softplus(first), torch.zeros_like(below), below, softplus(second)]
        return weights.unflatten(2, (PLACES, VALUES, VALUES)), torch.stack(rows, 2).unflatten(2, (VALUES, VALUES))


def _inverse(matrix: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 2 2"]:
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return adjugate / (a * d - b * c)[..., None, None]


@register
class TrackTransformer(nn.Module):
    """A transformer over the segments of any number of tracks, with a learned token that becomes the embedding.

    The same for any order of segments, and blind to padding. It has no dropout, so that fits resume exactly.

    Parameters
    ----------
    shape
        Lags, rows and columns of the grid that places are counted in.
    out_features
        Width of the embedding.
    width
        Of the tokens inside, a multiple of `heads`.
    blocks, heads
        Number of attention blocks (pre-norm), at least one, and of heads in each.
    frequencies
        Of the random Fourier features of places.
    context
        An encoder in information form of the same tokens, whose posterior mean the learned token starts from: optimal
        interpolation for a new `TrackInformation`, or a trained one. It is used as it is, and not trained here.
    """

    frequencies: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        out_features: int,
        width: int = 64,
        blocks: int = 2,
        heads: int = 4,
        frequencies: int = 32,
        context: TrackInformation | None = None,
    ) -> None:
        super().__init__()
        if require_count("width", width) % require_count("heads", heads):
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.shape = tuple(shape)
        ends = 2 * COORDINATES
        self.register_buffer("frequencies", 2 * torch.randn(ends, frequencies))
        self.lift = MLP(PLACES * COORDINATES + DESCRIPTION + VALUES + 2 * frequencies, width, (width,))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(require_count("blocks", blocks)))
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.head = MLP(width, out_features, (256,))
        self.context = None if context is None else context.requires_grad_(False)
        self.start = None if context is None else nn.Linear(context.latent, width)

    def forward(self, v: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n out"]:
        tokens = Tokens(v)
        places = tokens.normalized_places(self.shape)
        phase = places[:, :, [0, 2]].flatten(2) @ self.frequencies
        features = [places.flatten(2), tokens.description, tokens.velocity, phase.sin(), phase.cos()]
        x = self.lift(torch.cat(features, dim=2).flatten(0, 1)).view(*tokens.present.shape, -1)
        x = torch.cat([self._summary(v), x], dim=1)
        seen = torch.cat([tokens.present.new_ones(len(x), 1), tokens.present], dim=1)[:, None, None, :]
        for block in self.blocks[:-1]:
            x = block(x, seen, count=None)
        # Of the last block only the learned token's row is read.
        x = self.blocks[-1](x, seen, count=1)
        embeddings: Tensor = self.head(self.norm(x[:, 0]))
        return embeddings

    def _summary(self, v: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n 1 inner"]:
        """Return the learned token, with what the context makes of the tokens."""
        summary = self.summary.expand(len(v), -1, -1)
        if self.context is None or self.start is None:
            return summary
        b, precision = split_information(self.context(v))
        mean = torch.cholesky_solve(b[:, :, None], information_factor(precision))[..., 0]
        start: Tensor = summary + self.start(mean)[:, None]
        return start


class _Block(nn.Module):
    """Attention and a perceptron, each added to what comes in after its normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.offer = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.join = nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self, x: Float[Tensor, "n tokens width"], seen: Bool[Tensor, "n 1 1 tokens"], count: int | None
    ) -> Float[Tensor, "n queries width"]:
        """Return the first `count` tokens anew; all of them if None."""
        normal = self.before_attention(x)
        query = self.ask(normal[:, :count]).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.offer(normal).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        found = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x[:, :count] + self.join(found.transpose(1, 2).flatten(2))
        mixed: Tensor = x + self.contract(gelu(self.expand(self.before_mlp(x))))
        return mixed


@register
class FieldEncoder(nn.Module):
    """A perceptron on a field's coordinates in the prior's modes, each weighed by a power of its mode's size.

    Parameters
    ----------
    sizes
        Of the modes, as their standard deviations over the grid.
    out_features
        Width of the embedding.
    hidden
        Widths of the hidden layers.
    """

    sizes: Tensor

    def __init__(self, sizes: Sequence[float], out_features: int, hidden: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        # Between whitened (all modes alike) and physical (energy) coordinates: small modes carry detail, and noise.
        self.register_buffer("sizes", (torch.tensor(list(sizes)) / max(sizes)).sqrt(), persistent=False)
        self.net = MLP(len(self.sizes), out_features, hidden)

    def forward(self, u: Float[Tensor, "n modes"]) -> Float[Tensor, "n out"]:
        embeddings: Tensor = self.net(u * self.sizes)
        return embeddings
