import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import normal
from torch import Tensor, nn

import probcl as pcl
from probcl import BimodalModel, CheckpointError, Cosine, EmpiricalPrior, WithPotentials, register, serialization
from probcl.assimilation import read_archive as read_currents
from probcl.assimilation import write
from probcl.datasets.ocean import Box, GaussianOcean
from probcl.encoders import MLP, Label, LeNet, Linear, ResidualConvNet
from probcl.losses import Identifies
from probcl.model import KIND
from probcl.serialization import (
    from_config,
    put_back,
    read_archive,
    replacing,
    temporary_beside,
    to_config,
    write_archive,
)

VECTORS, LABELS, IMAGES = normal(4, 3).float(), torch.tensor([0, 2, 1, 1]), normal(4, 1, 8, 8).float()


@register
class Raised(nn.Module):
    """A user's encoder, registered."""

    def __init__(self, width: int, exponent: float = 2.0, *, names: tuple[str, ...] = ("a", "b"), **options: Any):
        super().__init__()
        self.linear, self.exponent, self.names, self.options = nn.Linear(3, width), exponent, names, options

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).abs() ** self.exponent


@register
class Projected(nn.Module):
    """A user's encoder with a constant that is rebuilt rather than saved."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("basis", torch.eye(3, 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.scale * x) @ self.basis


class Unregistered(nn.Linear):
    """A user's encoder, not registered."""


@register
class Wrapped(nn.Module):
    """A user's module with modules among its arguments."""

    def __init__(self, inner: nn.Module, others: list[nn.Module]) -> None:
        super().__init__()
        self.inner, self.others = inner, nn.ModuleList(others)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + sum(other(x) for other in self.others)


def saved(model: BimodalModel, directory: Path, **modules: Any) -> BimodalModel:
    model.save(directory)
    return BimodalModel.load(directory, **modules)


def assert_same(model: BimodalModel, expected: BimodalModel) -> None:
    state, expected_state = model.state_dict(), expected.state_dict()
    assert state.keys() == expected_state.keys()
    for name, tensor in expected_state.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name
    assert repr(model) == repr(expected)
    assert model.temperature.value == expected.temperature.value
    assert model.identifies == expected.identifies


def small_model(**arguments: Any) -> BimodalModel:
    return BimodalModel(Linear(3, 2), Label(3, 2), **arguments)


# name: (how to make the model, u, v)
MODELS: dict[str, tuple[Callable[[], BimodalModel], Tensor, Tensor]] = {
    "vectors": (lambda: BimodalModel(Linear(3, 2), MLP(3, 2, [5], "tanh"), Cosine(), 0.07), VECTORS, VECTORS),
    "images and labels": (lambda: BimodalModel(LeNet(3, image_size=8), Label(3)), IMAGES, LABELS),
    "residual": (lambda: BimodalModel(ResidualConvNet(4, width=4), Label(3, 4), pcl.L2()), IMAGES, LABELS),
    "potentials": (
        lambda: BimodalModel(Linear(3, 4), Linear(3, 4, bias=True), WithPotentials(WithPotentials(Cosine(), 1), 2)),
        VECTORS,
        VECTORS,
    ),
    "learned temperature": (lambda: small_model(temperature=0.3, learn_temperature=True), VECTORS, LABELS),
    "nothing to learn": (lambda: BimodalModel(Label(3), Label(3), temperature=0.1), LABELS, LABELS),
    "re-gauged over v": (lambda: small_model().regauged("v", EmpiricalPrior(torch.arange(3))), VECTORS, LABELS),
    "re-gauged over u": (
        lambda: small_model().regauged("u", EmpiricalPrior(VECTORS, torch.tensor([0.0, 1.0, 2.0, 0.5]))),
        VECTORS,
        LABELS,
    ),
    "registered": (lambda: BimodalModel(Raised(2, 1.5, names=("c",), extra=[1, None]), Raised(2)), VECTORS, VECTORS),
    "constants that are not saved": (lambda: BimodalModel(Projected(), Linear(3, 2)), VECTORS, VECTORS),
    "modules as arguments": (
        lambda: BimodalModel(Wrapped(Linear(3, 2), [Raised(2), Linear(3, 2)]), Linear(3, 2)),
        VECTORS,
        VECTORS,
    ),
}


