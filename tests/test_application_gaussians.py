"""The application of Gaussian pairs: it writes what it promises, and training agrees with the closed forms."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import xarray as xr
from tables_read import rows_of

import probcl as pcl
from applications.files import replacing
from applications.gaussians import experiment_illustration, experiment_process
from applications.gaussians.__main__ import main
from applications.gaussians.config import Config
from applications.gaussians.experiment_process import Setting, fit_setting, floors, measure
from applications.gaussians.learned import learned_law

TINY = """
[illustration]
covariance = [[1.5, 1.0], [1.0, 1.5]]
n_pairs = 64
epochs = 1
seed = 0

[comparison]
covariance = [[1.5, 1.0], [1.0, 1.5]]
n_pairs = 64
epochs = 1
seed = 0

[process]
n_draws = 100
seed = 3

[[process.curves]]
name = "tiny"
alignment = "WithPotentials"
base = { rank = 2, batch_size = 50, n_pairs = 200 }
whiten = true
pairs_seen = 400
fit = { optimizer = "sgd", lr = 0.1 }
samples = { n_pairs = 2 }
sweeps = { rank = [1, 2], batch_size = [50, 100], n_pairs = [100, 200] }

[[process.curves]]
name = "tiny and long"
alignment = "InnerProduct"
long = true
base = { rank = 2, batch_size = 50, n_pairs = 200 }
whiten = false
pairs_seen = 400
fit = { optimizer = "adam", lr = 1e-3 }
sweeps = { rank = [1] }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TINY)
    return path


def test_the_module_writes_tables_figures_and_a_data_set(tiny, tmp_path, process_state):
    state, output = process_state(), tmp_path / "results"
    main(["--config", str(tiny), "--output", str(output), "--long"])
    tables = ("illustration", "process-rank", "process-batch_size", "process-n_pairs")
    expected = {f"{table}{ending}" for table in tables for ending in (".csv", ".md")}
    expected |= {"illustration.png", "process.png", "process.nc"}
    assert {path.name for path in output.iterdir()} == expected
    assert [plt.imread(output / f"{name}.png").ndim for name in ("illustration", "process")] == [3, 3]
    assert not plt.get_fignums()
    assert len(rows_of(output / "illustration.csv")) == 2 * len(experiment_illustration.OBJECTIVES) + 1
    assert [row["fit"] for row in rows_of(output / "process-rank.csv")] == ["tiny", "tiny", "tiny and long"]
    assert process_state() == state


def test_the_data_set_agrees_with_the_tables_and_says_how_it_was_made(tiny, tmp_path):
    main(["--config", str(tiny), "--output", str(tmp_path), "--only", "process"])
    with xr.open_dataset(tmp_path / "process.nc") as data:
        assert data["error_by_n_pairs"].dims == ("curve", "n_pairs", "seed_by_n_pairs", "direction")
        assert data["seed_by_n_pairs"].values.tolist() == [3, 4]
        assert data.attrs["seed"] == 3
        assert data.attrs["probcl_version"] == pcl.__version__
        assert '"pairs_seen": 400' in data.attrs["settings"]
        for sweep, symbol in (("rank", "r"), ("batch_size", "batch"), ("n_pairs", "N")):
            for row in rows_of(tmp_path / f"process-{sweep}.csv"):
                errors = data[f"error_by_{sweep}"].mean(f"seed_by_{sweep}")
                point = errors.sel({"curve": row["fit"], sweep: int(row[symbol])})
                assert point.sel(direction="u|v") == pytest.approx(1e-3 * float(row["u|v error"]), rel=1e-12)
                assert point.sel(direction="v|u") == pytest.approx(float(row["v|u error"]), rel=1e-12)
    assert not (tmp_path / "illustration.csv").exists()


def test_the_shipped_configuration_reads_and_quick_is_a_part_of_it():
    full, quick, long = Config.read(), Config.read(quick=True), Config.read(long=True)
    assert [curve.name for curve in full.process.curves] == ["inner product", "with potentials"]
    assert len(long.process.curves) == 4
    for short, curve in zip(quick.process.curves, full.process.curves, strict=True):
        assert short.pairs_seen < curve.pairs_seen
        assert all(set(short.sweeps[sweep]) <= set(values) for sweep, values in curve.sweeps.items())


