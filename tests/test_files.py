from pathlib import Path

import pytest

from probcl import files
from probcl.files import replacing


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


def test_an_error_names_the_file_that_was_to_be_written_and_no_temporary_one(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/folder/file'$"),
        replacing(tmp_path / "folder" / "file"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError, match="another"), replacing(tmp_path / "file"):
        raise FileNotFoundError(2, "No such file", "another")
