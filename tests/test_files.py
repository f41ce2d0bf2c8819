import os
from pathlib import Path

import pytest

import probcl as pcl
from probcl import files
from probcl.assimilation import read_archive, write
from probcl.datasets.ocean import Box, GaussianOcean
from probcl.files import put_back, replacing, temporary_beside


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
        patch.setattr(files.sys, "platform", "another")
        files._exchange(tmp_path / "a", tmp_path / "b")
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
        patch.setattr(files.sys, "platform", "another")
        patch.setattr(os, "rename", counted)
        with pytest.raises(KeyboardInterrupt):
            files._exchange(new, target)
    assert target.exists() == (before != 1)
    monkeypatch.setattr(files, "_is_running", lambda process: False)
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
        read_archive(tmp_path / "a.zarr")  # its writer is at work
    monkeypatch.setattr(files, "_is_running", lambda process: False)
    assert read_archive(tmp_path / "a.zarr").sizes["member"] == 2


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
