"""How long, and with how much memory, do the conditional loss and its gradient take, ours and others'?"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch

from applications.files import save_figure
from applications.tables import Row
from benchmarks.measure import Measured, products, side_by_side
from benchmarks.peers import Loss, ours, peers, step_of
from benchmarks.report import OUTPUT, parser, prepare, publish

# The matrix products that every exact method must do: scores, scores again, and a gradient for each side.
PRODUCTS = 4
FLOOR = "floor"
NOTE = (
    "Value and gradient, single precision, medians of interleaved repeats. over floor: time over that of four "
    "n × n × d matrix products, tile by tile, in the same run. against: time over that of probcl. "
    "memory: what a call adds to the process at its peak, embeddings and their gradients not included."
)


def main() -> None:
    command = parser(__doc__, "benchmarks.losses")
    command.add_argument("--pairs", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    command.add_argument("--width", type=int, nargs="+", default=[64, 256])
    command.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    command.add_argument("--alone", action="store_true", help="probcl only, for sizes at which the others do not fit")
    arguments = command.parse_args()
    device = prepare(arguments)
    rows: list[Row] = []
    for d in arguments.width:
        for n in arguments.pairs:
            losses: dict[str, Loss] = {"probcl": ours}
            if not arguments.alone:
                losses = peers(n, compiled=not arguments.no_compile)
            rows += _rows(n, d, _measure(n, d, losses, arguments.repeats, device))
    publish("The conditional loss and its gradient", rows, "alone" if arguments.alone else "losses", device, NOTE)
    if not arguments.alone:
        _draw(rows)


def _measure(n: int, d: int, losses: dict[str, Loss], repeats: int, device: torch.device) -> dict[str, Measured]:
    u, v = (torch.randn(n, d, device=device, requires_grad=True) for _ in range(2))
    u.grad, v.grad = torch.zeros_like(u), torch.zeros_like(v)
    calls = {name: step_of(loss, u, v) for name, loss in losses.items()}
    return side_by_side({FLOOR: products(u.detach(), v.detach(), PRODUCTS), **calls}, repeats, device)


def _rows(n: int, d: int, measured: dict[str, Measured]) -> list[Row]:
    floor = measured.pop(FLOOR).seconds
    ours = next(iter(measured.values())).seconds
    return [
        {
            "loss": name,
            "d": str(d),
            "n": str(n),
            "ms": 1e3 * found.seconds,
            "over floor": found.seconds / floor,
            "against": found.seconds / ours,
            "MB": found.memory / 1e6,
        }
        for name, found in measured.items()
    ]


def _draw(rows: Sequence[Row]) -> None:
    widths = sorted({str(row["d"]) for row in rows}, key=int)
    size = (5 * len(widths), 7)
    figure, axes = plt.subplots(
        2, len(widths), figsize=size, sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(str(row["loss"]) for row in rows))
    for column, d in enumerate(widths):
        for place, name in enumerate(names):
            own = [row for row in rows if row["loss"] == name and row["d"] == d]
            n = [int(row["n"]) for row in own]
            style = {"marker": "o", "markersize": 4, "color": f"C{place}", "lw": 2.5 if place == 0 else 1.3}
            axes[0, column].loglog(n, [float(row["ms"]) for row in own], label=name, **style)
            axes[1, column].loglog(n, [max(float(row["MB"]), 0.1) for row in own], **style)
        axes[0, column].set_title(f"embeddings of width {d}")
        axes[1, column].set_xlabel("pairs")
    axes[0, 0].set_ylabel("value and gradient, ms")
    axes[1, 0].set_ylabel("memory at its peak, MB")
    axes[0, 0].legend(fontsize=8, frameon=False)
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, OUTPUT / "losses.png", dpi=130)


if __name__ == "__main__":
    main()
