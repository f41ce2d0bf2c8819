import pickle

import pyro.distributions as dist
import pytest
import torch
from conditional_cases import chi_square, labels, vectors
from small_models import linear_model, normal, reference_scores, seeded, table_model

import probcl as pcl

ALIGNMENTS = [pcl.InnerProduct(), pcl.Cosine(), pcl.L2()]
TEMPERATURES = [1.0, 0.1, 0.01, 0.001]


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("distinct", [True, False], ids=["distinct", "duplicates"])
@pytest.mark.parametrize("temperature", [3.0, 0.3, 0.03])
@pytest.mark.parametrize("make", [vectors, labels])
def test_draws_have_the_law_that_log_prob_says(make, temperature, distinct, weighted):
    d = make(temperature, distinct, weighted)
    support = d.enumerate_support(expand=False)[:, 0]
    draws = d.sample((20_000,))
    assert draws.shape == (20_000, 3, *d.event_shape)
    probabilities = d.log_prob(d.enumerate_support()).exp()
    for b in range(3):
        place = pcl.EmpiricalPrior(support).find(draws[:, b])
        assert chi_square(place, probabilities[:, b]) > 1e-3


def test_the_chi_square_test_would_notice_a_slightly_wrong_temperature():
    draws, wrong = labels(1.0).sample((20_000,)), labels(0.8)
    assert chi_square(draws[:, 0], wrong.log_prob(wrong.enumerate_support()).exp()[:, 0]) < 1e-3


