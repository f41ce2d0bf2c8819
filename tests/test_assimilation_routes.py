"""Ways from tracks to a posterior: what they must have in common, and where they must agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
import xarray as xr

import probcl as pcl
from probcl.assimilation import Assimilator, simulate_tracks
from probcl.assimilation.archive import Archive
from probcl.assimilation.assimilator import ROUTES
from probcl.assimilation.choice import Trial, choose
from probcl.assimilation.decoder import FieldDecoderPrior, fit_decoder
from probcl.assimilation.encoders import TrackInformation, TrackTransformer
from probcl.assimilation.fields import FieldPrior
from probcl.assimilation.pairs import Campaign, WindowPairs, simulate_pairs, truths
from probcl.assimilation.routes import Route, SamplerRoute
from probcl.assimilation.routes.information import standard_normal
from probcl.datasets.ocean import Box, GaussianOcean, Vortices
from probcl.information import QuadraticFeatures, split_information
from probcl.samplers import ImportanceResampling

DAYS = [0, 2.5, 5]
CAMPAIGN = {"window": "5D", "fix_interval": "48h", "n_drifters": 3, "position_error": 100.0}
WORLD = Vortices(1, box=Box(n=12, size=160e3))
TRAINED = ["information", "retrieval", "sampler", "sampler, mixture", "sampler, gaussian"]


@pytest.fixture(scope="module", autouse=True)
def _short_trials() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Route, "trial_windows", 4)
        patch.setattr(SamplerRoute, "trial_windows", 1)
        patch.setattr("probcl.assimilation.decoder._STEPS", 40)
        yield


@pytest.fixture(scope="module")
def archive() -> xr.Dataset:
    return WORLD.archive(100, DAYS)


def learned(archive: xr.Dataset, what: str) -> Assimilator:
    method, _, law = what.partition(", ")
    law = {"law": law} if law else {}
    return Assimilator.fit(
        archive, **CAMPAIGN, method=method, prior="eof", rank=10, held_out=0.5, pairs=50, epochs=1, **law
    )


def some_tracks(drifters: int = 3) -> xr.Dataset:
    world = WORLD.archive(1, DAYS, first_member=1000)
    return simulate_tracks(world, **{**CAMPAIGN, "n_drifters": drifters}, seed=drifters)


@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")
@pytest.mark.parametrize("what", TRAINED)
def test_a_loaded_assimilator_gives_the_same_analysis_for_any_number_of_drifters(archive, what, tmp_path: Path):
    fitted = learned(archive, what)
    fitted.save(tmp_path / "saved")
    again = Assimilator.load(tmp_path / "saved")
    for drifters in (1, 3, 7):
        tracks = some_tracks(drifters)
        found = fitted.assimilate(tracks, members=6, seed=1)
        xr.testing.assert_allclose(again.assimilate(tracks, members=6, seed=1), found, rtol=1e-3, atol=1e-5)
        assert np.isfinite(found.u.values).all()
        assert found.sizes["realization"] == 6


@pytest.mark.parametrize("name", ["information", "retrieval"])
@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")
def test_a_route_calibrated_like_another_of_the_same_model_is_that_route(archive, name: str):
    prior = FieldPrior.eofs(Archive.of(archive), np.zeros(1, "timedelta64[ns]"), 5)
    pairs = simulate_pairs(archive, prior, Campaign(*CAMPAIGN.values()), 50)
    tokens, found = pairs.tokens[:1], []
    calibrated, like = (ROUTES[name](prior, ROUTES[name].build(prior, seed=0)) for _ in range(2))
    calibrated.calibrate(pairs, truths(Archive.of(archive), pairs))
    like.calibrate_like(calibrated)
    for route in (calibrated, like):
        route.remember(pairs)
        found.append(route.analyse(tokens, 5, np.random.default_rng(0)).members)
    assert like.spread == pytest.approx(calibrated.spread, rel=1e-12)
    assert like.spread != 1.0
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_retrieved_member_is_the_archives_map_of_its_day_up_to_what_the_modes_leave_out(archive):
    fitted = learned(archive, "retrieval")
    found = fitted.assimilate(some_tracks(), members=20)
    days = [np.flatnonzero(archive.time.values == time)[0] for time in found.archive_time.values]
    rest = np.square(fitted.prior.unresolved).mean()
    squares = []
    for k, (member, day) in enumerate(zip(found.archive_member.values, days, strict=True)):
        map_ = archive.isel(member=member, time=day)
        squares.append([np.square(found[name][k].values - map_[name].values).mean() for name in ("u", "v")])
    assert np.mean(squares) == pytest.approx(rest, rel=0.5)
    assert np.mean(squares) < 0.1 * float(np.square(archive.u).mean())


def gaussian_toy(rank: int = 4) -> tuple[FieldPrior, WindowPairs]:
    """Currents with Gaussian modes, and tracks of drifters through them."""
    ocean = GaussianOcean(box=Box(n=8, size=300e3)).archive(200, days=[0, 1, 2])
    prior = FieldPrior.eofs(Archive.of(ocean), np.zeros(1, "timedelta64[ns]"), rank)
    prior = replace(prior, unresolved=np.zeros_like(prior.unresolved))
    return prior, simulate_pairs(ocean, prior, Campaign("2D", "12h", 2, 100.0), 3)


def same_model_routes() -> tuple[WindowPairs, dict[str, Route]]:
    """All routes on one model in information form, whose posterior under N(0, I) is known."""
    prior, pairs = gaussian_toy()
    encoder = TrackInformation.of(prior)
    features = QuadraticFeatures.of(standard_normal(prior.rank))
    model = pcl.BimodalModel(features, encoder, temperature=30.0)
    normal = torch.randn(40_000, prior.rank, generator=torch.Generator().manual_seed(0))
    index = np.stack([np.arange(len(normal)), np.zeros(len(normal), int)], axis=1)
    bank = WindowPairs(normal, torch.zeros(len(normal), 1, 14), index)
    routes: dict[str, Route] = {name: ROUTES[name](prior, model) for name in ("information", "retrieval")}
    for law in ("gaussian", "mixture"):
        route = routes[law] = SamplerRoute(prior, model)
        route.law = law
    for route in routes.values():
        route.remember(bank)
    return pairs, routes


def test_all_routes_agree_with_the_closed_form_where_they_share_a_model_and_a_prior():
    pairs, routes = same_model_routes()
    for window in range(2):
        found = {
            name: route.analyse(pairs.tokens[[window]], 4000, np.random.default_rng(0))
            for name, route in routes.items()
        }
        exact = found["information"]
        size = float(exact.stddev.mean())
        assert size < 0.9 * routes["information"].prior.scale
        for name, posterior in found.items():
            assert posterior.effective_sample_size is None or posterior.effective_sample_size > 100, name
            np.testing.assert_allclose(posterior.mean, exact.mean, atol=0.2 * size, err_msg=name)
            np.testing.assert_allclose(posterior.stddev, exact.stddev, rtol=0.15, err_msg=name)
            np.testing.assert_allclose(posterior.members.mean(0), posterior.mean, atol=0.2 * size, err_msg=name)


def test_a_sampler_that_cannot_be_trusted_warns_and_says_so_in_the_analysis(archive):
    fitted = learned(archive, "sampler, gaussian")
    fitted.route.sampler = ImportanceResampling(num_proposals=25)
    with pytest.warns(pcl.ProbclWarning, match="not to be trusted"):
        found = fitted.assimilate(some_tracks(), members=5)
    assert "not to be trusted: 1 of 1 conditions" in found.attrs["warning"]
    assert found.effective_sample_size.item() < 100


def test_the_record_says_that_the_sampler_is_tried_only_when_asked_for():
    prior, _ = gaussian_toy()
    trials = [
        Trial(ROUTES[name](prior, ROUTES[name].build(prior, 0)), crps, None)
        for name, crps in (("information", 0.2), ("retrieval", 0.1))
    ]
    best, why = choose(trials)
    assert (best.route.name, why["method"]) == ("retrieval", "retrieval")
    assert "the sampler, slower than retrieval by far, is tried only when asked for" in why["why"]
    sampler = Trial(SamplerRoute(prior, SamplerRoute.build(prior, 0)), 0.05, 300.0)
    assert "only when asked for" not in choose([*trials, sampler])[1]["why"]


def test_retrieval_that_rests_on_a_handful_of_windows_is_not_chosen():
    prior, _ = gaussian_toy()
    best, why = choose(
        [
            Trial(ROUTES[name](prior, ROUTES[name].build(prior, 0)), crps, ess)
            for name, crps, ess in (("information", 0.2, None), ("retrieval", 0.1, 3.0))
        ]
    )
    assert best.route.name == "information"
    assert "retrieval left out, as half of its posteriors rest on under 5 windows" in why["why"]


def tokens(n: int = 5, count: int = 7, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    v = torch.randn(n, count, 14, generator=rng)
    v[..., :9] = torch.rand(n, count, 9, generator=rng) * 7
    v[..., -1] = 1
    return v


def test_a_transformer_of_tracks_does_not_see_the_order_of_segments_or_padding():
    torch.manual_seed(0)
    encoder, v = TrackTransformer((1, 8, 8), 6).double(), tokens().double()
    with torch.no_grad():
        expected = encoder(v)
        order = torch.randperm(v.shape[1], generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(encoder(v[:, order]), expected)
        garbage = tokens(count=3, seed=2).double()
        garbage[..., -1] = 0
        torch.testing.assert_close(encoder(torch.cat([garbage, v], 1)), expected)
        assert not torch.allclose(encoder(v[:, 1:]), expected)
        assert torch.isfinite(encoder(torch.zeros_like(v))).all()


def test_only_the_last_block_reads_the_learned_token_alone_and_its_answer_is_that_of_all_tokens():
    torch.manual_seed(0)
    encoder, v = TrackTransformer((1, 8, 8), 6, blocks=3).double(), tokens().double()
    last = encoder.blocks[-1]
    x, seen = torch.randn(4, 8, 64).double(), torch.ones(4, 1, 1, 8, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(last(x, seen, count=1), last(x, seen, count=None)[:, :1])
        assert encoder(v).shape == (5, 6)


def test_a_transformers_context_is_the_posterior_mean_of_the_information_form():
    prior, pairs = gaussian_toy()
    information = TrackInformation.of(prior)
    torch.manual_seed(0)
    encoder = TrackTransformer((1, 8, 8), 6, context=information)
    model = pcl.BimodalModel(QuadraticFeatures.of(standard_normal(prior.rank)), information)
    mean = model.u_given_v(standard_normal(prior.rank)).condition(pairs.tokens).mean
    with torch.no_grad():
        torch.testing.assert_close(encoder._summary(pairs.tokens)[:, 0], encoder.summary[0] + encoder.start(mean))
        order = torch.randperm(pairs.tokens.shape[1], generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(encoder(pairs.tokens[:, order]), encoder(pairs.tokens), rtol=1e-4, atol=1e-5)
    encoder(pairs.tokens).sum().backward()
    assert all((parameter.grad is None) == name.startswith("context") for name, parameter in encoder.named_parameters())


def test_a_transformer_with_context_is_saved_and_loaded(tmp_path: Path):
    prior, pairs = gaussian_toy()
    encoder = TrackTransformer((1, 8, 8), 6, context=TrackInformation.of(prior))
    model = pcl.BimodalModel(pcl.encoders.Linear(prior.rank, 6), encoder)
    model.save(tmp_path / "model")
    again = pcl.BimodalModel.load(tmp_path / "model")
    assert torch.equal(again.embed_v(pairs.tokens), model.embed_v(pairs.tokens))


def test_the_information_of_a_union_of_segments_is_the_sum_of_theirs():
    prior, _ = gaussian_toy()
    encoder = TrackInformation.of(prior).double()
    first, second = tokens(count=4).double(), tokens(count=3, seed=1).double()
    with torch.no_grad():
        parts = [split_information(encoder(v)) for v in (first, second)]
        whole = split_information(encoder(torch.cat([first, second], 1)))
    for k in range(2):
        torch.testing.assert_close(whole[k], parts[0][k] + parts[1][k])


def bent(n: int, seed: int) -> torch.Tensor:
    """Draws of two variables on a surface in six dimensions, of which no two axes hold most."""
    a, b = torch.rand(2, n, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    x = torch.stack([(3 * a).cos(), (3 * a).sin(), (3 * b).cos(), (3 * b).sin(), a * b, a**2], 1)
    return (x - x.mean(0)) / x.std(0)


@pytest.fixture(scope="module")
def decoder() -> FieldDecoderPrior:
    return fit_decoder(bent(2000, 0), latent=3, components=10, hidden=(64, 64), epochs=80, batch_size=256)


def test_a_decoder_reproduces_what_it_has_not_seen_where_as_many_axes_cannot(decoder):
    x = bent(500, 1)
    left = float((x - decoder.reconstruct(x)).square().mean())
    linear = float(torch.linalg.svdvals(x)[3:].square().sum() / x.numel())
    assert left < 0.05
    assert left < 0.5 * linear


def test_draws_of_a_decoder_prior_are_told_from_data_less_well_than_those_of_a_gaussian(decoder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = decoder.unresolved * torch.randn(3, 300, 6)
        normal = torch.distributions.MultivariateNormal(torch.zeros(6), bent(2000, 0).T.cov()).sample((300,))
        data, drawn = bent(300, 2) + noise[0], decoder.sample((300,)) + noise[1]
    close, far = (pcl.diagnostics.c2st(data, y).accuracy for y in (drawn, normal + noise[2]))
    assert close < 0.65
    assert close < far - 0.1


def test_a_decoder_prior_made_of_its_tensors_is_the_same(decoder):
    again, z = (
        FieldDecoderPrior.of_tensors(decoder.tensors),
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    )
    torch.testing.assert_close(again.decode(z), decoder.decode(z))
    # The layout of a loaded tensor may differ, and with it the last bit of a sum.
    torch.testing.assert_close(again.latent.log_prob(z), decoder.latent.log_prob(z))
    assert torch.equal(again.unresolved, decoder.unresolved)
    assert repr(again) == "FieldDecoderPrior(modes=6, latent=3, components=10)"


def test_fitting_a_decoder_is_deterministic_and_leaves_no_trace():
    with pyro.get_param_store().scope():
        pyro.param("mine", torch.ones(2))
        before = torch.get_rng_state()
        one, two = (fit_decoder(bent(64, 0), latent=2, hidden=(8,), components=2, epochs=2) for _ in range(2))
        assert list(pyro.get_param_store().keys()) == ["mine"]
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())


def test_a_decoder_refuses_what_is_no_table_of_finite_numbers():
    with pytest.raises(ValueError, match="x must be finite"):
        fit_decoder(bent(64, 0).log(), latent=2)
    with pytest.raises(ValueError, match="x must have shape"):
        fit_decoder(bent(64, 0)[:1], latent=2)
