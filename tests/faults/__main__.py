"""Run the campaign, or a part of it, and print a table: `python -m faults --seed 0`."""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from faults.bombs import bombs
from faults.damage import SUBJECTS, damaged
from faults.disks import TARGETS, full_disks, read_only
from faults.fuzz import READERS, fuzzed
from faults.kills import JOBS, kills
from faults.processes import Row
from faults.ranks import killed_ranks
from faults.writers import CONTESTS, writers

COUNTS = ("cases", "lost", "silent", "unseen", "died")
HEAD = """\
| fault | cases | lost | silent | unseen | died | what was seen |
| --- | --- | --- | --- | --- | --- | --- |"""
Fault = Callable[[int, Path], Row]


def faults(scale: float) -> dict[str, Fault]:
    """Return what to try, by name, each with its number of cases."""

    def some(number: int, least: int = 2) -> int:
        return max(least, round(number * scale))

    found: dict[str, Fault] = {}
    for name, number in zip(JOBS, (22, 18, 14, 14, 8, 12, 12), strict=True):
        found[f"kill {name}"] = _named(kills, name, some(number))
    for name in TARGETS:
        found[f"full disk {name}"] = _named(full_disks, name, some(20, 3))
    found["read-only"] = lambda seed, scratch: read_only(len(TARGETS), seed, scratch)
    for name in SUBJECTS:
        found[f"damaged {name}"] = _named(damaged, name, some(400, 10))
    found["torchrun"] = lambda seed, scratch: killed_ranks(some(4, 1), seed, scratch)
    for name in CONTESTS:
        found[f"writers {name}"] = _named(writers, name, some(10))
    found["code"] = lambda _, scratch: bombs(scratch)
    for name, (_, _, _, number) in READERS.items():
        found[f"fuzz {name}"] = _named(fuzzed, name, some(number, 20))
    return found


def _named(try_out: Callable[[str, int, int, Path], Row], name: str, cases: int) -> Fault:
    return lambda seed, scratch: try_out(name, cases, seed, scratch)


def line(row: Row) -> str:
    """Return a row of the table."""
    said = "; ".join(f"{text} ({count})" if count > 1 else text for text, count in row.messages.most_common(4))
    return f"| {row.fault} | {' | '.join(map(str, counts([row])))} | {said.replace('|', '/')} |"


def counts(rows: Iterable[Row]) -> list[int]:
    """Return the sums of what rows count, in the order of the table."""
    return [sum(getattr(row, name) for row in rows) for name in COUNTS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of cases")
    parser.add_argument("--only", default="", help="faults whose names have this in them, several with commas")
    parser.add_argument("--json", type=Path, help="write the rows here, as they come")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    gc.freeze()  # children need not walk through all that is imported, which copies it
    rows: list[Row] = []
    print(HEAD)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        known = faults(asked.scale)
        chosen = dict.fromkeys(name for part in asked.only.split(",") for name in known if part in name)
        for number, name in enumerate(chosen):
            folder = Path(scratch, str(number))
            folder.mkdir()
            os.chdir(folder)
            began = time.monotonic()
            rows.append(_tried(known[name], name, asked.seed, folder))
            print(line(rows[-1]), flush=True)
            print(f"{time.monotonic() - began:6.1f} s  {name}", *rows[-1].failures, sep="\n  ", file=sys.stderr)
            sys.stderr.flush()
            if asked.json:
                asked.json.write_text(json.dumps([vars(row) for row in rows]))
        os.chdir("/")
    print(f"| all | {' | '.join(map(str, counts(rows)))} | |")
    return int(any(row.lost or row.silent for row in rows))


def _tried(fault: Fault, name: str, seed: int, folder: Path) -> Row:
    """Return the row of a fault; if even what comes before it does not work, one that says so."""
    try:
        return fault(seed, folder)
    except AssertionError as error:
        row = Row(name)
        row.add("could not be tried", lost=str(error))
        return row


if __name__ == "__main__":
    sys.exit(main())