class TestRoundTrip:
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_gives_the_same_model(self, name: str, dtype: torch.dtype, tmp_path: Path) -> None:
        make, u, v = MODELS[name]
        model = make().to(dtype)
        model.identifies = Identifies.RATIO_UP_TO_U
        loaded = saved(model, tmp_path)
        assert_same(loaded, model)
        u, v = (x.to(dtype) if x.is_floating_point() else x for x in (u, v))
        assert torch.equal(loaded.scores(u, v).matrix(), model.scores(u, v).matrix())

    def test_keeps_the_type_of_every_tensor(self, tmp_path: Path) -> None:
        model = BimodalModel(Linear(3, 2), Linear(3, 2).double(), temperature=0.3, learn_temperature=True)
        assert_same(saved(model, tmp_path), model)

    def test_a_registered_encoder_keeps_its_arguments(self, tmp_path: Path) -> None:
        model = BimodalModel(Raised(2, exponent=3.0, names=("c",), extra={"depth": 1}), Raised(2))
        loaded = saved(model, tmp_path).encoder_u
        assert (loaded.exponent, list(loaded.names), loaded.options) == (3.0, ["c"], {"extra": {"depth": 1}})

    def test_one_encoder_for_both_sides_stays_one(self, tmp_path: Path) -> None:
        encoder = Linear(3, 2)
        loaded = saved(BimodalModel(encoder, encoder), tmp_path)
        assert loaded.encoder_u is loaded.encoder_v
        assert torch.equal(loaded.encoder_v.weight, encoder.weight)

    def test_a_regauged_model_stays_regauged(self, tmp_path: Path) -> None:
        fitted = small_model()
        fitted.identifies = Identifies.RATIO_UP_TO_U
        model = fitted.regauged("v", EmpiricalPrior(torch.arange(3), torch.tensor([1.0, 2.0, 0.0])))
        loaded = saved(model, tmp_path)
        assert loaded.gauge.over == "v"
        assert loaded.identifies is Identifies.RATIO
        with pytest.raises(ValueError, match="re-gauged already"):
            loaded.regauged("v", EmpiricalPrior(torch.arange(3)))

    def test_a_loaded_model_can_be_trained_and_saved_again(self, tmp_path: Path) -> None:
        model = saved(small_model(learn_temperature=True), tmp_path)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pcl.JointLoss()(model.scores(VECTORS, LABELS)).backward()
        optimizer.step()
        assert_same(saved(model, tmp_path), model)

    def test_of_an_unregistered_encoder_takes_the_module(self, tmp_path: Path) -> None:
        model = BimodalModel(Unregistered(3, 2), nn.Sequential())
        model.save(tmp_path)
        with pytest.raises(
            CheckpointError, match=r"encoder_u is a 'Unregistered', which is not registered.*encoder_u="
        ):
            BimodalModel.load(tmp_path)
        with pytest.raises(CheckpointError, match=r"encoder_v is a 'Sequential', which is not registered.*encoder_v="):
            BimodalModel.load(tmp_path, encoder_u=Unregistered(3, 2))
        assert_same(BimodalModel.load(tmp_path, encoder_u=Unregistered(3, 2), encoder_v=nn.Sequential()), model)

    def test_of_an_unregistered_alignment_takes_the_module(self, tmp_path: Path) -> None:
        class Halved(pcl.InnerProduct):
            """A user's alignment, not registered."""

        model = small_model(alignment=WithPotentials(Halved(), 1))
        model.save(tmp_path)
        with pytest.raises(CheckpointError, match=r"alignment is a 'Halved', which is not registered.*alignment="):
            BimodalModel.load(tmp_path)
        assert_same(BimodalModel.load(tmp_path, alignment=WithPotentials(Halved(), 1)), model)


