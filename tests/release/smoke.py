"""What a user does first, with the installed wheel: fit, save, load, condition, retrieve, assimilate, and the command.

``python smoke.py absent`` expects that no extra is installed, and that what needs one names it; ``python smoke.py
present`` that all are. ``check.py`` runs both, each in an environment of its own.
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import extras
import numpy as np
import torch

import probcl as pcl
from probcl.assimilation import Assimilator, read_archive, write

CONFIG = """
data: {u: {path: pairs.npz, key: u}, v: {path: pairs.npz, key: v}}
model: {encoder_u: {name: mlp, out_features: 2, hidden: [8]}, encoder_v: {name: linear, out_features: 2}}
training: {epochs: 2, batch_size: 50, device: cpu}
"""


def learn(folder: Path) -> None:
    u = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(2, 2))
    history = pcl.fit(model, (u, u[:, :2]), epochs=2, batch_size=50, seed=0, progress=False)
    assert len(history.loss) == 2
    model.save(folder / "model")
    again = pcl.BimodalModel.load(folder / "model")
    given = again.u_given_v(pcl.EmpiricalPrior(u)).condition(u[:4, :2])
    assert given.sample((5,)).shape == (5, 4, 3)
    assert torch.equal(again.log_ratio(u, u[:, :2]), model.log_ratio(u, u[:, :2]))
    np.savez(folder / "pairs.npz", u=u.numpy(), v=u[:, :2].numpy())


def command(folder: Path) -> None:
    (folder / "fit.yaml").write_text(CONFIG)
    probcl = Path(sys.executable).with_name("probcl")
    for line in (
        "--help",
        "--version",
        "fit fit.yaml -o fitted -q",
        "retrieve fitted --library pairs.npz:u --queries pairs.npz:v -o found.csv",
        "info fitted",
    ):
        done = subprocess.run([probcl, *line.split()], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"probcl {line}: {done.stderr}"
    assert len((folder / "found.csv").read_text().splitlines()) == 1 + 200 * 5


def assimilate(folder: Path) -> None:
    learned = Assimilator.fit(extras.archive(), window="2D", fix_interval="12h", n_drifters=3, pairs=40, progress=False)
    write(learned.assimilate(extras.tracks(), members=4), folder / "posterior.nc")
    assert read_archive(folder / "posterior.nc").sizes["member"] == 4


def extra(name: str, folder: Path, present: bool) -> None:
    package = extras.PACKAGES.get(name, name)
    if (find_spec(package) is not None) is not present:
        if name == "triton":  # torch's own wheels for GPUs bring it
            print(f"  {name}: came with torch")
            return
        raise AssertionError(f"{package} was expected to be {'present' if present else 'absent'}")
    missed = None
    try:
        extras.CALLS[name](folder)
    except ImportError as error:
        missed = str(error)
    if (missed is None) is not present or not (present or f'pip install "probcl[{name}]"' in str(missed)):
        raise AssertionError(f"{name}: " + (missed or "was not missed"))
    print(f"  {name}: {missed or 'works'}")


def main(which: str) -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    home = Path(pcl.__file__).parent
    assert home.is_relative_to(sys.prefix), f"probcl of {home} is not the wheel that is installed in {sys.prefix}"
    assert pcl.__version__ == version("probcl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step in (learn, command, assimilate):
            step(folder)
            print(f"  {step.__name__}: works")
        for known in extras.CALLS:
            extra(known, folder, which == "present")


if __name__ == "__main__":
    main(*sys.argv[1:])
