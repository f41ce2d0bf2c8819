"""Scores that leave out a candidate for each row, and losses on two views of one modality."""

import math

import pytest
import torch
from alignment_cases import CASES
from small_models import normal, seeded
from torch.testing import assert_close

import probcl as pcl
from probcl import Scores, views

METHODS = ["dense", "tiled"]
A, B = normal(7, 4, seed=1), normal(7, 4, seed=2)
ITSELF = torch.arange(14).roll(7)


def masked(alignment, temperature=0.7):
    """The 14 × 14 scores by definition, −∞ where a view meets itself."""
    matrix = Scores(torch.cat([A, B]), torch.cat([B, A]), alignment, temperature, "dense").matrix()
    return matrix.scatter(1, ITSELF[:, None], -torch.inf)


def reductions(scores):
    yield from (scores.logsumexp(dim, diagonal=diagonal) for dim in (0, 1, None) for diagonal in (True, False))
    yield from (scores.mean(torch.cos, dim, diagonal=diagonal) for dim in (0, 1, None) for diagonal in (True, False))
    yield from (scores.weighted_sum(normal(14, 3, seed=4), dim=dim) for dim in (0, 1))
    yield from (scores.diagonal_nll(dim) for dim in (0, 1))
    yield from (scores.normalized(dim).weighted_sum(normal(14, 2), dim=dim) for dim in (0, 1))
    yield from (scores.topk(k, dim).values for k in (1, 13) for dim in (0, 1))


