"""Operators that are learned from pairs, beside the modes that they were simulated with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ocean_cases import DAY, random_fourier

from probcl.assimilation import Assimilator
from probcl.assimilation.archive import Archive
from probcl.assimilation.encoders import Tokens, TrackInformation
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.operators import SMOOTHNESS, LearnedOperator, track_information
from probcl.assimilation.pairs import Campaign, WindowPairs, simulate_pairs

RANK = 4
ARCHIVE = random_fourier(60, 3, seed=3, length=120e3, waves=2)
CAMPAIGN = Campaign("2D", "12h", 4, 50.0)
SETTINGS = {"window": "2D", "fix_interval": "12h", "n_drifters": 4, "position_error": 50.0, "prior": "eof"}


@pytest.fixture(scope="module")
def prior() -> FieldPrior:
    return FieldPrior.eofs(Archive.of(ARCHIVE), np.arange(-1, 2) * DAY, RANK)


@pytest.fixture(scope="module")
def pairs(prior: FieldPrior) -> WindowPairs:
    """Pairs whose velocities are those of few modes alone, seen at the start, middle and end alike."""
    simulated = simulate_pairs(ARCHIVE, prior, CAMPAIGN, 600, seed=1)
    truth = track_information(prior)
    tokens = Tokens(simulated.tokens)
    seen = torch.einsum("ntpck,nk->ntpc", truth._at(tokens), simulated.x).mean(2)
    changed = simulated.tokens.clone()
    changed[:, : seen.shape[1], -3:-1] = seen
    return replace(simulated, tokens=changed)


def map_error(operator: LearnedOperator, prior: FieldPrior) -> float:
    given = TrackInformation.of(prior).maps.view(operator.maps.shape)
    water = torch.from_numpy(prior.grid.ocean)[None, :, :, None, None]
    return float(((operator.maps - given).square() * water).sum() / (given.square() * water).sum())


def few(pairs: WindowPairs, count: int) -> WindowPairs:
    return WindowPairs(pairs.x[:count], pairs.tokens[:count], pairs.index[:count])


def test_learned_maps_approach_the_modes(prior: FieldPrior, pairs: WindowPairs) -> None:
    shape = (3, *prior.grid.ocean.shape)
    errors = [map_error(LearnedOperator.of(few(pairs, count), shape), prior) for count in (30, 150, 600)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_smoothness_and_error_are_of_pairs_held_out(prior: FieldPrior, pairs: WindowPairs) -> None:
    operator = LearnedOperator.of(pairs, (3, *prior.grid.ocean.shape))
    assert operator.smoothness in SMOOTHNESS
    assert 0 < operator.error < 0.3
    encoder = track_information(prior, operator)
    assert "maps" not in dict(encoder.named_parameters())
    torch.testing.assert_close(encoder.maps.view(operator.maps.shape), operator.maps)


def test_information_of_learned_maps_adds_over_segments_in_any_order(prior: FieldPrior, pairs: WindowPairs) -> None:
    encoder = track_information(prior, LearnedOperator.of(few(pairs, 100), (3, *prior.grid.ocean.shape)))
    tokens = pairs.tokens[:1, pairs.tokens[0, :, -1] == 1]
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, parts = encoder(tokens), encoder(tokens[:, order[:3]]) + encoder(tokens[:, order[3:]])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_fit_learns_the_operator_says_so_and_comes_back_from_disk(tmp_path: Path) -> None:
    settings = {**SETTINGS, "method": "information", "rank": RANK, "pairs": 100, "epochs": 1, "progress": False}
    learned = Assimilator.fit(ARCHIVE, operator="learned", **settings)
    given = Assimilator.fit(ARCHIVE, **settings)
    assert learned.record["operator"]["operator"] == "learned"
    assert learned.record["operator"]["smoothness"] in SMOOTHNESS
    assert given.record["operator"] == {"operator": "given"}
    maps = [found.route.model.encoder_v.maps for found in (learned, given)]
    assert not torch.allclose(*maps)
    learned.save(tmp_path / "learned")
    again = Assimilator.load(tmp_path / "learned")
    torch.testing.assert_close(again.route.model.encoder_v.maps, maps[0], rtol=0, atol=0)
    assert again.record["operator"] == learned.record["operator"]


def test_other_operators_and_too_few_pairs_are_refused(prior: FieldPrior, pairs: WindowPairs) -> None:
    with pytest.raises(ValueError, match="operator must be 'given' or 'learned', got 'guessed'"):
        Assimilator.fit(ARCHIVE, operator="guessed", **SETTINGS)
    with pytest.raises(ValueError, match="pairs must be 20 or more to learn an operator from, got 19"):
        LearnedOperator.of(few(pairs, 19), (3, *prior.grid.ocean.shape))
