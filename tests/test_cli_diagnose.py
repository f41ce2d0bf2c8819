"""``probcl diagnose``: the numbers are those of the diagnostics, and the report is one file with everything in it."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_cases import DIGITS, run, run_json, vector_config, write_images, write_pairs
from PIL import Image

import probcl as pcl
from probcl.cli import diagnose
from probcl.cli.findings import Finding


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `vectors`, `one-sided` and `digits`, and held-out pairs of the first two."""
    folder = tmp_path_factory.mktemp("diagnosed")
    write_pairs(folder, 600, seed=1)
    vectors = vector_config(6).replace("pairs.npz", str(folder / "pairs.npz"))
    (folder / "vectors.yaml").write_text(vectors)
    (folder / "one-sided.yaml").write_text(vectors + "loss: {name: conditional, lambda_u: 2, lambda_v: 0}\n")
    (folder / "digits.yaml").write_text(DIGITS)
    for name in ("vectors", "one-sided", "digits"):
        assert run("fit", folder / f"{name}.yaml", "-o", folder / name, "-q") == 0
    write_pairs(folder, 400, seed=2)
    return folder


@pytest.fixture(autouse=True)
def here(fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(fitted)
    capsys.readouterr()
    return fitted


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.alternatives: list[str] = []
        self.links = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "img":
            self.sources.append(given["src"] or "")
            self.alternatives.append(given["alt"] or "")
        self.links += tag in ("link", "script", "iframe") or "href" in given
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_numbers_are_those_of_the_diagnostics(capsys: pytest.CaptureFixture[str]) -> None:
    told = run_json(capsys, "diagnose", "vectors", "--pairs", "pairs.npz", "-o", "report.html")
    assert told["pairs"] == 400
    found = told["findings"]
    pairs = np.load("pairs.npz")
    u, v = torch.from_numpy(pairs["u"]).float(), torch.from_numpy(pairs["v"]).float()
    model, diagnostics = pcl.BimodalModel.load("vectors"), pcl.diagnostics
    information = diagnostics.mutual_information(model, u, v)
    assert found["information"]["I(u; v) at least, nats"] == pytest.approx(float(information.value))
    recall = diagnostics.recall(pcl.retrieval.Library(model, u=u), v, 50)
    assert found["retrieval of u"]["recall at 10"] == pytest.approx(recall.at(10))
    posterior = model.u_given_v(pcl.EmpiricalPrior(u[:200])).condition(v[200:])
    denser = posterior.logits + np.log(200) > posterior.log_ratio(u[200:])[:, None]
    credibility = (posterior.probs * denser).sum(1)  # of the smallest region that holds the truth
    calibration = found["calibration of u given v"]
    assert calibration["coverage of 90% regions"] == pytest.approx(float((credibility <= 0.9).float().mean()), abs=0.03)
    ranks = diagnostics.sbc(posterior, u[200:], seed=0)
    assert calibration["p-value of ranks (SBC)"] == pytest.approx(ranks.p_value, abs=0.1)
    assert calibration["median effective atoms"] == pytest.approx(float(posterior.ess().median()))
    check = diagnostics.normalizer_check(model, u[:200], v[200:])
    assert found["normaliser over u"]["error, nats"] == pytest.approx(check.error)
    assert found["training"]["last training loss"] < 0


def test_the_report_is_one_page_with_its_figures_in_it() -> None:
    assert run("diagnose", "vectors", "--pairs", "pairs.npz", "-o", "report.html", "-q") == 0
    text = Path("report.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.links == 0
    assert len(page.sources) == 11
    assert all(page.alternatives)
    for source in page.sources:
        kind, content = source.split(",", 1)
        assert kind == "data:image/png;base64"
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))
        assert picture.shape == (624, 864)
        assert picture.std() > 5
    assert "Calibration of u given v" in text
    assert "MLP(in_features=3" in text
    assert not re.search(r"/(tmp|work|home|root)/", text)


