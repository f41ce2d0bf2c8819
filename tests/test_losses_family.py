"""What every loss must do with every alignment."""

import copy

import pytest
import torch
from alignment_cases import CASES, WIDTH
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import LOSSES, SYMMETRIC, f_micl, value_of
from small_models import linear_model, normal, seeded
from torch import Tensor
from torch.testing import assert_close

import probcl as pcl
from probcl import L2, Cosine, FMICLLoss, ProbclWarning, RINCELoss, Scores, SigmoidLoss
from probcl.divergences import Pearson
from probcl.kernels import tiles
from probcl.losses.continuation import continued

F32, F64 = torch.float32, torch.float64
every_loss = pytest.mark.parametrize("name", LOSSES)
OF_ONE_KIND_EACH = [
    CASES[name][0]
    for name in (
        "inner",
        "cosine",
        "l2",
        "laplace",
        "power 0.5",
        "learned sum",
        "concat",
        "f-gaussian",
        "potentials of l2",
    )
]


def adversarial(dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs that make trouble: (u, v) of 6 pairs each."""
    u, v = normal(6, WIDTH, dtype=dtype), normal(6, WIDTH, seed=1, dtype=dtype)
    one = torch.ones(6, WIDTH, dtype=dtype)
    return {
        "random": (u, v),
        "one view twice": (u, u.clone()),
        "identical": (one, one.clone()),
        "one class": (u, v[:1].expand(6, WIDTH).clone()),
        "two classes": (u[[0, 0, 0, 1, 1, 1]], v[[0, 0, 0, 1, 1, 1]]),
        "antipodal": (one, -one),
        "opposite": (u, -u),
        "huge": (1e4 * u, 1e4 * v),
        "tiny": (1e-6 * u, 1e-6 * v),
        "unlike": (1e4 * u, 1e-4 * v),
    }


@every_loss
def test_loss_and_gradient_are_finite_on_adversarial_embeddings(name: str) -> None:
    require_finite(LOSSES[name], OF_ONE_KIND_EACH, F32, (1e-3, 1e2))


@pytest.mark.slow
@every_loss
@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_same_for_all_alignments_and_more_temperatures(name: str, dtype: torch.dtype) -> None:
    require_finite(LOSSES[name], [alignment for alignment, _ in CASES.values()], dtype, (1e-3, 0.02, 1.0, 1e2))


def require_finite(
    loss: pcl.Loss, alignments: list[pcl.Alignment], dtype: torch.dtype, temperatures: tuple[float, ...]
) -> None:
    for alignment in alignments:
        for kind, (u, v) in adversarial(dtype).items():
            for tau in temperatures:
                leaves = [u.clone().requires_grad_(), v.clone().requires_grad_()]
                value = value_of(loss, Scores(*leaves, alignment, tau))
                gradients = torch.autograd.grad(value, leaves, materialize_grads=True)
                where = (alignment, kind, tau)
                assert value.isfinite(), where
                assert all(gradient.isfinite().all() for gradient in gradients), where


@every_loss
@pytest.mark.parametrize("alignment", ["cosine", "laplace", "sum", "f-gaussian"])
def test_tiles_agree_with_the_stored_matrix(name: str, alignment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_TILE_ON_CPU", (16, 24))
    found = []
    for method in ("dense", "tiled"):
        u, v = normal(45, WIDTH).requires_grad_(), normal(45, WIDTH, seed=1).requires_grad_()
        value = value_of(LOSSES[name], Scores(u, v, CASES[alignment][0], 0.7, method))
        found.append((value.detach(), *torch.autograd.grad(value, (u, v))))
    for dense, tiled in zip(*found, strict=True):
        assert_close(tiled, dense, rtol=1e-11, atol=1e-12)


@every_loss
def test_does_not_depend_on_the_order_of_the_pairs(name: str) -> None:
    order = torch.randperm(9, generator=seeded())
    u, v = normal(9, WIDTH), normal(9, WIDTH, seed=1)
    for alignment in OF_ONE_KIND_EACH:
        value = value_of(LOSSES[name], Scores(u, v, alignment, 0.5))
        assert_close(value_of(LOSSES[name], Scores(u[order], v[order], alignment, 0.5)), value, rtol=1e-12, atol=1e-13)


@every_loss
def test_a_small_step_down_the_gradient_lowers_it(name: str) -> None:
    for alignment in OF_ONE_KIND_EACH:
        leaves = [normal(8, WIDTH).requires_grad_(), normal(8, WIDTH, seed=1).requires_grad_()]
        data = leaves[0].detach()[:, :1].sin(), leaves[1].detach().cos()
        loss = LOSSES[name].given(*data)
        value = loss(Scores(*leaves, alignment))
        gradients = torch.autograd.grad(value, leaves)
        slope = sum(gradient.square().sum() for gradient in gradients)
        assert slope > 0
        step = 1e-6 / max(1.0, float(slope) ** 0.5)
        moved = [leaf.detach() - step * gradient for leaf, gradient in zip(leaves, gradients, strict=True)]
        fall = float((value - loss(Scores(*moved, alignment))).detach())
        assert fall == pytest.approx(step * float(slope), rel=1e-2)


@every_loss
def test_gradients(name: str) -> None:
    loss = copy.deepcopy(LOSSES[name]).double().given(normal(4, 2, seed=2), normal(4, 1, seed=3))
    inputs = (normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_(), torch.tensor(0.7, dtype=F64))
    inputs[2].requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v, tau: loss(Scores(u, v, Cosine(), tau)), inputs)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_two_sided_losses_are_their_own_mirror_image(name: str) -> None:
    u, v, x, y = normal(6, WIDTH), normal(6, WIDTH, seed=1), normal(6, 2, seed=2), normal(6, 3, seed=3)
    loss = LOSSES[name]
    if isinstance(loss, pcl.JointMMDLoss):
        mirror = pcl.JointMMDLoss(loss.kernel_v, loss.kernel_u).given(y, x)
    else:
        mirror = loss.given(y, x)
    assert_close(mirror(Scores(v, u)), loss.given(x, y)(Scores(u, v)), rtol=1e-12, atol=1e-14)


@every_loss
def test_half_precision_embeddings_have_a_loss_in_single(name: str) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        u, v = normal(5, WIDTH).to(dtype), normal(5, WIDTH, seed=1).to(dtype)
        x, y = normal(5, 2, seed=2), normal(5, 3, seed=3)
        loss = LOSSES[name].given(x, y)
        value, exact = loss(Scores(u, v, Cosine())), loss(Scores(u.double(), v.double(), Cosine()))
        assert value.dtype == F32
        assert_close(value.double(), exact, rtol=1e-4, atol=1e-5)


@every_loss
def test_says_what_it_identifies_and_shows_its_arguments(name: str) -> None:
    assert LOSSES[name].identifies in pcl.losses.Identifies
    assert repr(LOSSES[name]).startswith(f"{type(LOSSES[name]).__name__}(")


@every_loss
def test_fits_a_model(name: str) -> None:
    u = normal(32, 3, dtype=F32)
    v = u @ normal(3, 2, seed=1, dtype=F32)
    model = linear_model(3, 2, 2, Cosine(), dtype=F32)
    loss = copy.deepcopy(LOSSES[name])
    history = pcl.fit(model, (u, v), loss=loss, epochs=6, batch_size=16, lr=0.02, seed=0)
    assert sum(history.loss[-2:]) < sum(history.loss[:2])
    assert model.identifies is loss.identifies


class TestTangents:
    def test_nothing_changes_where_nothing_overflows(self) -> None:
        c = torch.linspace(-40, 40, 100)
        assert torch.equal(continued(torch.exp, (0, 1), F32)(c), c.exp())

    @given(st.sampled_from([F32, F64]), st.floats(0.25, 4))
    def test_values_and_slopes_stay_finite_and_rise(self, dtype: torch.dtype, rate: float) -> None:
        c = torch.linspace(-1e6, 1e6, 2001, dtype=dtype, requires_grad=True)
        for sign in (1, -1):
            fn = continued(lambda x, k=sign * rate: (k * x).exp(), (rate, 0) if sign < 0 else (0, rate), dtype)
            values = fn(c)
            (slopes,) = torch.autograd.grad(values.sum(), c)
            assert values.isfinite().all()
            assert slopes.isfinite().all()
            assert (sign * slopes >= 0).all()
            assert (slopes.diff() >= 0).all()

    def test_a_bias_of_minus_infinity_has_the_ratio_zero(self) -> None:
        scores = Scores(normal(4, 2), normal(4, 2), bias_v=torch.tensor([0.0, 0.0, 0.0, -torch.inf], dtype=F64))
        assert scores.mean(continued(torch.exp, (0, 1), F64), diagonal=False).isfinite()


class TestWarnings:
    @pytest.mark.parametrize("name", ["reverse-kl", "neyman"])
    def test_f_micl_warns_of_what_its_theory_excludes(self, name: str) -> None:
        with pytest.warns(ProbclWarning, match="outside the theory of f-MICL"):
            FMICLLoss(name)

    # LOSSES.md d: two towers ran to opposite poles at λn = 10 (q = ½) and 2.56 (q = 1).
    @pytest.mark.parametrize(("q", "candidates"), [(0.5, 10), (1, 2.56)])
    def test_rince_warns_where_embeddings_collapsed(self, q: float, candidates: float) -> None:
        scores = Scores(normal(64, 3), normal(64, 3, seed=1), Cosine())
        with pytest.warns(ProbclWarning, match="lam times the number of candidates is"):
            RINCELoss(q, candidates / 64)(scores)

    @pytest.mark.parametrize(("q", "lam"), [(1, "1/n"), (0.5, "1/n"), (0.01, 0.5), (0, 0.9), (0.5, 0.01)])
    def test_rince_does_not_where_they_did_not(self, q: float, lam: float | str) -> None:
        RINCELoss(q, lam)(Scores(normal(64, 3), normal(64, 3, seed=1), Cosine()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FMICLLoss("chi"), ValueError, "divergence must be Tsallis"),
        (lambda: FMICLLoss(alpha=0), ValueError, "alpha must be finite and positive, got 0"),
        (lambda: RINCELoss(1.5), ValueError, "q must lie between 0 and 1, got 1.5"),
        (lambda: RINCELoss("1"), TypeError, "q must be a number, got '1'"),
        (lambda: RINCELoss(lam="n"), ValueError, "lam must be a positive number or '1/n', got 'n'"),
        (lambda: RINCELoss(lam=-1), ValueError, "lam must be finite and positive, got -1"),
        (lambda: RINCELoss(lambda_u=0, lambda_v=0), ValueError, "must not both be zero"),
        (lambda: SigmoidLoss("b"), TypeError, "bias must be a number, got 'b'"),
        (lambda: SigmoidLoss(float("inf")), ValueError, "bias must be finite, got inf"),
        (lambda: pcl.SumOfLosses(pcl.ConditionalLoss(), [], []), ValueError, "one at least, got 0, 0 and 0"),
        (
            lambda: pcl.SumOfLosses(pcl.ConditionalLoss(), [L2()], [1.0], [0]),
            ValueError,
            "weights must not all be zero",
        ),
        (lambda: pcl.SumOfLosses(pcl.ConditionalLoss, [L2()], [1.0]), TypeError, "loss must be a Loss, got <class"),
        (lambda: pcl.TwoViewLoss(pcl.ConditionalLoss), TypeError, r"make one, as in ConditionalLoss\(\)"),
        (lambda: pcl.TwoViewLoss(torch.nn.Identity()), TypeError, "loss must be a Loss, got Identity"),
        (lambda: pcl.losses.GaussianKernel(0), ValueError, "bandwidth must be finite and positive, got 0"),
        (lambda: pcl.losses.LaplaceKernel(-1.0), ValueError, "bandwidth must be finite and positive, got -1"),
    ],
)
def test_bad_arguments_are_refused(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@every_loss
def test_needs_matched_pairs(name: str) -> None:
    with pytest.raises(ValueError, match=r"as many u as v, got scores of shape \(3, 4\)"):
        LOSSES[name](Scores(normal(3, 2), normal(4, 2)))
    with pytest.raises(ValueError, match="at least two pairs, got one"):
        LOSSES[name](Scores(normal(1, 2), normal(1, 2)))


def single_precision_errors(name: str, alignment: pcl.Alignment, tau: float, noise: float, width: int) -> list[float]:
    """Relative errors of the loss and of its gradients, of pairs of unit length that differ by this much noise."""
    found = []
    for dtype in (F32, F64):
        u = normal(64, width, dtype=F32)
        v = u + noise * normal(64, width, seed=1, dtype=F32)
        leaves = [(z / z.norm(dim=1, keepdim=True)).to(dtype).requires_grad_() for z in (u, v)]
        value = LOSSES[name].given(u.to(dtype), v.to(dtype))(Scores(*leaves, alignment, tau))
        found.append((value.detach(), *torch.autograd.grad(value, leaves)))
    return [float((one.double() - exact).norm() / exact.norm()) for one, exact in zip(*found, strict=True)]


@pytest.mark.parametrize("tau", [0.02, 0.1])
@pytest.mark.parametrize("alignment", [Cosine(), L2(), pcl.FGaussian(), pcl.Laplace()])
def test_single_precision_is_within_1e_5_of_double(alignment: pcl.Alignment, tau: float) -> None:
    names = ["f-micl kl", "f-micl js", "f-micl squared-hellinger", "rince", "rince 1", "sigmoid", "mmd"]
    names += ["sum of losses", "two views", "two views, sigmoid"]
    for name in names:
        assert max(single_precision_errors(name, alignment, tau, 0.5, 8)) <= 1e-5, name


@pytest.mark.parametrize("alignment", [Cosine(), L2(), pcl.Laplace()])
def test_near_convergence_at_a_low_temperature(alignment: pcl.Alignment) -> None:
    """The joint loss's gradient is a small difference there; the page on losses says so."""
    for name in ("two-sided", "two views", "f-micl kl", "f-micl js", "sigmoid"):
        assert max(single_precision_errors(name, alignment, 0.02, 0.02, 16)) <= 1e-5, name
    assert 1e-4 < max(single_precision_errors("joint", alignment, 0.02, 0.02, 16)) < 1e-2


def test_two_views_of_a_loss_that_looks_at_the_data_are_of_one_shape() -> None:
    with pytest.raises(ValueError, match="u and v must be views of one thing, of one shape"):
        pcl.TwoViewLoss(pcl.ConditionalMMDLoss()).given(normal(4, 2), normal(4, 3))


def test_a_saved_model_keeps_its_alignment(tmp_path) -> None:
    mixture, gaussian = pcl.SumMixture(0.1, 0.3, learnable=True), pcl.FGaussian(2.0, 0.4, learnable=True)
    for alignment in (mixture, gaussian, pcl.Power(0.5)):
        model = linear_model(3, 2, 2, alignment, dtype=F32)
        for parameter in alignment.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        model.save(tmp_path / "model")
        u, v = normal(4, 3, dtype=F32), normal(4, 2, dtype=F32)
        assert torch.equal(pcl.BimodalModel.load(tmp_path / "model").log_ratio(u, v), model.log_ratio(u, v))


def test_f_micl_with_fixed_scores_is_the_formula() -> None:
    scores = Scores(normal(5, 3), normal(5, 3, seed=1), Cosine())
    u = scores.matrix().exp()
    off = u[~torch.eye(5, dtype=torch.bool)]
    expected = 40 * (off.square() - 1).mean() - (2 * (u.diagonal() - 1)).mean()
    assert_close(f_micl(Pearson(), 40)(scores), expected)
