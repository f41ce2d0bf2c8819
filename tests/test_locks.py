import os
from pathlib import Path

import pytest

from probcl.locks import sole_writer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are of POSIX systems")


def test_a_second_writer_is_told_which_folder_is_taken(tmp_path: Path) -> None:
    said = pytest.raises(BlockingIOError, match=r"another process is writing.*new")
    with sole_writer(tmp_path / "new"), said, sole_writer(tmp_path / "new"):
        raise AssertionError("two hold it")


def test_a_lock_ends_with_its_holder_and_leaves_no_file(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), sole_writer(tmp_path):
            raise KeyError
    assert not list(tmp_path.iterdir())
