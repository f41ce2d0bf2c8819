"""The application draws images that are in no bank: its measures are right, and it writes what it promises."""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.linalg
import torch
from small_models import normal, seeded
from tables_read import rows_of

import probcl as pcl
from applications.mnist import __main__ as command
from applications.mnist import experiment, generation
from applications.mnist.experiment import LABELS, with_shifts
from applications.mnist.generation import halves, labels, measures
from applications.mnist.generation.config import Config
from applications.mnist.generation.judge import Judge
from applications.mnist.generation.run import complete_halves, draw_labels
from probcl.datasets import Pairs, Split

CONFIGURATIONS = Path(generation.__file__).parent
COLUMNS = ["images", "purity", "diversity", "Fréchet", "too close", "NLL", "ECE", "ECE judge", "ms/image"]
N_METHODS = 6
# Some halves of digits leave few of the prior's draws to resample, and the sampler says so.
ignoring_few_proposals = pytest.mark.filterwarnings("ignore:draws by importance:probcl.ProbclWarning")


def tiny() -> tuple[Config, experiment.Config]:
    config = Config.read(CONFIGURATIONS / "digits.toml", most_epochs=1)
    small = {"latent_dim": 3, "width": 4, "hidden": 16, "components": 10}
    second = replace(config.halves, draws=8, test_images=40, proposals=1000, prior=config.halves.prior | small)
    judge = config.judge | {"width": 4, "stages": 1}
    config = replace(
        config, draws=12, proposals=1000, shifted=False, judge=judge, prior=config.prior | small, halves=second
    )
    return config, experiment.Config.read(CONFIGURATIONS.parent / "digits.toml", epochs=1)


@pytest.fixture(scope="module")
def data() -> Split:
    return pcl.datasets.load_digits()


@pytest.fixture(scope="module")
def judge(data: Split) -> Judge:
    return Judge.fit(data.train, 0, width=8, stages=2, epochs=15, batch_size=64, lr=1e-2)


@pytest.fixture(scope="module")
def yardstick(data: Split, judge: Judge) -> measures.Yardstick:
    return measures.Yardstick(data, judge)


