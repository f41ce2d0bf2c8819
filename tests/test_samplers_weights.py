import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import normal, seeded

from probcl.samplers.weights import (
    effective_sample_size,
    k_hat_threshold,
    log_mean_exp,
    log_mean_exp_se,
    pareto_smoothed,
    shuffled,
    systematic_resample,
    take,
    weights_pass,
)

F64 = torch.float64


def pareto_log_weights(shape: float, count: int, columns: int = 1) -> torch.Tensor:
    """Logarithms of generalised Pareto draws of the given tail index."""
    uniform = torch.rand(count, columns, generator=seeded(), dtype=F64)
    return (torch.expm1(-shape * torch.log1p(-uniform)) / shape).log()


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 30.0])
def test_smoothing_and_k_hat_agree_with_arviz(arviz, scale):
    log_weights = scale * normal(3000, 4)
    smoothed, k_hat = pareto_smoothed(log_weights)
    expected, expected_k = arviz.psislw(log_weights.T.numpy(), normalize=True)
    np.testing.assert_allclose(k_hat.numpy(), expected_k, rtol=1e-6)
    np.testing.assert_allclose(smoothed.log_softmax(0).T.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [0.2, 0.6, 1.0, 1.5])
def test_k_hat_is_the_tail_index_of_pareto_weights(shape):
    _, k_hat = pareto_smoothed(pareto_log_weights(shape, 50_000, columns=8))
    assert float(k_hat.mean()) == pytest.approx(shape, abs=0.06)


@pytest.mark.parametrize("shape", [0.3, 0.6])
def test_smoothing_leaves_the_order_and_the_bulk_of_the_weights(shape):
    log_weights = pareto_log_weights(shape, 4000)
    smoothed, _ = pareto_smoothed(log_weights)
    order = log_weights[:, 0].argsort()
    assert (smoothed[order, 0].diff() >= -1e-12).all()
    bulk = order[: 4000 - math.ceil(3 * math.sqrt(4000))]
    assert torch.equal(smoothed[bulk], (log_weights - log_weights.max())[bulk])
    assert smoothed.max() <= 0


def test_equal_weights_have_no_tail_and_pass():
    smoothed, k_hat = pareto_smoothed(torch.full((1000, 2), -7.0, dtype=F64))
    assert (smoothed == 0).all()
    assert (k_hat == -math.inf).all()
    assert weights_pass(k_hat, effective_sample_size(smoothed), 1000).all()


@pytest.mark.parametrize("largest", [50.0, 800.0])
def test_a_single_huge_weight_is_reported_not_smoothed_away(largest):
    log_weights = 1e-3 * normal(1000, 1)
    log_weights[17] = largest
    smoothed, k_hat = pareto_smoothed(log_weights)
    assert not weights_pass(k_hat, effective_sample_size(smoothed), 1000).any()
    assert int(smoothed.argmax()) == 17


def test_impossible_draws_stay_impossible():
    log_weights = normal(500, 1)
    log_weights[::2] = -torch.inf
    smoothed, k_hat = pareto_smoothed(log_weights)
    assert smoothed[::2].isneginf().all()
    assert k_hat.isfinite().all()


def test_threshold_is_that_of_vehtari_and_others():
    assert k_hat_threshold(100) == pytest.approx(0.5)
    assert k_hat_threshold(10_000) == pytest.approx(0.7)
    assert k_hat_threshold(10**6) == pytest.approx(0.7)


def test_a_heavy_tail_that_carries_nothing_passes_below_one_only():
    k_hat, ess = torch.tensor([0.8, 0.8, 1.1]), torch.tensor([990.0, 600.0, 999.0])
    assert weights_pass(k_hat, ess, 1000).tolist() == [True, False, False]


def test_evidence_error_is_the_delta_method_of_the_sample_variance():
    log_weights = normal(400, 3)
    weights = log_weights.exp()
    expected = weights.std(0) / weights.mean(0) / math.sqrt(400)
    assert torch.allclose(log_mean_exp_se(log_weights), expected)
    assert torch.allclose(log_mean_exp(log_weights), weights.mean(0).log())
    assert torch.allclose(effective_sample_size(log_weights), weights.sum(0).square() / weights.square().sum(0))


@given(
    count=st.integers(1, 60),
    logs=st.lists(st.floats(-30, 5) | st.just(-math.inf), min_size=1, max_size=25),
    seed=st.integers(0, 1000),
)
def test_systematic_resampling_takes_each_index_its_share_rounded_up_or_down(count, logs, seed):
    log_weights = torch.tensor([*logs, 0.0], dtype=F64)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        index = systematic_resample(log_weights, count)
    copies = torch.bincount(index, minlength=len(log_weights))
    share = count * log_weights.softmax(0)
    assert copies.sum() == count
    assert (copies >= (share - 1e-9).floor()).all()
    assert (copies <= (share + 1e-9).ceil()).all()


def test_systematic_resampling_is_unbiased():
    log_weights = normal(6, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        copies = sum(
            torch.nn.functional.one_hot(systematic_resample(log_weights, 5), 6).sum(0).double() for _ in range(4000)
        )
    # Each copy number is at most one away from its mean, so its standard deviation is at most 1/2.
    assert ((copies / 4000 - 5 * log_weights.softmax(0).mT).abs() < 4 * 0.5 / math.sqrt(4000)).all()


def test_shuffling_permutes_each_column():
    index = torch.arange(50)[:, None].expand(-1, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixed = shuffled(index)
    assert torch.equal(mixed.sort(0).values, index)
    assert not torch.equal(mixed[:, 0], mixed[:, 1])


@pytest.mark.parametrize("trailing", [(), (4,), (2, 3)])
def test_take_is_indexing_column_by_column(trailing):
    values = normal(7, 2, 3, *trailing)
    index = torch.randint(7, (5, 2, 3), generator=seeded())
    taken = take(values, index)
    assert taken.shape == (5, 2, 3, *trailing)
    for i in range(5):
        for a in range(2):
            for b in range(3):
                assert torch.equal(taken[i, a, b], values[index[i, a, b], a, b])
