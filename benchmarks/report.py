"""Where results go, and what the command lines share."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from applications.tables import Row, report
from benchmarks.measure import machine

OUTPUT = Path("results") / "benchmarks"


def parser(description: str | None, module: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all benchmarks have."""
    result = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    result.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    result.add_argument("--threads", type=int, help="of torch; all cores by default")
    result.add_argument("--repeats", type=int, default=5)
    return result


def prepare(arguments: argparse.Namespace) -> torch.device:
    """Set torch's threads, and seed it."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device: torch.device = arguments.device
    return device


def publish(title: str, rows: Sequence[Row], name: str, device: torch.device, note: str = "") -> None:
    """Print a table and write it under results/benchmarks, with the machine beneath."""
    report(title, rows, OUTPUT / name, f"{note} {machine(device)}.".strip())