def test_illustration_pairs_have_the_covariance_exactly_and_follow_the_normal_law():
    C = torch.tensor([[1.5, 1.0], [1.0, 1.5]], dtype=torch.float64)
    u, v = experiment_illustration.stratified_pairs(C, 1024, seed=0)
    w = torch.cat([u, v], dim=1)
    torch.testing.assert_close(w.T @ w / 1024, C, rtol=1e-12, atol=1e-12)
    whitened = w @ torch.linalg.inv(torch.linalg.cholesky(C)).T
    uniform = torch.special.ndtr(whitened).sort(dim=0).values
    even = (torch.arange(1024, dtype=torch.float64) + 0.5)[:, None] / 1024
    assert (uniform - even).abs().max() < 0.005  # independent draws would be off by 0.03


def test_the_law_of_an_optimal_model_is_the_oracles():
    process = pcl.datasets.GaussianProcessPairs()
    C, rank = process.covariance(), 3
    for name, alignment in (("inner", pcl.InnerProduct()), ("l2", pcl.L2()), ("potentials", pcl.WithPotentials())):
        best = pcl.gaussian.optimum(C, process.n_u, rank, name)
        G, H = best.encoder_u, best.encoder_v
        if name == "potentials":
            G, H = torch.cat([G, best.potential_u]), torch.cat([H, best.potential_v])
        encoders = pcl.encoders.Linear(process.n_u, len(G)), pcl.encoders.Linear(process.n_v, len(H))
        model = pcl.BimodalModel(*encoders, alignment=alignment).double()
        encoders[0].weight.data, encoders[1].weight.data = G, H
        A, law = learned_law(model, C, process.n_u)
        torch.testing.assert_close(A, best.A)
        torch.testing.assert_close(law.whitened_B, best.law.whitened_B)
        torch.testing.assert_close(law.whitened_C, best.law.whitened_C)


def test_trained_illustration_agrees_with_the_closed_forms_to_two_decimals():
    for objective, trained, closed_form in experiment_illustration.run(Config.read().illustration):
        for value, exact in zip(trained, closed_form, strict=True):
            assert value == pytest.approx(exact, abs=0.005), objective.name


def test_with_potentials_the_floor_is_reached_within_ten_percent_and_only_by_training():
    config = Config.read(quick=True).process
    (curve,) = (curve for curve in config.curves if curve.name == "with potentials")
    curve = replace(curve, pairs_seen=150_000)
    setting = Setting(rank=3, batch_size=256, n_pairs=50_000, seed=0)
    floor = floors(config, 3)
    excess = measure(fit_setting(curve, setting, config.process), 3, config).excess
    assert all(abs(extra) < 0.1 * least for extra, least in zip(excess, floor, strict=True))
    untrained = pcl.BimodalModel(pcl.encoders.Linear(12, 3), pcl.encoders.Linear(5, 3))
    excess = measure(untrained, 3, config).excess
    assert all(extra > least for extra, least in zip(excess, floor, strict=True))


def test_whitening_before_the_fit_is_absorbed_by_the_encoders():
    process = pcl.datasets.GaussianProcessPairs()
    pairs = process.sample(300, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = pcl.BimodalModel(pcl.encoders.Linear(12, 2), pcl.encoders.Linear(5, 2))
    history = experiment_process.fit_whitened(model, pairs, optimizer="lbfgs", epochs=3)
    loss = pcl.ConditionalLoss()(model.scores(pairs.u, pairs.v))
    assert float(loss.detach()) == pytest.approx(history.loss[-1], abs=1e-4)


def test_a_file_that_could_not_be_written_whole_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_gaussian_ellipses_have_the_mahalanobis_radii_asked_for():
    covariance = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    figure, ax = plt.subplots()
    contours = pcl.plotting.gaussian_ellipse(ax, covariance, (0.5, 2.0), mean, color="black")
    plt.close(figure)
    for contour, radius in zip(contours, (0.5, 2.0), strict=True):
        offset = torch.from_numpy(contour.get_xy()) - mean
        distance = (offset @ torch.linalg.inv(covariance) * offset).sum(1).sqrt()
        torch.testing.assert_close(distance, torch.full_like(distance, radius))
    with pytest.raises(ValueError, match="covariance must be a positive definite"):
        pcl.plotting.gaussian_ellipse(ax, torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
