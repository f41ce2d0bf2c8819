"""A fit that is killed and resumed ends as if nothing had happened."""

import functools
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import killable_fit
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import seeded
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import probcl as pcl
from probcl import Callback
from probcl.datasets import Pairs
from probcl.files import _HOST

KILLS = 20
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def forkserver():
    """Processes that start in milliseconds, forked from one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["probcl", "torch._dynamo", "xarray", "pytest"])
    return context


@pytest.fixture(scope="module")
def uninterrupted(forkserver, tmp_path_factory):
    """The result of the fit when nobody kills it."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    process, _ = start(forkserver, directory)
    process.join()
    assert process.exitcode == 0
    return load_file(directory / "result")


def start(forkserver, directory, death=""):
    """Start the fit of `directory`, or continue it, in a process of its own."""
    receiver, sender = forkserver.Pipe(duplex=False)
    arguments = (directory / "checkpoint", directory / "result", sender, death)
    process = forkserver.Process(target=killable_fit.run_announcing, args=arguments)
    process.start()
    sender.close()
    return process, receiver


def finish(forkserver, directory):
    process, _ = start(forkserver, directory)
    process.join()
    assert process.exitcode == 0
    return load_file(directory / "result")


def assert_bitwise_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].numpy().tobytes() == theirs[name].numpy().tobytes(), name


@pytest.fixture
def sigint():
    """Python's own handling of Ctrl-C, which a process started in the background is without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def assert_clean(directory):
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoint", "result"]


def test_the_killable_fit_uses_what_a_checkpoint_must_remember(uninterrupted):
    losses = uninterrupted["history.validation_loss"]
    best = int(losses.argmin())
    assert best < len(losses) - 1  # so the best weights are not the last
    assert len(uninterrupted["history.step_loss"]) <= killable_fit.STEPS


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_no_trace(forkserver, uninterrupted, tmp_path):
    rng = np.random.default_rng(0)
    steps = len(uninterrupted["history.step_loss"])
    kills, moments = 0, []
    for trial in itertools.count():
        if kills >= KILLS:
            break
        directory = tmp_path / str(trial)
        directory.mkdir()
        for _ in range(rng.integers(1, 3)):
            process, receiver = start(forkserver, directory)
            begun = receiver.recv()
            reached = kill_at(
                process, receiver, begun + rng.integers(0, max(steps - begun - 5, 1)), rng.uniform(0, 5e-3)
            )
            if process.exitcode == -signal.SIGKILL:
                assert not (directory / "result").exists()
                kills += 1
                moments.append(reached)
        assert_bitwise_equal(finish(forkserver, directory), uninterrupted)
        assert_clean(directory)
    assert len(set(moments)) > KILLS / 2
    assert min(moments) < steps / 3
    assert max(moments) > steps / 2


def kill_at(process, receiver, step, delay):
    """Kill a process a moment after it has announced this step; returns the last step it announced."""
    reached = 0
    try:
        while reached < step:
            reached = receiver.recv()
        time.sleep(delay)
        process.kill()
        while True:
            reached = receiver.recv()
    except EOFError:
        process.join()
    return reached


@pytest.mark.parametrize("moment", ["half written", "before the rename", "after the rename"])
def test_a_kill_inside_a_checkpoint_write_leaves_no_trace(moment, forkserver, uninterrupted, tmp_path):
    process, _ = start(forkserver, tmp_path, death=moment)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left_behind = [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    assert len(left_behind) == (moment != "after the rename")
    assert_bitwise_equal(finish(forkserver, tmp_path), uninterrupted)
    assert_clean(tmp_path)


def test_a_killed_program_resumes_when_run_again(uninterrupted, tmp_path):
    command = [sys.executable, killable_fit.__file__, str(tmp_path / "checkpoint"), str(tmp_path / "result")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert next(line for line in program.stdout if int(line) >= 40)
        program.kill()
    assert program.returncode == -signal.SIGKILL
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(again.stdout.split()[0]) >= 40 - killable_fit.CHECKPOINT_EVERY
    assert_bitwise_equal(load_file(tmp_path / "result"), uninterrupted)
    assert_clean(tmp_path)


class Noisy(Dataset):
    """Augmented anew on every visit, by each of the generators that data sets in the wild draw from."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        u, v = DATA.u[index], DATA.v[index]
        noise = torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002
        return u + 0.1 * noise, v - 0.1 * noise


