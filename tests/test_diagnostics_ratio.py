import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import binom
from score_cases import gaussian_log_ratio, gaussian_model, gaussian_pairs
from small_models import normal

import probcl as pcl
from probcl.diagnostics import normalizer_check, normalizer_check_of_scores, recalibrate
from probcl.losses import Identifies

BANK, CONDITIONS = gaussian_pairs(4000, seed=1)[0], gaussian_pairs(40, seed=2)[1]


def test_the_exact_log_ratio_passes():
    result = normalizer_check_of_scores(gaussian_log_ratio(BANK, CONDITIONS))
    assert result.p_value > 0.05
    assert result.error < 0.03
    assert result.trusted.double().mean() > 0.9
    np.testing.assert_array_less(result.residual.abs()[result.trusted], 4 * result.standard_error[result.trusted])


@pytest.mark.parametrize("constant", [False, True])
def test_false_alarms_are_as_rare_as_promised(constant):
    alarms = 0
    for seed in range(60):
        u, v = gaussian_pairs(1500, seed=seed)[0], gaussian_pairs(15, seed=1000 + seed)[1]
        alarms += normalizer_check_of_scores(gaussian_log_ratio(u, v), constant=constant).p_value <= 0.1
    assert alarms <= binom.ppf(0.999, 60, 0.1)


def test_a_function_of_v_is_caught_whether_or_not_a_constant_is_allowed():
    shifted = gaussian_log_ratio(BANK, CONDITIONS) + 0.3 * CONDITIONS.sum(-1)
    for constant in (False, True):
        result = normalizer_check_of_scores(shifted, constant=constant)
        assert result.p_value < 1e-6
        assert result.error == pytest.approx(0.3 * math.sqrt(2), rel=0.2)


def test_a_constant_is_caught_unless_it_is_allowed():
    shifted = gaussian_log_ratio(BANK, CONDITIONS) + 0.5
    assert normalizer_check_of_scores(shifted).p_value < 1e-6
    allowed = normalizer_check_of_scores(shifted, constant=True)
    assert allowed.p_value > 0.05
    assert allowed.constant == pytest.approx(0.5, abs=0.03)


def test_a_score_that_is_no_density_ratio_is_caught():
    u, v = BANK, CONDITIONS
    for score in (0.5 * gaussian_log_ratio(u, v), u @ v.T, -(u[:, None] - v[None]).square().sum(-1)):
        assert normalizer_check_of_scores(score, constant=True).p_value < 1e-6


@pytest.mark.parametrize("bank", [150, 200, 1001])
def test_a_score_that_knows_nothing_passes(bank):
    result = normalizer_check_of_scores(torch.zeros(bank, 5))
    assert result.p_value == pytest.approx(1)
    assert result.error == pytest.approx(0, abs=1e-9)
    assert normalizer_check_of_scores(torch.full((bank, 5), 0.1)).p_value < 1e-9
    assert normalizer_check_of_scores(torch.full((bank, 5), 0.1), constant=True).p_value == pytest.approx(1)


def test_standard_errors_are_those_of_many_banks():
    scores = torch.stack([gaussian_log_ratio(gaussian_pairs(500, seed)[0], CONDITIONS[:5]) for seed in range(200)])
    for constant in (False, True):
        results = [normalizer_check_of_scores(bank, constant=constant) for bank in scores]
        spread = torch.stack([result.residual for result in results]).std(0)
        mean_error = torch.stack([result.standard_error for result in results]).mean(0)
        np.testing.assert_allclose(mean_error, spread, rtol=0.2)


def test_the_log_normaliser_is_the_log_mean_exp_and_no_overflow_spoils_it():
    scores = normal(50, 3) + 2000
    expected = torch.logsumexp(scores, 0) - math.log(50)
    with pytest.warns(pcl.ProbclWarning, match=r"^the bank of 50 is too small .* only 0 of 3"):
        result = normalizer_check_of_scores(scores)
    torch.testing.assert_close(result.log_normalizer, expected)
    assert math.isnan(result.error)
    assert result.p_value == 1


