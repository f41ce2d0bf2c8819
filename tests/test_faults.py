"""A few of the faults of `python -m faults`, in a process of their own: nothing is lost, and nothing goes unsaid."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import probcl

ROOT = Path(probcl.__file__).parent.parent
FAST = "code,kill `embed`: `Library.add`,read-only,full disk model,damaged our,damaged model,damaged IDX,writers model"


def campaign(folder: Path, *options: str, seconds: float = 500) -> list[dict]:
    """Run it, and return the rows of its table; what went wrong is in the error."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    command = [sys.executable, "-m", "faults", "--json", str(folder / "rows.json"), *options]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "rows.json").read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_few_of_all_faults_lose_nothing_and_say_so(tmp_path: Path) -> None:
    rows = campaign(tmp_path, "--only", FAST, "--scale", "0.02")
    assert len(rows) == 11
    assert all(row["cases"] or "not permitted" in str(row["messages"]) for row in rows)
    assert [row["failures"] for row in rows if row["failures"]] == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize("part", ["kill", "full disk", "damaged", "torchrun,writers,read-only,code", "fuzz"])
def test_a_tenth_of_the_campaign_loses_nothing_and_says_so(part: str, tmp_path: Path) -> None:
    rows = campaign(tmp_path, "--only", part, "--scale", "0.1")
    assert [row["failures"] for row in rows if row["failures"]] == []
