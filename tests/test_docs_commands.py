"""The commands of the pages: each is run, here or by a script that does so at full size."""

import importlib
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from docs_blocks import APPLICATIONS, PAGES, ROOT, commands

# What makes them end in seconds; of an option that comes twice, the last counts.
SMALL = "--pairs 64 --width 8 --repeats 1 --threads 1"
RUN_HERE = {
    "torchrun --nproc-per-node 2 script.py": "",
    "make bench": "--dry-run",
    "python -m benchmarks.losses --pairs 16384 --width 64": f"--no-compile {SMALL}",
    "python -m benchmarks.losses --alone --pairs 131072 --width 64 --repeats 1": SMALL,
    "python -m benchmarks.retrieval --items 1000000 --queries 256": "--items 2000 --queries 8 --repeats 1 --threads 1",
    "python -m benchmarks.losses --device cuda": f"--no-compile {SMALL}",
    "python -m applications.inference": "--quick",
    "cd tests && nice python -m faults --seed 0": "--only code",
}
SCRIPT = """
import torch
import probcl as pcl

torch.manual_seed(0)
model = pcl.BimodalModel(pcl.encoders.Linear(3, 2), pcl.encoders.Linear(3, 2))
u = torch.randn(64, 3)
history = pcl.fit(model, (u, u), epochs=1, progress=False)
print("steps", len(history.step_loss))
"""


def new_user():
    """docs/new_user.py, as a module."""
    spec = importlib.util.spec_from_file_location("new_user", ROOT / "docs" / "new_user.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_of_the_pages_is_run():
    replayed = "\n".join(new_user().stages(ROOT).values()).splitlines()
    by_ci = [line for line in ("make test", "make lint") if line.split()[1] in (ROOT / ".ci" / "run").read_text()]
    found = [command for page in PAGES if page.name != "command_line.md" for command in commands(page)]
    assert set(found) == {*RUN_HERE, *(command for command in found if command in replayed or command in by_ci)}


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN_HERE)
def test_a_command_of_the_pages_runs_made_small(command, tmp_path):
    if "cuda" in command and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    (tmp_path / "script.py").write_text(SCRIPT)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euc", f"{command} {RUN_HERE[command]}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip()


@pytest.mark.parametrize("page", APPLICATIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_an_application_takes_the_options_that_its_page_gives(page, monkeypatch):
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line}
    monkeypatch.setenv("PROBCL_DATA", "where/data/are")
    assert commands(page)
    for command in commands(page):
        program, *arguments = command.split()
        if program == "make":
            assert arguments[0] in targets
            continue
        assert (program, arguments[0]) == ("python", "-m")
        monkeypatch.setattr(sys, "argv", arguments[1:])
        parse = importlib.import_module(f"{arguments[1]}.__main__")._parse
        parse(*[None] * parse.__code__.co_argcount)