class Stream(IterableDataset):
    """Without a length."""

    def __iter__(self):
        return iter(zip(DATA.u, DATA.v, strict=True))


class Scaled(pcl.Loss):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, scores):
        return pcl.ConditionalLoss()(scores) * self.log_scale.exp() - self.log_scale


def shuffled_loader(**options):
    return DataLoader(TensorDataset(*DATA), batch_size=12, shuffle=True, **options)


DATA = Pairs(torch.randn(40, 3, generator=seeded(1)), torch.randn(40, 2, generator=seeded(2)))
SETUPS = {
    "adam, cosine, warm-up": lambda: {"schedule": "cosine", "warmup": 0.7},
    "adamw, decay, clipping": lambda: {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5},
    "sgd, linear": lambda: {"optimizer": "sgd", "schedule": "linear"},
    "l-bfgs": lambda: {"optimizer": "lbfgs", "lr": None, "batch_size": None},
    "own optimiser": lambda: {"optimizer": torch.optim.RMSprop, "lr": None},
    "own optimiser with closures": lambda: {"optimizer": functools.partial(torch.optim.LBFGS, max_iter=3), "lr": None},
    "validation, patience": lambda: {"validation": 0.3, "patience": 1},
    "validation, patience, last weights": lambda: {"validation": 0.3, "patience": 1, "restore_best": False},
    "joint loss": lambda: {"loss": pcl.JointLoss()},
    "loss with parameters": lambda: {"loss": Scaled()},
    "random data set": lambda: {"pairs": Noisy()},
    "loader": lambda: {"pairs": shuffled_loader()},
    "loader with a generator": lambda: {"pairs": shuffled_loader(generator=seeded(3))},
    "loader with workers": lambda: {"pairs": DataLoader(Noisy(), batch_size=12, shuffle=True, num_workers=1)},
    "loader without length": lambda: {"pairs": DataLoader(Stream(), batch_size=12)},
    "loader for validation": lambda: {"validation": shuffled_loader(), "patience": 2},
}


class CrashError(Exception):
    pass


def crash_at(step):
    class Crash(Callback):
        def on_step_end(self, state):
            if state.step == step:
                raise CrashError

    return Crash()


def small_fit(model, setup=None, **options):
    settings = {"pairs": DATA, "epochs": 4, "batch_size": 10, "lr": 0.02, "seed": 5, "progress": False}
    settings |= SETUPS[setup]() if setup else {}
    settings |= options
    return pcl.fit(model, settings.pop("pairs"), settings.pop("loss", None), device="cpu", **settings)


