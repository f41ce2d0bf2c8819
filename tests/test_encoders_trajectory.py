import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import normal, seeded
from torch import Tensor
from torch.testing import assert_close

import probcl as pcl
from probcl.encoders import TrajectoryTransformer
from probcl.serialization import from_config, to_config

POOLS = ("mean", "last")
every_pool = pytest.mark.parametrize("pool", POOLS)


def make(pool: str = "mean", set_depth: int = 1, seed: int = 0) -> TrajectoryTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = TrajectoryTransformer(3, 5, width=8, depth=2, set_depth=set_depth, heads=2, pool=pool)
    return encoder.double()


def tracks(n: int = 4, trajectories: int = 3, samples: int = 6, seed: int = 0) -> Tensor:
    """Samples of which some are absent, but none of the first of a trajectory."""
    v = normal(n, trajectories, samples, 4, seed=seed)
    v[..., 3] = (v[..., 3] > -0.5).double()
    v[:, :, 0, 3] = 1
    return v


@every_pool
@given(seed=st.integers(0, 1000))
def test_the_order_of_trajectories_does_not_matter(pool: str, seed: int) -> None:
    v = tracks(seed=seed)
    order = torch.randperm(3, generator=seeded(seed))
    assert_close(make(pool)(v[:, order]), make(pool)(v))


@given(seed=st.integers(0, 1000))
def test_the_order_of_samples_does_not_matter_to_the_mean(seed: int) -> None:
    v = tracks(seed=seed)
    order = torch.randperm(6, generator=seeded(seed))
    assert_close(make("mean")(v[:, :, order]), make("mean")(v))


def test_the_last_sample_is_distinguished_if_it_stands_for_the_trajectory() -> None:
    v = tracks()
    assert not torch.allclose(make("last")(v.flip(2)), make("last")(v))


@every_pool
@pytest.mark.parametrize("anything", [0.0, -1e30, float("inf"), float("nan")])
def test_what_an_absent_sample_holds_does_not_matter(pool: str, anything: float) -> None:
    v = tracks()
    changed = v.clone()
    changed[..., :3] = v[..., :3].masked_fill(v[..., 3:] == 0, anything)
    assert torch.equal(make(pool)(changed), make(pool)(v))


@every_pool
def test_an_absent_sample_is_as_good_as_none(pool: str) -> None:
    whole = tracks()
    whole[..., 3] = 1
    shown = [0, 2, 3]
    masked = whole.clone()
    masked[:, :, [1, 4, 5], 3] = 0
    assert_close(make(pool)(masked), make(pool)(whole[:, :, shown]))


@every_pool
def test_a_trajectory_without_samples_is_as_good_as_none(pool: str) -> None:
    v = tracks()
    v[:, 1, :, 3] = 0
    assert_close(make(pool)(v), make(pool)(v[:, [0, 2]]))


@every_pool
def test_an_item_without_trajectories_has_an_embedding_and_gradients_stay_finite(pool: str) -> None:
    v, encoder = tracks(), make(pool)
    v[1, :, :, 3] = 0
    z = encoder(v)
    assert z.isfinite().all()
    z.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_a_trajectory_that_comes_twice_changes_nothing_without_blocks_over_trajectories() -> None:
    v, encoder = tracks(trajectories=1), make(set_depth=0)
    assert_close(encoder(v.repeat(1, 2, 1, 1)), encoder(v))


def test_blocks_let_samples_see_each_other_only_within_their_trajectory() -> None:
    encoder = make(set_depth=0)
    encoder.norm, encoder.head = torch.nn.Identity(), torch.nn.Identity()
    first, second = tracks(trajectories=1, seed=1), tracks(trajectories=1, seed=2)
    both = encoder(torch.cat([first, second], 1))
    assert_close(both, (encoder(first) + encoder(second)) / 2)