def test_labels_are_asked_about_as_classes(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "diagnose", "digits", "-o", "digits.html")["findings"]
    assert set(found) == {
        "training",
        "information",
        "retrieval of u",
        "classification",
        "calibration of u given v",
        "normaliser over u",
        "normaliser over v",
    }
    test = pcl.datasets.load_digits(test_fraction=0.3).test
    frequencies = test.v.bincount() / test.n_pairs
    classifier = pcl.classification.zero_shot(pcl.BimodalModel.load("digits"), torch.arange(10), frequencies)
    expected = pcl.diagnostics.accuracy(classifier(test.u), test.v)
    assert found["classification"]["accuracy"] == pytest.approx(expected)
    assert "p-value of ranks (SBC)" not in found["calibration of u given v"]  # 64 components
    assert run_json(capsys, "diagnose", "digits", "--pairs", "digits.yaml", "-o", "d.html")["findings"] == found


def test_what_the_loss_leaves_open_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "diagnose", "one-sided", "--pairs", "pairs.npz", "-o", "one.html")["findings"]
    (remark,) = found["normaliser over u"]["remarks"]
    assert remark.startswith("Not answered: model must determine its normaliser")
    assert any("v|u is not what this model was fitted for" in r for r in found["calibration of v given u"]["remarks"])
    assert remark.split("model.")[0].replace("'", "&#x27;") in Path("one.html").read_text()


def test_a_folder_of_classes_is_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "photos", each=30)
    text = """
data: {name: images, path: photos, size: 8}
model:
  encoder_u: {name: mlp, out_features: 2, hidden: [4]}
  encoder_v: label
training: {epochs: 10, lr: 1e-2, device: cpu}
"""
    (tmp_path / "a.yaml").write_text(text.replace("photos", str(tmp_path / "photos")))
    assert run("fit", tmp_path / "a.yaml", "-o", tmp_path / "m", "-q") == 0
    command = ("diagnose", tmp_path / "m", "--pairs", tmp_path / "photos", "-o", tmp_path / "r.html")
    assert run_json(capsys, *command)["pairs"] == 60


def test_the_screen_says_what_p_values_mean_and_what_to_bear_in_mind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", "one-sided", "--pairs", "pairs.npz", "-o", "screen.html") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "normaliser over u Is the mean of exp(score) over u one for every v?" in shown
    assert "Not answered: model must determine its normaliser" in shown
    assert "The bank is the first 200 pairs" in shown
    p_values = re.findall(r"p-value of [\w ()]+? (<?\s?[\d.e−]+) (nothing against it|under 5%: the pairs speak)", shown)
    assert p_values
    for value, meaning in p_values:
        assert (float(value.strip("< ").replace("−", "-")) < 0.05) == meaning.startswith("under")


def test_pairs_that_answer_nothing_make_no_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = [lambda: Finding("information", "How much?", remarks=["Not answered: the pairs are odd"])]
    monkeypatch.setattr(diagnose, "questions", lambda _: refused)
    assert run("diagnose", "vectors", "--pairs", "pairs.npz", "-o", "no.html") == 1
    assert "pairs.npz: no question could be answered, the first of them: Not answered: the pairs" in (
        capsys.readouterr().err
    )
    assert not Path("no.html").exists()


@pytest.mark.parametrize(
    ("pairs", "code", "said"),
    [
        (None, 2, "have no test pairs of their own"),
        ("nowhere.npz", 1, "nowhere.npz: no such file or folder"),
        ("pairs.csv", 2, "pairs.csv: pairs must be an .npz or .safetensors, a folder of classes, or a config"),
        ("other.npz", 2, "other.npz: pairs must be arrays called u and v, got a"),
        ("few.npz", 2, "few.npz: needs at least 20 pairs, got 5"),
        ("uneven.npz", 1, "uneven.npz: u and v must hold equally many rows, got 30 and 29"),
        (
            "exchanged.npz",
            1,
            "exchanged.npz: u of the pairs must be 3 numbers each, an array of shape (n, 3); got an array of shape "
            "(30, 2)",
        ),
    ],
)
def test_pairs_that_are_none_are_refused(
    pairs: str | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pairs.csv").write_text("u,v\n")
    np.savez("other.npz", a=np.zeros(3))
    np.savez("few.npz", u=np.zeros((5, 3)), v=np.zeros((5, 2)))
    np.savez("uneven.npz", u=np.zeros((30, 3)), v=np.zeros((29, 2)))
    np.savez("exchanged.npz", u=np.zeros((30, 2)), v=np.zeros((30, 3)))
    options = [] if pairs is None else ["--pairs", pairs]
    assert run("diagnose", "vectors", *options, "-o", "no.html") == code
    assert said in capsys.readouterr().err
    assert not Path("no.html").exists()