def small_model(width=4, alignment=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        towers = [nn.Sequential(nn.Linear(n, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, width)) for n in (3, 2)]
        return pcl.BimodalModel(*towers, alignment=alignment or pcl.L2(), temperature=0.5, learn_temperature=True)


def outcome(model, history):
    course = history.to_dataset().drop_vars("seconds")
    arrays = {name: torch.from_numpy(values.to_numpy()) for name, values in course.items()}
    return {**model.state_dict(), **arrays, "stopped": torch.tensor(history.stopped_early)}


@pytest.mark.parametrize("setup", SETUPS)
def test_every_kind_of_fit_resumes_bitwise_from_any_step(setup, tmp_path):
    model = small_model()
    history = small_fit(model, setup)
    expected = outcome(model, history)
    assert history.steps >= 4
    for step in (1, history.steps // 2 + 1, history.steps):
        checkpoint = tmp_path / str(step)
        with pytest.raises(CrashError):
            small_fit(small_model(), setup, checkpoint=checkpoint, checkpoint_every=1, callbacks=[crash_at(step)])
        resumed = small_model()
        assert_bitwise_equal(outcome(resumed, small_fit(resumed, setup, resume=checkpoint)), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_may_be_any(threads, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, resumed = small_model(width=64), small_model(width=64)
        expected = outcome(model, small_fit(model))
        with pytest.raises(CrashError):
            small_fit(small_model(width=64), checkpoint=tmp_path / "fit", checkpoint_every=2, callbacks=[crash_at(7)])
        assert_bitwise_equal(outcome(resumed, small_fit(resumed, resume=tmp_path / "fit")), expected)
    finally:
        torch.set_num_threads(before)


def test_steps_between_checkpoints_are_done_again(tmp_path):
    with pytest.raises(CrashError):
        small_fit(small_model(), checkpoint=tmp_path / "fit", checkpoint_every=3, callbacks=[crash_at(9)])
    begun = []
    start_of_fit = type("Start", (Callback,), {"on_fit_start": lambda self, state: begun.append(state.step)})()
    small_fit(small_model(), resume=tmp_path / "fit", callbacks=[start_of_fit])
    assert begun == [8]  # the end of the second epoch of four steps, later than step 6


def test_resuming_a_finished_fit_trains_no_more(tmp_path):
    model, again, taken = small_model(), small_model(), []
    expected = outcome(model, small_fit(model, validation=0.3, patience=2, checkpoint=tmp_path / "fit"))
    counting = type("Counting", (Callback,), {"on_step_end": lambda self, state: taken.append(state.step)})()
    history = small_fit(again, validation=0.3, patience=2, resume=tmp_path / "fit", callbacks=[counting])
    assert_bitwise_equal(outcome(again, history), expected)
    assert not taken


def test_a_fit_stopped_by_a_callback_stays_stopped(tmp_path):
    stop_at_6 = type("Stop", (Callback,), {"on_step_end": lambda self, state: state.step == 6})()
    model, again = small_model(), small_model()
    history = small_fit(model, callbacks=[stop_at_6], checkpoint=tmp_path / "fit", checkpoint_every=1)
    assert (history.steps, history.epochs, history.stopped_early) == (6, 2, True)
    assert_bitwise_equal(outcome(again, small_fit(again, resume=tmp_path / "fit")), outcome(model, history))


def test_more_epochs_continue_a_fit_of_constant_rate(tmp_path):
    short, long, straight = small_model(), small_model(), small_model()
    small_fit(short, epochs=2, warmup=0.5, checkpoint=tmp_path / "fit")
    history = small_fit(long, epochs=5, warmup=0.5, resume=tmp_path / "fit")
    assert_bitwise_equal(outcome(long, history), outcome(straight, small_fit(straight, epochs=5, warmup=0.5)))


def test_resume_true_reads_the_checkpoint_and_a_file_name_implies_one(tmp_path):
    first, second = small_model(), small_model()
    a = small_fit(first, checkpoint=tmp_path / "a", resume=True)
    b = small_fit(second, resume=str(tmp_path / "b"))
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()
    assert_bitwise_equal(outcome(first, a), outcome(second, b))


def temporary(path, writer):
    """What a writer of `path` with this process number would write first."""
    half = path.with_name(f".{path.name}.{_HOST}-{writer}-0123.tmp")
    half.write_bytes(b"half")
    return half


@pytest.fixture
def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_without_resume_a_checkpoint_is_overwritten_and_stale_temporaries_are_removed(ended_process, tmp_path):
    (tmp_path / "fit").write_bytes(b"something else")
    temporary(tmp_path / "fit", ended_process)
    not_ours = temporary(tmp_path / "other", ended_process)
    at_work = temporary(tmp_path / "fit", os.getpid())
    small_fit(small_model(), checkpoint=tmp_path / "fit")
    assert set(tmp_path.iterdir()) == {not_ours, at_work, tmp_path / "fit"}


def test_resuming_a_finished_fit_removes_stale_temporaries_too(ended_process, tmp_path):
    small_fit(small_model(), checkpoint=tmp_path / "fit")
    temporary(tmp_path / "fit", ended_process)
    small_fit(small_model(), resume=tmp_path / "fit")
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.01}, r"settings.lr was 0.02, is 0.01"),
        ({"batch_size": 8}, r"settings.batch_size was 10, is 8"),
        ({"seed": 6}, r"settings.seed was 5, is 6"),
        ({"optimizer": "sgd"}, r"settings.optimizer was 'adam', is 'sgd'"),
        ({"schedule": "cosine"}, r"settings.schedule was 'constant', is 'cosine'"),
        ({"loss": pcl.ConditionalLoss(2, 0)}, r"model.loss was 'ConditionalLoss\(lambda_u=1.*is .*lambda_u=2"),
        ({"validation": 0.2}, r"pairs.train.pairs was 40, is 32.*; pairs.validation was None, is"),
        ({"pairs": Pairs(DATA.u[:30], DATA.v[:30])}, r"pairs.train.pairs was 40, is 30"),
        ({"pairs": Pairs(DATA.u + 1, DATA.v)}, r"pairs.train.contents was"),
        ({"pairs": TensorDataset(DATA.u, DATA.v), "weight_decay": 0.1}, r"settings.weight_decay was None, is 0.1$"),
    ],
)
def test_resuming_another_fit_is_refused_and_the_difference_named(change, message, tmp_path):
    small_fit(small_model(), checkpoint=tmp_path / "fit")
    with pytest.raises(pcl.CheckpointError, match=message):
        small_fit(small_model(), resume=tmp_path / "fit", **change)


