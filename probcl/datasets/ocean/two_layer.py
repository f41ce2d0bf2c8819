"""Two-layer quasi-geostrophic turbulence on a doubly periodic plane, by a spectral method."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from jaxtyping import Bool, Complex, Float

from probcl.checks import require_count, require_positive

_ADAMS_BASHFORTH = (23 / 12, -16 / 12, 5 / 12)
# Truncation at two thirds of the resolved waves takes every alias of a product of two out of what is kept.
_KEPT = 2 / 3


@dataclass(frozen=True)
class TwoLayerQG:
    r"""Eddies of two layers about a vertically sheared, zonal mean flow (Phillips' model).

    .. math::

        q_1 &= ∇²ψ_1 + F_1 (ψ_2 − ψ_1), \qquad q_2 = ∇²ψ_2 + F_2 (ψ_1 − ψ_2), \\
        ∂_t q_i &= −J(ψ_i, q_i) − U_i ∂_x q_i − Q_{iy} ∂_x ψ_i − δ_{i2} r ∇²ψ_2 − ν ∇^8 q_i,

    with F₁ = 1/(R_d² (1 + δ)), F₂ = δ F₁, Q₁y = β + F₁ (U₁ − U₂) and Q₂y = β − F₂ (U₁ − U₂) (Vallis 2017,
    *Atmospheric and Oceanic Fluid Dynamics*, §5.3 and §9.6). The lower layer has no mean flow, U₂ = 0, which
    is nearly the frame of the eddies.

    Products are taken on the grid and truncated at two thirds of the waves, which conserves energy and enstrophy;
    time steps are third-order Adams-Bashforth with an exact factor for the hyperviscosity.

    Parameters
    ----------
    n : int
        Nodes on a side.
    size : float
        Side, in metres.
    deformation_radius : float
        R_d, in metres.
    depth_ratio : float
        δ, depth of the upper layer over that of the lower.
    shear : float
        U₁ − U₂ = U₁, in m/s.
    beta : float
        In 1/(m s).
    drag : float
        r, in 1/s.
    hyperviscosity : float
        Rate, in 1/s, at which the shortest wave kept decays.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.datasets.ocean import TwoLayerQG
    >>> model = TwoLayerQG(n=16)
    >>> wave = 2 * np.pi / model.size
    >>> rates = model.growth_rates(2 * wave, 0.0)
    >>> (rates.real > 0).tolist()  # one of the two modes of this wave grows
    [False, True]
    """

    n: int = 32
    size: float = 1000e3
    deformation_radius: float = 40e3
    depth_ratio: float = 0.25
    shear: float = 0.16
    beta: float = 1.6e-11
    drag: float = 5e-7
    hyperviscosity: float = 1e-5

    def __post_init__(self) -> None:
        require_count("n", self.n, minimum=8)
        for name in ("size", "deformation_radius", "depth_ratio"):
            require_positive(name, getattr(self, name))
        for name in ("drag", "hyperviscosity"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")

    @cached_property
    def wavenumbers(self) -> tuple[Float[np.ndarray, "1 half"], Float[np.ndarray, "n 1"]]:
        """Wavenumbers k along x and l along y, in 1/m, of the half spectrum."""
        spacing = self.size / self.n / (2 * np.pi)
        return scipy.fft.rfftfreq(self.n, spacing)[None], scipy.fft.fftfreq(self.n, spacing)[:, None]

    @cached_property
    def kept(self) -> Bool[np.ndarray, "n half"]:
        """Which waves are kept."""
        k, l = self.wavenumbers  # noqa: E741 - the field's name for the second wavenumber
        most = _KEPT * np.pi * self.n / self.size
        kept: np.ndarray = (abs(k) < most * (1 - 1e-9)) & (abs(l) < most * (1 - 1e-9)) & (k**2 + l**2 > 0)
        return kept

    @property
    def stretching(self) -> tuple[float, float]:
        """F₁ and F₂, in 1/m²."""
        upper = 1 / (self.deformation_radius**2 * (1 + self.depth_ratio))
        return upper, self.depth_ratio * upper

    def vorticity(self, psi: Complex[np.ndarray, "*batch 2 n half"]) -> Complex[np.ndarray, "*batch 2 n half"]:
        """Potential vorticity of the eddies from their stream function, both spectral."""
        upper, lower = np.moveaxis(psi, -3, 0)
        stretch = lower - upper
        one, two = self.stretching
        return np.stack([-self._square * upper + one * stretch, -self._square * lower - two * stretch], -3)

    def stream_function(self, q: Complex[np.ndarray, "*batch 2 n half"]) -> Complex[np.ndarray, "*batch 2 n half"]:
        """Invert `vorticity`; the mean of ψ is zero."""
        upper, lower = np.moveaxis(q, -3, 0)
        one, two = self.stretching
        determinant = self._square * (self._square + one + two)
        inverse = np.divide(self.kept, determinant, out=np.zeros_like(determinant), where=determinant > 0)
        first = -inverse * ((self._square + two) * upper + one * lower)
        second = -inverse * (two * upper + (self._square + one) * lower)
        return np.stack([first, second], -3)

    def velocity(
        self, psi: Complex[np.ndarray, "*batch n half"]
    ) -> tuple[Float[np.ndarray, "*batch n n"], Float[np.ndarray, "*batch n n"]]:
        """−∂ψ/∂y and ∂ψ/∂x on the grid."""
        k, l = self.wavenumbers  # noqa: E741
        return self.on_grid(-1j * l * psi), self.on_grid(1j * k * psi)

    def on_grid(self, spectral: Complex[np.ndarray, "*batch n half"]) -> Float[np.ndarray, "*batch n n"]:
        """Values at the nodes."""
        return scipy.fft.irfft2(spectral, s=(self.n, self.n))

    def tendency(self, q: Complex[np.ndarray, "*batch 2 n half"]) -> Complex[np.ndarray, "*batch 2 n half"]:
        """∂q/∂t without the hyperviscosity."""
        k, l = self.wavenumbers  # noqa: E741
        psi = self.stream_function(q)
        u, v = self.velocity(psi)
        vorticity = self.on_grid(q)
        advection = 1j * k * scipy.fft.rfft2(u * vorticity) + 1j * l * scipy.fft.rfft2(v * vorticity)
        one, two = self.stretching
        gradient = np.array([self.beta + one * self.shear, self.beta - two * self.shear])[:, None, None]
        mean_flow = np.array([self.shear, 0.0])[:, None, None]
        change = -advection - 1j * k * (mean_flow * q + gradient * psi)
        change[..., 1, :, :] += self.drag * self._square * psi[..., 1, :, :]
        tendency: np.ndarray = self.kept * change
        return tendency

    def run(
        self, q: Complex[np.ndarray, "*batch 2 n half"], step: float, steps: int
    ) -> Complex[np.ndarray, "*batch 2 n half"]:
        """Take time steps of `step` seconds."""
        return QGIntegration(self, q, step).advance(steps)

    def energy(self, q: Complex[np.ndarray, "*batch 2 n half"]) -> Float[np.ndarray, "*batch"]:
        """Kinetic and available potential energy of the eddies, a mean over the volume, in m²/s²."""
        psi = self.stream_function(q)
        weight = np.array([self.depth_ratio, 1.0])[:, None, None] / (1 + self.depth_ratio)
        return np.asarray(-0.5 * (weight * self._means(psi * q.conj())).sum((-3, -2, -1)))

    def enstrophy(self, q: Complex[np.ndarray, "*batch 2 n half"]) -> Float[np.ndarray, "*batch 2"]:
        """Half the mean square of q in each layer, in 1/s²."""
        enstrophy: np.ndarray = 0.5 * self._means(q * q.conj()).sum((-2, -1))
        return enstrophy

    def growth_rates(self, k: float, l: float) -> Complex[np.ndarray, " 2"]:  # noqa: E741
        """Rates λ of the two linear modes e^{λt} of one wave vector, hyperviscosity left out."""
        square = k**2 + l**2
        one, two = self.stretching
        invert = np.linalg.inv(np.array([[-square - one, one], [two, -square - two]]))
        gradient = np.diag([self.beta + one * self.shear, self.beta - two * self.shear])
        matrix = -1j * k * (np.diag([self.shear, 0.0]) + gradient @ invert)
        return np.linalg.eigvals(matrix + self.drag * square * np.diag([0.0, 1.0]) @ invert)

    def decay(self, step: float) -> Float[np.ndarray, "n half"]:
        """Factor that the hyperviscosity takes off in a time step."""
        factor: np.ndarray = np.exp(-step * self.hyperviscosity * (self._square / self._square[self.kept].max()) ** 4)
        return factor

    @cached_property
    def _square(self) -> Float[np.ndarray, "n half"]:
        k, l = self.wavenumbers  # noqa: E741
        square: np.ndarray = k**2 + l**2
        return square

    def _means(self, spectral: Complex[np.ndarray, "*batch n half"]) -> Float[np.ndarray, "*batch n half"]:
        """Contributions to the mean over the grid, the half spectrum's mirror included."""
        twice = np.where((np.arange(self.n // 2 + 1) == 0) | (2 * np.arange(self.n // 2 + 1) == self.n), 1.0, 2.0)
        means: np.ndarray = twice * spectral.real / self.n**4
        return means


class QGIntegration:
    """A run of `TwoLayerQG` that can be continued, with the tendencies that Adams-Bashforth remembers.

    Examples
    --------
    >>> import numpy as np
    >>> from probcl.datasets.ocean import QGIntegration, TwoLayerQG
    >>> model = TwoLayerQG(n=16)
    >>> start = np.fft.rfft2(1e3 * np.random.default_rng(0).standard_normal((2, 16, 16)))
    >>> run = QGIntegration(model, model.kept * model.vorticity(start), step=3600.0)
    >>> run.advance(24).shape  # a day
    (2, 16, 9)
    """

    def __init__(self, model: TwoLayerQG, q: Complex[np.ndarray, "*batch 2 n half"], step: float) -> None:
        require_positive("step", step)
        self.model, self.q, self.step = model, q, step
        self._past: list[np.ndarray] = []
        self._decay = model.decay(step)

    def advance(self, steps: int) -> Complex[np.ndarray, "*batch 2 n half"]:
        """Take some steps and return q."""
        for _ in range(steps):
            if len(self._past) < 2:
                self._start()
            else:
                now = self.model.tendency(self.q)
                weights = zip(_ADAMS_BASHFORTH, (now, *self._past), strict=True)
                # What was computed a step ago has decayed by as much since.
                decays = (self._decay, self._decay**2, self._decay**3)
                changes = (w * d * t for (w, t), d in zip(weights, decays, strict=True))
                self.q = self._decay * self.q + self.step * sum(changes)
                self._past = [now, self._past[0]]
        return self.q

    def _start(self) -> None:
        """Take one of the first two steps by the third-order Runge-Kutta method of Shu & Osher (1988)."""
        q, dt, tendency = self.q, self.step, self.model.tendency
        now = tendency(q)
        one = q + dt * now
        two = 0.75 * q + 0.25 * (one + dt * tendency(one))
        self.q = self._decay * (q + 2 * (two + dt * tendency(two))) / 3
        self._past = [now, *self._past][:2]
