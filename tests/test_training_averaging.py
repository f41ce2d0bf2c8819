import copy

import pytest
import torch
from torch import nn

import probcl as pcl
from probcl.training import AverageWeights

QUIET = {"device": "cpu", "progress": False}


def test_averaged_weights_are_the_exponential_average_of_the_steps():
    class Remember(pcl.Callback):
        def __init__(self) -> None:
            self.weights: list[torch.Tensor] = []

        def on_step_end(self, state: pcl.FitState) -> None:
            self.weights.append(state.model.encoder_u.weight.detach().clone())

    u = torch.randn(64, 3)
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    seen = Remember()
    pcl.fit(model, (u, 0.5 * u), epochs=3, batch_size=16, lr=0.05, callbacks=[seen, AverageWeights(0.7)], **QUIET)
    expected = copy.deepcopy(seen.weights[0])  # the average begins with the first step
    for weight in seen.weights[1:]:
        expected = 0.7 * expected + 0.3 * weight
    torch.testing.assert_close(model.encoder_u.weight.detach(), expected)
    assert not torch.equal(model.encoder_u.weight, seen.weights[-1])


def test_statistics_of_batches_are_those_of_the_last_step_and_no_decay_keeps_the_last_weights():
    u = torch.randn(64, 3)
    encoders = [nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)) for _ in range(2)]
    states = []
    for callbacks in ([], [AverageWeights(0.9)], [AverageWeights(0.0)]):
        model = pcl.BimodalModel(*copy.deepcopy(encoders))
        pcl.fit(model, (u, 0.5 * u), epochs=2, batch_size=16, callbacks=callbacks, **QUIET)
        states.append(model.state_dict())
    last, averaged, undecayed = states
    for name in last:
        assert torch.equal(undecayed[name], last[name])
        assert torch.equal(averaged[name], last[name]) == (not name.endswith(("weight", "bias"))), name


def test_a_fit_that_is_already_done_keeps_its_weights(tmp_path):
    u = torch.randn(64, 3)
    settings = {"epochs": 2, "batch_size": 16, "checkpoint": tmp_path / "fit", "resume": True, **QUIET}
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
    pcl.fit(model, (u, 0.5 * u), **settings)
    again = copy.deepcopy(model)
    pcl.fit(again, (u, 0.5 * u), callbacks=[AverageWeights(0.9)], **settings)
    assert torch.equal(again.encoder_u.weight, model.encoder_u.weight)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("decay", "error", "message"),
    [
        (1.0, ValueError, r"^decay must be in \[0, 1\), got 1"),
        (-0.1, ValueError, r"^decay must be in"),
        ("0.9", TypeError, r"^decay must be a number, got '0.9'"),
    ],
)
def test_bad_input_is_refused(decay, error, message):
    with pytest.raises(error, match=message):
        AverageWeights(decay)