def test_draws_from_a_large_bank_are_not_skewed_by_rounding():
    size = 2_000_000
    model = table_model(torch.zeros(1, 1, dtype=torch.float32))
    d = model.u_given_v(pcl.EmpiricalPrior(torch.zeros(size, dtype=torch.int64))).condition(torch.tensor(0))
    index = d.sample_index((1_000_000,), generator=seeded())
    assert chi_square(index // (size // 10), torch.full((10,), 0.1)) > 1e-3


@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_probabilities_agree_with_a_float64_softmax_to_1e_6(alignment, temperature):
    model = linear_model(5, 4, 3, alignment, temperature, dtype=torch.float32)
    bank, v = normal(500, 5, seed=1, dtype=torch.float32), normal(20, 4, seed=2, dtype=torch.float32)
    weights = normal(500, seed=3, dtype=torch.float32).exp()
    d = model.u_given_v(pcl.EmpiricalPrior(bank, weights)).condition(v)
    expected = (reference_scores(model, bank, v) + weights.double().log()[:, None]).softmax(0).T
    assert d.probs.dtype == torch.float32
    torch.testing.assert_close(d.probs.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(d.log_prob(bank[:, None]).exp().T.double(), expected, rtol=0, atol=1e-6)


SIZES = [1_500, pytest.param(10_000, marks=pytest.mark.slow)]  # 10,000 × 10,000 takes 3 GB and some seconds


@pytest.mark.parametrize("n", SIZES)
def test_scores_of_ten_thousands_at_a_temperature_of_a_thousandth_do_not_overflow(n):
    z_u, z_v = (normal(n, 4, seed=seed, dtype=torch.float32) for seed in (1, 2))
    scores = pcl.Scores(z_u, z_v, temperature=0.001)
    exact = z_u[:5].double() @ z_v.double().T / 0.001
    assert exact.max() > 5_000  # whose exponential no float can hold
    torch.testing.assert_close(scores.logsumexp(1)[:5].double(), exact.logsumexp(1), rtol=1e-6, atol=0)
    assert all(scores.logsumexp(dim).isfinite().all() for dim in (0, 1, None))
    assert pcl.ConditionalLoss()(scores).isfinite()
    assert pcl.JointLoss()(scores).isfinite()


@pytest.mark.parametrize("n", SIZES)
def test_conditionals_on_ten_thousands_at_a_temperature_of_a_thousandth_do_not_overflow(n):
    model = linear_model(4, 4, 4, temperature=0.001, dtype=torch.float32)
    bank, v = (normal(n, 4, seed=seed, dtype=torch.float32) for seed in (1, 2))
    d = model.u_given_v(pcl.EmpiricalPrior(bank)).condition(v)
    assert d.log_normalizer.isfinite().all()
    assert d.logits.isfinite().all()
    assert (d.logits.exp().sum(1) - 1).abs().max() < 1e-5
    exact = reference_scores(model, bank, v[:5]).log_softmax(0).T
    torch.testing.assert_close(d.logits[:5].double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("distinct", [True, False], ids=["distinct", "duplicates"])
def test_moments_entropy_mode_and_effective_sample_size_agree_with_brute_force(temperature, distinct):
    d = vectors(temperature, distinct, weighted=True)
    p = d.probs / d.probs.sum(1, keepdim=True)
    mean = torch.einsum("bn,nk->bk", p, d.atoms)
    variance = torch.einsum("bn,bnk->bk", p, (d.atoms - mean[:, None]).square())
    torch.testing.assert_close(d.mean, mean)
    torch.testing.assert_close(d.variance, variance)
    torch.testing.assert_close(d.stddev, d.variance.sqrt())
    torch.testing.assert_close(d.ess(), 1 / (p**2).sum(1))
    of_values = torch.stack([(p * (d.atoms == value).all(1)).sum(1) for value in d.enumerate_support(False)[:, 0]])
    torch.testing.assert_close(d.entropy(), torch.special.entr(of_values).sum(0))
    torch.testing.assert_close(d.log_prob(d.enumerate_support()).exp(), of_values)
    assert torch.equal(d.mode, d.enumerate_support(False)[of_values.argmax(0), 0])


def test_the_mode_is_the_most_probable_value_and_not_the_most_probable_atom():
    prior = pcl.EmpiricalPrior(torch.tensor([0, 1, 2, 1]), torch.tensor([0.4, 0.25, 0.1, 0.25], dtype=torch.float64))
    d = table_model(torch.zeros(3, 1, dtype=torch.float64)).u_given_v(prior).condition(torch.tensor(0))
    assert int(d.mode) == 1
    assert d.log_prob(torch.arange(4)).exp().tolist() == pytest.approx([0.4, 0.5, 0.1, 0.0])


def test_variance_keeps_its_digits_far_from_the_origin():
    bank = normal(50, 2, seed=1) + 1e6
    model = table_model(torch.zeros(50, 1, dtype=torch.float64))
    model.encoder_u = torch.nn.Flatten()  # scores are coordinates
    model.encoder_v = torch.nn.Embedding.from_pretrained(torch.zeros(1, 2, dtype=torch.float64))
    d = model.u_given_v(pcl.EmpiricalPrior(bank)).condition(torch.tensor([0]))
    torch.testing.assert_close(d.variance[0], bank.var(0, correction=0), rtol=1e-9, atol=0)


def test_labels_have_no_moments():
    with pytest.raises(NotImplementedError, match=r"real-valued atoms.*int64"):
        _ = labels(1.0).mean


def test_values_outside_the_bank_have_log_probability_minus_infinity():
    d = vectors(1.0)
    assert (d.log_prob(normal(3, 2, seed=99)) == -torch.inf).all()
    assert d.log_prob(d.atoms[5]).isfinite().all()
    assert (labels(1.0).log_prob(torch.tensor([20, -1, 1000])) == -torch.inf).all()


@pytest.mark.parametrize("alignment", ALIGNMENTS, ids=repr)
@pytest.mark.parametrize("temperature", [1.0, 0.001])
def test_log_ratio_is_the_score_less_its_log_mean_exp_under_the_prior(alignment, temperature):
    model = linear_model(5, 4, 3, alignment, temperature, dtype=torch.float32)
    bank, v = normal(50, 5, seed=1, dtype=torch.float32), normal(6, 4, seed=2, dtype=torch.float32)
    weights = normal(50, seed=3, dtype=torch.float32).exp()
    d = model.u_given_v(pcl.EmpiricalPrior(bank, weights)).condition(v)
    prior = (weights.double() / weights.double().sum()).log()
    normaliser = (reference_scores(model, bank, v) + prior[:, None]).logsumexp(0)
    new = normal(9, 5, seed=4, dtype=torch.float32)
    expected = reference_scores(model, new, v) - normaliser
    torch.testing.assert_close(d.log_ratio(new[:, None]).double(), expected, rtol=1e-6, atol=2e-6)
    assert d.log_ratio(new[:6]).shape == (6,)
    of_atoms = d.log_ratio(bank[:, None]) + prior[:, None].float()
    torch.testing.assert_close(of_atoms, d.logits.T, rtol=1e-6, atol=1e-6)


def test_support_is_enumerated_as_pyro_wants_it():
    d = vectors(1.0, distinct=False)
    assert d.has_enumerate_support
    assert d.support.is_discrete
    assert d.support.check(d.enumerate_support()).all()
    assert not d.support.check(normal(4, 2, seed=99)).any()
    assert d.enumerate_support().shape == (11, 3, 2)
    assert d.enumerate_support(expand=False).shape == (11, 1, 2)
    torch.testing.assert_close(d.log_prob(d.enumerate_support(expand=False)).exp().sum(0), torch.ones(3).double())


def test_expanding_repeats_the_batch():
    d = vectors(0.5)
    e = d.expand((4, 3))
    assert (e.batch_shape, e.event_shape) == ((4, 3), (2,))
    assert e.sample((7,)).shape == (7, 4, 3, 2)
    assert e.enumerate_support().shape == (30, 4, 3, 2)
    value = d.atoms[:3]
    for got, of_one in [
        (e.log_prob(value), d.log_prob(value)),
        (e.log_ratio(value), d.log_ratio(value)),
        (e.mean, d.mean),
        (e.variance, d.variance),
        (e.mode, d.mode),
        (e.entropy(), d.entropy()),
        (e.ess(), d.ess()),
    ]:
        assert torch.equal(got, of_one.expand(got.shape))
        assert len(got) == 4


def test_one_label_makes_a_distribution_without_a_batch():
    model = table_model(normal(5, 4))
    d = model.u_given_v(pcl.EmpiricalPrior(torch.arange(5))).condition(torch.tensor(2))
    assert (d.batch_shape, d.event_shape) == ((), ())
    torch.testing.assert_close(d.log_prob(torch.arange(5)), normal(5, 4)[:, 2].log_softmax(0))
    assert d.sample((3,)).shape == (3,)
    assert d.mode.shape == d.entropy().shape == ()


def test_calling_a_conditional_conditions_it():
    nu, v = linear_model(2, 3, 4).u_given_v(pcl.EmpiricalPrior(normal(9, 2))), normal(5, 3)
    assert torch.equal(nu(v).logits, nu.condition(v).logits)


def test_generators_and_not_the_global_one_decide_where_they_are_given():
    d, before = vectors(1.0), torch.get_rng_state()
    first, second = (d.sample_index((100,), generator=seeded(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, d.sample_index((100,), generator=seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [vectors, labels])
def test_conditionals_pickle(make):
    d = make(0.5, distinct=False, weighted=True)
    support = d.enumerate_support()
    copy = pickle.loads(pickle.dumps(d))
    assert torch.equal(copy.log_prob(support), d.log_prob(support))
    assert torch.equal(copy.sample_index((9,), generator=seeded()), d.sample_index((9,), generator=seeded()))
    nu = pickle.loads(pickle.dumps(d.conditional))
    assert isinstance(nu, dist.ConditionalDistribution)
    assert torch.equal(nu.bank, d.conditional.bank)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda nu: nu.condition([1.0]), TypeError, r"^context must be a torch.Tensor"),
        (lambda nu: nu.condition(torch.full((2, 3), torch.nan)), ValueError, r"^context must be finite"),
        (lambda nu: nu.condition(normal(3)), ValueError, r"^context must be a batch"),
        (lambda nu: nu.condition(normal(2, 2, 3)), ValueError, r"^context must be a batch"),
        (lambda nu: nu.condition(normal(1, 3)).log_prob(normal(4, 3)), ValueError, r"event shape \(2,\)"),
        (lambda nu: nu.model.u_given_v(normal(9, 2)), TypeError, r"^prior must be an EmpiricalPrior"),
    ],
)
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(linear_model(2, 3, 4).u_given_v(pcl.EmpiricalPrior(normal(9, 2))))
