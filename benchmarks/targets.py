"""Does what the other benchmarks have written meet the targets that the project has set itself?"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from applications.tables import Row, report
from benchmarks.reductions import PRODUCT
from benchmarks.report import OUTPUT

Table = list[dict[str, str]]


class Target(NamedTuple):
    """A number that a benchmark has found, and the bound it is held against."""

    what: str
    found: float | None
    bound: float
    at_most: bool

    def row(self) -> Row:
        """Return it as a row of a table."""
        relation = "≤" if self.at_most else "≥"
        row = {"what": self.what, "target": f"{relation} {self.bound:g}"}
        if self.found is None:
            return row | {"measured": "not measured", "met": ""}
        met = self.found <= self.bound if self.at_most else self.found >= self.bound
        return row | {"measured": f"{self.found:.3g}", "met": "yes" if met else "no"}


def main() -> None:
    rows: list[Row] = []
    for name, targets in TARGETS.items():
        tables = [_read(path) for path in sorted(OUTPUT.glob(f"{name}.csv"))]
        for table in tables or [[]]:
            rows += [target.row() for target in targets(table)]
    report("Targets", rows, OUTPUT / "targets", "As the benchmarks' last runs found.")


def _read(path: Path) -> Table:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _losses(table: Table) -> Iterator[Target]:
    found = {(row["loss"], int(row["d"]), int(row["n"])): row for row in table}
    bounds = {
        ("open_clip's formula", 64, 16384): 5.0,
        ("open_clip's formula", 64, 32768): 12.0,
        ("open_clip's formula", 256, 16384): 2.3,
        ("linear_cross_entropy", 64, 16384): 1.9,
        ("linear_cross_entropy", 256, 16384): 1.5,
        ("log-sum-exp, compiled", 64, 16384): 2.0,
        ("log-sum-exp, compiled", 256, 16384): 1.0,
    }
    for (name, d, n), bound in bounds.items():
        yield Target(
            f"{name}, n = {n:,}, d = {d}: time over ours", _of(found.get((name, d, n)), "against"), bound, False
        )
    for d, bound in ((64, 1.7), (256, 1.35)):
        own = found.get(("probcl", d, 16384))
        yield Target(f"n = 16,384, d = {d}: ours over the floor", _of(own, "over floor"), bound, True)
        for name, share in (("open_clip's formula", 0.01), ("linear_cross_entropy", 1.0)):
            ratio = _ratio(_of(own, "MB"), _of(found.get((name, d, 16384)), "MB"))
            yield Target(f"n = 16,384, d = {d}: our memory over that of {name}", ratio, share, True)


def _alone(table: Table) -> Iterator[Target]:
    row = next((row for row in table if int(row["n"]) == 131_072), None)
    yield Target("n = 131,072, d = 64: memory, MB", _of(row, "MB"), 500, True)


def _accuracy(table: Table) -> Iterator[Target]:
    own = [row for row in table if row["loss"] == "probcl"]
    for column, what in (("error", "loss"), ("of gradient", "gradient")):
        worst = max((float(row[column]) for row in own), default=None)
        yield Target(f"relative error of the {what} in single precision, at worst", worst, 5e-6, True)


def _busy(table: Table) -> Iterator[Target]:
    own = next((row for row in table if row["loss"] == "probcl"), None)
    yield Target("beside two busy processes: time over that without", _of(own, "slower"), 4, True)


def _reductions(table: Table) -> Iterator[Target]:
    for d, bound in (("64", 1.55), ("256", 1.3)):
        found = {row["reduction"]: row for row in table if row["d"] == d}
        product = _of(found.pop(PRODUCT, None), "ms")
        joint = _ratio(_of(found.get("joint"), "ms"), None if product is None else 3 * product)
        yield Target(f"joint loss over its floor of three products, d = {d}", joint, bound, True)
        for name in found:
            yield Target(f"{name}, d = {d}: time over the first loss", _of(found[name], "against"), 1.5, True)


def _crossover(table: Table) -> Iterator[Target]:
    worst = max((float(row["auto"]) for row in table), default=None)
    yield Target("n ≤ 2,048: what auto chose over our dense, at worst", worst, 1.1, True)
    for low, high in ((64, 256), (512, 2048)):
        plain = [float(row["over plain"]) for row in table if row["over plain"] and low <= int(row["n"]) <= high]
        what = f"n = {low:,} to {high:,}: what auto chose over plain torch, at worst"
        yield Target(what, max(plain, default=None), 1.1, True)


def _retrieval(table: Table) -> Iterator[Target]:
    found = {row["call"]: row for row in table}
    bounds = {
        "top-k: torch, matmul and topk": 2.0,
        "top-k: faiss, flat": 2.0,
        "draws: torch, softmax and multinomial": 8.0,
    }
    for call, bound in bounds.items():
        yield Target(f"{call}: time over ours", _of(found.get(call), "against"), bound, False)
    for call in ("top-k: probcl", "draws: probcl"):
        yield Target(f"{call}: memory, MB", _of(found.get(call), "memory, MB"), 50, True)


def _ranks(table: Table) -> Iterator[Target]:
    found = {int(row["ranks"]): row for row in table}
    alone = _of(found.get(1), "ms")
    for world in (2, 4):
        row = found.get(world)
        yield Target(f"{world} ranks: error of the gradient", _of(row, "error"), 1e-6, True)
        gather = _of(row, "gather, ms")
        ideal = None if alone is None or gather is None else alone / world + gather
        what = f"{world} ranks: time over one process's share and the gather"
        yield Target(what, _ratio(_of(row, "ms"), ideal), 1.2, True)


def _of(row: dict[str, str] | None, column: str) -> float | None:
    return None if row is None else float(row[column].replace(",", ""))


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


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
