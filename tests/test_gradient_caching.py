"""With `chunk_size` a step of a fit is that of the whole batch, and no more than a chunk's activations are held."""

import copy

import numpy as np
import pytest
import torch
from small_models import normal
from torch import nn

import probcl as pcl
from probcl.randomness import Stream, derive_seed
from probcl.training.embedding import Embedder
from probcl.training.pairs import Batch

QUIET = {"device": "cpu", "progress": False}
CPU = torch.device("cpu")


class Scaled(pcl.Loss):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, scores):
        return pcl.ConditionalLoss()(scores) * self.log_scale.exp() - self.log_scale


def pairs(n=37, dtype=torch.float64):
    u = normal(n, 4, seed=1, dtype=dtype)
    return u, u[:, :3].tanh() + 0.3 * normal(n, 3, seed=2, dtype=dtype)


def model(dropout=0.0, dtype=torch.float64, alignment=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        towers = [
            nn.Sequential(nn.Linear(width, 16), nn.Dropout(dropout), nn.Tanh(), nn.Linear(16, 5)) for width in (4, 3)
        ]
        built = pcl.BimodalModel(*towers, alignment or pcl.Cosine(), temperature=0.3, learn_temperature=True)
    return built.to(dtype)


def step(chunk_size, loss=None, dtype=torch.float64, **options):
    """The parameters' gradient, which plain gradient descent of rate 1 leaves in them, and the history."""
    trained = options.pop("model", None) or model(dtype=dtype)
    loss = copy.deepcopy(loss)
    before = [p.detach().clone() for m in (trained, loss) if m is not None for p in m.parameters()]
    history = pcl.fit(
        trained,
        pairs(dtype=dtype),
        loss,
        epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        chunk_size=chunk_size,
        **(QUIET | options),
    )
    after = [p.detach() for m in (trained, loss) if m is not None for p in m.parameters()]
    return [a - b for a, b in zip(before, after, strict=True)], history


@pytest.mark.parametrize("chunk_size", [1, 8, 36, 37, 1000])
@pytest.mark.parametrize("loss", [pcl.ConditionalLoss(), pcl.JointLoss(diagonal=False), Scaled()], ids=repr)
def test_the_gradient_is_that_of_the_whole_batch(chunk_size, loss):
    (expected, whole), (found, cached) = step(None, loss), step(chunk_size, loss)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(cached.step_loss, whole.step_loss, rtol=1e-12)
    np.testing.assert_allclose(cached.step_grad_norm, whole.step_grad_norm, rtol=1e-10)


def test_the_gradient_is_that_of_the_whole_batch_in_single_precision():
    (expected, _), (found, _) = (step(size, dtype=torch.float32) for size in (None, 8))
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * scale)


def test_one_encoder_may_serve_both_sides_and_one_may_be_frozen():
    encoder = pcl.encoders.Linear(4, 2).double()
    u, _ = pairs()
    weights = []
    for chunk_size in (None, 8):
        shared = pcl.BimodalModel(copy.deepcopy(encoder), pcl.encoders.Linear(4, 2), pcl.L2()).double()
        shared.encoder_v = shared.encoder_u
        pcl.fit(shared, (u, u.tanh()), epochs=2, lr=0.1, chunk_size=chunk_size, **QUIET)
        frozen = model()
        frozen.encoder_v.requires_grad_(False)
        gradient, _ = step(chunk_size, model=frozen)
        weights.append([shared.encoder_u.weight.detach(), *gradient])
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_both_passes_have_the_same_noise():
    seed = derive_seed(0, Stream.MODEL, 0)
    reference = model(dropout=0.5)
    batch = Batch(*pairs())
    embedder = Embedder(reference.train(), CPU, amp=False, chunk_size=8)
    z_u, z_v = zip(*(embedder.encode(chunk) for chunk in embedder.chunks(batch, seed)), strict=True)
    pcl.ConditionalLoss()(reference.scores_of_embeddings(torch.cat(z_u), torch.cat(z_v))).backward()
    found, _ = step(8, model=model(dropout=0.5), seed=0)
    for gradient, parameter in zip(found, reference.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-12)
    # Chunks do not share their noise.
    first, second, *_ = (reference.encoder_u(torch.ones(8, 4).double()) for _ in embedder.chunks(batch, seed))
    assert not torch.equal(first, second)


def test_no_more_than_a_chunk_is_embedded_with_a_graph():
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            if torch.is_grad_enabled():
                seen.append(len(x))
            return super().forward(x)

    watched = pcl.BimodalModel(Watched(4, 2), nn.Linear(3, 2)).double()
    pcl.fit(watched, pairs(), epochs=1, chunk_size=8, validation=0.3, **QUIET)
    assert max(seen) == 8
    assert sum(seen) == 26


def test_held_activations_grow_with_the_chunk_and_not_with_the_batch():
    def largest_held(chunk_size, n):
        held = []

        def pack(tensor):
            held.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embedded = Embedder(model(), CPU, amp=False, chunk_size=chunk_size)(Batch(*pairs(n)), 0)
            (embedded.u.sum() + embedded.v.sum()).backward()
            embedded.pull_back()
        return max(held)

    assert largest_held(8, 64) == largest_held(8, 640) == largest_held(None, 640) / 80


def test_line_searches_see_one_function():
    found = []
    for chunk_size in (None, 10):
        trained = model()
        history = pcl.fit(trained, pairs(), epochs=5, optimizer="lbfgs", chunk_size=chunk_size, **QUIET)
        found.append(history.step_loss)
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[0][-1] < found[0][0] - 0.5


def test_a_fit_in_chunks_resumes_bitwise(tmp_path):
    class CrashError(Exception):
        pass

    def crash(state):
        if state.epoch == 1:
            raise CrashError

    options = {"epochs": 4, "batch_size": 20, "chunk_size": 6, **QUIET}
    whole, resumed = model(dropout=0.3), model(dropout=0.3)
    pcl.fit(whole, pairs(), **options)
    with pytest.raises(CrashError):
        pcl.fit(model(dropout=0.3), pairs(), checkpoint=tmp_path / "fit", callbacks=[crash], **options)
    pcl.fit(resumed, pairs(), resume=tmp_path / "fit", **options)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_batch_normalisation_is_refused_because_it_would_normalise_chunks():
    normalised = pcl.BimodalModel(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), nn.Linear(3, 2)).double()
    with pytest.raises(ValueError, match=r"chunk_size must be left out, got 8: model.encoder_u.1 normalises a batch"):
        pcl.fit(normalised, pairs(), chunk_size=8, **QUIET)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("chunk_size", "error"), [(0, ValueError), (2.5, TypeError)])
def test_sizes_that_are_no_counts_are_refused(chunk_size, error):
    with pytest.raises(error, match="chunk_size must be"):
        pcl.fit(model(), pairs(), chunk_size=chunk_size, **QUIET)
