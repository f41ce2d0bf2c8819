import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from probcl.errors import DataFileError
from probcl.zarr_folders import SUMS, require_readable, seal

pytest.importorskip("zarr")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "x.zarr"
    xr.Dataset({"x": ("n", np.arange(4.0), {"units": "m"})}).to_zarr(path, zarr_format=2, consolidated=True)
    seal(path)
    return path


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


def test_what_is_whole_may_be_read_sealed_or_not(folder: Path) -> None:
    require_readable(folder)
    (folder / SUMS).unlink()
    require_readable(folder)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "x" / "0").unlink(), "x/0, which its SHA256SUMS lists, is missing"),
        (lambda folder: rewrite(folder / "x" / ".zattrs", lambda a: a.update(units="k")), r"x.zarr/x/.zattrs was dam"),
        (lambda folder: (folder / ".zgroup").write_text("{"), r"x.zarr/.zgroup is damaged"),
        (lambda folder: (folder / SUMS).write_bytes(b"\xff"), r"x.zarr/SHA256SUMS is damaged"),
        (lambda folder: (folder / SUMS).write_text("no digest\n"), r"x.zarr/SHA256SUMS is damaged"),
    ],
)
def test_what_is_missing_or_changed_is_named(damage: Callable[[Path], object], said: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(DataFileError, match=said):
        require_readable(folder)


@pytest.mark.parametrize("name", ["pickle", "numcodecs.pickle"])
def test_a_codec_that_unpickles_is_refused_however_it_is_written(name: str, folder: Path) -> None:
    (folder / SUMS).unlink()
    codec = [{"id" if name == "pickle" else "name": name}]
    rewrite(folder / ".zmetadata", lambda said: said["metadata"]["x/.zarray"].update(filters=codec))
    text = (folder / ".zmetadata").read_text()
    for written in (text, text.replace("pickle", "p\\u0069ckle")):
        (folder / ".zmetadata").write_text(written)
        with pytest.raises(DataFileError, match="names a codec that unpickles"):
            require_readable(folder)
