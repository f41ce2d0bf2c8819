"""What is published: the files of the wheel, its metadata and version, what it declares, what it promises to keep."""

import ast
import difflib
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from import_graph import ROOT, modules
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from public_api import LISTED, listing
from release import check, extras

import probcl as pcl
from probcl.kernels import triton_launch
from probcl.serialization import FORMAT_VERSION

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_DEVELOPERS = {"dev", "docs", "docs-check"}
FOLDERS = ("probcl", "applications", "benchmarks", "docs", "tests")
OLD_MODEL = Path(__file__).parent / "files" / "model-format-1"
# Whose module has another name than what pip installs.
MODULES = {"pyro-ppl": "pyro", "pyyaml": "yaml", "pillow": "pil", "scikit-learn": "sklearn", "pyarrow": "pyarrow"}


def bounds(*extras: str) -> dict[str, Version]:
    """Return the lowest versions of what is needed, and of these extras."""
    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(r.name): lowest(r) for r in map(Requirement, wanted)}


def lowest(requirement: Requirement) -> Version:
    (bound,) = (Version(part.version) for part in requirement.specifier if part.operator == ">=")
    return bound


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel of this checkout, and its source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    return folder / build(ROOT, folder, "wheel"), folder / build(ROOT, folder, "sdist")


def build(source: Path, target: Path, what: str) -> str:
    pytest.importorskip("hatchling")
    code = f"from hatchling import build; print(build.build_{what}({str(target)!r}))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_its_types_and_its_licence_and_nothing_else(built: tuple[Path, Path]) -> None:
    found = contents(built[0])
    info = f"probcl-{pcl.__version__}.dist-info"
    code = {path.relative_to(ROOT).as_posix() for path in modules("probcl").values()}
    assert {name for name in found if not name.startswith(info)} == code | {"probcl/__init__.pyi", "probcl/py.typed"}
    assert found[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert found[f"{info}/entry_points.txt"].decode().split() == ["[console_scripts]", "probcl", "=", "probcl.cli:main"]


def test_the_metadata_are_those_of_the_project(built: tuple[Path, Path]) -> None:
    told = contents(built[0])[f"probcl-{pcl.__version__}.dist-info/METADATA"].decode()
    assert f"\nVersion: {pcl.__version__}\n" in told
    assert f"\nRequires-Python: {PROJECT['requires-python']}\n" in told
    assert set(re.findall(r"^Provides-Extra: (.+)$", told, re.MULTILINE)) == set(PROJECT["optional-dependencies"])
    assert "\nTyping :: Typed" in told or "Classifier: Typing :: Typed" in told


def test_the_source_distribution_makes_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, source = built
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert contents(tmp_path / build(folder, tmp_path, "wheel")) == contents(wheel)


def test_the_version_stands_in_one_place(tmp_path: Path) -> None:
    assert "version" in PROJECT["dynamic"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == pcl.__version__
    pcl.BimodalModel(pcl.encoders.Linear(2, 2), pcl.encoders.Linear(2, 2)).save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["probcl_version"] == pcl.__version__
    ours = (path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.py"))
    written = [path for path in ours if re.search(r"""=\s*["']0\.\d+\.\d+\.dev""", path.read_text(encoding="utf-8"))]
    assert written == [ROOT / "probcl" / "__init__.py"]


def test_the_changelog_has_a_section_for_what_comes_next() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[?Unreleased\]?$", text, re.MULTILINE)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_import_is_declared() -> None:
    imported = set()
    for path in modules("probcl").values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"probcl"}
    for_users = bounds(*(PROJECT["optional-dependencies"].keys() - FOR_DEVELOPERS))
    declared = {MODULES.get(name, name.replace("-", "_")) for name in for_users}
    assert {name.lower() for name in imported} <= declared


def test_every_extra_is_tried() -> None:
    assert set(extras.CALLS) == PROJECT["optional-dependencies"].keys() - FOR_DEVELOPERS
    assert set(check.EXTRAS.split(",")) == set(extras.CALLS)


@pytest.mark.parametrize("name", extras.CALLS)
def test_what_needs_an_extra_says_which_where_it_is_absent(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, extras.PACKAGES.get(name, name), None)
    monkeypatch.delitem(sys.modules, "probcl.kernels.triton_programs", raising=False)
    for module in [module for module in sys.modules if module.startswith((f"{name}.", f"torch.utils.{name}"))]:
        monkeypatch.delitem(sys.modules, module)
    triton_launch.programs.cache_clear()
    with pytest.raises(ImportError, match=re.escape(f'pip install "probcl[{name}]"')):
        extras.CALLS[name](tmp_path)


def test_the_lowest_versions_are_those_that_are_tested() -> None:
    lines = (ROOT / "constraints-min.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(name): Version(v) for name, v in (line.split("==") for line in lines if line[0] != "#")}
    allowed = bounds(*(PROJECT["optional-dependencies"].keys() - FOR_DEVELOPERS))
    untested = {"torch", "triton", "dapper"}  # constraints-min.txt says why
    tested = allowed.keys() - untested
    assert {name: pins[name] for name in tested} == {name: allowed[name] for name in tested}


def test_the_public_names_and_signatures_are_those_that_are_listed() -> None:
    listed = LISTED.read_text(encoding="utf-8")
    difference = difflib.unified_diff(listed.splitlines(), listing().splitlines(), "listed", "found", "", "", 0, "")
    told = "\n".join(difference)
    assert not told, f"the public API changed; if that is meant, run python tests/public_api.py\n{told}"


def test_a_model_of_format_1_is_read_for_ever() -> None:
    assert FORMAT_VERSION >= 1
    expected = json.loads((OLD_MODEL / "expected.json").read_text())
    model = pcl.BimodalModel.load(OLD_MODEL)
    u, v = torch.tensor(expected["u"]), torch.tensor(expected["v"])
    torch.testing.assert_close(model.log_ratio(u, v), torch.tensor(expected["log_ratio"]))
    assert model.identifies is not None
    assert sum(path.stat().st_size for path in OLD_MODEL.iterdir()) < 8192
