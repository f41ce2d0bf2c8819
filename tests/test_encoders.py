import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_models import normal
from torch import Tensor, nn
from torch.testing import assert_close

from probcl.encoders import MLP, Label, LeNet, Linear, ResidualConvNet, TrajectoryTransformer
from probcl.serialization import from_config, to_config


def images(n: int = 5, channels: int = 1, size: int = 8) -> Tensor:
    return normal(n, channels, size, size, dtype=torch.float32)


# name: (how to make the encoder, five inputs, its width)
ENCODERS: dict[str, tuple[Callable[[], nn.Module], Tensor, int]] = {
    "linear": (lambda: Linear(4, 3), normal(5, 4).float(), 3),
    "linear with bias": (lambda: Linear(4, 3, bias=True), normal(5, 4).float(), 3),
    "mlp": (lambda: MLP(6, 3), normal(5, 2, 3).float(), 3),
    "mlp without hidden layers": (lambda: MLP(4, 2, hidden=()), normal(5, 4).float(), 2),
    "mlp of another shape": (lambda: MLP(4, 2, [7, 5, 3], "tanh"), normal(5, 4).float(), 2),
    "lenet on digits": (lambda: LeNet(10, image_size=8), images(), 10),
    "lenet on MNIST": (lambda: LeNet(), images(size=28), 10),
    "lenet in colour": (lambda: LeNet(6, in_channels=3, image_size=33), images(channels=3, size=33), 6),
    "residual convnet": (lambda: ResidualConvNet(7), images(), 7),
    "residual convnet in colour": (
        lambda: ResidualConvNet(3, in_channels=3, width=6, stages=2),
        images(channels=3, size=9),
        3,
    ),
    "trajectory transformer": (
        lambda: TrajectoryTransformer(3, 6, width=8, depth=2, set_depth=1, heads=2),
        torch.cat([normal(5, 2, 4, 3).float(), torch.ones(5, 2, 4, 1)], 3),
        6,
    ),
    "one-hot labels": (lambda: Label(4), torch.tensor([0, 3, 1, 1, 2]), 4),
    "learned labels": (lambda: Label(4, out_features=2), torch.tensor([0, 3, 1, 1, 2]), 2),
}
every_encoder = pytest.mark.parametrize("name", ENCODERS)


class TestEveryEncoder:
    """What any encoder must do; a new one inherits these by entering `ENCODERS`."""

    @every_encoder
    def test_maps_a_batch_to_embeddings(self, name: str) -> None:
        make, inputs, width = ENCODERS[name]
        assert make()(inputs).shape == (5, width)
        assert make()(inputs[:1]).shape == (1, width)

    @every_encoder
    def test_an_embedding_does_not_depend_on_the_rest_of_the_batch(self, name: str) -> None:
        make, inputs, _ = ENCODERS[name]
        encoder = make().train()
        alone = torch.cat([encoder(inputs[i : i + 1]) for i in range(5)])
        assert_close(encoder(inputs), alone, rtol=1e-5, atol=1e-6)

    @every_encoder
    def test_is_rebuilt_from_its_configuration(self, name: str) -> None:
        make, inputs, _ = ENCODERS[name]
        encoder = make()
        rebuilt = from_config(json.loads(json.dumps(to_config(encoder))), "encoder_u")
        assert repr(rebuilt) == repr(encoder)
        rebuilt.load_state_dict(encoder.state_dict())
        assert torch.equal(rebuilt(inputs), encoder(inputs))

    @every_encoder
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_follows_its_dtype(self, name: str, dtype: torch.dtype) -> None:
        make, inputs, _ = ENCODERS[name]
        encoder = make()
        expected = encoder(inputs)
        inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
        embeddings = encoder.to(dtype)(inputs)
        assert embeddings.dtype == dtype
        assert_close(embeddings.float(), expected, rtol=0.05, atol=0.1)

    @pytest.mark.parametrize("name", [name for name in ENCODERS if name != "one-hot labels"])
    def test_every_parameter_gets_a_gradient(self, name: str) -> None:
        make, inputs, _ = ENCODERS[name]
        encoder = make()
        encoder(inputs).square().sum().backward()
        assert all(parameter.grad is not None for parameter in encoder.parameters())


