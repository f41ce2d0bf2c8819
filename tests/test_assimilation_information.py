"""The additive encoder of tracks, against Bayes' rule in float64."""

import numpy as np
import pytest
import torch
from ocean_cases import DAY, random_fourier

from probcl.assimilation import simulate_tracks
from probcl.assimilation.archive import Archive
from probcl.assimilation.encoders import TrackInformation
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.interpolation import trilinear
from probcl.assimilation.pairs import Campaign, WindowPairs, simulate_pairs
from probcl.assimilation.routes import InformationRoute
from probcl.assimilation.segments import SIMPSON
from probcl.assimilation.tokens import WIDTH, Tokenizer
from probcl.information import split_information

LAGS = np.arange(-1, 2) * DAY
CAMPAIGN = Campaign("2D", "12h", (2, 4), 50.0)
ARCHIVE = random_fourier(40, 3, seed=3)


@pytest.fixture(scope="module")
def prior() -> FieldPrior:
    return FieldPrior.eofs(Archive.of(ARCHIVE), LAGS, rank=12)


@pytest.fixture(scope="module")
def pairs(prior: FieldPrior) -> WindowPairs:
    return simulate_pairs(ARCHIVE, prior, CAMPAIGN, 80, seed=1)


def observation_operator(prior: FieldPrior, tokens: torch.Tensor) -> np.ndarray:
    """Mean velocity along each segment of each mode, over the prior's scale: shape (tokens, 2, rank)."""
    maps = np.nan_to_num(prior.grid.on_map(prior.modes / prior.scale)).transpose(1, 3, 4, 2, 0)
    places = tokens[:, :9].double().reshape(-1, 3, 3)
    index, weight = trilinear(places, maps.shape[:3])
    cells = maps.reshape(-1, 2, prior.rank)[index.numpy()]
    return np.einsum("npkcr,npk,p->ncr", cells, weight.numpy(), SIMPSON)


