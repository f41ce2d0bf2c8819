"""``probcl fit``: where pairs may come from, what is written, and what Ctrl-C leaves behind."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from cli_cases import DIGITS, run, run_json, vector_config, write_images, write_pairs
from safetensors.torch import save_file

import probcl as pcl
from probcl.cli.arrays import ArrayFile, array_file, read_array
from probcl.cli.folder import CHECKPOINT, CONFIG, HISTORY
from probcl.errors import DataFileError
from probcl.model import WEIGHTS_FILE


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(text: str) -> Path:
    path = Path("fit.cfg.yaml")
    path.write_text(text)
    return path


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return pcl.BimodalModel.load(folder).state_dict()


def course(folder: Path | str) -> dict:
    record = json.loads((Path(folder) / HISTORY).read_text())
    return {name: value for name, value in record.items() if name != "seconds"}


def test_fit_writes_the_model_that_the_library_fits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "fit", config(DIGITS), "-o", "model")
    assert {path.name for path in Path("model").iterdir()} == {
        WEIGHTS_FILE,
        "config.json",
        CONFIG,
        HISTORY,
        CHECKPOINT,
    }
    data = pcl.datasets.load_digits(test_fraction=0.3)
    torch.manual_seed(0)
    model = pcl.BimodalModel(pcl.encoders.LeNet(10, 1, 8), pcl.encoders.Label(10))
    options = {"epochs": 4, "batch_size": 64, "lr": 2e-3, "device": "cpu", "progress": False}
    history = pcl.fit(model, data.train, validation=data.validation, **options)
    fitted = weights("model")
    assert all(torch.equal(fitted[name], value) for name, value in model.state_dict().items())
    assert result["loss"] == history.loss[-1]
    assert result["epochs"] == 4
    assert course("model")["step_loss"] == history.step_loss.tolist()


def test_the_config_that_was_used_fits_the_same_model_again(here: Path) -> None:
    write_pairs(here)
    assert run("fit", config(vector_config()), "-o", "one", "--seed", 5, "--epochs", 2, "-q") == 0
    assert run("fit", "one/fit.yaml", "-o", "two", "-q") == 0
    one, two = weights("one"), weights("two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert course("one") == course("two")


def test_print_config_prints_a_config_and_does_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", config(DIGITS), "--print-config", "-o", "model") == 0
    printed = capsys.readouterr().out
    assert not Path("model").exists()
    Path("full.yaml").write_text(printed)
    assert run("fit", "full.yaml", "--print-config") == 0
    assert capsys.readouterr().out == printed
    assert "weight_decay: null" in printed


def test_images_in_folders_are_pairs_of_image_and_class(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(Path("photos"))
    text = """
data: {name: images, path: photos, size: 12, channels: rgb}
model:
  encoder_u: {name: convnet, out_features: 2, width: 4, stages: 2}
  encoder_v: label
training: {epochs: 15, lr: 1e-2, device: cpu}
"""
    assert run("fit", config(text), "-o", "model", "-q") == 0
    capsys.readouterr()
    assert "classes: [dark, light]" in Path("model", CONFIG).read_text()
    told = run_json(capsys, "classify", "model", "--images", "photos/light")
    assert told["classes"] == ["dark", "light"]
    assert np.mean(np.array(told["predicted"]) == 1) == 1
    assert run("fit", config(text.replace("size: 12, ", "")), "-o", "other") == 1
    assert "images must be of one size" in capsys.readouterr().err


def test_variables_of_netcdf_and_zarr_are_arrays(here: Path) -> None:
    times, values = 7, np.arange(7 * 2 * 3, dtype=np.float32).reshape(7, 2, 3)
    dataset = xr.Dataset(
        {"a": (("time", "y", "x"), values), "b": (("y", "x", "time"), np.moveaxis(values, 0, 2) + 100)},
        coords={"time": np.arange(times)},
    )
    dataset["name"] = (("time",), np.array(list("abcdefg")))
    dataset.to_netcdf("field.nc")
    stores = ["field.nc"]
    if importlib.util.find_spec("zarr"):  # an extra
        dataset.drop_vars("name").to_zarr("field.zarr", zarr_format=2)
        stores.append("field.zarr")
    for store in stores:
        stacked = read_array(array_file(f"{store}:a,b@time"))
        np.testing.assert_array_equal(stacked.numpy(), np.stack([values, values + 100], 1))
        assert torch.equal(read_array(ArrayFile(path=store)), stacked)
        with pytest.raises(DataFileError, match="no variable is called 'aa'; did you mean a"):
            read_array(array_file(f"{store}:aa"))
        with pytest.raises(DataFileError, match="no dimension is called 'tine'; did you mean time"):
            read_array(array_file(f"{store}:a@tine"))


def test_a_field_in_a_netcdf_file_is_fitted_like_any_array(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = np.random.default_rng(0).standard_normal((60, 4, 5))
    xr.Dataset({"ssh": (("time", "latitude", "longitude"), field)}).to_netcdf("sea.nc")
    np.save("means.npy", field.mean((1, 2))[:, None])
    text = """