class TestLeNet:
    @pytest.mark.parametrize("size", [4, 5, 7, 12, 15, 16, 17, 32, 64])
    def test_takes_images_of_its_size(self, size: int) -> None:
        assert LeNet(3, image_size=size)(images(2, size=size)).shape == (2, 3)

    def test_on_28_pixels_is_lenet_5(self) -> None:
        shapes = [tuple(parameter.shape) for parameter in LeNet().parameters() if parameter.ndim > 1]
        assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


class TestResidualConvNet:
    @pytest.mark.parametrize("size", [1, 2, 5, 8, 28, (9, 17)])
    def test_takes_images_of_any_size(self, size: int | tuple[int, int]) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        encoder = ResidualConvNet(4)
        assert encoder(normal(2, 1, height, width, dtype=torch.float32)).shape == (2, 4)

    def test_stages_double_the_channels_and_halve_the_image(self) -> None:
        encoder, sizes = ResidualConvNet(4, width=8, stages=3), []
        for block in encoder.layers[1:4]:
            block.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
        encoder(images(2, size=8))
        assert sizes == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]


class TestLabel:
    def test_one_hot_vectors_are_the_rows_of_the_identity(self) -> None:
        assert torch.equal(Label(5)(torch.arange(5)), torch.eye(5))
        assert not list(Label(5).parameters())

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
    @pytest.mark.parametrize("out_features", [None, 2])
    def test_takes_labels_of_every_integer_type(self, dtype: torch.dtype, out_features: int | None) -> None:
        encoder, labels = Label(3, out_features), torch.tensor([2, 0, 1])
        assert torch.equal(encoder(labels.to(dtype)), encoder(labels))

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("out_features", [None, 2])
    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            (torch.tensor([0, 3]), ValueError, r"labels must lie in 0 … 2, got values from 0 to 3"),
            (torch.tensor([-1, 1]), ValueError, r"labels must lie in 0 … 2, got values from -1 to 1"),
            (torch.tensor([0.0, 1.0]), TypeError, "labels must be integers, got a torch.float32"),
            (torch.tensor([True, False]), TypeError, "labels must be integers, got a torch.bool"),
            (torch.tensor([[0], [1]]), ValueError, r"labels must have shape \(batch,\), got .*\(2, 1\)"),
            (torch.tensor(1), ValueError, r"labels must have shape \(batch,\), got .*\(\)"),
        ],
    )
    def test_refuses_what_is_no_label(
        self, labels: Tensor, error: type[Exception], message: str, out_features: int | None
    ) -> None:
        with pytest.raises(error, match=message):
            Label(3, out_features)(labels)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Linear(0, 2), ValueError, "in_features must be at least 1, got 0"),
        (lambda: Linear(2, 1.5), TypeError, "out_features must be an integer, got 1.5"),
        (lambda: MLP(2, 2, activation="swish"), ValueError, "activation must be one of .*'gelu'.*, got 'swish'"),
        (lambda: MLP(2, 2, hidden=(3, 0)), ValueError, r"hidden\[1\] must be at least 1, got 0"),
        (lambda: LeNet(image_size=3), ValueError, "image_size must be at least 4, got 3"),
        (lambda: LeNet(in_channels=0), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: LeNet(True), TypeError, "out_features must be an integer, got True"),
        (lambda: ResidualConvNet(2, stages=0), ValueError, "stages must be at least 1, got 0"),
        (lambda: Label(0), ValueError, "n_classes must be at least 1, got 0"),
        (lambda: Label(2, out_features=0), ValueError, "out_features must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.usefixtures("unchecked")
def test_sizes_may_be_numpy_integers() -> None:
    encoder = MLP(np.int64(4), np.int32(2), hidden=[np.int64(3)])
    assert encoder(torch.zeros(1, 4)).shape == (1, 2)
    assert json.loads(json.dumps(to_config(encoder)))["arguments"]["hidden"] == [3]
