import io
import math
import random
import re
import signal
import threading

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_models import normal, seeded
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

import probcl as pcl
from probcl import Callback
from probcl.datasets import Pairs
from probcl.losses import Identifies
from probcl.training.data import Plan, TensorSource, batch_count, split
from probcl.training.progress import ProgressBar

CPU = torch.device("cpu")
QUIET = {"device": "cpu", "progress": False}
pytestmark = pytest.mark.usefixtures("one_thread")


def correlated_pairs(n: int = 200, seed: int = 1, dtype: torch.dtype = torch.float32) -> Pairs:
    u = normal(n, 4, seed=seed, dtype=dtype)
    return Pairs(u, u[:, :3] + 0.5 * normal(n, 3, seed=seed + 1, dtype=dtype))


def linear_model(alignment=None, r: int = 2, **settings) -> pcl.BimodalModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pcl.BimodalModel(pcl.encoders.Linear(4, r), pcl.encoders.Linear(3, r), alignment, **settings)


def dropout_model() -> pcl.BimodalModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        towers = [nn.Sequential(nn.Linear(n, 8), nn.Dropout(0.3), nn.Linear(8, 3)) for n in (4, 3)]
        return pcl.BimodalModel(*towers)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(ours, theirs):
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=0, atol=0)


def differ(ours, theirs) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(weights(ours).values(), weights(theirs).values(), strict=True))


# --- what a step is ---------------------------------------------------------------------------------------------------


def reference_steps(model, optimizer, batches, loss, clip=None, factors=None):
    """The training loop everybody writes."""
    rate = optimizer.param_groups[0]["lr"]
    course = []
    for number, (u, v) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * (1 if factors is None else factors[number])
        optimizer.zero_grad()
        value = loss(model.scores(u, v))
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        course.append(value.item())
    return course


@pytest.mark.parametrize(
    ("options", "build"),
    [
        ({"lr": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01)),
        ({}, lambda p: torch.optim.Adam(p, lr=1e-3)),
        ({"optimizer": "adamw", "lr": 0.01}, lambda p: torch.optim.AdamW(p, lr=0.01)),
        (
            {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3},
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3),
        ),
        ({"optimizer": "sgd"}, lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9)),
        ({"optimizer": torch.optim.RMSprop}, torch.optim.RMSprop),
        ({"lr": 0.01, "clip_norm": 0.05}, lambda p: torch.optim.Adam(p, lr=0.01)),
    ],
)
@pytest.mark.parametrize("loss", [pcl.ConditionalLoss(), pcl.ConditionalLoss(2, 0), pcl.JointLoss()])
def test_a_fit_takes_the_steps_of_a_plain_loop(options, build, loss):
    u, v = correlated_pairs(60)
    model, reference = linear_model(pcl.L2()), linear_model(pcl.L2())
    history = pcl.fit(model, (u, v), loss, epochs=6, batch_size=60, **options, **QUIET)
    course = reference_steps(reference, build(reference.parameters()), [(u, v)] * 6, loss, options.get("clip_norm"))
    assert_same_weights(model, reference)
    np.testing.assert_array_equal(history.step_loss, course)


def test_a_fit_goes_through_the_batches_of_its_epochs_in_order():
    pairs = correlated_pairs(50)
    model, reference = linear_model(), linear_model()
    pcl.fit(model, pairs, epochs=3, batch_size=16, lr=0.01, seed=4, **QUIET)
    source = TensorSource(*pairs, Plan(16, 4, CPU, shuffle=True))
    batches = [batch for epoch in range(3) for batch in source.batches(epoch)]
    assert [len(batch.u) for batch in batches[:4]] == [13, 13, 12, 12]
    reference_steps(reference, torch.optim.Adam(reference.parameters(), lr=0.01), batches, pcl.ConditionalLoss())
    assert_same_weights(model, reference)


def test_recorded_gradient_norms_are_those_before_clipping():
    pairs = correlated_pairs(30)
    model = linear_model()
    pcl.ConditionalLoss()(model.scores(*pairs)).backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    for clip_norm in (None, 0.1 * float(norm)):
        history = pcl.fit(linear_model(), pairs, epochs=1, clip_norm=clip_norm, **QUIET)
        assert history.step_grad_norm[0] == pytest.approx(float(norm), rel=1e-6)


def test_weight_decay_spares_the_temperature():
    model = linear_model(temperature=3.0, learn_temperature=True)
    pairs = correlated_pairs(30)
    before = weights(model)
    # A rate of which only the decay is left: 1e-9 · 1e8 = 0.1 per step.
    pcl.fit(model, pairs, optimizer="adamw", lr=1e-9, weight_decay=1e8, epochs=1, **QUIET)
    assert model.temperature.value == pytest.approx(3.0, abs=1e-6)
    torch.testing.assert_close(model.encoder_u.weight.detach(), 0.9 * before["encoder_u.weight"])