def test_resuming_with_another_model_is_refused(tmp_path):
    small_fit(small_model(), checkpoint=tmp_path / "fit")
    with pytest.raises(pcl.CheckpointError, match=r"model.alignment.class was 'L2', is 'InnerProduct'"):
        small_fit(small_model(alignment=pcl.InnerProduct()), resume=tmp_path / "fit")
    with pytest.raises(pcl.CheckpointError, match=r"model.encoder_u.3.bias is \(4,\) there and \(5,\)"):
        small_fit(small_model(width=5), resume=tmp_path / "fit")
    frozen = small_model()
    frozen.encoder_u[0].weight.requires_grad_(False)
    with pytest.raises(pcl.CheckpointError, match=r"model.frozen was \[\], is \['encoder_u.0.weight'\]"):
        small_fit(frozen, resume=tmp_path / "fit")


def test_other_numbers_of_epochs_are_refused_where_the_past_depends_on_them(tmp_path):
    small_fit(small_model(), schedule="cosine", checkpoint=tmp_path / "cosine")
    with pytest.raises(pcl.CheckpointError, match=r"settings.epochs was 4, is 6"):
        small_fit(small_model(), schedule="cosine", epochs=6, resume=tmp_path / "cosine")
    small_fit(small_model(), checkpoint=tmp_path / "constant")
    with pytest.raises(pcl.CheckpointError, match=r"epochs must be at least the 4 of the checkpoint, got 3"):
        small_fit(small_model(), epochs=3, resume=tmp_path / "constant")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "model file"])
