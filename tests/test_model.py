import math

import pytest
import torch
from small_models import linear_model, normal, table_model
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

import probcl as pcl
from probcl import BimodalModel, ConditionalLoss, Cosine, EmpiricalPrior, InnerProduct, JointLoss, Scores
from probcl.encoders import MLP, Label, Linear
from probcl.losses import Identifies


class Watched(nn.Module):
    """A linear encoder with parts that behave otherwise in training, which notes the batches it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.layers(x)


class TestScores:
    def test_are_the_alignment_of_the_embeddings_over_the_temperature(self) -> None:
        model = BimodalModel(Linear(4, 2), MLP(3, 2, [5]), Cosine(), temperature=0.3).double()
        u, v = normal(5, 4), normal(6, 3, seed=1)
        z_u, z_v = normalize(model.encoder_u(u)), normalize(model.encoder_v(v))
        scores = model.scores(u, v)
        assert isinstance(scores, Scores)
        assert scores.shape == (5, 6)
        assert_close(scores.matrix(), z_u @ z_v.mT / 0.3)
        assert_close(model(u, v).matrix(), scores.matrix())

    def test_inner_product_and_temperature_one_are_the_defaults(self) -> None:
        model = BimodalModel(Linear(4, 2), Linear(3, 2))
        u, v = normal(5, 4).float(), normal(6, 3, seed=1).float()
        assert_close(model.scores(u, v).matrix(), model.encoder_u(u) @ model.encoder_v(v).mT)

    def test_biases_are_added(self) -> None:
        model = linear_model(2, 2, 2)
        z, bias_u, bias_v = normal(3, 2), normal(3, seed=1), normal(3, seed=2)
        plain, biased = model.scores_of_embeddings(z, z), model.scores_of_embeddings(z, z, bias_u, bias_v)
        assert_close(biased.matrix(), plain.matrix() + bias_u[:, None] + bias_v)

    def test_log_ratio_is_the_score_of_each_pair(self) -> None:
        model, u, v = linear_model(4, 3, 2), normal(5, 4), normal(5, 3, seed=1)
        assert_close(model.log_ratio(u, v), model.scores(u, v).matrix().diagonal())

    @pytest.mark.usefixtures("unchecked")
    def test_log_ratio_needs_pairs(self) -> None:
        with pytest.raises(ValueError, match=r"as many u as v, got shape \(5, 4\)"):
            linear_model(4, 3, 2).log_ratio(normal(5, 4), normal(4, 3))

    @pytest.mark.usefixtures("unchecked")
    def test_encoders_of_different_widths_are_refused(self) -> None:
        model = BimodalModel(Linear(4, 2), Linear(3, 3)).double()
        with pytest.raises(ValueError, match="u and v must have the same embedding width, got 2 and 3"):
            model.scores(normal(5, 4), normal(5, 3))

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(
        ("u", "v", "error", "message"),
        [
            (
                normal(5, 3),
                normal(5, 4),
                ValueError,
                r"^encoder_u cannot take u, a .* \(5, 3\)",
            ),
            (normal(5, 4), normal(5, 4), ValueError, r"^encoder_v cannot take v, .* \(5, 4\)"),
            ("cats", normal(5, 3), TypeError, r"^u must be a torch.Tensor, got 'cats'"),
            (normal(5, 4), "cats", TypeError, r"^v must be a torch.Tensor, got 'cats'"),
        ],
        ids=["exchanged", "twice u", "text for u", "text for v"],
    )
    def test_what_an_encoder_cannot_take_is_named(self, u: object, v: object, error: type, message: str) -> None:
        with pytest.raises(error, match=message):
            linear_model(4, 3, 2).scores(u, v)

    def test_data_that_are_not_finite_are_refused(self) -> None:
        v = normal(5, 3)
        v[1, 2] = math.nan
        with pytest.raises(ValueError, match="v must be finite"):
            linear_model(4, 3, 2).scores(normal(5, 4), v)

    @pytest.mark.parametrize("loss", [ConditionalLoss(), ConditionalLoss(2, 0), JointLoss()], ids=repr)
    def test_every_parameter_learns(self, loss: pcl.Loss) -> None:
        model = BimodalModel(Linear(4, 2), MLP(3, 2, [5]), Cosine(), temperature=0.3, learn_temperature=True).double()
        loss(model.scores(normal(5, 4), normal(5, 3, seed=1))).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


class TestTemperature:
    def test_fixed_by_default(self) -> None:
        model = linear_model(4, 3, 2, temperature=0.25)
        assert model.temperature() == model.temperature.value == 0.25
        assert not list(model.temperature.parameters())

    def test_learned_through_its_logarithm(self) -> None:
        model = BimodalModel(Linear(4, 2), Linear(3, 2), Cosine(), 0.07, learn_temperature=True)
        assert model.temperature.value == pytest.approx(0.07, rel=1e-6)
        scores = model.scores(normal(8, 4).float(), normal(8, 3, seed=1).float())
        ConditionalLoss()(scores).backward()
        gradient = model.temperature.log_value.grad.item()
        tau = torch.tensor(model.temperature.value, requires_grad=True)
        (of_tau,) = torch.autograd.grad(
            ConditionalLoss()(Scores(scores.u.detach(), scores.v.detach(), Cosine(), tau)), tau
        )
        assert gradient == pytest.approx(of_tau.item() * tau.item(), rel=1e-4)

    def test_no_step_makes_it_negative(self) -> None:
        model = BimodalModel(Linear(4, 2), Linear(3, 2), temperature=0.07, learn_temperature=True)
        optimizer = torch.optim.SGD(model.temperature.parameters(), lr=1.0)
        for sign in (1, -1, -1):
            model.temperature.log_value.grad = torch.tensor(10.0 * sign)
            optimizer.step()
            assert model.temperature.value > 0

    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
    @pytest.mark.parametrize("learn", [True, False])
    def test_must_be_positive(self, value: float, learn: bool) -> None:
        with pytest.raises(ValueError, match="temperature must be finite and positive"):
            BimodalModel(Linear(4, 2), Linear(3, 2), temperature=value, learn_temperature=learn)

    def test_shows_in_the_representation(self) -> None:
        assert repr(linear_model(1, 1, 1, temperature=0.07).temperature) == "Temperature(0.07)"
        learned = BimodalModel(Linear(1, 1), Linear(1, 1), temperature=0.07, learn_temperature=True)
        assert repr(learned.temperature) == "Temperature(0.07, learnable)"


class TestEmbed:
    def test_in_chunks_is_the_encoder_in_evaluation_mode(self) -> None:
        model = BimodalModel(Watched(), Watched())
        u = normal(10, 3).float()
        embeddings = model.embed_u(u, batch_size=4)
        assert model.encoder_u.sizes == [4, 4, 2]
        assert not model.encoder_v.sizes
        assert not embeddings.requires_grad
        assert_close(embeddings, model.encoder_u.eval()(u))

    def test_leaves_the_encoder_as_it_was(self) -> None:
        model = BimodalModel(Watched(), Watched()).train()
        model.encoder_v.layers[2].eval()
        modes = [module.training for module in model.modules()]
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.embed_v(normal(6, 3).float())
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    def test_restores_the_modes_after_an_error(self) -> None:
        model = BimodalModel(Watched(), Watched()).train()
        with pytest.raises(ValueError, match=r"encoder_u cannot take u, a torch.float32 tensor of shape \(2, 7\)"):
            model.embed_u(torch.zeros(2, 7))
        assert all(module.training for module in model.modules())

    def test_needs_a_positive_batch_size(self) -> None:
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            linear_model(1, 1, 1).embed_u(normal(3, 1), batch_size=0)


def regauged(over: str, weights: Tensor | None = None, **settings) -> tuple[BimodalModel, BimodalModel, Tensor]:
    """A model, the same re-gauged over a bank of seven, and the bank."""
    original = linear_model(4, 3, 2, **settings)
    bank = normal(7, 4 if over == "u" else 3, seed=5)
    return original, original.regauged(over, EmpiricalPrior(bank, weights)), bank


both_sides = pytest.mark.parametrize("over", ["u", "v"])


class TestRegauged:
    @both_sides
    @pytest.mark.parametrize("alignment", [InnerProduct(), Cosine(), pcl.L2(), pcl.WithPotentials()], ids=repr)
    def test_mean_of_the_exponential_over_the_bank_is_one(self, over: str, alignment: pcl.Alignment) -> None:
        _, model, bank = regauged(over, alignment=alignment, temperature=0.5)
        other = normal(5, 3 if over == "u" else 4, seed=6)
        scores = model.scores(bank, other) if over == "u" else model.scores(other, bank)
        assert_close(scores.logmeanexp(0 if over == "u" else 1), torch.zeros(5, dtype=torch.float64))

    @both_sides
    def test_weights_of_the_bank_count(self, over: str) -> None:
        weights = torch.tensor([0.1, 0.0, 3, 1, 1, 2, 0.5], dtype=torch.float64)
        _, model, bank = regauged(over, weights)
        other = normal(5, 3 if over == "u" else 4, seed=6)
        matrix = (model.scores(bank, other).matrix().mT if over == "u" else model.scores(other, bank).matrix()).exp()
        assert_close(matrix @ weights / weights.sum(), torch.ones(5, dtype=torch.float64))

    @both_sides
    def test_the_conditional_that_was_fitted_stays(self, over: str) -> None:
        original, model, _ = regauged(over)
        u, v, dim = normal(6, 4, seed=6), normal(5, 3, seed=7), 0 if over == "u" else 1
        before, after = original.scores(u, v).matrix(), model.scores(u, v).matrix()
        assert_close(after.softmax(dim), before.softmax(dim))
        assert not torch.allclose(after.softmax(1 - dim), before.softmax(1 - dim))

    @both_sides
    def test_biases_are_added_outside_the_gauge(self, over: str) -> None:
        _, model, _ = regauged(over)
        z_u, z_v, bias = normal(3, 2), normal(3, 2, seed=1), normal(3, seed=2)
        plain = model.scores_of_embeddings(z_u, z_v)
        assert_close(model.scores_of_embeddings(z_u, z_v, bias_u=bias).matrix(), plain.matrix() + bias[:, None])
        assert_close(model.scores_of_embeddings(z_u, z_v, bias_v=bias).matrix(), plain.matrix() + bias)

    @both_sides
    def test_diagonal_and_matrix_agree(self, over: str) -> None:
        _, model, _ = regauged(over)
        u, v = normal(6, 4, seed=6), normal(6, 3, seed=7)
        assert_close(model.log_ratio(u, v), model.scores(u, v).matrix().diagonal())

    def test_shares_the_encoders_and_leaves_the_original_alone(self) -> None:
        original, model, _ = regauged("v")
        assert model.encoder_u is original.encoder_u
        assert model.temperature is original.temperature
        assert original.gauge is None

    def test_shares_a_learned_temperature(self) -> None:
        original = BimodalModel(Linear(4, 2), Linear(3, 2), temperature=0.3, learn_temperature=True).double()
        model = original.regauged("v", EmpiricalPrior(normal(7, 3)))
        with torch.no_grad():
            original.temperature.log_value.fill_(0.0)
        assert model.temperature.value == 1.0

    def test_twice_is_refused(self) -> None:
        _, model, bank = regauged("v")
        with pytest.raises(ValueError, match="re-gauged already, over 'v'"):
            model.regauged("v", EmpiricalPrior(bank))

    @pytest.mark.usefixtures("unchecked")
    def test_over_is_u_or_v(self) -> None:
        with pytest.raises(ValueError, match="over must be 'u' or 'v', got 'w'"):
            linear_model(3, 3, 2).regauged("w", EmpiricalPrior(normal(7, 3)))

    @pytest.mark.parametrize(("identified", "over"), [(Identifies.RATIO_UP_TO_V, "v"), (Identifies.RATIO_UP_TO_U, "u")])
    def test_over_what_was_not_fitted_is_refused(self, identified: Identifies, over: str) -> None:
        model = linear_model(3, 3, 2)
        model.identifies = identified
        with pytest.raises(ValueError, match=f"re-gauge over={'u' if over == 'v' else 'v'!r} instead"):
            model.regauged(over, EmpiricalPrior(normal(7, 3)))


class TestOtherPeoplesEncoders:
    def test_any_module_serves(self) -> None:
        model = BimodalModel(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), nn.Embedding(5, 2), Cosine(), 0.1)
        scores = model.scores(normal(4, 2, 3).float(), torch.arange(5))
        assert scores.shape == (4, 5)

    def test_one_encoder_may_serve_both_sides(self) -> None:
        encoder = Linear(4, 2).double()
        u = normal(3, 4)
        matrix = BimodalModel(encoder, encoder).scores(u, u).matrix()
        assert torch.equal(matrix, matrix.mT)


def test_moves_between_dtypes() -> None:
    model = BimodalModel(Label(3), Label(3, 3), learn_temperature=True).double()
    assert model.scores(torch.arange(3), torch.arange(3)).matrix().dtype == torch.float64
    assert table_model(normal(3, 3)).log_ratio(torch.arange(3), torch.arange(3)).dtype == torch.float64


def test_device_is_that_of_its_tensors() -> None:
    assert linear_model(2, 2, 2).device == torch.device("cpu")
    assert linear_model(2, 2, 2).to("meta").device == torch.device("meta")
    assert BimodalModel(nn.Identity(), nn.Identity()).device == torch.device("cpu")