data:
  u: {path: sea.nc, variables: [ssh], sample_dim: time}
  v: means.npy
model:
  encoder_u: {name: mlp, out_features: 2, hidden: [8]}
  encoder_v: {name: linear, out_features: 2}
training: {epochs: 2, device: cpu}
"""
    assert run("fit", config(text), "-o", "model", "-q") == 0
    told = run_json(capsys, "info", "model")
    assert told["encoder_u"]["arguments"]["in_features"] == 20
    command = ("retrieve", "model", "--library", "sea.nc:ssh@time", "--queries", "means.npy", "-k", 1)
    assert np.array(run_json(capsys, *command)["indices"]).shape == (60, 1)


def test_arrays_in_numpy_and_safetensors_are_read_by_their_names(here: Path) -> None:
    values = np.arange(12.0).reshape(4, 3)
    np.save("one.npy", values)
    np.savez("two.npz", a=values, b=2 * values)
    save_file({"a": torch.from_numpy(3 * values)}, "three.safetensors")
    np.save("big-endian.npy", values.astype(">f4"))
    for name, factor in {"one.npy": 1, "two.npz:b": 2, "three.safetensors": 3, "big-endian.npy": 1}.items():
        np.testing.assert_array_equal(read_array(array_file(name)).numpy(), factor * values)
    with pytest.raises(DataFileError, match="needs a key, one of a, b"):
        read_array(array_file("two.npz"))
    with pytest.raises(DataFileError, match="no array is called 'c'"):
        read_array(array_file("two.npz:c"))
    with pytest.raises(DataFileError, match="no such file"):
        read_array(array_file("four.npy"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_columns_of_a_table_are_an_array(here: Path, suffix: str) -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4], "kind": ["x", "y"]})
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet("t.parquet")
    else:
        table.to_csv("t.csv", index=False)
    np.testing.assert_array_equal(read_array(array_file(f"t.{suffix}:b,a")).numpy(), [[3, 1], [4, 2]])
    assert read_array(array_file(f"t.{suffix}:b")).dtype == torch.int64
    for name, said in (
        (f"t.{suffix}", "column 'kind' must hold numbers"),
        (f"t.{suffix}:c", "no columns are called 'c'"),
    ):
        with pytest.raises(DataFileError, match=said):
            read_array(array_file(name))


def test_a_table_of_vectors_and_classes_is_fitted(here: Path) -> None:
    generator = np.random.default_rng(0)
    pd.DataFrame({"x": generator.standard_normal(60), "k": generator.integers(0, 3, 60)}).to_csv("t.csv", index=False)
    text = """
