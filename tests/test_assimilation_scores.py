import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from ocean_cases import DAY, START, padded, random_fourier, track_of

from probcl import diagnostics
from probcl.assimilation import scorecard, scores
from probcl.assimilation.baselines import Climatology


def exchangeable(windows: int = 60, members: int = 19, values: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Members and a truth of one law, correlated within a window through its own mean and scale."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((windows, members + 1, values)) * rng.uniform(0.5, 2, (windows, 1, 1))
    drawn += 3 * rng.standard_normal((windows, 1, values))
    return drawn[:, 1:], drawn[:, 0]


def random_weights(windows: int, members: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(members, 0.5), windows)


def test_nrmse_is_the_error_in_units_of_the_truths_deviation() -> None:
    truth = np.random.default_rng(0).standard_normal((5, 30)) * 2 + 1
    assert scores.nrmse(np.full_like(truth, truth.mean()), truth) == pytest.approx(1)
    assert scores.nrmse(truth, truth) == 0
    assert scores.rmse(truth + 0.5, truth) == pytest.approx(0.5)


def test_pattern_correlation_is_numpys_of_anomalies() -> None:
    rng = np.random.default_rng(0)
    mean, truth, climatology = rng.standard_normal((4, 30)), rng.standard_normal((4, 30)), rng.standard_normal(30)
    found = scores.pattern_correlation(mean, truth, climatology)
    expected = [np.corrcoef(m - climatology, t - climatology)[0, 1] for m, t in zip(mean, truth, strict=True)]
    np.testing.assert_allclose(found, expected)
    # Rounding must not make a pattern of climatology.
    flat = np.broadcast_to(climatology, truth.shape)
    np.testing.assert_array_equal(scores.pattern_correlation(flat, truth, climatology), 0)


@given(st.integers(2, 8), st.integers(0, 1000))
def test_weighted_fair_crps_is_the_sum_over_pairs(members: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ensemble, truth = rng.standard_normal((3, members, 4)).round(1), rng.standard_normal((3, 4)).round(1)
    weights = rng.uniform(0.1, 1, (3, members))
    w = weights / weights.sum(1, keepdims=True)
    pairs = np.abs(ensemble[:, :, None] - ensemble[:, None])
    spread = np.einsum("ws,wt,wstv->wv", w, w, pairs) / (2 * (1 - (w**2).sum(1)))[:, None]
    expected = (np.einsum("ws,wsv->wv", w, np.abs(ensemble - truth[:, None])) - spread).mean(1)
    np.testing.assert_allclose(scores.fair_crps(ensemble, truth, weights), expected, atol=1e-12)


def test_fair_crps_with_equal_weights_is_that_of_the_diagnostics_and_of_the_law() -> None:
    ensemble, truth = exchangeable()
    found = scores.fair_crps(ensemble, truth)
    np.testing.assert_allclose(found, scores.fair_crps(ensemble, truth, np.ones(ensemble.shape[:2])), rtol=1e-10)
    other = diagnostics.crps(ensemble.swapaxes(0, 1).copy(), truth, fair=True).values.numpy().mean(1)
    np.testing.assert_allclose(found, other)
    rng = np.random.default_rng(1)
    small = scores.fair_crps(rng.standard_normal((20_000, 2, 1)), np.zeros((20_000, 1)))
    # Of N(0, 1) at 0: (√2 − 1)/√π, whatever the number of members.
    assert small.mean() == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi), abs=4 * small.std() / np.sqrt(20_000))


def test_spread_over_skill_is_one_for_an_exchangeable_truth() -> None:
    ensemble, truth = exchangeable(400, 5)
    assert scores.spread_skill(ensemble, truth) == pytest.approx(1, abs=0.03)
    assert scores.spread_skill(ensemble, truth, np.ones(ensemble.shape[:2])) == pytest.approx(
        scores.spread_skill(ensemble, truth)
    )
    centred = ensemble.mean(1, keepdims=True) + 0.5 * (ensemble - ensemble.mean(1, keepdims=True))
    assert scores.spread_skill(centred, truth) == pytest.approx(0.5 * scores.spread_skill(ensemble, truth))


