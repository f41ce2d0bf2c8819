"""Curves of a fit, read back by TensorBoard itself."""

import logging
import sys

import numpy as np
import pytest
import torch
from small_models import normal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import probcl as pcl
from probcl.training import Callback, FitState, Logger, Logging, TensorBoard
from probcl.training.history import Recorder

STEPS_AN_EPOCH = 3


class Memory:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.told = []

    def log(self, scalars, step):
        self.told.append((step, dict(scalars)))

    def curve(self, name):
        return [(step, scalars[name]) for step, scalars in self.told if name in scalars]


class FailAt(Callback):
    """Ends a fit with an error, as a machine that goes down would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, state):
        if state.step == self.step:
            raise RuntimeError("the machine went down")


def fitted(callbacks=(), epochs=4, **options):
    u = normal(60, 3, dtype=torch.float32)
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2), temperature=0.5)
    for encoder, seed in ((model.encoder_u, 1), (model.encoder_v, 2)):
        encoder.weight.data = normal(2, 3, seed=seed, dtype=torch.float32)
    options = {"validation": (u[:20], u[:20]), "batch_size": 20, "seed": 0, "progress": False} | options
    return pcl.fit(model, (u, u), epochs=epochs, callbacks=callbacks, **options)


def curve(folder, name):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload().Scalars(name)
    return [event.step for event in events], [event.value for event in events]


def assert_is_the_history(folder, history):
    every_step = list(range(1, history.steps + 1))
    every_epoch = [STEPS_AN_EPOCH * (k + 1) for k in range(history.epochs)]
    for name in ("loss", "mi_bound", "lr", "grad_norm"):
        steps, values = curve(folder, f"train/{name}")
        assert steps == every_step
        np.testing.assert_array_equal(values, getattr(history, f"step_{name}").astype(np.float32))
    for name, recorded in (
        ("epoch/loss", history.loss),
        ("epoch/mi_bound", history.mi_bound),
        ("validation/loss", history.validation_loss),
        ("validation/mi_bound", history.validation_mi_bound),
        ("epoch", np.arange(1, history.epochs + 1)),
    ):
        steps, values = curve(folder, name)
        assert steps == every_epoch
        np.testing.assert_array_equal(values, recorded.astype(np.float32))


def test_event_files_read_back_as_the_history(tmp_path):
    assert_is_the_history(tmp_path, fitted([Logging(TensorBoard(tmp_path))]))


@pytest.mark.parametrize("same_logger", [True, False])
@pytest.mark.parametrize("died_at", [7, 8])
def test_a_resumed_fit_has_no_step_twice(tmp_path, died_at, same_logger):
    board, checkpoint = TensorBoard(tmp_path / "events"), tmp_path / "checkpoint"
    listeners = [Logging(board), FailAt(died_at)]
    with pytest.raises(RuntimeError, match="went down"):
        fitted(listeners, checkpoint=checkpoint)
    assert curve(tmp_path / "events", "train/loss")[0] == list(range(1, died_at + 1))
    board = board if same_logger else TensorBoard(tmp_path / "events")
    history = fitted([Logging(board)], checkpoint=checkpoint, resume=True)
    assert_is_the_history(tmp_path / "events", history)


def test_a_second_fit_replaces_the_curves_of_the_first(tmp_path):
    board = TensorBoard(tmp_path)
    fitted([Logging(board)], epochs=4)
    assert_is_the_history(tmp_path, fitted([Logging(board)], epochs=2, seed=1))


def test_values_of_steps_are_logged_as_often_as_asked():
    memory = Memory()
    history = fitted([Logging(memory, every=5)])
    assert memory.curve("train/loss") == [(5, history.step_loss[4]), (10, history.step_loss[9])]
    assert [step for step, _ in memory.curve("epoch")] == [3, 6, 9, 12]


def test_there_are_no_validation_values_without_validation():
    memory = Memory()
    fitted([Logging(memory)], epochs=1, validation=None)
    assert memory.told[-1][1].keys() == {"epoch", "epoch/loss", "epoch/mi_bound"}


def test_a_learned_temperature_is_logged():
    memory = Memory()
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2), learn_temperature=True)
    u = normal(60, 3, dtype=torch.float32)
    pcl.fit(model, (u, u), epochs=2, callbacks=[Logging(memory)], progress=False)
    assert memory.curve("train/temperature")[-1] == (2, model.temperature.value)


def test_only_rank_0_logs():
    memory = Memory()
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    recorder = Recorder()
    recorder.record_step(1.0, 0.0, 1.0, 0.1)
    recorder.record_epoch(2.0, 0.0, 1.0)
    for rank in (1, 0):
        state = FitState(model, 1, 1, recorder, step=1, rank=rank)
        Logging(memory).on_step_end(state)
        Logging(memory).on_epoch_end(state)
        assert len(memory.told) == (0 if rank else 2)


def test_a_logger_of_the_standard_library_takes_three_lines(caplog):
    class Lines:
        def log(self, scalars, step):
            logging.getLogger("fit").info("%d %s", step, dict(scalars))

    assert isinstance(Lines(), Logger)
    with caplog.at_level(logging.INFO, logger="fit"):
        fitted([Logging(Lines())], epochs=1)
    assert [record.message.split()[0] for record in caplog.records] == ["1", "2", "3", "3"]


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_log_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"logger must have a method log\(scalars, step\), got 3"):
        Logging(3)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Logging(Memory(), every=0)
    with pytest.raises(TypeError, match="folder must be a path"):
        TensorBoard(3)


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "probcl\[tensorboard\]"'):
        TensorBoard(tmp_path)
