import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from score_cases import gaussian_model, gaussian_pairs
from small_models import linear_model, normal, seeded, table_model
from torch import Tensor

import probcl as pcl
from probcl.diagnostics import LinearPotentials, recalibrate
from probcl.losses import Identifies

PAIRS = gaussian_pairs(600, seed=3)


def loss_of(model: pcl.BimodalModel, u: Tensor, v: Tensor, loss: pcl.Loss | None = None) -> float:
    scores = model.scores_of_embeddings(model.embed_u(u).double(), model.embed_v(v).double())
    return float((loss or pcl.ConditionalLoss())(scores).detach())


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("spoilt", [0.1, 2.5, 40.0])
def test_a_spoilt_temperature_is_recovered(spoilt, learnable):
    model = gaussian_model(spoilt, learnable)
    recovered, report = recalibrate(model, *PAIRS)
    # 1/τ of an exponential family: its standard error is that of the score's slope, 0.05 for these pairs.
    assert recovered.temperature.value == pytest.approx(1, abs=0.15)
    assert recovered.temperature.learnable == learnable
    assert report.loss_after == pytest.approx(loss_of(recovered, *PAIRS), rel=1e-9)
    assert report.loss_before == pytest.approx(loss_of(model, *PAIRS), rel=1e-9)
    fresh = gaussian_pairs(2000, seed=4)
    assert loss_of(recovered, *fresh) < loss_of(model, *fresh)


def test_the_optimum_does_not_depend_on_where_the_search_began():
    found = [recalibrate(gaussian_model(start), *PAIRS)[0].temperature.value for start in (0.05, 1.0, 20.0)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-3)


@pytest.mark.parametrize(
    "loss", [pcl.ConditionalLoss(2, 0), pcl.ConditionalLoss(0, 2), pcl.JointLoss(), pcl.ConditionalLoss(diagonal=False)]
)
def test_the_slope_of_any_loss_vanishes_at_its_optimum(loss):
    model, _ = recalibrate(gaussian_model(3.0), *PAIRS, loss=loss)
    at = model.temperature.value
    losses = [loss_of(gaussian_model(tau), *PAIRS, loss) for tau in (at / 1.01, at, at * 1.01)]
    assert losses[1] <= min(losses)


def test_the_direction_that_was_fitted_decides():
    model = gaussian_model(3.0)
    model.identifies = Identifies.RATIO_UP_TO_V
    one_sided, _ = recalibrate(model, *PAIRS)
    expected, _ = recalibrate(model, *PAIRS, loss=pcl.ConditionalLoss(2, 0))
    assert one_sided.temperature.value == expected.temperature.value
    assert one_sided.identifies is Identifies.RATIO_UP_TO_V


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(2, 30),
    st.sampled_from([pcl.InnerProduct(), pcl.Cosine(), pcl.L2()]),
    st.floats(0.02, 50),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore::probcl.ProbclWarning")
def test_the_held_out_loss_never_becomes_worse(seed, count, alignment, temperature, single):
    dtype = torch.float32 if single else torch.float64
    model = linear_model(3, 3, 2, alignment, temperature, dtype=dtype)
    u = normal(count, 3, seed=seed, dtype=dtype)
    v = 0.5 * u + normal(count, 3, seed=seed + 1, dtype=dtype)
    better, report = recalibrate(model, u, v)
    assert report.loss_after <= report.loss_before
    assert loss_of(better, u, v) <= loss_of(model, u, v)


def test_nothing_changes_where_nothing_is_better():
    first, _ = recalibrate(gaussian_model(0.7, learn_temperature=True), *PAIRS)
    again, report = recalibrate(first, *PAIRS)
    assert again.temperature.value == pytest.approx(first.temperature.value, rel=1e-4)
    assert report.loss_after <= report.loss_before


def test_batches_bound_the_memory_and_change_little():
    whole, _ = recalibrate(gaussian_model(3.0), *PAIRS)
    parts, _ = recalibrate(gaussian_model(3.0), *PAIRS, batch_size=150)
    assert parts.temperature.value == pytest.approx(whole.temperature.value, rel=0.05)