def test_a_damaged_checkpoint_is_refused(damage, tmp_path):
    path = tmp_path / "fit"
    small_fit(small_model(), checkpoint=path)
    content = bytearray(path.read_bytes())
    if damage == "model file":
        small_model().save(tmp_path)
        content = (tmp_path / "model.safetensors").read_bytes()
    elif damage == "flipped":
        content[-5] ^= 1
    else:
        content = content[: len(content) // 2 if damage == "truncated" else 0]
    path.write_bytes(content)
    untouched = small_model()
    with pytest.raises(pcl.CheckpointError, match=str(path)):
        small_fit(untouched, resume=path)
    assert_bitwise_equal(untouched.state_dict(), small_model().state_dict())


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("probcl.serialization.FORMAT_VERSION", 99)
    small_fit(small_model(), checkpoint=tmp_path / "fit")
    monkeypatch.undo()
    with pytest.raises(pcl.CheckpointError, match="format version '99'; this probcl reads"):
        small_fit(small_model(), resume=tmp_path / "fit")


def test_optimiser_state_that_is_not_plain_data_is_refused(tmp_path):
    class Secretive(torch.optim.SGD):
        def step(self, closure=None):
            self.state[self.param_groups[0]["params"][0]]["secret"] = object()
            return super().step(closure)

    with pytest.raises(pcl.CheckpointError, match=r"cannot write optimizer.state.0.secret, of type object"):
        small_fit(small_model(), optimizer=Secretive, lr=None, checkpoint=tmp_path / "fit")


@pytest.mark.parametrize("how", ["signal", "exception"])
def test_ctrl_c_writes_a_checkpoint_between_two_steps_and_is_passed_on(how, tmp_path, sigint):
    class Interrupt(Callback):
        def on_step_end(self, state):
            if state.step == 6:
                if how == "exception":
                    raise KeyboardInterrupt
                signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    model, resumed = small_model(), small_model()
    with pytest.raises(KeyboardInterrupt):
        small_fit(small_model(), checkpoint=tmp_path / "fit", callbacks=[Interrupt()])
    assert signal.getsignal(signal.SIGINT) is handler
    begun = []
    start_of_fit = type("Start", (Callback,), {"on_fit_start": lambda self, state: begun.append(state.step)})()
    history = small_fit(resumed, resume=tmp_path / "fit", callbacks=[start_of_fit])
    assert begun == [6]
    assert_bitwise_equal(outcome(resumed, history), outcome(model, small_fit(model)))


def test_a_second_ctrl_c_does_not_wait_and_leaves_the_last_checkpoint(tmp_path, sigint):
    class Impatient(nn.Linear):
        calls = 0

        def forward(self, x):
            Impatient.calls += self.training
            if self.training and Impatient.calls == 7:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return super().forward(x)

    def build():
        return pcl.BimodalModel(Impatient(3, 2), pcl.encoders.Linear(2, 2))

    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        small_fit(build(), checkpoint=tmp_path / "fit", checkpoint_every=1)
    history = small_fit(build(), resume=tmp_path / "fit")
    assert history.steps == 16
    assert Impatient.calls == 7 + 16 - 6


def test_ctrl_c_inside_a_step_leaves_the_checkpoint_before_it(tmp_path, sigint):
    class Torn(torch.optim.SGD):
        steps, last = 0, 0

        def step(self, closure=None):
            super().step(closure)
            Torn.steps += 1
            if Torn.steps == Torn.last:
                raise KeyboardInterrupt

    def optimizer(parameters):
        return Torn(parameters, lr=0.1)

    model, resumed = small_model(), small_model()
    expected = outcome(model, small_fit(model, optimizer=optimizer, lr=None))
    Torn.last = Torn.steps + 7
    with pytest.raises(KeyboardInterrupt):
        small_fit(small_model(), optimizer=optimizer, lr=None, checkpoint=tmp_path / "fit")
    history = small_fit(resumed, optimizer=optimizer, lr=None, resume=tmp_path / "fit")
    assert_bitwise_equal(outcome(resumed, history), expected)


def test_ctrl_c_during_the_last_validation_is_not_lost(tmp_path, sigint):
    class Interrupted(nn.Linear):
        trained = False

        def forward(self, x):
            self.trained |= self.training
            if self.trained and not self.training:  # evaluation after training, not the trial before it
                signal.raise_signal(signal.SIGINT)
            return super().forward(x)

    model = pcl.BimodalModel(Interrupted(3, 2), pcl.encoders.Linear(2, 2))
    with pytest.raises(KeyboardInterrupt):
        small_fit(model, epochs=1, validation=0.2, checkpoint=tmp_path / "fit")
    assert (tmp_path / "fit").exists()


def test_ctrl_c_while_the_best_weights_return_leaves_a_checkpoint_of_the_last(tmp_path, monkeypatch, sigint):
    def interrupted(module, tensors):
        nn.Module.load_state_dict(module, tensors)
        raise KeyboardInterrupt

    options = {"validation": 0.3, "patience": 9, "epochs": 6}
    small_fit(small_model(), **options, checkpoint=tmp_path / "whole")
    monkeypatch.setattr(nn.ModuleDict, "load_state_dict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_fit(small_model(), **options, checkpoint=tmp_path / "fit")
    monkeypatch.undo()
    whole, fit = (load_file(tmp_path / name) for name in ("whole", "fit"))
    for tensors in (whole, fit):
        del tensors["history.seconds"]
    assert_bitwise_equal(fit, whole)


def test_divergence_leaves_the_last_good_checkpoint(tmp_path):
    class Poison(Callback):
        def on_step_end(self, state):
            if state.step == 10:
                with torch.no_grad():
                    state.model.encoder_u[0].weight.fill_(torch.nan)

    with pytest.raises(FloatingPointError, match=r"step 10 \(epoch 2\)"):
        small_fit(small_model(), checkpoint=tmp_path / "fit", callbacks=[Poison()])
    model, resumed = small_model(), small_model()
    history = small_fit(resumed, resume=tmp_path / "fit")
    assert_bitwise_equal(outcome(resumed, history), outcome(model, small_fit(model)))