data: {u: {path: t.csv, columns: [x]}, v: {path: t.csv, columns: [k]}}
model: {encoder_u: {name: mlp, out_features: 3, hidden: [4]}, encoder_v: label}
training: {epochs: 1, batch_size: 20, device: cpu}
"""
    assert run("fit", config(text), "-o", "model", "-q") == 0
    assert pcl.BimodalModel.load("model").scores(torch.zeros(2, 1), torch.arange(3)).shape == (2, 3)


@pytest.mark.parametrize(("batch_size", "advised"), [(512, True), (100, True), (30, False)])
def test_a_fit_of_few_steps_an_epoch_is_advised_a_smaller_batch(
    here: Path, capsys: pytest.CaptureFixture[str], batch_size: int, advised: bool
) -> None:
    write_pairs(here, 200)
    text = vector_config(2).replace("batch_size: 50", f"batch_size: {batch_size}")
    assert run("fit", config(text), "-o", "model") == 0
    told = f"advice: 160 pairs in batches of up to {batch_size} are {1 if batch_size > 160 else 2} step"
    assert (told in capsys.readouterr().err) == advised


def test_a_file_that_is_damaged_or_a_pickle_inside_is_refused(here: Path) -> None:
    np.save("objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save("text.npy", np.array(["a", "b"]))
    np.savez("whole.npz", a=np.arange(1000.0))
    content = Path("whole.npz").read_bytes()
    for name in ("cut.npy", "cut.npz", "cut.safetensors", "cut.nc"):
        Path(name).write_bytes(content[: len(content) // 2])
    for name in ("objects.npy", "text.npy", "cut.npy", "cut.npz", "cut.safetensors", "cut.nc"):
        with pytest.raises(DataFileError, match=name):
            read_array(array_file(name))


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("key: v", "key: w"), 1, "error: pairs.npz: no array is called 'w'"),
        (("name: linear", "name: label"), 1, "error: pairs.npz:v: v must be integers for an encoder of labels, got"),
        (
            ("name: linear", "name: linear, in_features: 7"),
            1,
            "error: pairs.npz:v: v for model.encoder_v must be 7 numbers each, an array of shape (n, 7); got an",
        ),
        (("name: mlp, out_features: 4, hidden: [16]", "name: lenet"), 2, "error: model.encoder_u: lenet does not fit"),
        (("out_features: 4}", "out_features: 5}"), 1, "error: "),
        (("path: pairs.npz", "path: nowhere.npz"), 1, "error: nowhere.npz: no such file"),
        (("epochs: 5", "epochs: five"), 2, "fit.cfg.yaml"),
    ],
)
def test_a_fit_that_cannot_be_says_so_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], code: int, said: str
) -> None:
    write_pairs(here, 60)
    assert run("fit", config(vector_config().replace(*change, 1)), "-o", "model", "-q") == code
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    if code == 1 or "model." in said:
        assert err.startswith(said)
    assert not (Path("model") / WEIGHTS_FILE).exists()


def test_a_fit_is_not_replaced_unless_that_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(here, 100)
    command = ("fit", config(vector_config(2)), "-o", "model", "-q")
    assert run(*command) == 0
    before = weights("model")
    assert run(*command, "--seed", 9) == 2
    assert "--resume goes on with it, --overwrite replaces it" in capsys.readouterr().err
    assert all(torch.equal(before[name], value) for name, value in weights("model").items())
    assert run(*command, "--seed", 9, "--overwrite") == 0
    assert any(not torch.equal(before[name], value) for name, value in weights("model").items())
    assert run(*command, "--seed", 8, "--resume") == 1
    assert "settings.seed was 9, is 8" in capsys.readouterr().err
    assert "seed: 9" in Path("model", CONFIG).read_text()
    assert run("fit", config(vector_config(2)), "-q") == 2
    assert "give --output DIR, or output in the config" in capsys.readouterr().err


def test_more_epochs_go_on_from_where_a_fit_ended(here: Path) -> None:
    write_pairs(here, 300)
    assert run("fit", config(vector_config(6)), "-o", "at-once", "-q") == 0
    assert run("fit", config(vector_config(2)), "-o", "in-two", "-q") == 0
    assert run("fit", config(vector_config(6)), "-o", "in-two", "-q", "--resume") == 0
    assert course("at-once") == course("in-two")


def test_ctrl_c_leaves_a_fit_that_goes_on_to_the_same_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(here, 600)
    # So many that it is still at work when the signal comes, however busy the machine.
    path = config(vector_config(9000))
    command = [sys.executable, "-m", "probcl.cli", "fit", str(path), "-o", "model"]
    environment = {**os.environ, "PYTHONPATH": str(Path(pcl.__file__).parent.parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Jobs in the background of a script ignore SIGINT, and so would what they start.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, **pipes, env=environment, preexec_fn=heed) as process:
        try:
            deadline = time.monotonic() + 120
            while not Path("model", CHECKPOINT).exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert not out
    assert "Traceback" not in err
    assert "interrupted after step" in err
    assert "probcl fit fit.cfg.yaml --output model --resume" in err
    assert not Path("model", WEIGHTS_FILE).exists()
    assert run("info", "model") == 1
    assert "go on with probcl fit --resume" in capsys.readouterr().err

    reached = re.search(r"(\d+) of 9,?000 epochs", err)
    assert reached is not None
    epochs = int(reached[1]) + 3  # the schedule is constant, so that a fit may have any number of epochs still to come
    assert run("fit", path, "-o", "model", "--epochs", epochs, "--resume", "-q") == 0
    assert run("fit", path, "-o", "uninterrupted", "--epochs", epochs, "-q") == 0
    resumed, whole = weights("model"), weights("uninterrupted")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert course("model") == course("uninterrupted")


PHOTOS = """
data: {name: images, path: photos}
model: {encoder_u: {name: convnet, out_features: 2, width: 4}, encoder_v: label}
training: {epochs: 1, device: cpu}
"""


def test_folders_that_hold_no_images_are_refused_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("fit", config(PHOTOS), "-o", "model", "-q")

    assert run(*command) == 1
    Path("photos/empty").mkdir(parents=True)
    assert run(*command) == 1
    Path("photos/broken").mkdir()
    Path("photos/broken/a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    assert run(*command) == 1
    config(PHOTOS.replace("path: photos", "path: photos, classes: [broken, empty]"))
    assert run(*command) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in said] == [
        " photos",
        " photos",
        " photos/broken/a.png",
        " photos/empty",
    ]


def test_a_config_that_is_no_text_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_bytes(b"data: \xff\xfe")
    assert run("fit", "a.yaml", "-o", "model") == 2
    assert capsys.readouterr().err == "error: a.yaml: not text in UTF-8: invalid start byte at byte 6\n"


def test_where_to_write_must_make_sense(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("something of mine")
    assert run("fit", config(DIGITS), "-o", "taken") == 2
    assert run("fit", config(DIGITS), "-o", "model", "--resume", "--overwrite") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: taken is a file, and a folder was expected"
    assert second == "error: --resume and --overwrite exclude each other"
    assert Path("taken").read_text() == "something of mine"


def test_a_checkpoint_that_is_not_to_be_kept_goes_and_simulators_are_data(here: Path) -> None:
    text = """
data: {name: two-moons, n: 200, seed: 3}
model:
  encoder_u: {name: mlp, out_features: 2, hidden: [8]}
  encoder_v: {name: mlp, out_features: 2, hidden: [8]}
training: {epochs: 1, device: cpu}
checkpoint: {every: 1, keep: false}
"""
    assert run("fit", config(text), "-o", "model", "-q") == 0
    assert Path("model", WEIGHTS_FILE).exists()
    assert not Path("model", CHECKPOINT).exists()
    u, v = pcl.datasets.TwoMoons().sample(200, seed=3)
    assert pcl.BimodalModel.load("model").scores(u, v).shape == (200, 200)


def test_a_full_disk_or_a_read_only_folder_is_said_and_leaves_nothing_half_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(here, 60)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("fit", config(vector_config(1)), "-o", "model", "-q") == 1
    assert capsys.readouterr().err == "error: model/fit.yaml: No space left on device\n"
    assert not list(Path("model").iterdir())