def test_only_parameters_that_require_a_gradient_are_trained():
    model = linear_model(learn_temperature=True)
    model.encoder_u.requires_grad_(False)
    before = weights(model)
    pcl.fit(model, correlated_pairs(), epochs=1, **QUIET)
    after = weights(model)
    assert torch.equal(after["encoder_u.weight"], before["encoder_u.weight"])
    assert not torch.equal(after["encoder_v.weight"], before["encoder_v.weight"])
    assert after["temperature.log_value"] != before["temperature.log_value"]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_of_the_loss_are_trained_too():
    class Biased(pcl.Loss):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, scores):
            return pcl.ConditionalLoss()(scores) + (self.bias - 1) ** 2

    loss = Biased().eval()
    model = linear_model()
    pcl.fit(model, correlated_pairs(), loss, epochs=200, lr=0.05, **QUIET)
    assert float(loss.bias) == pytest.approx(1, abs=1e-3)
    assert not loss.training
    assert model.identifies is None


def test_l_bfgs_finds_the_minimum_to_rounding():
    pairs = correlated_pairs(100, dtype=torch.float64)
    model = linear_model(r=3).double()
    history = pcl.fit(model, pairs, optimizer="lbfgs", epochs=12, **QUIET)
    assert history.steps == 12
    assert history.step_grad_norm[-1] < 1e-6 * history.step_grad_norm[0]
    patient = linear_model(r=3).double()
    pcl.fit(patient, pairs, epochs=600, batch_size=100, lr=0.05, schedule="cosine", **QUIET)
    ours, theirs = (float(pcl.ConditionalLoss()(m.scores(*pairs))) for m in (model, patient))
    assert ours <= theirs + 1e-9
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_bound_is_the_two_sided_loss_negated_whichever_loss_is_trained():
    pairs, held_out = correlated_pairs(40), correlated_pairs(30, seed=5)
    for loss in (
        pcl.ConditionalLoss(),
        pcl.ConditionalLoss(0, 2),
        pcl.ConditionalLoss(diagonal=False),
        pcl.JointLoss(),
    ):
        model = linear_model()
        with torch.no_grad():
            expected = -pcl.ConditionalLoss()(model.scores(*pairs))
        history = pcl.fit(model, pairs, loss, epochs=1, validation=held_out, **QUIET)
        assert history.step_mi_bound[0] == pytest.approx(float(expected), rel=1e-6)
        with torch.no_grad():
            scores = model.scores(*held_out)
            assert history.validation_loss[0] == pytest.approx(float(loss(scores)), rel=1e-6)
            assert history.validation_mi_bound[0] == pytest.approx(-float(pcl.ConditionalLoss()(scores)), rel=1e-6)


def test_the_bound_stays_below_log_n_where_the_information_is_infinite():
    u = normal(64, 4, dtype=torch.float32)
    model = pcl.BimodalModel(pcl.encoders.Linear(4, 4), pcl.encoders.Linear(4, 4), pcl.Cosine(), 0.01)
    history = pcl.fit(model, (u, u), epochs=60, batch_size=16, lr=0.05, **QUIET)
    assert history.step_mi_bound.max() <= math.log(16)
    assert history.mi_bound[-1] > 0.9 * math.log(16)


@pytest.mark.parametrize(
    ("loss", "known"),
    [(pcl.ConditionalLoss(2, 0), Identifies.RATIO_UP_TO_V), (pcl.JointLoss(), Identifies.RATIO)],
)
def test_a_fitted_model_knows_what_its_loss_determined(loss, known):
    model = linear_model()
    pcl.fit(model, correlated_pairs(), loss, epochs=1, **QUIET)
    assert model.identifies is known


# --- learning rates ---------------------------------------------------------------------------------------------------


def rates(**options):
    return pcl.fit(linear_model(), correlated_pairs(40), epochs=5, batch_size=10, lr=0.1, **options, **QUIET).step_lr


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("cosine", lambda optimizer: CosineAnnealingLR(optimizer, T_max=20)),
        ("linear", lambda optimizer: LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=20)),
        ("constant", lambda optimizer: ConstantLR(optimizer, factor=1.0)),
    ],
)
def test_schedules_are_those_of_torch(name, scheduler):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler, expected = scheduler(optimizer), []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates(schedule=name), expected, rtol=1e-9, atol=1e-12)