class TestRegister:
    def test_defaults_are_recorded_so_that_new_ones_do_not_change_a_saved_model(self) -> None:
        assert to_config(MLP(3, 2)) == {
            "class": "MLP",
            "arguments": {"in_features": 3, "out_features": 2, "hidden": [128, 128], "activation": "gelu"},
        }

    def test_arguments_changed_later_are_recorded_as_they_were(self) -> None:
        hidden = [5]
        encoder = MLP(3, 2, hidden)
        hidden.append(7)
        assert to_config(encoder)["arguments"]["hidden"] == [5]

    def test_numpy_scalars_are_numbers(self) -> None:
        config = to_config(Raised(2, exponent=np.float64(1.5), count=np.int64(3)))
        assert json.loads(json.dumps(config))["arguments"] == {
            "width": 2,
            "exponent": 1.5,
            "names": ["a", "b"],
            "count": 3,
        }

    def test_an_argument_json_cannot_hold_costs_no_model(self, tmp_path: Path) -> None:
        model = BimodalModel(Raised(2, function=torch.sin), Raised(2))
        model.save(tmp_path)
        with pytest.raises(CheckpointError, match=r"encoder_u is a 'Raised'.*arguments that are not JSON values"):
            BimodalModel.load(tmp_path)
        assert_same(BimodalModel.load(tmp_path, encoder_u=Raised(2, function=torch.sin)), model)

    def test_a_subclass_is_not_taken_for_its_parent(self, tmp_path: Path) -> None:
        class Wider(Raised):
            """Not registered, unlike its parent."""

        assert to_config(Wider(2)) == {"class": "Wider", "arguments": None}

    def test_another_class_of_a_registered_name_is_not_taken_for_it(self, tmp_path: Path) -> None:
        BimodalModel(nn.Linear(3, 2), Linear(3, 2)).save(tmp_path)
        with pytest.raises(CheckpointError, match="encoder_u is a 'Linear', which is not registered"):
            BimodalModel.load(tmp_path)

    def test_a_name_is_registered_by_one_module_only(self) -> None:
        impostor = type("MLP", (nn.Module,), {"__module__": __name__})
        with pytest.raises(ValueError, match=r"named 'MLP' is registered already, by probcl\.encoders\.vector"):
            register(impostor)

    def test_arguments_must_have_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serialization, "_REGISTRY", dict(serialization._REGISTRY))

        @register
        class Stack(nn.Module):
            def __init__(self, *widths: int) -> None:
                super().__init__()

        assert to_config(Stack())["arguments"] == {}
        with pytest.raises(TypeError, match=r"Stack is registered and cannot take \*widths; name its arguments"):
            Stack(1, 2)

    def test_a_class_without_arguments_is_rebuilt(self) -> None:
        assert isinstance(from_config(to_config(Cosine()), "alignment"), Cosine)


class Interrupted(BaseException):
    pass


