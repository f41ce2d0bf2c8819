"""How many independent windows an archive has, and the warning where they are few."""

import numpy as np
import pytest
import xarray as xr
from ocean_cases import dataset, random_fourier

import probcl as pcl
from probcl.assimilation.archive import Archive
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.independence import independent_windows, scarcity

NOW = np.zeros(1, "timedelta64[ns]")


def white(times: int) -> xr.Dataset:
    """Currents that are others every day."""
    values = np.random.default_rng(0).standard_normal((1, times, 2, 8, 9))
    return dataset(0.1 * values, -34 + 0.25 * np.arange(8), 20 + 0.25 * np.arange(9))


def test_every_map_of_white_currents_is_a_window() -> None:
    assert independent_windows(white(30)) == 30
    assert independent_windows(white(30).isel(time=[3])) == 1


def test_slow_currents_have_one_window_each_time_that_they_decorrelate() -> None:
    # Their autocorrelation exp(−t²/2·4²) is below 1/e after 4√2 days, first on day 6.
    archive = random_fourier(1, 241, seed=2, period=4.0, waves=2000)
    assert independent_windows(archive) == pytest.approx(1 + 240 / 6, rel=0.25)


def test_few_windows_of_one_member_are_warned_of_with_what_was_reduced() -> None:
    archive = white(6)
    prior = FieldPrior.eofs(Archive.of(archive), NOW, rank=50)
    assert prior.rank < 50
    with pytest.warns(pcl.ProbclWarning, match="about 6.0 independent windows, 5 days of one member: too few") as told:
        record = scarcity(archive, prior, 50, 1000)
    said = f"for {prior.rank} modes and 1000 pairs; 50 modes were asked for and {prior.rank} are kept"
    assert said in str(told[0].message)
    assert record == {"modes_asked": 50, "modes": prior.rank, "independent_windows": 6.0}


def test_enough_windows_or_several_members_pass_in_silence() -> None:
    long = white(40)
    prior = FieldPrior.eofs(Archive.of(long), NOW, rank=5)
    assert scarcity(long, prior, 5, 1000)["independent_windows"] == 40
    assert "independent_windows" not in scarcity(random_fourier(3, 4), prior, 5, 1000)
