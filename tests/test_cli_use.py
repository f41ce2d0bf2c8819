"""``probcl retrieve``, ``classify``, ``sample``, ``info`` and ``cite`` give what the library gives."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_cases import DIGITS, run, run_json, vector_config, write_pairs

import probcl as pcl
from probcl.citations import citations


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `vectors` and `digits`, and data for them."""
    folder = tmp_path_factory.mktemp("fitted")
    write_pairs(folder, 400)
    (folder / "vectors.yaml").write_text(vector_config(4).replace("pairs.npz", str(folder / "pairs.npz")))
    (folder / "digits.yaml").write_text(DIGITS)
    for name in ("vectors", "digits"):
        assert run("fit", folder / f"{name}.yaml", "-o", folder / name, "-q") == 0
    images = pcl.datasets.load_digits(test_fraction=0.3).test.u
    np.save(folder / "images.npy", images[:30, 0].numpy())
    np.save(folder / "labels.npy", np.arange(10, dtype=np.int16))
    np.save(folder / "queries.npy", np.load(folder / "pairs.npz")["v"][:7])
    return folder


@pytest.fixture(autouse=True)
def here(fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(fitted)
    capsys.readouterr()
    return fitted


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    pairs = np.load("pairs.npz")
    return torch.from_numpy(pairs["u"]).float(), torch.from_numpy(pairs["v"]).float()


def test_retrieve_finds_what_a_library_finds(capsys: pytest.CaptureFixture[str]) -> None:
    told = run_json(capsys, "retrieve", "vectors", "--library", "pairs.npz:u", "--queries", "queries.npy", "-k", 3)
    u, v = vectors()
    top = pcl.retrieval.Library(pcl.BimodalModel.load("vectors"), u=u).topk(v[:7], 3)
    assert told["indices"] == top.indices.tolist()
    assert told["scores"] == top.values.tolist()
    other = run_json(
        capsys, "retrieve", "vectors", "--library", "pairs.npz:v", "--queries", "pairs.npz:u", "-k", 1, "--of", "v"
    )
    assert other["indices"] == pcl.retrieval.Library(pcl.BimodalModel.load("vectors"), v=v).topk(u, 1).indices.tolist()


@pytest.mark.parametrize("suffix", ["csv", "json", "npz"])
def test_matches_are_written_to_files(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("retrieve", "vectors", "--library", "pairs.npz:u", "--queries", "queries.npy", "-k", 2)
    told = run_json(capsys, *command)
    assert run(*command, "-o", f"matches.{suffix}") == 0
    flat = np.array(told["indices"]).ravel().tolist()
    match suffix:
        case "csv":
            rows = list(csv.DictReader(Path("matches.csv").read_text().splitlines()))
            assert [int(row["item"]) for row in rows] == flat
            assert [int(row["query"]) for row in rows] == np.repeat(np.arange(7), 2).tolist()
        case "json":
            assert [row["item"] for row in json.loads(Path("matches.json").read_text())] == flat
        case _:
            assert np.load("matches.npz")["indices"].ravel().tolist() == flat


def test_classify_gives_the_probabilities_of_zero_shot(capsys: pytest.CaptureFixture[str]) -> None:
    told = run_json(capsys, "classify", "digits", "--images", "images.npy")
    images = torch.from_numpy(np.load("images.npy"))[:, None]
    probabilities = pcl.classification.zero_shot(pcl.BimodalModel.load("digits"), torch.arange(10))(images)
    np.testing.assert_allclose(told["probabilities"], probabilities.numpy(), rtol=1e-6)
    assert told["predicted"] == probabilities.argmax(1).tolist()
    assert told["classes"] == [str(k) for k in range(10)]
    assert run_json(capsys, "classify", "digits", "--images", "images.npy", "--labels", "labels.npy") == told
    assert run("classify", "vectors", "--images", "pairs.npz:u") == 2
    assert "give --labels FILE" in capsys.readouterr().err


def test_sample_draws_from_the_conditional_on_a_bank(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sample", "vectors", "--given", "queries.npy", "--prior", "pairs.npz:u", "-n", 4000, "-o", "draws.npz")
    told = run_json(capsys, *command)
    assert (told["samples"], told["conditions"]) == (4000, 7)
    draws = np.load("draws.npz")
    u, v = vectors()
    posterior = pcl.BimodalModel.load("vectors").u_given_v(pcl.EmpiricalPrior(u)).condition(v[:7])
    assert draws["samples"].shape == (4000, 7, 3)
    np.testing.assert_allclose(draws["ess"], posterior.ess().numpy(), rtol=1e-5)
    error = 5 * posterior.variance.sqrt().numpy() / 4000**0.5
    assert (np.abs(draws["samples"].mean(0) - posterior.mean.numpy()) < error).all()
    assert run(*command, "-q") == 0
    np.testing.assert_array_equal(np.load("draws.npz")["samples"], draws["samples"])
    assert run(*command, "--seed", 1, "-q") == 0
    assert not np.array_equal(np.load("draws.npz")["samples"], draws["samples"])


@pytest.mark.parametrize(("prior", "shape"), [("normal", (50, 7, 3)), ("gaussian:pairs.npz:u", (50, 7, 3))])
def test_sample_takes_continuous_priors(prior: str, shape: tuple[int, ...]) -> None:
    command = ["sample", "vectors", "--given", "queries.npy", "--prior", prior, "-n", 50, "-o", "c.npz", "-q"]
    assert run(*command, "--sampler", "importance") == 0
    assert np.load("c.npz")["samples"].shape == shape


def test_a_prior_of_numbers_for_labels_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sample", "digits", "--given", "images.npy", "-n", 5, "-o", "c.npz", "--of", "v", "--prior")
    assert run(*command, "gaussian:labels.npy") == 2
    assert run(*command, "normal") == 2
    assert capsys.readouterr().err.count("error: --prior") == 2
    assert run(*command, "labels.npy", "-q") == 0
    assert np.load("c.npz")["samples"].shape == (5, 30)


@pytest.mark.parametrize(
    ("prior", "code", "said"),
    [
        ("gauss", 2, "--prior gauss is neither the name of a prior (normal, gaussian:FILE) nor a file"),
        ("bank.npy", 1, "bank.npy: no such file"),
        ("bank.npz:u", 1, "bank.npz: no such file"),
        ("gaussian:bank", 1, "bank: no such file or folder"),
    ],
)
def test_a_prior_that_is_none_is_said_not_to_be_one(
    prior: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("sample", "vectors", "--given", "queries.npy", "-o", "c.npz", "--prior", prior)
    assert run(*command) == code
    assert capsys.readouterr().err.startswith(f"error: {said}")


@pytest.mark.parametrize(
    "command",
    [
        ("fit", "nowhere.yaml", "-o", "m"),
        ("fit", "absent.yaml", "-o", "m"),
        ("retrieve", "vectors", "--library", "nowhere", "--queries", "queries.npy"),
        ("classify", "digits", "--images", "nowhere.npy"),
        ("sample", "vectors", "--given", "nowhere.npz:v", "--prior", "normal", "-o", "c.npz"),
        ("diagnose", "vectors", "--pairs", "nowhere.npz", "-o", "r.html"),
        ("diagnose", "vectors", "--pairs", "nowhere.yaml", "-o", "r.html"),
        ("info", "nowhere"),
        ("assimilate", "new", "--tracks", "nowhere.csv", "--archive", "nowhere.nc", "-o", "a.nc"),
    ],
    ids=" ".join,
)
def test_a_file_that_is_not_there_is_named_and_has_one_exit_code(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("absent.yaml").write_text(vector_config().replace("pairs.npz", "nowhere.npz"))
    assert run(*command, "-q") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "nowhere" in line


def test_info_tells_what_the_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    told = run_json(capsys, "info", "vectors")
    model = pcl.BimodalModel.load("vectors")
    assert told["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert told["encoder_u"]["arguments"]["in_features"] == 3
    assert told["alignment"]["class"] == "WithPotentials"
    assert told["identifies"] == pcl.losses.Identifies.RATIO.value
    assert len(told["history"]["loss"]) == told["history"]["epochs"] == 4
    assert run("info", "vectors") == 0
    shown = capsys.readouterr().out
    assert "MLP(in_features=3, out_features=4, hidden=[16], activation=gelu)" in shown
    assert "the log density ratio up to a constant" in shown


def test_a_model_that_the_library_saved_can_be_looked_at_too(capsys: pytest.CaptureFixture[str]) -> None:
    pcl.BimodalModel.load("vectors").save("bare")
    assert run_json(capsys, "info", "bare")["loss"] is None
    assert run("cite", "bare") == 0
    out, err = capsys.readouterr()
    assert "the loss was not recorded" in err
    assert out.count("@misc") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ("sample", "vectors", "--given", "pairs.npz:u", "--prior", "normal", "-o", "c.npz"),
            "pairs.npz:u: v of the model must be 2 numbers each, an array of shape (n, 2); got an array of shape "
            "(400, 3)",
        ),
        (
            ("retrieve", "vectors", "--library", "queries.npy", "--queries", "queries.npy"),
            "queries.npy: u of the model must be 3 numbers each, an array of shape (n, 3); got an array of shape "
            "(7, 2)",
        ),
        (
            ("classify", "digits", "--images", "wide.npy"),
            "wide.npy: u of the model must be images, an array of shape (n, 1, 8, 8); got an array of shape "
            "(2, 1, 16, 16)",
        ),
        (
            ("classify", "digits", "--images", "images.npy", "--labels", "high.npy"),
            "high.npy: v of the model must be numbers of classes, integers from 0 to 9 in an array of shape (n,); got "
            "an array of shape (3,) with integers from 9 to 11",
        ),
    ],
)
def test_values_of_a_wrong_shape_are_refused_by_their_file(
    command: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("wide.npy", np.zeros((2, 16, 16)))
    np.save("high.npy", np.arange(9, 12))
    assert run(*command) == 1
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_damaged_config_or_history_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    pcl.BimodalModel.load("vectors").save("broken")
    Path("broken/fit.yaml").write_text("data: nothing")
    assert run("info", "broken") == 1
    assert "fit.yaml is damaged" in capsys.readouterr().err
    Path("broken/fit.yaml").unlink()
    Path("broken/history.json").write_text('{"loss": [')
    assert run("info", "broken") == 1
    assert "history.json is damaged" in capsys.readouterr().err


def test_cite_prints_the_papers_of_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    told = run_json(capsys, "cite", "digits", "--sampler", "nuts")
    keys = [entry["key"] for entry in told["citations"]]
    assert keys == [
        "baptista2025mathematical",
        "lecun1998gradient",
        "oord2018representation",
        "hoffman2014nouturn",
        "bingham2019pyro",
        "probcl",
    ]
    assert run("cite", "digits") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("% probcl\n@misc{baptista2025mathematical,\n")
    loss = pcl.ConditionalLoss()
    assert printed.strip() == "\n\n".join(paper.bibtex for paper in citations(pcl.BimodalModel.load("digits"), loss))