def test_warm_up_rises_to_the_rate_and_the_schedule_takes_over():
    course = rates(schedule="cosine", warmup=1.0)
    np.testing.assert_allclose(course[:4], 0.1 * np.array([0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(course[4:], 0.05 * (1 + np.cos(np.pi * np.arange(16) / 16)))


def test_a_schedule_may_be_a_function_of_the_fraction_done():
    seen = []
    course = rates(schedule=lambda fraction: seen.append(fraction) or 1 / (1 + fraction))
    np.testing.assert_allclose(seen, np.arange(20) / 20)
    np.testing.assert_allclose(course, 0.1 / (1 + np.arange(20) / 20))


def test_rates_of_several_groups_keep_their_proportion():
    def build(parameters):
        first, second = parameters
        return torch.optim.SGD([{"params": [first], "lr": 0.2}, {"params": [second], "lr": 0.5}])

    seen = []
    model = linear_model()
    optimizers = []
    pcl.fit(
        model,
        correlated_pairs(40),
        epochs=4,
        batch_size=40,
        optimizer=lambda parameters: optimizers.append(build(parameters)) or optimizers[0],
        schedule="linear",
        callbacks=[lambda state: seen.append([group["lr"] for group in optimizers[0].param_groups])],
        **QUIET,
    )
    np.testing.assert_allclose(seen, [[0.2 * f, 0.5 * f] for f in (1, 0.75, 0.5, 0.25)])


# --- pairs ------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 400), st.integers(2, 60))
def test_batches_are_of_one_size_give_or_take_a_pair_and_none_is_a_single_pair(pairs, batch_size):
    sizes = [len(part) for part in torch.arange(pairs).tensor_split(batch_count(pairs, batch_size))]
    assert sum(sizes) == pairs
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= batch_size or (batch_size == 2 and max(sizes) == 3)
    assert len(sizes) <= math.ceil(pairs / batch_size)


@given(st.integers(2, 60), st.integers(2, 20), st.integers(0, 2**40), st.integers(0, 1000))
def test_every_epoch_uses_every_pair_once_in_an_order_of_its_own(pairs, batch_size, seed, epoch):
    def order(at):
        source = TensorSource(torch.arange(pairs), -torch.arange(pairs), Plan(batch_size, seed, CPU, shuffle=True))
        batches = list(source.batches(at))
        assert all(torch.equal(batch.u, -batch.v) for batch in batches)
        return torch.cat([batch.u for batch in batches])

    assert order(epoch).sort().values.tolist() == list(range(pairs))
    assert torch.equal(order(epoch), order(epoch))
    if pairs > max(batch_size, 20):
        assert not torch.equal(order(epoch), order(epoch + 1))


class PairsOf(Dataset):
    """A map-style data set of a user."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs.u)

    def __getitem__(self, index):
        return self.pairs.u[index], self.pairs.v[index]


def test_tensors_data_sets_and_loaders_of_the_same_batches_train_the_same_model():
    pairs = correlated_pairs(50)
    source = TensorSource(*pairs, Plan(16, 3, CPU, shuffle=True))
    models = []
    rows = TensorSource(torch.arange(50), torch.arange(50), Plan(16, 3, CPU, shuffle=True))
    loader = DataLoader(PairsOf(pairs), batch_sampler=[batch.u.tolist() for batch in rows.batches(0)])
    for kind in (pairs, tuple(pairs), TensorDataset(*pairs), PairsOf(pairs), Subset(PairsOf(pairs), range(50)), loader):
        model = dropout_model()
        pcl.fit(model, kind, epochs=1, batch_size=16, seed=3, **QUIET)
        models.append(model)
    assert source.count == 4
    for other in models[1:]:
        assert_same_weights(models[0], other)


def test_integer_labels_are_pairs_like_any_others():
    labels = torch.arange(60) % 3
    u = nn.functional.one_hot(labels, 4).float() + 0.1 * normal(60, 4, dtype=torch.float32)
    model = pcl.BimodalModel(pcl.encoders.Linear(4, 3), pcl.encoders.Label(3))
    history = pcl.fit(model, (u, labels), pcl.ConditionalLoss(0, 2), epochs=100, lr=0.1, validation=0.2, **QUIET)
    assert history.loss[-1] < history.loss[0]
    prior = pcl.EmpiricalPrior(torch.arange(3))
    assert (model.v_given_u(prior).condition(u).mode == labels).float().mean() > 0.95


def test_one_encoder_may_serve_both_sides(tmp_path):
    encoder = pcl.encoders.Linear(4, 2)
    model = pcl.BimodalModel(encoder, encoder, pcl.Cosine(), 0.5)
    u = normal(40, 4, dtype=torch.float32)
    pcl.fit(model, (u, u + 0.1), epochs=2, checkpoint=tmp_path / "fit", validation=0.2, patience=1, **QUIET)
    assert model.encoder_u.weight is model.encoder_v.weight


def test_a_fraction_is_set_aside_at_random_by_the_seed():
    u = torch.arange(50, dtype=torch.float32)
    pairs = Pairs(u, -u)
    (kept, _), (held, held_v) = split(pairs, 0.3, seed=1)
    assert len(held) == 15
    assert torch.equal(held, -held_v)
    assert torch.cat([kept, held]).sort().values.tolist() == u.tolist()
    assert torch.equal(split(pairs, 0.3, seed=1)[1][0], held)
    assert not torch.equal(split(pairs, 0.3, seed=2)[1][0], held)
    _, from_dataset = split(PairsOf(pairs), 0.3, seed=1)
    assert torch.equal(torch.stack([pair[0] for pair in from_dataset]), held)


def test_pairs_set_aside_are_not_trained_on():
    pairs = correlated_pairs(50)
    kept, held = split(pairs, 0.4, seed=3)
    whole, parts = linear_model(), linear_model()
    first = pcl.fit(whole, pairs, epochs=3, validation=0.4, seed=3, **QUIET)
    second = pcl.fit(parts, kept, epochs=3, validation=held, seed=3, **QUIET)
    assert_same_weights(whole, parts)
    np.testing.assert_array_equal(first.validation_loss, second.validation_loss)


def test_validation_is_in_evaluation_mode_and_the_same_after_every_epoch():
    model = dropout_model()
    model.encoder_u[1].p = 0.9
    held_out = DataLoader(PairsOf(correlated_pairs(30, seed=9)), batch_size=10, shuffle=True)
    history = pcl.fit(model, correlated_pairs(), epochs=3, lr=1e-12, validation=held_out, **QUIET)
    np.testing.assert_allclose(history.validation_loss, history.validation_loss[0], rtol=1e-5)


def test_batches_of_one_pair_are_passed_over():
    u, v = correlated_pairs(21)
    tail, without = linear_model(), linear_model()
    loader = DataLoader(TensorDataset(u, v), batch_size=5)
    history = pcl.fit(tail, loader, epochs=2, **QUIET)
    assert history.steps == 8
    pcl.fit(without, DataLoader(TensorDataset(u[:20], v[:20]), batch_size=5), epochs=2, **QUIET)
    assert_same_weights(tail, without)


def test_a_sampler_is_told_the_epoch():
    told = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch):
            told.append(epoch)

    pairs = PairsOf(correlated_pairs(20))
    loader = DataLoader(pairs, batch_size=10, sampler=Sampler(pairs))
    pcl.fit(linear_model(), loader, epochs=3, **QUIET)
    assert list(dict.fromkeys(told)) == [0, 1, 2]


# --- seeds and global state -------------------------------------------------------------------------------------------


class Augmented(PairsOf):
    def __getitem__(self, index):
        u, v = super().__getitem__(index)
        return u + torch.rand(()) + np.random.rand() + random.random(), v  # noqa: NPY002


def loaders():
    pairs = PairsOf(correlated_pairs(40))
    return {
        "tensors": correlated_pairs(40),
        "random data set": Augmented(correlated_pairs(40)),
        "shuffled": DataLoader(pairs, batch_size=10, shuffle=True),
        "own generator": DataLoader(pairs, batch_size=10, shuffle=True, generator=seeded(1)),
        "sampler's generator": DataLoader(
            pairs, batch_size=10, sampler=WeightedRandomSampler(torch.ones(40), 40, generator=seeded(1))
        ),
    }


@pytest.mark.parametrize("kind", loaders())
def test_the_seed_fixes_everything(kind):
    def fitted(seed, noise):
        random.seed(noise)
        np.random.seed(noise)  # noqa: NPY002
        torch.manual_seed(noise)
        model = dropout_model()
        options = {"epochs": 2, "batch_size": 10, "seed": seed, **QUIET}
        return model, pcl.fit(model, loaders()[kind], **options)

    (first, a), (second, b), (other, _) = fitted(1, 10), fitted(1, 20), fitted(2, 10)
    assert_same_weights(first, second)
    np.testing.assert_array_equal(a.step_loss, b.step_loss)
    assert differ(first, other)


def test_a_loader_with_a_generator_is_shuffled_by_the_seed_anew_in_every_epoch():
    class Watched(PairsOf):
        def __getitem__(self, index):
            visited.append(index)
            return super().__getitem__(index)

    def visits(seed, own):
        visited.clear()
        loader = DataLoader(Watched(correlated_pairs(20)), batch_size=10, shuffle=True, generator=seeded(own))
        pcl.fit(linear_model(), loader, epochs=2, seed=seed, **QUIET)
        return visited[-40:-20], visited[-20:]

    visited = []
    first, second = visits(seed=1, own=10)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert (first, second) == visits(seed=1, own=20)
    assert (first, second) != visits(seed=2, own=10)


def generators_state():
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), (name, keys.tolist(), rest), random.getstate()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.usefixtures("unchecked")  # because the type checker draws from Python's generator
def test_a_fit_leaves_everything_but_the_weights_as_it_was(fails, process_state):
    model = dropout_model()
    model.encoder_u.eval()
    modes = [part.training for part in model.modules()]
    own = seeded(5)
    loader = DataLoader(Augmented(correlated_pairs(40)), batch_size=10, shuffle=True, generator=own)

    def fail(state):
        if fails:
            raise RuntimeError("a callback's own")

    before = generators_state(), own.get_state().tolist(), process_state(), signal.getsignal(signal.SIGINT)
    options = {"epochs": 2, "validation": loader, "callbacks": [fail], "patience": 1, **QUIET}
    if fails:
        with pytest.raises(RuntimeError, match="a callback's own"):
            pcl.fit(model, loader, **options)
    else:
        pcl.fit(model, loader, **options)
    assert (generators_state(), own.get_state().tolist(), process_state(), signal.getsignal(signal.SIGINT)) == before
    assert [part.training for part in model.modules()] == modes


def test_parts_in_evaluation_mode_are_trained_in_training_mode():
    seen = []

    class Watched(pcl.encoders.Linear):
        def forward(self, x):
            seen.append(self.training)
            return super().forward(x)

    model = pcl.BimodalModel(Watched(4, 2), pcl.encoders.Linear(3, 2)).eval()
    pcl.fit(model, correlated_pairs(20), epochs=1, **QUIET)
    assert seen == [False, False, True]  # the trial of two pairs, the look at all, the step
    assert not model.training


def test_a_fit_may_run_in_another_thread(tmp_path):
    histories = []
    fit_there = lambda: histories.append(  # noqa: E731
        pcl.fit(linear_model(), correlated_pairs(), epochs=2, checkpoint=tmp_path / "fit", **QUIET)
    )
    thread = threading.Thread(target=fit_there)
    thread.start()
    thread.join()
    assert histories[0].epochs == 2


# --- early stopping, callbacks, history -------------------------------------------------------------------------------


def overfitting(**options):
    pairs = Pairs(normal(24, 4, seed=1, dtype=torch.float32), normal(24, 3, seed=2, dtype=torch.float32))
    held_out = Pairs(normal(24, 4, seed=3, dtype=torch.float32), normal(24, 3, seed=4, dtype=torch.float32))
    model = linear_model()
    history = pcl.fit(model, pairs, epochs=400, lr=0.01, validation=held_out, patience=5, **options, **QUIET)
    with torch.no_grad():
        return history, float(pcl.ConditionalLoss()(model.scores(*held_out)))


def test_patience_stops_the_fit_and_the_best_weights_return():
    history, final = overfitting()
    assert history.stopped_early
    assert history.epochs == history.best_epoch + 1 + 5 < 400
    assert final == pytest.approx(history.validation_loss.min(), rel=1e-6)
    history, final = overfitting(restore_best=False)
    assert final == pytest.approx(history.validation_loss[-1], rel=1e-6)
    assert history.validation_loss[-1] > history.validation_loss.min()


def test_callbacks_hear_every_event_in_order():
    heard = []

    class Listening(Callback):
        def on_fit_start(self, state):
            heard.append(("start", state.step, state.batches))

        def on_step_end(self, state):
            assert state.history.step_loss[-1] == state.loss
            assert not math.isnan(state.grad_norm)
            heard.append(("step", state.epoch, state.batch, state.step))

        def on_epoch_end(self, state):
            assert state.history.validation_loss[-1] == state.validation_loss
            heard.append(("epoch", state.epoch, state.step))

        def on_fit_end(self, state):
            heard.append(("end", state.step))

    pcl.fit(
        linear_model(),
        correlated_pairs(30),
        epochs=2,
        batch_size=10,
        validation=1 / 3,
        callbacks=[Listening(), lambda state: heard.append("plain")],
        **QUIET,
    )
    steps = [[("step", epoch, batch, 2 * epoch + batch) for batch in (1, 2)] for epoch in (0, 1)]
    ends = [[("epoch", epoch, 2 * epoch + 2), "plain"] for epoch in (0, 1)]
    assert heard == [("start", 0, 2), *steps[0], *ends[0], *steps[1], *ends[1], ("end", 4)]


@pytest.mark.parametrize("how", ["returns", "sets"])
@pytest.mark.parametrize("event", ["on_step_end", "on_epoch_end"])
def test_a_callback_may_stop_the_fit(event, how):
    def stop(self, state):
        state.stop = how == "sets" and state.step >= 6
        return how == "returns" and state.step >= 6

    callback = type("Stop", (Callback,), {event: stop})()
    history = pcl.fit(linear_model(), correlated_pairs(40), epochs=9, batch_size=10, callbacks=[callback], **QUIET)
    assert history.stopped_early
    # After a step the running epoch is closed with the steps it had.
    assert (history.steps, history.epochs) == ((6, 2) if event == "on_step_end" else (8, 2))
    assert history.loss[1] == pytest.approx(history.step_loss[4:].mean())


def test_the_fit_ends_for_callbacks_even_if_it_fails():
    ended = []
    callback = type("End", (Callback,), {"on_fit_end": lambda self, state: ended.append(state.step)})()

    def fail(state):
        raise RuntimeError("a callback's own")

    with pytest.raises(RuntimeError, match="a callback's own"):
        pcl.fit(linear_model(), correlated_pairs(40), callbacks=[fail, callback], **QUIET)
    assert ended == [1]


def test_history_is_arrays_that_agree_with_each_other():
    history = pcl.fit(linear_model(), correlated_pairs(40), epochs=3, batch_size=10, validation=0.25, **QUIET)
    assert (history.epochs, history.steps) == (3, 9)
    assert history.step_epoch.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(history.loss, history.step_loss.reshape(3, 3).mean(1))
    np.testing.assert_array_equal(history.mi_bound, -history.loss)
    assert (history.seconds > 0).all()
    assert history.best_epoch == history.validation_loss.argmin()
    assert not history.stopped_early
    assert repr(history).startswith("History(3 epochs, 9 steps, loss -")
    assert "best epoch" in repr(history)


@pytest.mark.parametrize(
    "loss", [pcl.ConditionalLoss(2, 0), pcl.ConditionalLoss(diagonal=False), pcl.RINCELoss()], ids=repr
)
def test_the_report_claims_a_bound_only_where_it_was_trained(loss):
    two_sided = pcl.fit(linear_model(), correlated_pairs(40), epochs=2, **QUIET)
    assert f"I ≥ {two_sided.mi_bound[-1]:.4g} nats" in repr(two_sided)
    assert "I ≥" not in repr(pcl.fit(linear_model(), correlated_pairs(40), loss, epochs=2, **QUIET))


def test_history_becomes_an_xarray_dataset(tmp_path):
    history = pcl.fit(linear_model(), correlated_pairs(40), epochs=3, batch_size=10, validation=0.25, **QUIET)
    dataset = history.to_dataset()
    assert dict(dataset.sizes) == {"epoch": 3, "step": 9}
    np.testing.assert_array_equal(dataset.validation_loss, history.validation_loss)
    assert dataset.mi_bound.units == "nat"
    dataset.to_netcdf(tmp_path / "history.nc")
    with xarray.open_dataset(tmp_path / "history.nc") as read:
        xarray.testing.assert_identical(read.load(), dataset)


def test_history_without_validation_has_no_best_epoch():
    history = pcl.fit(linear_model(), correlated_pairs(40), epochs=2, **QUIET)
    assert history.best_epoch is None
    assert np.isnan(history.validation_loss).all()
    assert "valid" not in repr(history)


def test_the_progress_bar_shows_epoch_loss_bound_and_validation():
    shown = io.StringIO()
    bar = ProgressBar(Console(file=shown, force_terminal=True, width=120, _environ={"TERM": "xterm"}))
    history = pcl.fit(linear_model(), correlated_pairs(40), epochs=2, validation=0.25, callbacks=[bar], **QUIET)
    last = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", shown.getvalue()).rsplit("epoch", 1)[1]
    numbers = [float(text.replace("−", "-")) for text in re.findall(r"[−\d]\d*\.\d+", last)]
    expected = [history.step_loss[-1], history.step_mi_bound[-1], history.validation_loss[-1]]
    np.testing.assert_allclose(numbers[:3], expected, atol=5e-5)
    assert "2/2" in last


def test_progress_is_silent_off_a_terminal_and_never_on_stdout(capfd):
    pcl.fit(linear_model(), correlated_pairs(40), epochs=2, device="cpu")
    assert capfd.readouterr() == ("", "")
    pcl.fit(linear_model(), correlated_pairs(40), epochs=2, device="cpu", progress=True)
    out, err = capfd.readouterr()
    assert not out
    assert "2/2" in err


# --- precision --------------------------------------------------------------------------------------------------------


def test_mixed_precision_embeds_in_bfloat16_and_scores_in_float32():
    types = []

    class Watched(pcl.JointLoss):
        def forward(self, scores):
            types.append(scores.u.dtype)
            return super().forward(scores)

    pairs = correlated_pairs(64)
    mixed, full = linear_model(), linear_model()
    history = pcl.fit(mixed, pairs, Watched(), epochs=20, lr=0.02, amp=True, **QUIET)
    reference = pcl.fit(full, pairs, pcl.JointLoss(), epochs=20, lr=0.02, amp=False, **QUIET)
    assert set(types) == {torch.float32}
    assert all(parameter.dtype == torch.float32 for parameter in mixed.parameters())
    assert differ(mixed, full)
    assert history.loss[-1] == pytest.approx(reference.loss[-1], rel=0.02)


def test_float64_models_stay_in_float64():
    pairs = correlated_pairs(64, dtype=torch.float64)
    for amp in ("auto", True):
        model = linear_model(learn_temperature=True).double()
        pcl.fit(model, pairs, epochs=2, amp=amp, **QUIET)
        assert all(parameter.dtype == torch.float64 for parameter in model.parameters())


# --- what cannot work is refused --------------------------------------------------------------------------------------

U, V = correlated_pairs(20)
BAD_NUMBER = U.clone()
BAD_NUMBER[7, 2] = torch.nan


class Elementwise(nn.Module):
    def forward(self, scores):
        return scores.diagonal_nll(dim=1)


class Wide(nn.Module):
    def forward(self, x):
        return x[:, None, :2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pairs": (BAD_NUMBER, V)}, ValueError, "u must be finite, got 1 NaN or infinite of 80 values"),
        ({"pairs": (U, V / 0)}, ValueError, "v must be finite, got 60 NaN or infinite"),
        ({"pairs": (U, V[:19])}, ValueError, "u and v must hold equally many pairs, got 20 and 19"),
        (
            {"pairs": (U[:0], V[:0])},
            ValueError,
            "pairs must be at least two for a contrast, got none: the data are empty",
        ),
        ({"pairs": (U[:1], V[:1])}, ValueError, "pairs must be at least two for a contrast, got 1"),
        ({"pairs": (U[0, 0], V)}, ValueError, "u must have a first dimension that counts pairs"),
        ({"pairs": (U, V.numpy())}, TypeError, "(?s)v must be a torch.Tensor, got a NumPy array"),
        ({"pairs": (U, V, V)}, TypeError, r"pairs must be a tuple \(u, v\) of tensors.*got a tuple of 3"),
        ({"pairs": U}, TypeError, r"pairs must be a tuple \(u, v\) of tensors.*got a Tensor"),
        ({"pairs": Subset(PairsOf(Pairs(U, V)), [3])}, ValueError, "pairs must be at least two for a contrast, got 1"),
        ({"pairs": DataLoader(PairsOf(Pairs(U, V)))}, ValueError, "batches of one pair cannot make a contrast"),
        (
            {"pairs": DataLoader(TensorDataset(U, V, V), 5)},
            TypeError,
            r"batch 0 of the DataLoader must be a pair \(u, v\)",
        ),
        (
            {"pairs": DataLoader([(U[0], V[0])], 5)},
            ValueError,
            "pairs must not be empty, got a DataLoader without a batch",
        ),
        ({"pairs": (U.double(), V)}, ValueError, r"encoder_u cannot take u, a torch.float64 tensor of shape \(2, 4\)"),
        ({"pairs": (U, V[:, :2])}, ValueError, r"encoder_v cannot take v, a torch.float32 tensor of shape \(2, 2\)"),
        ({"validation": (U, V[:, :2])}, ValueError, "encoder_v cannot take validation v"),
        ({"validation": (U, V[:4])}, ValueError, "validation u and v must hold equally many pairs, got 20 and 4"),
        ({"validation": (BAD_NUMBER, V)}, ValueError, "validation u must be finite"),
        ({"validation": 1.5}, ValueError, "validation must be pairs or a fraction between 0 and 1, got 1.5"),
        ({"validation": 0.05}, ValueError, "validation must leave at least two pairs on either side, got 1 and 19"),
        (
            {"pairs": DataLoader(PairsOf(Pairs(U, V)), 5), "validation": 0.5},
            ValueError,
            "validation must be pairs, not a fraction",
        ),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 2.5}, TypeError, "epochs must be an integer"),
        ({"batch_size": 1}, ValueError, "batch_size must be at least 2, got 1"),
        ({"lr": 0.0}, ValueError, "lr must be finite and positive, got 0.0"),
        ({"lr": -1e-3}, ValueError, "lr must be finite and positive"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm must be finite and positive"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0 and finite, got -0.1"),
        ({"warmup": 9.0}, ValueError, "warmup must be at least 0 epochs, fewer than the fit has, got 9.0"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"patience": 0, "validation": 0.5}, ValueError, "patience must be at least 1"),
        ({"patience": 3}, ValueError, "patience needs validation pairs"),
        ({"optimizer": "adagrad"}, ValueError, r"optimizer must be one of \['adam', 'adamw', 'lbfgs', 'sgd'\]"),
        ({"optimizer": lambda parameters: 3}, TypeError, "optimizer must return a torch.optim.Optimizer, got int"),
        (
            {"optimizer": torch.optim.Adam, "lr": 0.1},
            ValueError,
            "lr must be left out, got 0.1: an optimizer that is a",
        ),
        ({"optimizer": "lbfgs", "batch_size": 8}, ValueError, "batch_size must be left out, got 8: L-BFGS takes all"),
        (
            {"optimizer": "lbfgs", "pairs": DataLoader(PairsOf(Pairs(U, V)), 5)},
            ValueError,
            "'lbfgs' takes all pairs at once",
        ),
        ({"schedule": "step"}, ValueError, r"schedule must be one of \['constant', 'cosine', 'linear'\]"),
        (
            {"schedule": lambda fraction: -1.0},
            ValueError,
            "schedule must return a finite factor that is not negative, got -1",
        ),
        ({"amp": "yes"}, ValueError, "amp must be True, False or 'auto', got 'yes'"),
        ({"device": "abacus"}, ValueError, "device must be 'auto' or a device that is present, got 'abacus'"),
        ({"callbacks": [3]}, TypeError, "callbacks must be Callback objects or functions of the state, got 3"),
        ({"resume": True}, ValueError, "resume=True needs checkpoint="),
        ({"checkpoint_every": 5}, ValueError, "checkpoint_every needs checkpoint="),
        ({"checkpoint": "fit", "checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"checkpoint": "."}, ValueError, "checkpoint must be a file, got the directory"),
        ({"loss": "clip"}, TypeError, "loss must be a Loss, got 'clip'"),
        ({"loss": Elementwise()}, TypeError, r"loss must return a scalar tensor, got .* of shape \(2,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_refused_before_any_training(options, error, message):
    options = {"pairs": (U, V), "epochs": 3, **QUIET} | options
    model = linear_model()
    before = weights(model)
    with pytest.raises(error, match=message):
        pcl.fit(model, options.pop("pairs"), options.pop("loss", None), **options)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (nn.Linear(4, 2), TypeError, "model must be a BimodalModel"),
        (
            pcl.BimodalModel(pcl.encoders.Linear(4, 2), pcl.encoders.Linear(3, 5)),
            ValueError,
            "encoder_u and encoder_v must return embeddings of one width, got 2 and 5",
        ),
        (
            pcl.BimodalModel(Wide(), pcl.encoders.Linear(3, 2)),
            ValueError,
            r"encoder_u must map 2 inputs to a \(2, d\) matrix, got a torch.float32 tensor of shape \(2, 1, 2\)",
        ),
        (
            pcl.BimodalModel(pcl.encoders.Linear(4, 2), pcl.encoders.Label(2)),
            TypeError,
            "labels must be integers, got a torch.float32 tensor",
        ),
        (
            pcl.BimodalModel(pcl.encoders.Linear(4, 2), pcl.encoders.Linear(3, 2)).requires_grad_(False),
            ValueError,
            "model must have a parameter to train: none requires a gradient",
        ),
        (
            linear_model().regauged("u", pcl.EmpiricalPrior(U)),
            ValueError,
            "model must not be re-gauged",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_models_that_cannot_work_are_refused(model, error, message):
    with pytest.raises(error, match=message):
        pcl.fit(model, (U, V), **QUIET)


def test_zero_vectors_under_cosine_are_refused():
    u = U.clone()
    u[11] = 0
    with pytest.raises(ValueError, match="Cosine has no value for a zero vector, got one in row"):
        pcl.fit(linear_model(pcl.Cosine()), (u, V), **QUIET)


@pytest.mark.parametrize("kind", ["data set", "loader", "stream"])
def test_bad_numbers_in_data_sets_are_found_as_they_come(kind):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(BAD_NUMBER, V, strict=True))

    dataset = PairsOf(Pairs(BAD_NUMBER, V))
    pairs = {
        "data set": dataset,
        "loader": DataLoader(dataset, batch_size=5),
        "stream": DataLoader(Stream(), batch_size=5),
    }[kind]
    taken = []
    with pytest.raises(ValueError, match=r"u in batch \d.* must be finite, got 1 NaN or infinite of 20 values"):
        pcl.fit(linear_model(), pairs, batch_size=5, callbacks=[lambda state: taken.append(state)], **QUIET)
    assert not taken


@pytest.mark.parametrize(
    ("alignment", "learn"), [(pcl.InnerProduct(), False), (pcl.L2(), False), (pcl.InnerProduct(), True)]
)
def test_divergence_is_an_error_that_names_the_step(alignment, learn):
    model = linear_model(alignment, learn_temperature=learn)
    with pytest.raises(FloatingPointError, match=r"diverged at step \d+ \(epoch \d+\): .*; try a smaller lr"):
        pcl.fit(model, (1e3 * U, 1e3 * V), optimizer="sgd", lr=1e18, epochs=20, **QUIET)


def test_a_finite_model_that_cannot_be_scored_is_not_called_divergence():
    class Vanishing(pcl.encoders.Linear):
        def forward(self, x):
            z = super().forward(x)
            return 0 * z if len(x) > 2 else z

    model = pcl.BimodalModel(Vanishing(4, 2), pcl.encoders.Linear(3, 2), pcl.Cosine())
    with pytest.raises(ValueError, match="zero vector"):
        pcl.fit(model, (U, V), **QUIET)