def test_weighted_variance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    drawn, weights = rng.standard_normal((20_000, 4, 1)), np.tile([0.4, 0.3, 0.2, 0.1], (20_000, 1))
    assert scores.variance(drawn, weights).mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("members", [19, 39, 199])
def test_coverage_of_an_exchangeable_truth_is_its_level(members: int) -> None:
    ensemble, truth = exchangeable(400, members)
    assert scores.coverage(ensemble, truth, 0.9).mean() == pytest.approx(0.9, abs=0.01)
    assert scores.coverage(ensemble, truth, 0.5).mean() == pytest.approx(0.5, abs=0.02)


def test_coverage_of_weighted_members_is_that_of_the_members_they_stand_for() -> None:
    ensemble, truth = exchangeable(20, 5)
    times = np.array([4, 1, 3, 2, 10])
    repeated = np.repeat(ensemble, times, axis=1)
    found = scores.coverage(ensemble, truth, 0.77, np.tile(times, (20, 1)).astype(float))
    ends = np.quantile(repeated, [0.115, 0.885], axis=1, method="inverted_cdf")
    np.testing.assert_allclose(found, ((ends[0] <= truth) & (truth <= ends[1])).mean(1))


def test_the_rank_histogram_of_an_exchangeable_truth_is_flat_ties_included() -> None:
    ensemble, truth = exchangeable(400, 9)
    for digits in (6, 0):  # whole numbers tie often
        histogram = scores.rank_histogram(ensemble.round(digits), truth.round(digits), bins=10)
        assert histogram.sum() == pytest.approx(1)
        np.testing.assert_allclose(histogram, 0.1, atol=0.012)
    skewed = scores.rank_histogram(ensemble - 5, truth, bins=10)
    assert skewed[-1] > 0.9


def test_the_rank_histogram_knows_weights() -> None:
    rng = np.random.default_rng(0)
    # Members of N(0, 2²) weighted to N(0, 1): its truth is flat with the weights and in the middle without.
    ensemble, truth = 2 * rng.standard_normal((300, 400, 5)), rng.standard_normal((300, 5))
    weights = np.exp(-0.5 * (1 - 0.25) * ensemble[:, :, 0] ** 2)
    ensemble, truth = ensemble[:, :, :1], truth[:, :1]
    with_weights = scores.rank_histogram(ensemble, truth, bins=4, weights=weights)
    np.testing.assert_allclose(with_weights, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 300))
    assert scores.rank_histogram(ensemble, truth, bins=4)[1:3].sum() > 0.62


@given(st.integers(0, 1000))
def test_equal_weights_change_no_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ensemble, truth = rng.standard_normal((3, 6, 4)), rng.standard_normal((3, 4))
    equal = np.full((3, 6), 2.0)
    np.testing.assert_allclose(scores.fair_crps(ensemble, truth, equal), scores.fair_crps(ensemble, truth))
    np.testing.assert_allclose(
        scores.rank_histogram(ensemble, truth, weights=equal, seed=seed),
        scores.rank_histogram(ensemble, truth, seed=seed),
    )


def test_effective_resolution_is_the_wavelength_at_which_half_the_power_is_lost() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((20, 10, 128))
    frequency = np.fft.rfftfreq(128, d=10.0)
    kept = np.where(frequency < 1 / 80, 0.9, 0.0)  # 80 km, grid of 10 km; error .01 and 1 of the power
    mean = np.fft.irfft(np.fft.rfft(truth) * kept, n=128)
    found = scores.effective_resolution(mean, truth, spacing=10.0)
    assert found == pytest.approx(80, rel=0.08)
    land = truth.copy()
    land[:, :4, 60] = np.nan
    assert scores.effective_resolution(mean, land, spacing=10.0) == pytest.approx(found, rel=0.05)


def test_effective_resolution_at_its_ends() -> None:
    truth = np.random.default_rng(0).standard_normal((5, 5, 64))
    assert scores.effective_resolution(truth, truth, spacing=3.0) == 6.0
    assert scores.effective_resolution(0 * truth, truth, spacing=3.0) == np.inf


