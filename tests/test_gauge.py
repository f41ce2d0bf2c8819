import pytest
import torch
from small_models import normal, table_model
from torch import Tensor

import probcl as pcl
from probcl.losses import Identifies


def discrete_joint(n_u: int = 6, n_v: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A joint law of two labels, its marginals, and the logarithm of its density ratio."""
    joint = normal(n_u, n_v, seed=7).mul(2).exp()
    joint = joint / joint.sum()
    p_u, p_v = joint.sum(1), joint.sum(0)
    return joint, p_u, p_v, (joint / p_u[:, None] / p_v).log()


@pytest.mark.parametrize("fitted", ["v", "u"])
def test_regauging_a_one_sided_fit_recovers_the_other_conditional_exactly(fitted):
    # What a perfect fit of v|u knows: log r + a(u), with any a; and its mirror.
    joint, p_u, p_v, log_r = discrete_joint()
    unknown = normal(6, 1, seed=8) if fitted == "v" else normal(1, 4, seed=8)
    model = table_model(log_r + 3 * unknown)
    over, bank, weights = ("v", torch.arange(4), p_v) if fitted == "v" else ("u", torch.arange(6), p_u)
    regauged = model.regauged(over, pcl.EmpiricalPrior(bank, weights))

    prior_u, prior_v = pcl.EmpiricalPrior(torch.arange(6), p_u), pcl.EmpiricalPrior(torch.arange(4), p_v)
    given_v, given_u = (joint / p_v).T, joint / p_u[:, None]
    exact = {"rtol": 0, "atol": 1e-14}
    torch.testing.assert_close(regauged.u_given_v(prior_u).condition(torch.arange(4)).probs, given_v, **exact)
    torch.testing.assert_close(regauged.v_given_u(prior_v).condition(torch.arange(6)).probs, given_u, **exact)
    torch.testing.assert_close(regauged.scores(torch.arange(6), torch.arange(4)).matrix(), log_r, rtol=0, atol=1e-13)

    as_fitted = model.v_given_u(prior_v).condition(torch.arange(6)).probs
    other = model.u_given_v(prior_u).condition(torch.arange(4)).probs
    (right, truth), (wrong, other_truth) = ((as_fitted, given_u), (other, given_v))[:: 1 if fitted == "v" else -1]
    torch.testing.assert_close(right, truth, **exact)
    assert (wrong - other_truth).abs().max() > 0.1


def test_regauging_over_a_bank_of_repeated_labels_counts_them_as_weights():
    log_r = discrete_joint()[3]
    model, u, v = table_model(log_r), torch.arange(6), torch.arange(4)
    repeated = model.regauged("v", pcl.EmpiricalPrior(torch.tensor([0, 1, 1, 3, 3, 3])))
    weighted = model.regauged("v", pcl.EmpiricalPrior(v, torch.tensor([1.0, 2, 0, 3], dtype=torch.float64)))
    assert len(repeated.gauge.bank) == 3
    torch.testing.assert_close(repeated.scores(u, v).matrix(), weighted.scores(u, v).matrix())


def test_regauging_twice_is_refused():
    prior = pcl.EmpiricalPrior(torch.arange(4))
    once = table_model(normal(6, 4)).regauged("v", prior)
    with pytest.raises(ValueError, match=r"re-gauged already, over 'v'"):
        once.regauged("v", prior)


U_PRIOR, V_PRIOR = pcl.EmpiricalPrior(torch.arange(6)), pcl.EmpiricalPrior(torch.arange(4))
OPEN = {
    "u|v": (Identifies.RATIO_UP_TO_U, lambda model: model.u_given_v(U_PRIOR)),
    "v|u": (Identifies.RATIO_UP_TO_V, lambda model: model.v_given_u(V_PRIOR)),
}


@pytest.mark.parametrize("fitted", [None, *Identifies], ids=str)
@pytest.mark.parametrize(("leaves_open", "use"), OPEN.values(), ids=OPEN)
def test_using_what_the_loss_left_open_warns_and_nothing_else_does(leaves_open, use, fitted):
    model = table_model(normal(6, 4))
    model.identifies = fitted
    if fitted is leaves_open:
        with pytest.warns(pcl.ProbclWarning, match=r"loss determines .*re-?gauge"):
            use(model)
    elif fitted is Identifies.TRANSFORM:
        with pytest.warns(pcl.ProbclWarning, match="claims no conditional: its loss determines a monotone transform"):
            use(model)
    else:
        use(model)  # where pytest turns a warning into an error


@pytest.mark.parametrize("over", ["u", "v"])
def test_a_transform_of_the_ratio_cannot_be_regauged(over):
    model = table_model(normal(6, 4))
    model.identifies = Identifies.TRANSFORM
    with pytest.raises(ValueError, match=r"monotone transform .* no gauge to change"):
        model.regauged(over, U_PRIOR if over == "u" else V_PRIOR)


def test_a_regauged_model_has_nothing_left_open():
    model = table_model(normal(6, 4))
    model.identifies = Identifies.RATIO_UP_TO_U
    regauged = model.regauged("v", V_PRIOR)
    regauged.u_given_v(U_PRIOR)
    regauged.v_given_u(V_PRIOR)
    assert regauged.identifies is Identifies.RATIO