@ignoring_few_proposals
def test_the_experiment_writes_tables_and_a_figure_and_changes_no_random_state(data, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    config, fits = tiny()
    random_state = torch.get_rng_state()
    generation.run(data, fits, config, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {
        "table.md",
        "table.csv",
        "halves.md",
        "halves.csv",
        "figure.png",
    }
    rows = rows_of(tmp_path / "table.csv")
    assert list(rows[0]) == COLUMNS
    assert len(rows) == N_METHODS + 1
    for row in rows:
        assert all(0 <= float(row[name]) <= 1 for name in ("purity", "too close", "ECE", "ECE judge"))
    methods = [(row["given → drawn"], row["halves"]) for row in rows_of(tmp_path / "halves.csv")]
    assert len(set(methods)) == len(methods) == 8
    assert plt.imread(tmp_path / "figure.png").std() > 0
    assert not plt.get_fignums()
    assert torch.equal(torch.get_rng_state(), random_state)


def test_generate_is_asked_for_with_a_seed_and_at_most_so_many_epochs(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(generation, "run", lambda *arguments: seen.append(arguments))
    arguments = ["mnist", "--generate", "--seeds", "3", "--epochs", "7", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    command.main()
    ((data, fits, config, output),) = seen
    assert data.train.u.shape[1:] == (1, 8, 8)
    assert output == tmp_path
    assert config.seed == 3
    fitted = (config.judge, config.prior, config.halves.training, config.halves.prior)
    assert [fit["epochs"] for fit in fitted] == [7, 7, 7, 7]
    assert fits.epochs == 7
    monkeypatch.setattr(sys, "argv", [*arguments[:2], "--epochs", "10000", "--output", str(tmp_path)])
    command.main()
    assert seen[1][1].epochs < 10000
    assert seen[1][2] == Config.read(CONFIGURATIONS / "digits.toml")


def test_generate_refuses_several_seeds(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mnist", "--generate", "--seeds", "0", "1"])
    with pytest.raises(SystemExit):
        command.main()
    assert "one seed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_fewer_epochs_are_never_more(name):
    path = CONFIGURATIONS / f"{name}.toml"
    whole, cut = Config.read(path), Config.read(path, most_epochs=5)
    assert Config.read(path, most_epochs=10_000) == whole
    assert cut.prior == whole.prior | {"epochs": 5}
    assert cut.judge["epochs"] == min(5, whole.judge["epochs"])


@pytest.mark.parametrize("n", [200, 6])  # more images than features, and fewer
def test_the_frechet_distance_is_the_formula(n):
    a, b = normal(n, 8), 2 * normal(300, 8, seed=1) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(scipy.linalg.sqrtm(cov_a) @ cov_b @ scipy.linalg.sqrtm(cov_a)).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(cov_a + cov_b - 2 * root)
    assert measures.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_the_frechet_distance_of_a_sample_moved_is_the_square_of_the_move():
    a = normal(50, 4)
    assert measures.frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert measures.frechet_distance(a, a + torch.tensor([3.0, 0, 4.0, 0])) == pytest.approx(25)


def test_spread_and_nearest_distance_are_those_of_the_pixels():
    images, names = normal(1500, 1, 2, 3), torch.arange(1500) % 10
    of_three = images[names == 3].flatten(1)
    pairs = [(of_three[i] - of_three[j]).norm() for i in range(12) for j in range(i)]
    small = Pairs(images[:120], names[:120])
    assert float(measures.class_spread(small)[3]) == pytest.approx(float(torch.stack(pairs).mean()))
    nearest = measures.nearest_distance(images, images[:7])
    assert nearest.shape == (1500,)
    assert float(nearest[1234]) == pytest.approx(float((images[1234] - images[:7]).flatten(1).norm(dim=1).min()))


def test_copies_are_too_close_and_one_in_a_hundred_test_images_is(data, yardstick):
    assert yardstick.too_close(data.train) == 1
    assert yardstick.too_close(data.test) == pytest.approx(0.01, abs=0.005)
    assert yardstick.diversity(data.test) == 1
    assert yardstick.frechet(data.test) == pytest.approx(0, abs=1e-9)


def test_one_image_for_each_label_has_no_diversity(data, yardstick):
    rows = torch.stack([(data.test.v == label).nonzero()[0, 0] for label in LABELS])
    assert yardstick.diversity(data.test.take(rows.repeat(5))) == 0


def test_purity_is_one_for_what_the_judge_sees_and_a_tenth_for_labels_at_random(data, judge, yardstick):
    seen = judge.labels(data.test.u)
    assert yardstick.purity(Pairs(data.test.u, seen)) == 1
    at_random = torch.randint(10, (20 * len(seen),), generator=seeded())
    assert yardstick.purity(Pairs(data.test.u.repeat(20, 1, 1, 1), at_random)) == pytest.approx(0.1, abs=0.02)


def test_calibration_is_judged_by_the_label_drawn_for_and_by_the_one_seen(data, judge, yardstick):
    class Sure(torch.nn.Module):
        """Sees what the judge sees, and is certain of it."""

        def forward(self, x):
            return 30 * torch.nn.functional.one_hot(judge.labels(x), 10).float()

    model = pcl.BimodalModel(Sure(), pcl.encoders.Label(10), alignment=pcl.InnerProduct())
    result = yardstick.calibration(data.test, model)
    assert result["ECE judge"] == pytest.approx(0, abs=1e-6)
    assert result["ECE"] == pytest.approx(1 - judge.accuracy(data.test), abs=1e-6)


def test_the_judge_learns_the_same_from_the_same_seed_and_leaves_no_trace(data, judge):
    few = data.train.take(torch.arange(100))
    before = torch.get_rng_state()
    arguments = {"width": 4, "stages": 1, "epochs": 2, "batch_size": 32, "lr": 1e-2}
    one, two, other = (Judge.fit(few, seed, **arguments).features(data.test.u) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert judge.accuracy(data.test) > 0.9


def test_time_is_the_shortest_of_several_draws_from_one_seed(monkeypatch):
    ticks = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(measures.time, "perf_counter", lambda: next(ticks))
    drawn = []

    def draw() -> torch.Tensor:
        drawn.append(torch.rand(3))
        return drawn[-1]

    last, seconds = measures.timed(draw, seed=0)
    assert seconds == 2
    assert len(drawn) == 3
    assert all(torch.equal(last, one) for one in drawn)


def test_every_source_draws_images_for_each_label_and_the_bank_only_copies(data, yardstick):
    config, fits = tiny()
    models = labels.fit_models(data, fits, config)
    drawn = {source.name: labels.measure(source, yardstick, config) for source in labels.sources(models, data, config)}
    assert len(drawn) == N_METHODS
    for item in drawn.values():
        assert item.images.shape == (12, 10, 1, 8, 8)
        assert list(item.row) == COLUMNS
        copies = float((measures.nearest_distance(item.images.flatten(0, 1), data.train.u) < 1e-6).float().mean())
        assert copies == (1 if "resampled" in item.name else 0)


def test_a_conditional_decoder_is_given_the_label_of_its_column(data):
    vae = pcl.generation.Autoencoder((1, 8, 8), latent_dim=2, width=4, hidden=8, context_dim=10)
    z = normal(3, 10, 2).float()
    with torch.no_grad():
        images = labels._decode(vae, z)
        one = vae.decoder(torch.cat([z[1, 7], torch.eye(10)[7]])[None])[0]
    assert images.shape == (3, 10, 1, 8, 8)
    torch.testing.assert_close(images[1, 7], one)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (2, 5, 3)])
def test_halves_joined_are_the_image(shape):
    images = torch.rand(4, *shape)
    lower, upper = halves.split(images)
    assert torch.equal(halves.joined(upper, lower), images)


@ignoring_few_proposals
def test_a_completed_digit_keeps_the_half_it_was_given(data, judge):
    config, _ = tiny()
    completed = complete_halves(data, config, judge)
    test = data.test.u[:40]
    for item in completed:
        kept = 1 if item.direction == "upper → lower" else 0
        part, given = halves.split(item.digits.flatten(0, 1))[kept], halves.split(test)[kept]
        assert torch.equal(part, given.repeat(len(item.digits), 1, 1, 1))
        if item.method == halves.TRUE:
            assert torch.equal(item.digits[0], test)
            expected = float((judge.labels(test) == data.test.v[:40]).float().mean())
            assert item.row["purity"] == pytest.approx(expected)


@pytest.mark.slow
@ignoring_few_proposals
@pytest.mark.timeout(1800)
def test_a_tilted_prior_draws_new_and_various_digits_of_the_label_asked_for(data):
    config = Config.read(CONFIGURATIONS / "digits.toml")
    fits = experiment.Config.read(CONFIGURATIONS.parent / "digits.toml")
    judge = Judge.fit(with_shifts(data.train), config.seed, **config.judge)
    rows = {item.name: item.row for item in draw_labels(data, fits, config, judge)}
    two_sided, regauged, bank, _, _, untilted, real = rows.values()
    assert real["purity"] >= 0.98
    assert two_sided["purity"] >= 0.95
    assert regauged["purity"] >= 0.90
    assert bank["too close"] == 1
    for tilted in (two_sided, regauged):
        assert tilted["diversity"] >= 0.8
        assert tilted["too close"] <= 0.05
        assert tilted["ECE"] <= 0.03
        assert tilted["purity"] > untilted["purity"] + 0.7

    by_method = {}
    for item in complete_halves(data, config, judge):
        by_method.setdefault(item.method, []).append(item.row)
    for tilted, untilted in zip(by_method["prior tilted"], by_method["prior not tilted"], strict=True):
        assert tilted["purity"] >= untilted["purity"] + 0.25
        assert tilted["energy score"] < untilted["energy score"] - 5 * tilted["± s.e."]
