import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from matplotlib.figure import Figure
from scipy.stats import binom, multinomial
from small_models import seeded
from torch import Tensor

from probcl.diagnostics import Uniformity
from probcl.diagnostics.uniformity import chi_square_p_value, ecdf_band, ecdf_p_value, rank_values


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)


def pointwise_p_values(below: np.ndarray, count: int) -> np.ndarray:
    z = np.arange(1, count) / count
    return 2 * np.minimum(binom.cdf(below, count, z), binom.sf(below - 1, count, z))


def enumerated_p_value(values: Tensor) -> float:
    """Probability of a statistic as small as this one, by going through all ways to fill the cells of the grid."""
    count = len(values)
    observed = pointwise_p_values((values.numpy()[:, None] <= np.arange(1, count) / count).sum(0), count).min()
    total = 0.0
    for cells in itertools.product(range(count + 1), repeat=count):
        if sum(cells) == count:
            statistic = pointwise_p_values(np.cumsum(cells)[:-1], count).min()
            if statistic <= observed * (1 + 1e-12):
                total += multinomial.pmf(cells, count, np.full(count, 1 / count))
    return total


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_the_p_value_is_exact(count, seed):
    values = uniform(count, seed=seed)
    assert ecdf_p_value(values) == pytest.approx(enumerated_p_value(values), abs=1e-10)


def test_the_band_is_that_of_arviz():
    # What arviz.stats.ecdf_utils.ecdf_confidence_band(200, z, z, 0.95, method="optimized") returns (ArviZ 0.23.4).
    z, low, high = ecdf_band(200)
    at = np.isin(z, [0.05, 0.5])
    np.testing.assert_allclose(z[at], [0.05, 0.5])
    np.testing.assert_allclose(low[at], [0.01, 0.395])
    np.testing.assert_allclose(high[at], [0.1, 0.605])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_a_uniform_curve_stays_inside_the_band_as_often_as_promised(level):
    z, low, high = ecdf_band(250, level)
    inside = [((low <= ecdf) & (ecdf <= high)).all() for ecdf in simulated_ecdfs(250, z, 4000)]
    assert np.mean(inside) == pytest.approx(level, abs=3.3 * math.sqrt(level * (1 - level) / 4000) + 0.005)


def simulated_ecdfs(count: int, z: np.ndarray, repetitions: int) -> np.ndarray:
    values = np.sort(uniform(repetitions, count).numpy(), axis=1)
    return np.stack([np.searchsorted(row, z, side="right") for row in values]) / count


@pytest.mark.parametrize("count", [10, 100, 3000])
def test_a_curve_leaves_the_band_just_when_its_p_value_is_below_five_percent(count):
    z, low, high = ecdf_band(count)
    for seed in range(60):
        # Tilted by so much that both happen.
        values = uniform(count, seed=seed) ** (1 + 1.5 / math.sqrt(count))
        ecdf = (values.numpy()[:, None] <= z).mean(0)
        assert bool(((ecdf < low) | (ecdf > high)).any()) == (ecdf_p_value(values) <= 0.05)


def test_the_band_is_symmetric_and_gets_narrower():
    widths = []
    for count in (20, 200, 2000):
        z, low, high = ecdf_band(count)
        np.testing.assert_allclose(low, 1 - high[::-1], atol=1e-12)
        assert (low <= z).all()
        assert (z <= high).all()
        widths.append((high - low).max())
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("p_value", [ecdf_p_value, chi_square_p_value])
def test_p_values_of_uniform_numbers_are_uniform(p_value):
    p = np.array([p_value(values) for values in uniform(1000, 150)])
    for level in (0.05, 0.2, 0.5, 0.8):
        low, high = binom.interval(0.999, 1000, level)
        assert low <= (p <= level).sum() <= high


@given(npst.arrays(float, st.integers(2, 40), elements=st.floats(0, 1)))
def test_p_values_are_probabilities_and_do_not_care_about_reflection(values):
    # The grid counts ≤ z, so that reflection holds where no value is on the grid.
    values = torch.from_numpy(values) * 0.98 + 0.01 / math.pi
    p = ecdf_p_value(values)
    assert 0 <= p <= 1
    assert ecdf_p_value(1 - values) == pytest.approx(p, abs=1e-9)


def test_hopeless_values_have_a_p_value_of_zero():
    assert ecdf_p_value(torch.full((5000,), 0.3, dtype=torch.float64)) < 1e-10


@pytest.mark.parametrize("levels", [1, 2, 7])
def test_ranks_among_exchangeable_draws_are_uniform_with_ties_and_with_few_draws(levels):
    draws = torch.randint(levels, (6, 4000), generator=seeded(levels)).double()
    values = rank_values(draws[1:], draws[0])
    assert ecdf_p_value(values) > 0.01
    assert bool(((values >= 0) & (values <= 1)).all())


def test_the_p_value_of_many_components_is_corrected_for_their_number():
    values = uniform(100, 8)
    result = Uniformity(values)
    assert result.p_values.tolist() == [ecdf_p_value(column) for column in values.T]
    assert result.p_value == pytest.approx(min(1, 8 * result.p_values.min()))
    assert result.worst == result.p_values.argmin()
    assert Uniformity(values[:, :1]).p_value == result.p_values[0]


@pytest.mark.parametrize("kind", ["histogram", "ecdf"])
def test_plots_say_what_they_show(kind):
    ax = Uniformity(uniform(100, 2)).plot(Figure().subplots(), kind)
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_a_plot_without_axes_makes_a_figure():
    from matplotlib import pyplot as plt

    ax = Uniformity(uniform(30, 1)).plot()
    assert ax.figure.axes == [ax]
    plt.close(ax.figure)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^kind must be 'histogram' or 'ecdf'"):
        Uniformity(uniform(9, 1)).plot(Figure().subplots(), "box")
    with pytest.raises(ValueError, match=r"^the number of values must be at least 2"):
        ecdf_p_value(uniform(1))