class TestAtomicSave:
    @pytest.mark.parametrize("at_file", ["model.safetensors", "config.json"])
    @pytest.mark.parametrize("error", [OSError, Interrupted, KeyboardInterrupt])
    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_an_error_leaves_a_whole_model_and_no_litter(
        self, at_file: str, error: type[BaseException], step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, new = small_model(), small_model()
        old.save(tmp_path)
        original = getattr(os, step)
        calls = iter(["model.safetensors", "config.json"])

        def fail(*arguments: Any) -> None:
            if next(calls) == at_file:
                raise error
            original(*arguments)

        monkeypatch.setattr(os, step, fail)
        with pytest.raises(error):
            new.save(tmp_path)
        monkeypatch.undo()
        assert_same(BimodalModel.load(tmp_path), old if at_file == "model.safetensors" else new)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]

    @pytest.mark.parametrize("at_call", [1, 2])
    def test_a_kill_leaves_a_whole_model_and_the_next_save_clears_its_litter(
        self, at_call: int, tmp_path: Path
    ) -> None:
        old, new = small_model(), small_model()
        old.save(tmp_path)
        child = os.fork()
        if child == 0:
            calls, original = iter(range(1, 3)), os.replace

            def die(*arguments: Any) -> None:
                if next(calls) == at_call:
                    os.kill(os.getpid(), signal.SIGKILL)
                original(*arguments)

            os.replace = die
            try:
                new.save(tmp_path)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
        assert_same(BimodalModel.load(tmp_path), old if at_call == 1 else new)
        new.save(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]

    def test_files_have_the_permissions_of_any_other(self, tmp_path: Path) -> None:
        (tmp_path / "other").touch()
        small_model().save(tmp_path)
        expected = (tmp_path / "other").stat().st_mode
        assert all(path.stat().st_mode == expected for path in tmp_path.iterdir())

    def test_makes_the_directory(self, tmp_path: Path) -> None:
        model = small_model()
        assert_same(saved(model, tmp_path / "of" / "models"), model)

    def test_takes_a_path_as_text(self, tmp_path: Path) -> None:
        model = small_model()
        model.save(str(tmp_path))
        assert_same(BimodalModel.load(str(tmp_path)), model)