def by_hand(matrix):
    counts = {(0, True): 13, (1, True): 13, (None, True): 14 * 13, (0, False): 12, (1, False): 12, (None, False): 168}
    inside = {True: ~matrix.isinf(), False: ~matrix.isinf() & ~torch.eye(14, dtype=torch.bool)}
    axes = {0: 0, 1: 1, None: (0, 1)}
    grid = [(dim, diagonal) for dim in (0, 1, None) for diagonal in (True, False)]
    yield from (matrix.masked_fill(~inside[diagonal], -torch.inf).logsumexp(axes[dim]) for dim, diagonal in grid)
    for dim, diagonal in grid:
        kept = matrix.masked_fill(~inside[diagonal], 0.0).cos().masked_fill(~inside[diagonal], 0.0)
        yield kept.sum(axes[dim]) / counts[dim, diagonal]
    weights = normal(14, 3, seed=4)
    yield matrix.exp().mT @ weights
    yield matrix.exp() @ weights
    yield from (matrix.logsumexp(dim) - matrix.diagonal() for dim in (0, 1))
    yield matrix.softmax(0).mT @ normal(14, 2)
    yield matrix.softmax(1) @ normal(14, 2)
    for k in (1, 13):
        yield from (matrix.topk(k, 0).values.mT, matrix.topk(k, 1).values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_no_reduction_sees_what_is_excluded(case, method):
    alignment = CASES[case][0]
    found = reductions(views(A, B, alignment, 0.7, method))
    for ours, exact in zip(found, by_hand(masked(alignment)), strict=True):
        assert_close(ours, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_tiles_and_the_matrix_have_the_same_gradient(case, monkeypatch):
    monkeypatch.setattr("probcl.kernels.tiles._TILE_ON_CPU", (5, 3))
    gradients = []
    for method in METHODS:
        leaves = [z.clone().requires_grad_() for z in (A, B)]
        scores = views(*leaves, CASES[case][0], 0.7, method)
        total = sum((part * torch.arange(1.0, part.numel() + 1).view(part.shape)).sum() for part in reductions(scores))
        gradients.append(torch.autograd.grad(total, leaves))
    for tiled, dense in zip(*gradients, strict=True):
        assert_close(tiled, dense, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_draws_never_are_what_is_excluded_and_follow_the_rest(method):
    scores = views(A, B, pcl.L2(), 0.7, method)
    draws = scores.sample(20_000, generator=seeded(0))
    assert not (draws == ITSELF).any()
    frequencies = torch.nn.functional.one_hot(draws, 14).double().mean(0)
    assert_close(frequencies, masked(pcl.L2()).softmax(1), rtol=0, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_the_conditional_loss_of_two_views_is_nt_xent(method):
    z = torch.nn.functional.normalize(torch.cat([A, B]))
    similarity = (z @ z.mT / 0.1).fill_diagonal_(-torch.inf)
    nt_xent = torch.nn.functional.cross_entropy(similarity, ITSELF)
    loss = pcl.ConditionalLoss()(views(A, B, pcl.Cosine(), 0.1, method))
    assert_close(loss + math.log(13), nt_xent)


def test_gaussian_kernels_at_twice_the_temperature_are_cosines():
    # γ = 2 at τ equals cosine NT-Xent at τ/2 (LOSSES.md a).
    unit_a, unit_b = (torch.nn.functional.normalize(z) for z in (A, B))
    gaussian, cosine = views(unit_a, unit_b, pcl.Power(2), 0.2), views(unit_a, unit_b, pcl.Cosine(), 0.1)
    assert_close(pcl.ConditionalLoss()(gaussian), pcl.ConditionalLoss()(cosine))


LOSSES = {
    "conditional": pcl.ConditionalLoss(),
    "joint": pcl.JointLoss(diagonal=False),
    "f-micl": pcl.FMICLLoss("pearson", 2.0),
    "rince": pcl.RINCELoss(0.5),
    "sigmoid": pcl.SigmoidLoss(-1.0).double(),
    "spectral": pcl.SpectralLoss(),
    "conditional mmd": pcl.ConditionalMMDLoss(),
    "joint mmd": pcl.JointMMDLoss(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_takes_two_views_and_does_not_care_which_is_which(name):
    data = normal(7, 3, seed=5), normal(7, 3, seed=6)
    loss = pcl.TwoViewLoss(LOSSES[name])
    values = []
    for first, second in ((0, 1), (1, 0)):
        z = (A, B)[first], (A, B)[second]
        bound = loss.given(data[first], data[second])
        values += [bound(Scores(*z, pcl.Cosine(), 0.5, method)).detach() for method in METHODS]
    assert values[0].isfinite()
    for value in values[1:]:
        assert_close(value, values[0])


def test_one_encoder_learns_from_views_of_digits():
    images = pcl.datasets.load_digits().train.u[:512].flatten(1)
    generator = seeded(3)

    def noisy():
        return images + 0.2 * torch.randn(images.shape, generator=generator)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = pcl.encoders.MLP(images.shape[1], 16)
    model = pcl.BimodalModel(encoder, encoder, alignment=pcl.Cosine(), temperature=0.2)

    def recall():
        best = pcl.retrieval.Library(model, u=images).topk(noisy(), k=1).indices[:, 0]
        return float((best == torch.arange(512)).double().mean())

    before = recall()
    loss = pcl.TwoViewLoss(pcl.ConditionalLoss())
    history = pcl.fit(model, (noisy(), noisy()), loss, epochs=30, batch_size=128, seed=0, progress=False)
    assert history.loss[-1] < history.loss[0] - 0.5
    assert recall() > before + 0.2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: views(A, B[:3]), r"^a and b must be views of the same things, got 7 and 3"),
        (
            lambda: Scores(A, B[:3], exclude=torch.arange(7)),
            "^exclude must be an integer tensor with a column for each",
        ),
        (lambda: Scores(A, B, exclude=torch.arange(7)), "never that of the matched pair"),
        (lambda: Scores(A, B, exclude=torch.zeros(7, dtype=torch.long)), "^exclude must name each column once"),
        (lambda: views(A[:1], B[:1]).mean(diagonal=False), "leaves nothing"),
        (lambda: views(A, B).topk(14), "^k must be at most the 13 entries"),
        (lambda: pcl.TwoViewLoss(pcl.JointLoss())(Scores(A, B, bias_u=A[:, 0])), "must have no biases"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_sum_of_losses_is_that_of_its_terms():
    terms = [(pcl.Laplace(), 0.5, 0.3), (pcl.Power(2), 0.2, 0.7)]
    loss = pcl.SumOfLosses(pcl.ConditionalLoss(), *(list(column) for column in zip(*terms, strict=True)))
    expected = sum(weight * pcl.ConditionalLoss()(Scores(A, B, a, tau)) for a, tau, weight in terms)
    assert_close(loss(Scores(A, B)), expected)
    assert_close(pcl.TwoViewLoss(loss)(Scores(A, B)), loss(views(A, B)))
    with pytest.raises(ValueError, match="must be equally many"):
        pcl.SumOfLosses(pcl.JointLoss(), [pcl.L2()], [0.1, 0.2])
