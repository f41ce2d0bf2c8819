"""From a clone to a first model of one's own data, as the pages say: every command of theirs, in a new environment.

``python docs/new_user.py`` clones this checkout (what is committed of it) into a temporary folder, runs the README's
first command and then what docs/quickstart.md prints, word for word, and adds the time that reading both takes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/quickstart.md")
WORDS_PER_MINUTE = 200
MINUTES = 15
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(clone: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what to run and under which name, in the order of the pages."""
    readme, quickstart = (BLOCK.findall((clone / page).read_text(encoding="utf-8")) for page in PAGES)
    first = next(text for kind, text in readme if kind == "sh").splitlines()[0]
    yield f"README: {first.split('#')[0].strip()}", ["bash", "-euc", first]
    # Of the two ways to install, each is to work without the other.
    shutil.rmtree(clone / ".venv")
    for number, text in enumerate((text for kind, text in quickstart if kind == "sh"), start=1):
        yield f"quickstart: commands {number}", ["bash", "-euc", text]
    script = clone / "first_model.py"
    script.write_text("\n".join(text for kind, text in quickstart if kind == "python"), encoding="utf-8")
    yield "quickstart: all Python, own data too", [str(clone / ".venv" / "bin" / "python"), str(script)]


def reading(clone: Path) -> float:
    """Return the seconds that reading the pages takes."""
    words = sum(len((clone / page).read_text(encoding="utf-8").split()) for page in PAGES)
    return 60 * words / WORDS_PER_MINUTE


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder = Path(tempfile.mkdtemp(prefix="probcl-new-user-"))
    try:
        clone = folder / "probcl"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("VIRTUAL_ENV", "PYTHON", "PROBCL"))
        }
        taken = {f"reading, {WORDS_PER_MINUTE} words a minute": reading(clone)}
        for name, command in steps(clone):
            began = time.perf_counter()
            done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
            taken[name] = time.perf_counter() - began
            if done.returncode:
                print(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}", file=sys.stderr)
                return 1
        for name, seconds in taken.items():
            print(f"{seconds:6.0f} s  {name}")
        minutes = sum(taken.values()) / 60
        print(f"{minutes:6.1f} min in all (at most {MINUTES})")
        return int(minutes > MINUTES)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    raise SystemExit(main())