def test_the_encoders_are_shared_and_the_model_is_left_as_it_was():
    model = gaussian_model(3.0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    better, _ = recalibrate(model, *PAIRS, potentials=True)
    assert better.encoder_u is model.encoder_u
    assert better.encoder_v is model.encoder_v
    assert model.temperature.value == 3
    assert model.training
    assert model.encoder_u.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_regauged_model_keeps_its_gauge():
    model = gaussian_model(3.0).regauged("v", pcl.EmpiricalPrior(gaussian_pairs(200, seed=8)[1]))
    better, report = recalibrate(model, *PAIRS)
    assert better.gauge is model.gauge
    assert report.loss_after < report.loss_before


def test_pairs_told_apart_perfectly_give_a_warning_and_no_certainty():
    model = table_model(torch.eye(6, dtype=torch.float64))
    with pytest.warns(pcl.ProbclWarning, match="told apart perfectly"):
        _, report = recalibrate(model, torch.arange(6), torch.arange(6))
    assert report.loss_after == pytest.approx(-math.log(6) + 1 / 6, abs=1e-5)


def test_a_temperature_that_is_as_good_as_the_limit_stays():
    model = table_model(10 * torch.eye(6, dtype=torch.float64))
    with pytest.warns(pcl.ProbclWarning, match="told apart perfectly"):
        same, report = recalibrate(model, torch.arange(6), torch.arange(6))
    assert same.temperature.value == model.temperature.value
    assert report.loss_after == report.loss_before


def rebalanced_labels(count: int, frequencies: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Labels v of these frequencies, with u ~ N(2 e_v, I)."""
    v = torch.multinomial(frequencies, count, replacement=True, generator=seeded(seed))
    return 2 * torch.eye(3, dtype=torch.float64)[v] + normal(count, 3, seed=seed + 1), v


def labels_model() -> pcl.BimodalModel:
    """The right score for labels of equal frequencies, ⟨2 u, e_v⟩, whatever the frequencies are."""
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 3), pcl.encoders.Label(3)).double()
    with torch.no_grad():
        model.encoder_u.weight.copy_(2 * torch.eye(3))
    return model


def test_potentials_correct_a_score_that_favours_some_labels():
    model = labels_model()
    favours = LinearPotentials(model.alignment, 3).double()
    with torch.no_grad():
        favours.weight_v.copy_(torch.tensor([1.0, -0.5, 0.0]))
    spoilt = pcl.BimodalModel(model.encoder_u, model.encoder_v, favours).double()
    pairs = rebalanced_labels(400, torch.ones(3), seed=0)
    plain, without = recalibrate(spoilt, *pairs)
    better, report = recalibrate(spoilt, *pairs, potentials=True)
    assert report.potentials
    assert report.potentials_gain > 0.05
    assert report.loss_after < without.loss_after - 0.05
    fresh = rebalanced_labels(1500, torch.ones(3), seed=10)
    assert loss_of(better, *fresh) < loss_of(plain, *fresh) - 0.05
    assert loss_of(better, *fresh) < loss_of(model, *fresh) + 0.01
    assert isinstance(better.alignment, LinearPotentials)


def test_potentials_that_do_not_help_are_not_kept():
    better, report = recalibrate(gaussian_model(3.0), *gaussian_pairs(300, seed=6), potentials=True)
    plain, _ = recalibrate(gaussian_model(3.0), *gaussian_pairs(300, seed=6))
    assert not report.potentials
    assert report.potentials_gain <= 0
    assert better.temperature.value == plain.temperature.value
    assert isinstance(better.alignment, pcl.WithPotentials)


@pytest.mark.parametrize("base", [pcl.InnerProduct(), pcl.Cosine(), pcl.L2(), pcl.WithPotentials()])
def test_linear_potentials_add_what_they_say(base):
    x, y = normal(5, 4), normal(6, 4, seed=1)
    alignment = LinearPotentials(base, 4).double()
    torch.testing.assert_close(alignment(x, y), base(x, y))
    with torch.no_grad():
        alignment.weight_u.copy_(normal(4, seed=2))
        alignment.weight_v.copy_(normal(4, seed=3))
    expected = base(x, y) + (x @ alignment.weight_u)[:, None] + y @ alignment.weight_v
    torch.testing.assert_close(alignment(x, y), expected)
    torch.testing.assert_close(alignment.matched(x, y[:5]), expected[:, :5].diagonal())
    scores = pcl.Scores(x, y, alignment, temperature=0.5)
    torch.testing.assert_close(scores.matrix(), expected / 0.5)


def test_a_recalibrated_model_survives_saving(tmp_path):
    u, v = rebalanced_labels(60, torch.ones(3), seed=0)
    model = labels_model()
    model.alignment = LinearPotentials(model.alignment, 3).double()
    with torch.no_grad():
        model.alignment.weight_v.copy_(torch.tensor([2.0, 0.0, 0.0]))
    better, report = recalibrate(model, u, v, potentials=True)
    assert report.potentials
    better.save(tmp_path)
    loaded = pcl.BimodalModel.load(tmp_path)
    torch.testing.assert_close(loaded.scores(u, v).matrix(), better.scores(u, v).matrix())


def test_the_report_can_be_drawn_and_read():
    _, report = recalibrate(gaussian_model(3.0), *PAIRS)
    ax = report.plot(Figure().subplots())
    assert ax.get_xlabel() == "temperature"
    assert "τ 3 → " in repr(report)
    assert (report.searched_temperatures.diff() > 0).all()
    assert float(report.searched_losses.min()) == pytest.approx(report.loss_after, abs=1e-9)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused():
    u, v = PAIRS
    with pytest.raises(ValueError, match=r"^u and v must be pairs, at least 2 of them, got 600 u and 5 v"):
        recalibrate(gaussian_model(), u, v[:5])
    with pytest.raises(ValueError, match=r"^u and v must be pairs, at least 10 of them"):
        recalibrate(gaussian_model(), u[:9], v[:9], potentials=True)
    with pytest.raises(ValueError, match=r"^batch_size must be at least 2"):
        recalibrate(gaussian_model(), u, v, batch_size=1)
