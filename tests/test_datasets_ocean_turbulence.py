from dataclasses import replace

import numpy as np
import pytest
import scipy.fft

from probcl.assimilation import require_archive, simulate_tracks
from probcl.datasets.ocean import QGIntegration, Turbulence, TwoLayerQG

DAY = 86400.0
MODEL = TwoLayerQG(n=24)
CLOSED = TwoLayerQG(n=24, shear=0.0, beta=0.0, drag=0.0, hyperviscosity=0.0)


def random_psi(model, seed=0, speed=0.3):
    """Eddies of all the longer waves, different in the two layers."""
    noise = scipy.fft.rfft2(np.random.default_rng(seed).standard_normal((2, model.n, model.n)))
    k, l = model.wavenumbers  # noqa: E741
    square = k**2 + l**2
    psi = model.kept * noise * np.exp(-square * (model.size / 25) ** 2)
    return psi * (speed / model.velocity(psi[0])[0].std())


def one_wave(model, m, n, amplitude=1.0):
    """A wave of m and n wavelengths along x and y, in both layers."""
    psi = np.zeros((2, model.n, model.n // 2 + 1), complex)
    psi[:, n, m] = amplitude
    return psi


def test_stream_function_inverts_vorticity():
    psi = random_psi(MODEL)
    np.testing.assert_allclose(MODEL.stream_function(MODEL.vorticity(psi)), psi, atol=1e-10 * abs(psi).max())


def test_vorticity_is_what_finite_differences_of_the_stream_function_give():
    model = TwoLayerQG(n=192)
    k, l = model.wavenumbers  # noqa: E741
    smooth = random_psi(model) * np.exp(-(k**2 + l**2) * (model.size / 12) ** 2)
    psi, q = model.on_grid(smooth), model.on_grid(model.vorticity(smooth))
    spacing = model.size / model.n
    laplacian = sum(np.roll(psi, s, axis) for s in (1, -1) for axis in (-1, -2)) - 4 * psi
    one, two = model.stretching
    stretch = np.stack([one * (psi[1] - psi[0]), two * (psi[0] - psi[1])])
    assert abs(laplacian / spacing**2 + stretch - q).max() < 0.01 * abs(q).max()


def test_velocity_has_no_divergence_and_is_the_turned_gradient():
    psi = random_psi(MODEL)[0]
    u, v = MODEL.velocity(psi)
    k, l = MODEL.wavenumbers  # noqa: E741
    divergence = MODEL.on_grid(1j * k * scipy.fft.rfft2(u) + 1j * l * scipy.fft.rfft2(v))
    assert abs(divergence).max() < 1e-12 * abs(MODEL.on_grid(1j * l * scipy.fft.rfft2(u))).max()
    model = TwoLayerQG(n=192)
    x = model.size * np.arange(192) / 192
    turn = 2 * np.pi / model.size
    field = np.sin(2 * turn * x)[None] * np.cos(turn * x)[:, None]
    u, v = model.velocity(scipy.fft.rfft2(field))
    np.testing.assert_allclose(u, turn * np.sin(2 * turn * x)[None] * np.sin(turn * x)[:, None], atol=1e-12)
    np.testing.assert_allclose(v, 2 * turn * np.cos(2 * turn * x)[None] * np.cos(turn * x)[:, None], atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 2e-11])
def test_the_tendency_conserves_energy(beta):
    """∂E/∂t = −⟨ψ, ∂q/∂t⟩ is zero to rounding, whatever the resolution."""
    model = replace(CLOSED, beta=beta)
    q = model.vorticity(random_psi(model))
    rate = (model.energy(q + 1e-3 * model.tendency(q)) - model.energy(q - 1e-3 * model.tendency(q))) / 2e-3
    assert abs(rate) < 1e-9 * model.energy(q) * 1e-3
    moving = np.linalg.norm(model.tendency(q)) / np.linalg.norm(q)
    assert moving > 1e-6


def test_the_tendency_conserves_the_enstrophy_of_each_layer():
    q = CLOSED.vorticity(random_psi(CLOSED))
    step = 10.0
    ahead, behind = (CLOSED.enstrophy(q + sign * step * CLOSED.tendency(q)) for sign in (1, -1))
    np.testing.assert_allclose(ahead, behind, rtol=1e-12)
    assert (ahead > CLOSED.enstrophy(q) * (1 + 1e-12)).all()


def test_energy_and_enstrophy_drift_at_the_order_of_the_time_step():
    """Adams-Bashforth of third order: the drift falls at least eightfold when the step is halved."""
    q = CLOSED.vorticity(random_psi(CLOSED))
    drifts = []
    for hours in (4, 2, 1):
        end = CLOSED.run(q, hours * 3600.0, 20 * 24 // hours)
        drifts.append(
            [abs(CLOSED.energy(end) / CLOSED.energy(q) - 1), *abs(CLOSED.enstrophy(end) / CLOSED.enstrophy(q) - 1)]
        )
    drifts = np.array(drifts)
    assert (drifts[:-1] / drifts[1:] > 6).all()
    assert drifts[-1].max() < 1e-3


def test_time_steps_converge_at_third_order():
    model = replace(MODEL, hyperviscosity=0.0)
    q = model.vorticity(random_psi(model))
    ends = [model.run(q, hours * 3600.0, round(4 * 24 / hours)) for hours in (2, 1, 0.5, 0.125)]
    errors = np.array([np.linalg.norm(end - ends[-1]) for end in ends[:-1]])
    assert np.log2(errors[:-1] / errors[1:]) == pytest.approx([3, 3], abs=0.3)


def test_a_run_can_be_cut_into_pieces():
    q = MODEL.vorticity(random_psi(MODEL))
    whole = MODEL.run(q, 7200.0, 30)
    run = QGIntegration(MODEL, q, 7200.0)
    run.advance(1)
    run.advance(17)
    np.testing.assert_array_equal(run.advance(12), whole)


def test_hyperviscosity_takes_each_wave_at_its_rate():
    """Where nothing else acts: one wave, equal in the layers, is not advected by itself."""
    model = replace(CLOSED, hyperviscosity=1e-5)
    q = model.vorticity(one_wave(model, 5, 3, 1e3))
    end = model.run(q, 3600.0, 240)
    k, l = model.wavenumbers  # noqa: E741
    square = k**2 + l**2
    rate = 1e-5 * (square[3, 5] / square[model.kept].max()) ** 4
    np.testing.assert_allclose(end, q * np.exp(-rate * 10 * DAY), atol=1e-9 * abs(q).max())


def test_rossby_waves_have_their_dispersion_relation():
    model = replace(CLOSED, beta=2e-11)
    one, two = model.stretching
    k, l = 2 * np.pi / model.size * np.array([3, 2])  # noqa: E741
    square = k**2 + l**2
    expected = 1j * 2e-11 * k / np.array([square, square + one + two])
    found = model.growth_rates(k, l)
    assert sorted(found.imag) == pytest.approx(sorted(expected.imag), rel=1e-9)
    assert abs(found.real).max() < 1e-18


@pytest.mark.parametrize("wave", [(3, 0), (3, 1), (2, 2)])
def test_small_eddies_grow_at_the_rate_of_linear_theory(wave):
    """After a hundred days the faster mode is left; it then grows as e^{λt}, with drag and beta."""
    model = replace(MODEL, hyperviscosity=0.0, shear=0.25)
    turn = 2 * np.pi / model.size
    rates = model.growth_rates(turn * wave[0], turn * wave[1])
    fastest = rates[rates.real.argmax()]
    start = model.run(model.vorticity(one_wave(model, *wave, 1e-6)), 7200.0, 12 * 100)
    end = model.run(start, 7200.0, 12 * 5)
    measured = np.log(end[0, wave[1], wave[0]] / start[0, wave[1], wave[0]]) / (5 * DAY)
    assert fastest.real > 0
    assert measured.real == pytest.approx(fastest.real, rel=0.01)
    turned = np.exp(1j * 5 * DAY * (measured.imag - fastest.imag))
    assert abs(turned - 1) < 0.02


def test_no_eddies_grow_below_the_critical_shear():
    """Phillips: both layers' gradients of potential vorticity have one sign for a small shear."""
    beta = 2e-11
    critical = beta / CLOSED.stretching[1]
    turn = 2 * np.pi / CLOSED.size
    for shear, grows in ((0.95 * critical, False), (1.3 * critical, True)):
        model = replace(CLOSED, beta=beta, shear=shear)
        most = max(model.growth_rates(turn * m, turn * n).real.max() for m in range(1, 9) for n in range(9))
        assert (most > 1e-10) == grows


@pytest.fixture(scope="module")
def archive():
    return Turbulence(spin_up=5.0).archive(3, (0.0, 1.0, 2.5))


def test_the_archive_holds_the_upper_layer_and_its_stream_function(archive):
    world = Turbulence()
    require_archive(archive)
    assert archive.psi.attrs["units"] == "m2 s-1"
    assert dict(archive.sizes) == {"member": 3, "time": 3, "latitude": 32, "longitude": 32}
    u, v = world.model.velocity(scipy.fft.rfft2(archive.psi.values.astype(float)))
    stretch = world.box.stretch(archive.latitude.values)[:, None]
    np.testing.assert_allclose(archive.u.values, u + world.model.shear, atol=1e-5)
    np.testing.assert_allclose(archive.v.values, v * stretch, atol=1e-5)
    simulate_tracks(archive, n_drifters=2, window="2D", fix_interval="12h")


def test_members_are_told_apart_by_their_labels(archive):
    part = Turbulence(spin_up=5.0).archive(1, (0.0,), first_member=2)
    np.testing.assert_allclose(part.u.values[0, 0], archive.u.values[2, 0], atol=1e-5)
    assert np.corrcoef(archive.u.values[:, 0].reshape(3, -1)).round(1).tolist() != np.ones((3, 3)).tolist()
    other = Turbulence(spin_up=5.0).archive(1, (0.0,), seed=1)
    assert abs(other.u.values - archive.u.values[:1, :1]).max() > 0.05


def test_a_time_step_that_is_too_long_is_refused_by_name():
    with pytest.raises(ValueError, match=r"step must be short enough .* got 24.0 hours"):
        Turbulence(step=24.0).archive(1, (0.0,))


@pytest.mark.parametrize("wrong", [{"n": 4}, {"size": 0.0}, {"drag": -1.0}, {"hyperviscosity": np.nan}])
def test_a_model_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        TwoLayerQG(**wrong)


@pytest.mark.slow
def test_turbulence_is_steady_at_the_speed_of_the_ocean():
    """16 members for 600 days: .2 to .3 m/s in both components, and no trend from one half to the other."""
    speeds = Turbulence().archive(16, range(0, 600, 30))
    early, late = (
        np.sqrt((part.u.values.var() + part.v.values.var()) / 2)
        for part in (speeds.isel(time=slice(0, 10)), speeds.isel(time=slice(10, 20)))
    )
    assert 0.2 < early < 0.3
    assert late == pytest.approx(early, rel=0.1)