def test_scores_too_large_for_the_bank_are_not_trusted():
    with pytest.warns(pcl.ProbclWarning, match="only 0 of 10"):
        result = normalizer_check_of_scores(8 * normal(1000, 10))
    assert not result.trusted.any()


def test_the_check_of_a_model_is_that_of_its_scores_over_either_side():
    model = gaussian_model()
    u, v = gaussian_pairs(1000, seed=5)
    scores = model.scores(u, v[:20]).matrix().detach()
    by_model = normalizer_check(model, u, v[:20], constant=True)
    torch.testing.assert_close(by_model.residual, normalizer_check_of_scores(scores, constant=True).residual)
    other = normalizer_check(model, u[:20], v, over="v", constant=True)
    scores = model.scores(u[:20], v).matrix().detach().mT
    torch.testing.assert_close(other.residual, normalizer_check_of_scores(scores, constant=True).residual)
    assert by_model.p_value > 0.01
    assert other.p_value > 0.01


def test_what_the_loss_leaves_open_is_allowed():
    # The model's score lacks the constant of the log ratio.
    model = gaussian_model()
    model.identifies = Identifies.RATIO
    assert normalizer_check(model, BANK, CONDITIONS).p_value > 0.05
    assert normalizer_check(model, BANK, CONDITIONS, constant=False).p_value < 1e-6
    model.identifies = None
    assert normalizer_check(model, BANK, CONDITIONS).p_value < 1e-6


@pytest.mark.parametrize(
    ("identifies", "own", "other"), [(Identifies.RATIO_UP_TO_V, "u", "v"), (Identifies.RATIO_UP_TO_U, "v", "u")]
)
def test_a_one_sided_fit_is_checked_on_the_other_side_of_its_regauge(identifies, own, other):
    model = gaussian_model()
    model.identifies = identifies
    with pytest.raises(ValueError, match=rf"^model must .* check model.regauged\(over='{own}'"):
        normalizer_check(model, BANK, CONDITIONS)
    u, v = gaussian_pairs(3000, seed=7)
    arguments = {"u": (u, v[:30], "u"), "v": (u[:30], v, "v")}
    regauged = model.regauged(own, pcl.EmpiricalPrior({"u": u, "v": v}[own]))
    held_out_u, held_out_v, over = arguments[other]
    assert normalizer_check(regauged, held_out_u, held_out_v, over=over).p_value > 0.01
    # A wrong temperature is not seen on the side that the regauge sets right, and is seen on the other.
    wrong = gaussian_model(temperature=2.0).regauged(own, pcl.EmpiricalPrior({"u": u, "v": v}[own]))
    mine_u, mine_v, mine = arguments[own]
    assert normalizer_check(wrong, mine_u, mine_v, over=mine).p_value > 0.5
    assert normalizer_check(wrong, held_out_u, held_out_v, over=over).p_value < 1e-4


def test_the_plot_is_labelled():
    with pytest.warns(pcl.ProbclWarning):
        result = normalizer_check_of_scores(torch.cat([normal(300, 3), 9 * normal(300, 4)], 1))
    assert 0 < result.trusted.sum() < 7
    ax = result.plot(Figure().subplots())
    assert "nats" in ax.get_ylabel()
    assert "3 of 7 conditions trusted" in repr(result)


MODEL, (U, V) = gaussian_model(), gaussian_pairs(9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normalizer_check(MODEL, U, V, over="w"), r"^over must be 'u' or 'v'"),
        (lambda: normalizer_check_of_scores(U[0]), r"^log_ratio must be \(M, B\)"),
        (lambda: normalizer_check_of_scores(U * math.nan), r"^log_ratio must be .* without NaN"),
        (lambda: normalizer_check_of_scores(U - math.inf), r"^log_ratio must not be −inf"),
        (lambda: normalizer_check_of_scores(U[:, :1], constant=True), r"^constant=True needs at least two conditions"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("diagnostic", [normalizer_check, recalibrate])
def test_what_is_no_model_is_refused(diagnostic):
    with pytest.raises(TypeError, match=r"^model must be a BimodalModel, got 'model' of type str"):
        diagnostic("model", U, V)
