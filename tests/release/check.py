"""Build the release and try it as users get it; ``make release-check`` runs this.

The source distribution and the wheel are built, then the wheel is installed into an empty environment twice: alone, and
with every extra. ``smoke.py`` runs in both, and mypy on a user's script, which must see the types. It takes minutes.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = "faiss,triton,dask,zarr,parquet,dapper,tensorboard,arviz,hub"
SMOKE = Path(__file__).with_name("smoke.py")

SCRIPT = """
import torch, probcl as pcl
z = torch.zeros(2, 3)
reveal_type(pcl.BimodalModel.load("model").u_given_v(pcl.EmpiricalPrior(z)))
pcl.Scores(z, z).no_such_reduction()
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


def installed(where: Path, *requirements: str) -> Path:
    """Return the Python of a new environment with these requirements and what they need."""
    venv.create(where, with_pip=True)
    python = where / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-compile", *requirements, cwd=where)
    return python


def check_types(python: Path, folder: Path) -> None:
    """Fail unless mypy sees the types of the installed package."""
    (folder / "script.py").write_text(SCRIPT)
    told = subprocess.run([python, "-m", "mypy", "script.py"], cwd=folder, capture_output=True, text=True).stdout
    print(told)
    assert 'Revealed type is "probcl.conditional.base.Conditional"' in told
    assert '"Scores" has no attribute "no_such_reduction"' in told
    assert "import-untyped" not in told


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT)
        (wheel,) = (folder / "dist").glob("*.whl")
        print("without extras:")
        python = installed(folder / "absent", str(wheel))
        run(python, SMOKE, "absent", cwd=folder)
        print("with every extra:")
        python = installed(folder / "present", f"{wheel}[{EXTRAS}]", "mypy")
        run(python, SMOKE, "present", cwd=folder)
        check_types(python, folder)
        print(f"{wheel.name} is fit to be released")


if __name__ == "__main__":
    main()
