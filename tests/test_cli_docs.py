"""The page on the command line: its configs and commands, as printed and in order."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from cli_cases import run
from docs_blocks import ROOT, SHELL, blocks, commands
from ocean_cases import random_fourier
from PIL import Image

import probcl as pcl

PAGE = ROOT / "docs" / "command_line.md"
# Of what the page trains on currents, enough to see that it ends; what is learned from more is tested elsewhere.
SMALL = ("--pairs", "40", "--method", "information")


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    u, v = pcl.datasets.TwoMoons().sample(1500, seed=0)
    np.savez("pairs.npz", u=u.numpy(), v=v.numpy())
    np.save("queries.npy", v[:5].numpy())
    generator = np.random.default_rng(0)
    for name, channel in (("cat", 0), ("dog", 2)):
        Path("photos", name).mkdir(parents=True)
        for number in range(16):
            pixels = generator.integers(0, 120, (40, 36, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(f"photos/{name}/{number}.png")


@pytest.fixture
def own_currents(tmp_path: Path) -> None:
    """An archive with the days of the page in it, and the drifters of two windows."""
    archive = random_fourier(12, 24, seed=1)
    archive["time"] = archive.time + (np.datetime64("2019-02-12") - archive.time[0])
    archive.to_netcdf(tmp_path / "currents.nc")
    options = {"n_drifters": 16, "window": "10D", "fix_interval": "12h"}
    table = pcl.assimilation.simulate_tracks(archive.isel(member=[4]), **options).to_dataframe().reset_index().dropna()
    table[["trajectory", "time", "latitude", "longitude"]].to_csv(tmp_path / "drifters.csv", index=False)
    start = "2019-02-18T12:00"
    others = pcl.assimilation.simulate_tracks(archive.isel(member=[5]), start=start, position_error=100, **options)
    others.to_netcdf(tmp_path / "others.nc")


@pytest.mark.usefixtures("own_data", "own_currents")
def test_the_commands_of_the_page_run_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    ran = []
    for block in blocks(PAGE, "yaml", *SHELL):
        if block.kind == "yaml":
            Path(block.text.splitlines()[0].removeprefix("# ")).write_text(block.text)
            continue
        for line in block.text.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
            assert program == "probcl"
            assert run(*arguments, *(SMALL if "--archive" in arguments else ())) == 0, capsys.readouterr().err
            ran.append(arguments[0])
    assert len(ran) == len(commands(PAGE))
    assert {"fit", "info", "diagnose", "cite", "retrieve", "sample", "classify", "assimilate"} <= set(ran)
    made = {"digits.html", "matches.csv", "draws.npz", "classes.csv", "photos.html", "posterior.nc"}
    assert all(Path(name).stat().st_size > 300 for name in made)


def test_the_page_names_every_part_and_every_option() -> None:
    from probcl.cli.config import TrainingConfig
    from probcl.cli.schema import parameters
    from probcl.cli.sources import DATA
    from probcl.named import ALIGNMENTS, ENCODERS, LOSSES

    text = PAGE.read_text(encoding="utf-8")
    names = [*ENCODERS, *ALIGNMENTS, *LOSSES, *parameters(TrainingConfig), *(set(DATA.table) - {"arrays"})]
    assert [name for name in names if f"`{name}`" not in text] == []
