"""The application of simulation-based inference: it writes what it promises, and its parts do what they say."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from tables_read import rows_of
from tilted_cases import target_of

import probcl as pcl
from applications.inference.__main__ import CONFIG, main
from applications.inference.encoder import encoder
from applications.inference.experiment import SIMULATORS, Config, mean_c2st
from probcl.samplers import TemperedSMC

PROBABILITIES = ("SBC p", "TARP p", "HPD p", "50% region", "90% region", "trusted")


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_the_module_writes_a_table_and_a_figure(tmp_path, process_state):
    state, random_state = process_state(), torch.get_rng_state()
    main(["--quick", "--output", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "table.md", "figure.png"}
    rows = rows_of(tmp_path / "table.csv")
    assert [row.pop("task") for row in rows] == list(SIMULATORS)
    for row in rows:
        assert all(math.isfinite(float(value)) for value in row.values())
        assert 0.5 <= float(row["of exact"]) < float(row["C2ST"]) <= 1
        assert all(0 <= float(row[name]) <= 1 for name in PROBABILITIES)
    assert plt.imread(tmp_path / "figure.png").ndim == 3
    assert not plt.get_fignums()
    assert process_state() == state
    assert torch.equal(torch.get_rng_state(), random_state)


def test_quick_replaces_single_settings_inside_of_tables():
    config, quick = Config.read(CONFIG), Config.read(CONFIG, quick=True)
    assert quick.fit == config.fit | {"epochs": quick.fit["epochs"], "warmup": quick.fit["warmup"]}
    assert quick.encoder == config.encoder
    assert quick.n_pairs < config.n_pairs == 10_000


def test_the_score_of_equal_waves_depends_on_differences_alone():
    data = torch.randn(100, 2)
    encode = encoder(data, n_waves=8, hidden=(), frequency=3.0)
    with torch.no_grad():
        z = encode(data + torch.tensor([0.3, -0.1])) @ encode(data).T
    torch.testing.assert_close(z.diagonal(), z.diagonal().mean().expand(100), atol=1e-5, rtol=0)
    assert z.std() > 0.1


def test_an_encoder_sees_standardised_data():
    data = torch.randn(100, 2)
    torch.manual_seed(3)
    first = encoder(data, n_waves=4, hidden=(8,), frequency=2.0)
    torch.manual_seed(3)
    second = encoder(50 * data + 7, n_waves=4, hidden=(8,), frequency=2.0)
    torch.testing.assert_close(first(data), second(50 * data + 7), atol=1e-4, rtol=0)


def test_a_model_with_waves_survives_saving(tmp_path):
    data = torch.randn(20, 2)
    model = pcl.BimodalModel(*(encoder(data, n_waves=4, hidden=(8,), frequency=2.0) for _ in range(2)))
    model.save(tmp_path / "model")
    assert torch.equal(pcl.BimodalModel.load(tmp_path / "model").log_ratio(data, data), model.log_ratio(data, data))


@pytest.mark.parametrize("name", SIMULATORS)
def test_the_sampler_draws_the_exact_posterior_if_the_score_is_the_likelihood(name):
    # So that what the benchmark finds is the model's error and not the sampler's.
    simulator = SIMULATORS[name]
    x = simulator.sample(2, seed=7).v
    draws = TemperedSMC().draw(target_of(simulator.prior, simulator.log_likelihood, x), 1000, seed=0)
    assert draws.trusted.all()
    assert mean_c2st(draws.z, simulator.posterior(x, 1000, seed=1), "boosting", seed=0) < 0.54
