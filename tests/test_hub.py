"""Models on the Hub: the card as huggingface_hub parses it, and what its functions are given. Nothing is sent."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hub_cases import Hub
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from safetensors.torch import load_file
from small_models import normal
from torch import nn

import probcl as pcl
from probcl.citations import citations
from probcl.model_card import model_card

OURS = {"README.md", "config.json", "model.safetensors"}


def fitted() -> tuple[pcl.BimodalModel, pcl.Loss, pcl.History]:
    torch.manual_seed(0)
    model = pcl.BimodalModel(
        pcl.encoders.MLP(4, 2), pcl.encoders.Linear(3, 2), pcl.Cosine(), 0.5, learn_temperature=True
    )
    loss = pcl.RINCELoss(q=0.5)
    u = normal(60, 4, dtype=torch.float32)
    return model, loss, pcl.fit(model, (u, u[:, :3]), loss, epochs=3, validation=0.2, progress=False)


@pytest.fixture(scope="module")
def model() -> pcl.BimodalModel:
    return fitted()[0]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return Hub(tmp_path / "repository", monkeypatch)


# The card


def test_the_hub_s_parser_reads_what_the_card_declares():
    model, loss, history = fitted()
    text = model_card(model, loss=loss, history=history, license="cc-by-4.0", tags=["ocean"], repo_id="me/currents")
    card = ModelCard(text)
    assert card.data.library_name == "probcl"
    assert card.data.license == "cc-by-4.0"
    assert {"contrastive-learning", "ocean"} <= set(card.data.tags)
    assert REGEX_YAML_BLOCK.match(text)
    assert card.text.strip().startswith("# currents")


def test_the_card_says_what_was_fitted_and_with_what_result():
    model, loss, history = fitted()
    text = model_card(model, loss=loss, history=history, metrics={"recall@1": 0.91234})
    assert f"`{loss!r}`" in text
    assert loss.identifies.value in text
    assert f"| {history.validation_loss[history.best_epoch]:.4g} |" in text
    assert "| recall@1 | 0.9123 |" in text
    assert f"| temperature | {model.temperature.value:.4g}, learned |" in text
    assert "`MLP(in_features=4, out_features=2, hidden=[128, 128], activation='gelu')`" in text
    for paper in citations(model, loss):
        assert paper.bibtex in text


def test_the_card_does_not_claim_what_it_does_not_know():
    text = model_card(pcl.BimodalModel(nn.Linear(3, 2), pcl.encoders.Linear(3, 2)))
    assert ModelCard(text).data.license is None
    for said in ("is not recorded", "What it determines is not known", "None were recorded", "encoder_u=encoder_u"):
        assert said in text


@pytest.mark.parametrize(
    ("loss", "event"),
    [
        (pcl.ConditionalLoss(), 4),
        (pcl.ConditionalLoss(2, 0), 4),
        (pcl.ConditionalLoss(0, 2), 3),
        (pcl.RINCELoss(q=0.5), None),
    ],
    ids=repr,
)
def test_the_card_s_code_asks_for_what_the_loss_determines(loss, event, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    u, v = normal(9, 4, dtype=torch.float32), normal(9, 3, dtype=torch.float32)
    model = pcl.BimodalModel(pcl.encoders.Linear(4, 2), pcl.encoders.Linear(3, 2))
    pcl.fit(model, (u, v), loss, epochs=1, progress=False)
    model.save_pretrained("FOLDER")
    code = (tmp_path / "FOLDER" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {"prior": pcl.EmpiricalPrior(u if event == 4 else v), "u": u[:2], "v": v[:2]}
    exec(code, names)
    assert names["scores"].shape == (2, 2) if event is None else names["law"].sample().shape == (2, event)


# The folder


def test_a_saved_folder_is_that_of_save_with_a_card(model, tmp_path):
    model.save_pretrained(tmp_path / "ours")
    assert {path.name for path in (tmp_path / "ours").iterdir()} == OURS
    model.save(tmp_path / "plain")
    assert (tmp_path / "ours" / "config.json").read_text() == (tmp_path / "plain" / "config.json").read_text()
    ours, plain = (load_file(tmp_path / folder / "model.safetensors") for folder in ("ours", "plain"))
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in ours)
    again = pcl.BimodalModel.from_pretrained(tmp_path / "ours")
    u, v = normal(5, 4, dtype=torch.float32), normal(5, 3, dtype=torch.float32)
    assert torch.equal(again.log_ratio(u, v), model.log_ratio(u, v))


def test_a_card_as_written_is_replaced_by_a_new_one(model, tmp_path):
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, card=model_card(model, license="mit"))
    assert ModelCard.load(tmp_path / "README.md").data.license == "mit"
    model.save_pretrained(tmp_path, card=model_card(model))
    assert ModelCard.load(tmp_path / "README.md").data.license is None


@pytest.mark.parametrize("text", ["", "My own words.", "---\nlicense: mit\n---\n# Ours\n"])
def test_somebody_s_own_words_are_kept(model, tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    with pytest.warns(pcl.ProbclWarning, match=r"README\.md has been written or edited by hand and was kept"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == text
    assert (tmp_path / "model.safetensors").exists()


def test_a_card_that_was_edited_is_kept(model, tmp_path):
    model.save_pretrained(tmp_path)
    edited = (tmp_path / "README.md").read_text().replace("None were recorded.", "RMSE 0.1 m/s")
    (tmp_path / "README.md").write_text(edited)
    with pytest.warns(pcl.ProbclWarning, match="was kept"):
        model.save_pretrained(tmp_path, card=model_card(model))
    assert (tmp_path / "README.md").read_text() == edited


# The Hub


def test_push_uploads_the_folder_in_one_commit(model, hub):
    options = {"private": True, "token": "secret", "branch": "b", "create_pr": True, "commit_message": "Better"}
    assert model.push_to_hub("currents", **options) == "https://hub/commit/1"
    assert hub.asked["create_repo"] == (("currents",), {"private": True, "exist_ok": True})
    uploaded = hub.asked["upload_folder"][1]
    assert uploaded.pop("folder_path")
    assert uploaded == {"repo_id": "me/currents", "commit_message": "Better", "revision": "b", "create_pr": True}
    assert {path.name for path in hub.folder.iterdir()} == OURS
    assert 'from_pretrained("me/currents")' in (hub.folder / "README.md").read_text()


def test_what_was_pushed_loads_from_the_cache(model, hub, tmp_path):
    model.push_to_hub("currents", token="secret")
    again = pcl.BimodalModel.from_pretrained("me/currents", revision="v1", token="t", cache_dir=tmp_path)
    u = normal(5, 4, dtype=torch.float32)
    np.testing.assert_array_equal(again.embed_u(u), model.embed_u(u))
    args, asked = hub.asked["snapshot_download"]
    assert args == ("me/currents",)
    assert (asked["revision"], asked["token"], asked["cache_dir"]) == ("v1", "t", tmp_path)
    assert set(asked["allow_patterns"]) == OURS - {"README.md"}
    assert (asked["library_name"], asked["library_version"]) == ("probcl", pcl.__version__)


def test_a_card_that_was_edited_on_the_hub_is_kept(model, hub):
    model.push_to_hub("currents", token="secret")
    (hub.folder / "README.md").write_text("Edited on the website.")
    with pytest.warns(pcl.ProbclWarning, match="was kept"):
        model.push_to_hub("currents", token="secret", branch="b")
    assert (hub.folder / "README.md").read_text() == "Edited on the website."
    assert hub.asked["hf_hub_download"] == (("me/currents", "README.md"), {"revision": "b"})


def test_modules_of_one_s_own_are_given_on_loading(hub):
    torch.manual_seed(0)
    model = pcl.BimodalModel(nn.Linear(3, 2), pcl.encoders.Linear(3, 2))
    model.push_to_hub("currents", token="secret")
    with pytest.raises(pcl.CheckpointError, match="encoder_u is a 'Linear'"):
        pcl.BimodalModel.from_pretrained("me/currents")
    again = pcl.BimodalModel.from_pretrained("me/currents", encoder_u=nn.Linear(3, 2))
    assert torch.equal(again.encoder_u.weight, model.encoder_u.weight)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(pcl.CheckpointError, match="does not exist"):
        pcl.BimodalModel.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["me/curents", "models/of/currents", "/models/curents"])
def test_a_misspelt_folder_is_said_not_to_be_there_and_what_the_hub_made_of_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pcl.CheckpointError) as caught:
        pcl.BimodalModel.from_pretrained(name, cache_dir=tmp_path / "cache", local_files_only=True)
    said = str(caught.value)
    assert said.startswith(f"no model '{name}': neither is there such a folder (in {tmp_path}), nor could a repository")
    error = caught.value.__cause__
    assert type(error).__name__ in ("LocalEntryNotFoundError", "HFValidationError")
    assert f"from the Hugging Face Hub: {type(error).__name__}: {str(error)[:20]}" in said
    assert "\n" not in said


def test_without_huggingface_hub_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (model.push_to_hub, pcl.BimodalModel.from_pretrained):
        with pytest.raises(ImportError, match=r'pip install "probcl\[hub\]"'):
            call("me/currents")


def test_hooks_are_not_imported_unless_asked_for():
    hooks = ["huggingface_hub", "tensorboard", "arviz", "probcl.sklearn", "probcl.model_card"]
    script = f"import sys, probcl; print([name for name in {hooks} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
