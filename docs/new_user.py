"""From a clone to a first model of one's own data, as the pages say: every command of theirs, in a new environment.

``python docs/new_user.py`` clones this checkout (what is committed of it) into a temporary folder, runs the README's
first command and then what docs/quickstart.md prints, word for word, adds the time that reading both takes, and prints
the minutes of each stage as a table, those of the processor beside those of the clock, which a busy machine stretches.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/quickstart.md")
WORDS_PER_MINUTE = 200
MINUTES = 15
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def stages(root: Path) -> dict[str, str]:
    """Return what to run in bash, by name and in the order of the pages."""
    readme, quickstart = (BLOCK.findall((root / page).read_text(encoding="utf-8")) for page in PAGES)
    first = next(text for kind, text in readme if kind == "sh").splitlines()[0].split("#")[0].strip()
    commands = "".join(text for kind, text in quickstart if kind == "sh")
    model = "".join(text for kind, text in quickstart if kind == "python")
    return {
        f"README: `{first}`": first,
        # Of the two ways to install, each is to work without the other.
        "Getting started: install": f"rm -rf .venv\n{commands}",
        "Getting started: all Python, the model of one's own data too": (
            f"source .venv/bin/activate\npython - <<'END'\n{model}END\n"
        ),
    }


def reading(root: Path) -> tuple[str, tuple[float, float]]:
    """Return what is read, and the minutes that it takes."""
    words = sum(len((root / page).read_text(encoding="utf-8").split()) for page in PAGES)
    return f"reading both pages, {words} words at {WORDS_PER_MINUTE} a minute", (words / WORDS_PER_MINUTE, 0.0)


def minutes_of(command: str, folder: Path) -> tuple[float, float]:
    """Run a command as a new user's shell does, and say how many minutes it took, by the clock and of the processor."""
    foreign = ("VIRTUAL_ENV", "PYTHON", "PROBCL")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    began, before = time.perf_counter(), os.times()
    subprocess.run(["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    busy = sum(os.times()[2:4]) - sum(before[2:4])
    return (time.perf_counter() - began) / 60, busy / 60


def table(minutes: dict[str, tuple[float, float]]) -> str:
    """Return the stages, their sum, and where this was."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    where = (
        f"{time.strftime('%d %B %Y', time.gmtime())}, commit {commit.stdout.strip()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[2]:.1f}, Python {platform.python_version()}"
    )
    rows = [f"| {name} | {clock:.1f} | {busy:.1f} |" for name, (clock, busy) in minutes.items()]
    clock, busy = (sum(column) for column in zip(*minutes.values(), strict=True))
    total = f"| **in all**, of at most {MINUTES} | **{clock:.1f}** | {busy:.1f} |"
    head = ["| stage | minutes | of the processor |", "| --- | --: | --: |"]
    return "\n".join([*head, *rows, total, "", where])


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder = Path(tempfile.mkdtemp(prefix="probcl-new-user-"))
    clone = folder / "probcl"
    try:
        minutes = {"clone": minutes_of(f"git clone --quiet '{ROOT}' '{clone}'", folder)}
        minutes |= [reading(clone)]
        for name, command in stages(clone).items():
            print(f"{name} …", file=sys.stderr, flush=True)
            minutes[name] = minutes_of(command, clone)
    except subprocess.CalledProcessError as error:
        print(f"failed: {error.cmd[-1]}\n{error.stdout[-2000:]}{error.stderr[-4000:]}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    print(table(minutes))
    return int(sum(clock for clock, _ in minutes.values()) > MINUTES)


if __name__ == "__main__":
    raise SystemExit(main())