class TestConfigFile:
    def test_is_json_and_the_record_of_the_archive(self, tmp_path: Path) -> None:
        model = BimodalModel(MLP(3, 2, [4]), Unregistered(3, 2), WithPotentials(Cosine(), 1), 0.5)
        model.save(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config == read_archive(tmp_path / "model.safetensors", KIND)[1]
        assert config["encoder_u"]["arguments"]["hidden"] == [4]
        assert config["encoder_v"] == {"class": "Unregistered", "arguments": None}
        assert config["alignment"]["arguments"]["base"] == {"class": "Cosine", "arguments": {}}
        assert config["temperature"] == {"value": 0.5, "learnable": False}
        assert config["probcl_version"] == pcl.__version__

    def test_is_for_people_and_the_archive_decides(self, tmp_path: Path) -> None:
        model = small_model(temperature=0.5)
        model.save(tmp_path)
        path = tmp_path / "config.json"
        for edited in (path.read_text().replace("0.5", "5.0"), "{"):
            path.write_text(edited)
            with pytest.warns(pcl.ProbclWarning, match="was edited, or is of another save"):
                assert_same(BimodalModel.load(tmp_path), model)
        path.unlink()
        assert_same(BimodalModel.load(tmp_path), model)


def rewritten(
    directory: Path, kind: str = KIND, change: Callable[[dict[str, Any]], object] = lambda record: None
) -> None:
    """Write a saved model anew, with a digest that is right, but of another kind or with another record."""
    tensors, record = read_archive(directory / "model.safetensors", KIND)
    change(record)
    write_archive(directory / "model.safetensors", kind, tensors, record)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^directory must be a path or its name, got None"):
        small_model().save(None)
    with pytest.raises(TypeError, match=r"^directory must be a path or its name, got 3"):
        BimodalModel.load(3)


class TestLoadRefuses:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        small_model(temperature=0.3, learn_temperature=True).save(tmp_path)
        return tmp_path

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no probcl model at .*nowhere.*: the file does not exist"):
            BimodalModel.load(tmp_path / "nowhere")

    def test_every_truncation(self, directory: Path) -> None:
        path = directory / "model.safetensors"
        content = path.read_bytes()
        for length in [*range(0, len(content), 37), len(content) - 1]:
            path.write_bytes(content[:length])
            with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
                BimodalModel.load(directory)

    def test_bytes_appended(self, directory: Path) -> None:
        path = directory / "model.safetensors"
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(CheckpointError, match="is damaged"):
            BimodalModel.load(directory)

    def test_tensors_whose_names_were_exchanged(self, directory: Path) -> None:
        BimodalModel(Linear(3, 2), Linear(3, 2)).save(directory)
        path, (of_u, of_v, spare) = directory / "model.safetensors", (b"encoder_%c.weight" % side for side in b"uv?")
        path.write_bytes(path.read_bytes().replace(of_u, spare).replace(of_v, of_u).replace(spare, of_v))
        with pytest.raises(CheckpointError, match="is damaged: its contents do not match the digest"):
            BimodalModel.load(directory)

    def test_another_format_version(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serialization, "FORMAT_VERSION", 2)
        small_model().save(directory)
        monkeypatch.undo()
        with pytest.raises(CheckpointError, match="is of format version '2'; this probcl reads version 1"):
            BimodalModel.load(directory)

    def test_another_kind_of_file(self, directory: Path) -> None:
        rewritten(directory, kind="training checkpoint")
        with pytest.raises(CheckpointError, match="is not a probcl model: its header says 'training checkpoint'"):
            BimodalModel.load(directory)

    def test_someone_elses_safetensors(self, directory: Path) -> None:
        from safetensors.torch import save_file

        save_file(small_model().state_dict(), directory / "model.safetensors")
        with pytest.raises(CheckpointError, match="is not a probcl model: its header says None"):
            BimodalModel.load(directory)

    def test_a_class_that_is_not_registered(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(serialization._REGISTRY, "Label")
        with pytest.raises(CheckpointError, match=r"encoder_v is a 'Label', which is not registered.*encoder_v=\.\.\."):
            BimodalModel.load(directory)

    def test_other_shapes_than_the_module_given(self, directory: Path) -> None:
        with pytest.raises(CheckpointError, match=r"other shapes: encoder_u.weight is \(2, 3\) there and \(2, 4\) in"):
            BimodalModel.load(directory, encoder_u=Linear(4, 2))

    def test_other_weights_than_the_module_given(self, directory: Path) -> None:
        with pytest.raises(CheckpointError, match=r"another model: missing \['encoder_u.bias'\], unknown \[\]"):
            BimodalModel.load(directory, encoder_u=Linear(3, 2, bias=True))

    @pytest.mark.parametrize(
        "change",
        [
            lambda record: record.pop("temperature"),
            lambda record: record["encoder_u"]["arguments"].update(colour="red"),
            lambda record: record["encoder_u"]["arguments"].update(in_features=-1),
            lambda record: record["encoder_u"].pop("class"),
            lambda record: record.update(identifies="EVERYTHING"),
            lambda record: record.update(gauge={"over": "w", "shape": [2, 2]}),
            lambda record: record["temperature"].update(value=-1.0),
        ],
    )
    @pytest.mark.usefixtures("unchecked")
    def test_a_record_it_does_not_understand(self, directory: Path, change: Callable[[dict], object]) -> None:
        rewritten(directory, change=change)
        with pytest.raises(CheckpointError, match="does not describe a model this probcl can build"):
            BimodalModel.load(directory)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    directory = tmp_path_factory.mktemp("damaged")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small_model(alignment=Cosine(), temperature=0.3, learn_temperature=True).save(directory)
    return directory, (directory / "model.safetensors").read_bytes()


@given(st.data())
@settings(max_examples=300)
def test_no_flipped_bits_are_loaded(damaged: tuple[Path, bytes], data: st.DataObject) -> None:
    directory, content = damaged
    bits = data.draw(st.sets(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=3))
    spoiled = bytearray(content)
    for bit in bits:
        spoiled[bit // 8] ^= 1 << bit % 8
    (directory / "model.safetensors").write_bytes(spoiled)
    with pytest.raises(CheckpointError):
        BimodalModel.load(directory)


def test_nothing_is_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("a pickle was read or written")

    for owner, name in (
        (torch, "load"),
        (torch, "save"),
        *((pickle, name) for name in ("load", "loads", "dump", "dumps")),
    ):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    model = small_model().regauged("v", EmpiricalPrior(torch.arange(3)))
    assert_same(saved(model, tmp_path), model)


def test_a_folder_takes_the_place_of_another_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for number in (1, 2):
        with replacing(target) as temporary:
            temporary.mkdir()
            (temporary / "one").write_text(str(number))
            assert number == 1 or (target / "one").read_text() == "1"
    with pytest.raises(FileExistsError), replacing(target) as temporary:
        [temporary.mkdir() for _ in range(2)]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "one").read_text() == "2"


def test_where_names_cannot_be_exchanged_at_once_it_is_done_in_steps(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialization.sys, "platform", "another")
        serialization._exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["b", "a"]
    assert len(list(tmp_path.iterdir())) == 2


NAME = "odd[name]*"


@pytest.fixture(params=[(0, "old"), (1, "old"), (2, "new")], ids=["first", "second", "third"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Replace a folder where names cannot be exchanged at once, be killed before a rename; what is to be kept then."""
    target, renames, rename = tmp_path / NAME, [], os.rename
    before, content = request.param

    def counted(*names: Path) -> None:
        if len(renames) == before:
            raise KeyboardInterrupt
        renames.append(names)
        rename(*names)

    new = temporary_beside(target)
    for folder, text in ((target, "old"), (new, "new")):
        folder.mkdir()
        (folder / "one").write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(serialization.sys, "platform", "another")
        patch.setattr(os, "rename", counted)
        with pytest.raises(KeyboardInterrupt):
            serialization._exchange(new, target)
    assert target.exists() == (before != 1)
    monkeypatch.setattr(serialization, "_is_running", lambda process: False)
    return content


def test_what_a_killed_writer_had_set_aside_is_put_back_by_the_next_reader(kept: str, tmp_path: Path) -> None:
    put_back(tmp_path / NAME)
    assert (tmp_path / NAME / "one").read_text() == kept


def test_what_a_killed_writer_had_set_aside_is_there_if_the_next_fails(kept: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), replacing(tmp_path / NAME):
        raise OSError(28, "No space left on device")
    assert (tmp_path / NAME / "one").read_text() == kept
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_an_archive_of_which_only_the_old_one_is_left_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zarr")
    archive = GaussianOcean(Box(n=8, size=400e3)).archive(2, [0.0])
    aside = temporary_beside(tmp_path / "a.zarr").with_suffix(".old")
    write(archive, tmp_path / "a.zarr")
    (tmp_path / "a.zarr").rename(aside)
    with pytest.raises(pcl.DataFileError, match="does not exist"):
        read_currents(tmp_path / "a.zarr")  # its writer is at work
    monkeypatch.setattr(serialization, "_is_running", lambda process: False)
    assert read_currents(tmp_path / "a.zarr").sizes["member"] == 2


def test_what_a_writer_at_work_has_set_aside_is_let_be(tmp_path: Path) -> None:
    aside = temporary_beside(tmp_path / "folder").with_suffix(".old")
    aside.mkdir()
    put_back(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [aside]


def test_an_error_names_the_file_that_was_to_be_written_and_no_temporary_one(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/folder/file'$"),
        replacing(tmp_path / "folder" / "file"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError, match="another"), replacing(tmp_path / "file"):
        raise FileNotFoundError(2, "No such file", "another")


def test_the_package_s_classes_are_known_before_anything_of_it_was_used(tmp_path: Path) -> None:
    BimodalModel(Linear(3, 2), Label(4, 2)).save(tmp_path)
    code = f"""
import sys
from probcl.model import BimodalModel
assert "probcl.encoders" not in sys.modules
print(type(BimodalModel.load({str(tmp_path)!r}).encoder_v).__name__)
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": ""}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert shown.stdout == "Label\n"


def test_a_name_of_the_package_s_is_taken_before_anything_of_it_was_used() -> None:
    code = """
from torch import nn
from probcl import register
class LeNet(nn.Module): ...
try:
    register(LeNet)
except ValueError as error:
    print(error)
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": ""}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert shown.stdout == "a module named 'LeNet' is registered already, by probcl.encoders.convnets\n"
