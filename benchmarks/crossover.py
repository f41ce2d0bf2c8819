"""From what size on are tiles faster than the stored matrix? The answer is `probcl.scores._TILED_FROM`."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

import probcl as pcl
from applications.tables import Row
from benchmarks.measure import side_by_side
from benchmarks.peers import TEMPERATURE, by_logsumexp, step_of
from benchmarks.report import parser, prepare, publish

LOSSES = {"two-sided": pcl.ConditionalLoss(), "one-sided": pcl.ConditionalLoss(2, 0), "joint": pcl.JointLoss()}
NOTE = (
    "Value and gradient with the cosine at τ = 0.07: time with tiles, and with what method='auto' chose, over that "
    "with the matrix stored. over plain: time of what 'auto' chose over that of two log-sum-exps in plain torch, which "
    "check nothing and lose the digits of small losses."
)
PLAIN = "plain"


def main() -> None:
    command = parser(__doc__, "benchmarks.crossover")
    command.add_argument("--pairs", type=int, nargs="+", default=[64, 128, 256, 512, 768, 1024, 1536, 2048])
    command.add_argument("--width", type=int, nargs="+", default=[32, 64, 256])
    command.set_defaults(repeats=31)
    arguments = command.parse_args()
    device = prepare(arguments)
    rows: list[Row] = []
    for d, n in itertools.product(arguments.width, arguments.pairs):
        u, v = (torch.randn(n, d, device=device, requires_grad=True) for _ in range(2))
        for name, loss in LOSSES.items():
            calls = {method: _step(loss, u, v, method) for method in ("dense", "tiled", "auto")}
            if name == "two-sided":
                calls[PLAIN] = step_of(by_logsumexp, u, v)
            found = {method: m.seconds for method, m in side_by_side(calls, arguments.repeats, device).items()}
            ratios = {method: found[method] / found["dense"] for method in ("tiled", "auto")}
            over_plain = f"{found['auto'] / found[PLAIN]:.2f}" if PLAIN in found else ""
            shape = {"loss": name, "d": str(d), "n": str(n), "over plain": over_plain}
            rows.append({**shape, "dense, ms": 1e3 * found["dense"], **ratios})
    publish("Tiles against the stored matrix", rows, "crossover", device, NOTE)


def _step(loss: pcl.Loss, u: Tensor, v: Tensor, method: str) -> Callable[[], None]:
    def step() -> None:
        loss(pcl.Scores(u, v, pcl.Cosine(), TEMPERATURE, method)).backward()  # type: ignore[arg-type]

    return step


if __name__ == "__main__":
    main()
