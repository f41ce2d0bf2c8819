"""What a segment of a track sees of each mode, learned from pairs by regression.

`TrackInformation` reads maps of modes. A prior's own are its covariance and, along a segment, the observation operator.
Here neither is given: the velocities of tracks through known windows are regressed on the windows, with maps that are
smooth functions of place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import scipy.fft
import torch
from jaxtyping import Float, Int
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor
from torch.nn.functional import embedding_bag

from probcl.assimilation.encoders import Tokens, TrackInformation
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.interpolation import trilinear
from probcl.assimilation.pairs import WindowPairs
from probcl.assimilation.tokens import PLACES, VALUES

SMOOTHNESS = (0.1, 0.2, 0.4)
"""Half-waves per cell to choose among: at so many, roughness counts eight times what it does for a constant."""

# Times the variance of the currents: what a constant costs.
_RIDGE = 0.1
_POWER = 3
# Waves shorter than the smoothness by more than this are left out.
_CUTOFF = 4.0
# Errors of fixes count from this part of the prior's scale on.
_ERROR = 0.3
# Preconditioned, a few steps are enough.
_BATCH, _TOLERANCE, _STEPS = 256, 1e-2, 8
# Smoothness is chosen on so many pairs at most.
_PAIRS, _PARTS = 3000, 10


@dataclass(frozen=True, eq=False)
class LearnedOperator:
    """Maps of modes found from pairs, for `TrackInformation.of_maps`.

    Attributes
    ----------
    maps
        Velocity that a unit of each mode gives to a drifter at each place, over the prior's scale.
    error
        Standard deviation over that scale of velocities about what the maps say, on pairs that were held out.
    smoothness
        That of `SMOOTHNESS` with the least such error.
    """

    shares: ClassVar[tuple[float, ...]] = (1 / PLACES,) * PLACES
    """Of a segment's start, middle and end in its velocity: no rule of integration is given either."""

    maps: Float[Tensor, "lags rows columns values rank"]
    error: float
    smoothness: float

    @classmethod
    def of(cls, pairs: WindowPairs, shape: Sequence[int]) -> "LearnedOperator":
        """Find the maps by penalised least squares.

        They minimise Σ |y − Σ_k x_k φ_k|² + Σ_k |φ_k|²: y is a segment's velocity, φ_k the mean of the k-th map at its
        places. The roughness |φ|² is .1 Σ (1 + τ² + κ²)³ a², with a the coefficients of φ in cosines on the grid, of τ
        half-waves over the window and κ times the smoothness half-waves per cell. Smoothness is chosen on the last
        tenth, by member and time, of 3,000 pairs at most; the maps are then of all pairs.

        Parameters
        ----------
        pairs
            Windows and tracks.
        shape
            Lags, rows and columns of the maps.

        Raises
        ------
        ValueError
            If there are fewer than twenty pairs.
        """
        if len(pairs.x) < 2 * _PARTS:
            raise ValueError(f"pairs must be {2 * _PARTS} or more to learn an operator from, got {len(pairs.x)}")
        grid = tuple(shape)
        order = np.lexsort(pairs.index.T[::-1])
        some = order[:: -(-len(order) // _PAIRS)]
        part, check = (_Sample(pairs, rows, grid) for rows in np.split(some, [-(len(some) // _PARTS)]))
        candidates = [_Cosines(grid, smoothness) for smoothness in SMOOTHNESS]
        errors = [check.error(cosines.maps(_solve(part, cosines))) for cosines in candidates]
        best = candidates[int(np.argmin(errors))]
        maps = best.maps(_solve(_Sample(pairs, order, grid), best))
        return cls(maps.permute(1, 2, 3, 4, 0).contiguous(), min(errors), best.smoothness)


def track_information(prior: FieldPrior, operator: LearnedOperator | None = None) -> TrackInformation:
    """Return an untrained encoder of tracks with a learned operator, or with the prior's modes if there is none."""
    if operator is None:
        return TrackInformation.of(prior)
    return TrackInformation.of_maps(operator.maps, operator.error, operator.shares)


@dataclass(frozen=True, eq=False)
class _Cosines:
    """Products of cosines on a table of lags, rows and columns, and what roughness costs."""

    shape: tuple[int, ...]
    smoothness: float

    @property
    def penalty(self) -> Float[Tensor, "times souths easts 1"]:
        lags, *space = self.shape
        shares = [np.arange(count) / count / self.smoothness for count in space]
        waves = [np.arange(float(lags)), *(share[share <= _CUTOFF] for share in shares)]
        squares = sum(np.meshgrid(*(wave**2 for wave in waves), indexing="ij"))
        return torch.from_numpy(_RIDGE * (1 + squares) ** _POWER).float()[..., None]

    def maps(self, waves: Float[Tensor, "n times souths easts values"]) -> Float[Tensor, "n lags rows columns values"]:
        """Return sums of cosines."""
        return torch.from_numpy(scipy.fft.idctn(waves.numpy(), s=self.shape, axes=(1, 2, 3), norm="ortho"))

    def waves(self, maps: Float[Tensor, "n lags rows columns values"]) -> Float[Tensor, "n times souths easts values"]:
        """Return the inner products with cosines: the transpose of `maps`."""
        times, souths, easts, _ = self.penalty.shape
        found = scipy.fft.dctn(maps.numpy(), axes=(1, 2, 3), norm="ortho")
        return torch.from_numpy(found[:, :times, :souths, :easts])


@dataclass(frozen=True, eq=False)
class _Part:
    """Some pairs: their windows, their segments' velocities, and where in fields of these windows segments are."""

    x: Float[Tensor, "n rank"]
    velocity: Float[Tensor, "segments 2"]
    precision: Float[Tensor, "segments 1"]
    index: Int[Tensor, "segments corners"]
    weight: Float[Tensor, "segments corners"]

    def seen(self, fields: Float[Tensor, "n lags rows columns values"]) -> Float[Tensor, "segments values"]:
        """Return what segments see of fields, one for each window."""
        return embedding_bag(self.index, fields.flatten(0, 3), per_sample_weights=self.weight, mode="sum")

    def spread(self, velocity: Float[Tensor, "segments values"], shape: Sequence[int]) -> Float[Tensor, "n l y x v"]:
        """Return fields with velocities put where segments are: the transpose of `seen`."""
        fields = torch.zeros(len(self.x) * int(np.prod(shape)), VALUES)
        values = self.weight[..., None] * velocity[:, None]
        return fields.index_add_(0, self.index.flatten(), values.flatten(0, 1)).view(-1, *shape, VALUES)


@dataclass(frozen=True, eq=False)
class _Sample:
    """Pairs to find maps from, or to judge them by."""

    pairs: WindowPairs
    rows: Int[np.ndarray, " n"]
    shape: tuple[int, ...]

    @cached_property
    def parts(self) -> list[_Part]:
        return list(self._parts())

    def _parts(self) -> Iterator[_Part]:
        for rows in np.split(self.rows, range(_BATCH, len(self.rows), _BATCH)):
            tokens = Tokens(self.pairs.tokens[rows])
            row, token = tokens.present.nonzero(as_tuple=True)
            index, weight = trilinear(tokens.places[row, token], self.shape)
            index += row[:, None, None] * int(np.prod(self.shape))
            shares = torch.tensor(LearnedOperator.shares)[:, None]
            precision = 1 / (1 + (tokens.error[row, token] / _ERROR) ** 2)
            found = precision[:, None], index.flatten(1), (weight.float() * shares).flatten(1)
            yield _Part(self.pairs.x[rows], tokens.velocity[row, token], *found)

    def error(self, maps: Float[Tensor, "rank lags rows columns values"]) -> float:
        """Return the standard deviation of velocities about what maps say."""
        squares = total = 0.0
        for part in self.parts:
            rest = part.velocity - part.seen(torch.einsum("nk,k...->n...", part.x, maps))
            squares += float((part.precision * rest.square()).sum())
            total += VALUES * float(part.precision.sum())
        return float(np.sqrt(squares / max(total, 1e-12)))


def _solve(sample: _Sample, cosines: _Cosines) -> Float[Tensor, "rank times souths easts values"]:
    """Return the coefficients of maps, by conjugate gradients on the normal equations."""
    penalty = cosines.penalty
    shape = (sample.pairs.x.shape[1], *penalty.shape[:3], VALUES)
    size = int(np.prod(shape))

    def total(waves: Float[Tensor, "rank times souths easts values"] | None) -> Float[Tensor, "rank t y x values"]:
        """Return the sum over segments of a map's gradient, at velocities that waves give, or at those observed."""
        found = torch.zeros(shape)
        for part in sample.parts:
            seen = part.velocity if waves is None else part.seen(cosines.maps(_mix(part.x, waves)))
            found += _mix(part.x.T, cosines.waves(part.spread(part.precision * seen, cosines.shape)))
        return found

    def normal(flat: Float[np.ndarray, " size"]) -> Float[np.ndarray, " size"]:
        waves = torch.from_numpy(flat).view(shape)
        return (total(waves) + penalty * waves).numpy().ravel()

    # Were places even, dense, and x white, the normal equations would be diagonal.
    density = sum(float(part.precision.sum()) for part in sample.parts) / np.prod(cosines.shape)
    likely = (1 / (density + penalty)).expand(shape).reshape(-1).numpy()
    found, _ = cg(
        LinearOperator((size, size), normal, dtype=np.float32),
        total(None).numpy().ravel(),
        rtol=_TOLERANCE,
        maxiter=_STEPS,
        M=LinearOperator((size, size), lambda flat: likely * flat.ravel(), dtype=np.float32),
    )
    return torch.from_numpy(found.astype(np.float32)).view(shape)


def _mix(weights: Float[Tensor, "n k"], arrays: Float[Tensor, "k *shape"]) -> Float[Tensor, "n *shape"]:
    mixed: Tensor = (weights @ arrays.flatten(1)).unflatten(1, arrays.shape[1:])
    return mixed