def test_bootstrap_intervals_of_a_mean_are_those_of_normal_theory() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    found = scores.bootstrap(lambda windows: float(values[windows].mean()), 400, resamples=2000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.low < found.value < found.high


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, t: scores.fair_crps(e, t[:, :-1]), r"ensemble must be \(windows, members, values\)"),
        (lambda e, t: scores.fair_crps(e * np.nan, t), "ensemble and truth must be finite, got NaN .* drop land"),
        (lambda e, t: scores.coverage(e, t, 1.0), "level must be between 0 and 1"),
        (lambda e, t: scores.fair_crps(e, t, np.ones((60, 3))), r"weights must have shape \(60, 19\)"),
        (lambda e, t: scores.fair_crps(e, t, -np.ones((60, 19))), "weights must be finite and not negative"),
        (lambda e, t: scores.fair_crps(e, t, np.eye(60, 19) + 1e-30), "weights must be shared by two members"),
        (lambda e, t: scores.nrmse(t, 0 * t), "truth must vary"),
        (lambda e, t: scores.rmse(t, t[:5]), "mean and truth must have the same shape"),
        (lambda e, t: scores.rank_histogram(e, t, bins=0), "bins must be at least 1"),
        (lambda e, t: scores.effective_resolution(e, e, -1.0), "spacing must be finite and positive"),
        (lambda e, t: scores.effective_resolution(e * np.nan, e, 1.0), "mean and truth must have rows of four points"),
        (lambda e, t: scores.bootstrap(len, 1), "windows must be at least 2"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*exchangeable())


def analyses() -> tuple[list[xr.Dataset], list[xr.Dataset], xr.Dataset]:
    data = random_fourier(20, 3)
    climatology = Climatology().fit(data)
    seen = padded([track_of(-33.2, 21.1, 1.0, 0.2, -0.1)])
    found = [climatology.analyse(seen, START + DAY, 15, seed) for seed in range(8)]
    truths = [random_fourier(1, 1, seed=50 + window).isel(member=0, time=0) for window in range(8)]
    return found, truths, data.mean(("member", "time"))


def test_a_scorecard_holds_what_the_scores_say() -> None:
    found, truths, climatology = analyses()
    card = scorecard(found, truths, climatology, resamples=200)
    ocean = np.isfinite(np.stack([truths[0]["u"], truths[0]["v"]]))

    def flat(dataset: xr.Dataset, name: str) -> np.ndarray:
        return np.stack([dataset[name.format(c)].values for c in "uv"], axis=-3)[..., ocean]

    mean, truth = (np.stack([flat(d, name) for d in part]) for part, name in ((found, "{}_mean"), (truths, "{}")))
    ensemble = np.stack([flat(each, "{}") for each in found])
    assert card["nrmse"].value == pytest.approx(scores.nrmse(mean, truth))
    assert card["rmse"].value == pytest.approx(scores.rmse(mean, truth))
    assert card["crps"].value == pytest.approx(scores.fair_crps(ensemble, truth).mean())
    assert card["spread_skill"].value == pytest.approx(scores.spread_skill(ensemble, truth))
    assert card["coverage90"].value == pytest.approx(scores.coverage(ensemble, truth).mean())
    assert card["correlation"].value == pytest.approx(0, abs=1e-9)
    assert all(each.low <= each.value <= each.high for each in card.values())
    assert card["nrmse"].low < card["nrmse"].high


def test_a_scorecard_refuses_another_grid_or_other_land_by_name() -> None:
    found, truths, climatology = analyses()
    with pytest.raises(ValueError, match="the same latitude"):
        scorecard(found, [t.assign_coords(latitude=t["latitude"] + 1) for t in truths], climatology)
    with pytest.raises(ValueError, match="the same land"):
        scorecard(found, [t.fillna(0.0) for t in truths], climatology)
    with pytest.raises(ValueError, match="must be as many, two or more, got 8 and 1"):
        scorecard(found, truths[:1], climatology)