def test_attention_is_that_of_torch() -> None:
    (block,) = TrajectoryTransformer(3, 5, width=8, depth=1, heads=2).double().blocks
    layer = torch.nn.TransformerEncoderLayer(
        8, 2, dim_feedforward=32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    own, theirs = block.state_dict(), layer.state_dict()
    names = zip(
        [name for part in ("queries_keys_values", "mix", "perceptron.0", "perceptron.2", "norm1", "norm2") for name in
         (f"{part}.weight", f"{part}.bias")],
        ["self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight", "self_attn.out_proj.bias",
         "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias", "norm1.weight", "norm1.bias",
         "norm2.weight", "norm2.bias"],
        strict=True,
    )  # fmt: skip
    block.load_state_dict({mine: theirs[name] for mine, name in names})
    assert own.keys() == block.state_dict().keys()
    x = normal(4, 6, 8)
    assert_close(block(x, None), layer.train()(x))


def test_is_rebuilt_from_its_configuration() -> None:
    encoder = make("last")
    rebuilt = from_config(json.loads(json.dumps(to_config(encoder))), "encoder_v").double()
    assert repr(rebuilt) == repr(encoder)
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(rebuilt(tracks()), encoder(tracks()))


def test_a_model_with_it_survives_saving(tmp_path) -> None:
    u, v = normal(4, 2).float(), tracks().float()
    model = pcl.BimodalModel(pcl.encoders.Linear(2, 5), make().float(), alignment=pcl.Cosine())
    model.save(tmp_path / "model")
    assert torch.equal(pcl.BimodalModel.load(tmp_path / "model").log_ratio(u, v), model.log_ratio(u, v))


def test_a_fit_learns_where_trajectories_with_gaps_go() -> None:
    generator = seeded()
    u = torch.randn(512, 2, generator=generator)
    times = torch.rand(512, 2, 8, 1, generator=generator)
    present = (torch.rand(512, 2, 8, 1, generator=generator) < 0.7).float()
    v = torch.cat([times, times * u[:, None, None], present], 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = TrajectoryTransformer(3, 8, width=16, depth=1, heads=2)
        model = pcl.BimodalModel(pcl.encoders.MLP(2, 8, (32,)), encoder, pcl.Cosine(), 0.1, learn_temperature=True)
    pcl.fit(model, (u[:384], v[:384]), epochs=30, batch_size=128, lr=1e-2, schedule="cosine", device="cpu")
    library = pcl.retrieval.Library(model, u=u[384:])
    assert pcl.diagnostics.recall_at_k(library, v[384:], 5) > 0.5


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("v", "message"),
    [
        (torch.zeros(2, 3, 4), r"v must have shape \(n, trajectories, samples, 3 \+ 1\).*\(2, 3, 4\)"),
        (torch.zeros(2, 3, 4, 3), r"v must have shape \(n, trajectories, samples, 3 \+ 1\).*\(2, 3, 4, 3\)"),
        (torch.full((2, 3, 4, 4), 0.5), "presence, must be 0 or 1"),
        (torch.full((2, 3, 4, 4), torch.nan), "presence, must be 0 or 1"),
    ],
)
def test_refuses_what_are_no_trajectories(v: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrajectoryTransformer(3, 5)(v)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make_one", "error", "message"),
    [
        (lambda: TrajectoryTransformer(0, 2), ValueError, "in_features must be at least 1, got 0"),
        (lambda: TrajectoryTransformer(3, 2.5), TypeError, "out_features must be an integer, got 2.5"),
        (lambda: TrajectoryTransformer(3, 2, depth=0), ValueError, "depth must be at least 1, got 0"),
        (lambda: TrajectoryTransformer(3, 2, set_depth=-1), ValueError, "set_depth must be at least 0, got -1"),
        (lambda: TrajectoryTransformer(3, 2, width=6), ValueError, "width must be a multiple of heads, got 6 and 4"),
        (lambda: TrajectoryTransformer(3, 2, pool="first"), ValueError, "pool must be one of .*, got 'first'"),
    ],
)
def test_bad_arguments_are_refused(
    make_one: Callable[[], TrajectoryTransformer], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_one()
