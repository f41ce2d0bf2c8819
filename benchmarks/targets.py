"""Does what the other benchmarks have written meet the targets that the project has set itself?"""

import csv
from collections.abc import Callable, Iterator
from typing import NamedTuple

from applications.tables import Row, report
from benchmarks.report import OUTPUT

Table = list[dict[str, str]]


class Target(NamedTuple):
    """A number that a benchmark has found, and the bound it is held against."""

    what: str
    found: float
    bound: float
    at_most: bool

    def row(self) -> Row:
        """Return it as a row of a table."""
        met = self.found <= self.bound if self.at_most else self.found >= self.bound
        relation = "≤" if self.at_most else "≥"
        return {
            "what": self.what,
            "target": f"{relation} {self.bound:g}",
            "measured": f"{self.found:.3g}",
            "met": "yes" if met else "no",
        }


def main() -> None:
    rows: list[Row] = []
    for name, targets in TARGETS.items():
        for path in sorted(OUTPUT.glob(f"{name}.csv")):
            with path.open(newline="") as file:
                rows += [target.row() for target in targets(list(csv.DictReader(file)))]
    if not rows:
        raise SystemExit(f"there is nothing to compare in {OUTPUT}: run the other benchmarks first")
    report("Targets", rows, OUTPUT / "targets", "As the benchmarks' last runs found.")


def _losses(table: Table) -> Iterator[Target]:
    found = {(row["loss"], int(row["d"]), int(row["n"])): row for row in table}
    bounds = {
        ("open_clip's formula", 64, 16384): 5.0,
        ("open_clip's formula", 64, 32768): 12.0,
        ("open_clip's formula", 256, 16384): 2.3,
        ("linear_cross_entropy", 64, 16384): 1.9,
        ("linear_cross_entropy", 256, 16384): 1.5,
        ("log-sum-exp, compiled", 64, 8192): 2.0,
        ("log-sum-exp, compiled", 64, 16384): 2.0,
        ("log-sum-exp, compiled", 256, 16384): 1.0,
    }
    for (name, d, n), bound in bounds.items():
        if (name, d, n) in found:
            yield Target(f"{name}, n = {n:,}, d = {d}: time over ours", _of(found[name, d, n], "against"), bound, False)
    for d, bound in ((64, 1.7), (256, 1.35)):
        if ("probcl", d, 16384) in found:
            own = found["probcl", d, 16384]
            yield Target(f"n = 16,384, d = {d}: ours over the floor", _of(own, "over floor"), bound, True)
            for name, share in (("open_clip's formula", 0.01), ("linear_cross_entropy", 1.0)):
                ratio = _of(own, "MB") / _of(found[name, d, 16384], "MB")
                yield Target(f"n = 16,384, d = {d}: our memory over that of {name}", ratio, share, True)


def _alone(table: Table) -> Iterator[Target]:
    for row in table:
        if int(row["n"]) >= 131_072:
            yield Target(f"n = {int(row['n']):,}, d = {row['d']}: memory, MB", _of(row, "MB"), 500, True)


def _accuracy(table: Table) -> Iterator[Target]:
    own = [row for row in table if row["loss"] == "probcl"]
    for column, what in (("error", "value"), ("of gradient", "gradient")):
        worst = max(_of(row, column) for row in own)
        yield Target(f"relative error of the {what}, losses of 7 to 5e-12", worst, 5e-6, True)


def _busy(table: Table) -> Iterator[Target]:
    own = next(row for row in table if row["loss"] == "probcl")
    yield Target("beside two busy processes: time over that without", _of(own, "slower"), 4, True)


def _reductions(table: Table) -> Iterator[Target]:
    for d, bound in (("64", 1.55), ("256", 1.3)):
        found = {row["reduction"]: row for row in table if row["d"] == d}
        floor = 3 * _of(found.pop("one matrix product"), "ms")
        yield Target(f"joint loss over its floor, d = {d}", _of(found["joint"], "ms") / floor, bound, True)
        dearest = max(found.values(), key=lambda row: _of(row, "against"))
        what = f"{dearest['reduction']} (the dearest), d = {d}: time over the conditional loss"
        yield Target(what, _of(dearest, "against"), 1.5, True)


def _crossover(table: Table) -> Iterator[Target]:
    worst = max(_of(row, "auto") for row in table)
    yield Target("n ≤ 2,048: what auto chose over dense, at worst", worst, 1.1, True)


def _retrieval(table: Table) -> Iterator[Target]:
    found = {row["call"]: row for row in table}
    bounds = {
        "top-k: torch, matmul and topk": 2.0,
        "top-k: faiss, flat": 2.0,
        "draws: torch, softmax and multinomial": 8.0,
    }
    for call, bound in bounds.items():
        if call in found:
            yield Target(f"{call}: time over ours", _of(found[call], "against"), bound, False)
    memory = max(_of(found[call], "memory, MB") for call in ("top-k: probcl", "draws: probcl"))
    yield Target("exact search and draws: memory, MB", memory, 50, True)


def _ranks(table: Table) -> Iterator[Target]:
    alone = _of(table[0], "ms")
    for row in table[1:]:
        world = int(row["ranks"])
        yield Target(f"{world} ranks: error of the gradient", _of(row, "error"), 1e-6, True)
        ideal = alone / world + _of(row, "gather, ms")
        yield Target(f"{world} ranks: time over one process's share and the gather", _of(row, "ms") / ideal, 1.2, True)


def _of(row: dict[str, str], column: str) -> float:
    return float(row[column].replace(",", ""))


TARGETS: dict[str, Callable[[Table], Iterator[Target]]] = {
    "losses": _losses,
    "alone": _alone,
    "accuracy": _accuracy,
    "busy": _busy,
    "reductions": _reductions,
    "crossover": _crossover,
    "retrieval-*": _retrieval,
    "ranks": _ranks,
}


if __name__ == "__main__":
    main()