def test_before_training_it_is_optimal_interpolation_in_the_modes(prior: FieldPrior, pairs: WindowPairs) -> None:
    encoder = TrackInformation.of(prior)
    torch.nn.init.zeros_(encoder.net.layers[-1].weight)
    with torch.no_grad():
        b, precision = split_information(encoder(pairs.tokens[:3]))
    for row in range(3):
        tokens = pairs.tokens[row][pairs.tokens[row, :, -1] == 1]
        h = observation_operator(prior, tokens).reshape(-1, prior.rank)
        y = tokens[:, -3:-1].double().reshape(-1).numpy()
        noise = 0.3**2 + np.exp(tokens[:, 10].double().numpy()).repeat(2) ** 2
        np.testing.assert_allclose(b[row].numpy(), h.T @ (y / noise), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(precision[row].numpy(), h.T / noise @ h, rtol=2e-3, atol=2e-3)


def test_information_adds_over_segments_in_any_order(prior: FieldPrior, pairs: WindowPairs) -> None:
    torch.manual_seed(0)
    encoder = TrackInformation.of(prior)
    tokens = pairs.tokens[:1]
    tokens = tokens[:, tokens[0, :, -1] == 1]
    order = torch.randperm(tokens.shape[1])
    with torch.no_grad():
        whole, shuffled = encoder(tokens), encoder(tokens[:, order])
        parts = encoder(tokens[:, order[:3]]) + encoder(tokens[:, order[3:]])
        padded = encoder(torch.cat([torch.zeros(1, 4, WIDTH), tokens, torch.zeros(1, 2, WIDTH)], dim=1))
    for other in (shuffled, parts, padded):
        torch.testing.assert_close(other, whole, rtol=1e-4, atol=1e-4)


def test_what_fixes_of_great_error_say_fades(prior: FieldPrior, pairs: WindowPairs) -> None:
    encoder = TrackInformation.of(prior)
    sizes = []
    for error in (0.01, 1.0, 10.0, 100.0):
        tokens = pairs.tokens[:2].clone()
        tokens[..., 10] = np.log(error)
        with torch.no_grad():
            sizes.append(float(split_information(encoder(tokens))[1].diagonal(dim1=1, dim2=2).sum()))
    assert sizes[1] == pytest.approx(sizes[0] * 0.09 / 1.09, rel=0.05)
    assert sizes[3] == pytest.approx(sizes[2] / 100, rel=0.02)


def test_no_segments_give_no_information(prior: FieldPrior) -> None:
    assert not TrackInformation.of(prior)(torch.zeros(2, 5, WIDTH)).any()


def test_training_lowers_the_loss_and_its_posterior_is_calibrated(prior: FieldPrior, pairs: WindowPairs) -> None:
    train = simulate_pairs(ARCHIVE, prior, CAMPAIGN, 400, seed=2)
    route = InformationRoute(prior, InformationRoute.build(prior, seed=0))
    history = route.train(train, pairs, epochs=4, progress=False)
    assert history.loss[-1] < history.loss[0]
    held = Archive.of(ARCHIVE)
    truth = held.values[pairs.index[:, 0], pairs.index[:, 1]]
    route.calibrate(pairs, truth)
    rng = np.random.default_rng(0)
    posteriors = [route.analyse(pairs.tokens[[k]], 30, rng) for k in range(len(truth))]
    error = np.stack([posterior.mean for posterior in posteriors]) - truth
    spread = np.stack([posterior.stddev for posterior in posteriors])
    assert np.sqrt(np.square(spread).mean() / np.square(error).mean()) == pytest.approx(1, abs=0.02)
    drawn = np.stack([posterior.members.std(0, ddof=1) for posterior in posteriors])
    assert np.sqrt(np.square(drawn).mean() / np.square(spread).mean()) == pytest.approx(1, abs=0.03)
    assert np.square(error).mean() < 0.8 * truth.var()


def test_pairs_are_windows_of_the_archive_with_tracks_through_them(prior: FieldPrior, pairs: WindowPairs) -> None:
    held = Archive.of(ARCHIVE)
    assert pairs.x.shape == (80, prior.rank)
    assert pairs.tokens.shape[2] == WIDTH
    assert set(pairs.index[:, 1]) == {1}
    windows, counts = np.unique(pairs.index[:, 0], return_counts=True)
    assert len(windows) == 40
    assert (counts == 2).all()
    maps = prior.decode(pairs.x.numpy())
    truth = held.values[pairs.index[:, 0], pairs.index[:, 1]]
    assert np.square(maps - truth).mean() <= 1.1 * np.square(prior.unresolved).mean()
    again = simulate_pairs(ARCHIVE, prior, CAMPAIGN, 80, seed=1)
    torch.testing.assert_close(again.tokens, pairs.tokens, rtol=0, atol=0)


def test_tokens_hold_the_velocity_of_the_field_they_were_simulated_in(prior: FieldPrior, pairs: WindowPairs) -> None:
    seen, expected = [], []
    for row in range(40):
        tokens = pairs.tokens[row][pairs.tokens[row, :, -1] == 1]
        seen.append(tokens[:, -3:-1].numpy())
        expected.append(observation_operator(prior, tokens) @ pairs.x[row].double().numpy())
    errors = np.concatenate(seen) - np.concatenate(expected)
    # What is left is the truncation to twelve modes.
    left = np.square(prior.unresolved / prior.scale).mean()
    assert np.square(errors).mean() < 1.5 * left


def test_longitudes_of_either_convention_make_the_same_tokens(prior: FieldPrior) -> None:
    tracks = simulate_tracks(ARCHIVE.isel(member=[0]), n_drifters=3, window="2D", fix_interval="12h", position_error=50)
    window, times = np.zeros(3, dtype=int), Archive.of(ARCHIVE).times[[1]]
    here = Tokenizer(prior)(tracks, window, times)
    there = Tokenizer(prior)(tracks.assign(longitude=tracks.longitude - 360), window, times)
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_maps_can_be_learned_instead_of_given() -> None:
    encoder = TrackInformation((3, 8, 9), latent=4, maps="learned")
    assert "maps" in dict(encoder.named_parameters())
    assert encoder(torch.zeros(1, 2, WIDTH)).shape == (1, 20)
    with pytest.raises(ValueError, match="maps must be 'modes' or 'learned'"):
        TrackInformation((3, 8, 9), latent=4, maps="given")


def test_tokens_of_another_width_are_refused(prior: FieldPrior) -> None:
    with pytest.raises(ValueError, match=r"v must be tokens of tracks, of shape \(n, tokens, 14\)"):
        TrackInformation.of(prior)(torch.zeros(1, 2, 5))
