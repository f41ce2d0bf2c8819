"""What do other losses, alignments and reductions cost beside the conditional loss?"""

from collections.abc import Callable

import torch
from torch import Tensor

import probcl as pcl
from applications.tables import Row
from benchmarks.measure import Call, products, side_by_side
from benchmarks.report import parser, prepare, publish

Reduce = Callable[[pcl.Scores], Tensor]
FIRST = "two-sided, cosine"
CASES: dict[str, tuple[Reduce, pcl.Alignment, float]] = {
    FIRST: (pcl.ConditionalLoss(), pcl.Cosine(), 0.07),
    "two-sided, inner product": (pcl.ConditionalLoss(), pcl.InnerProduct(), 8.0),
    "two-sided, L2": (pcl.ConditionalLoss(), pcl.L2(), 8.0),
    "two-sided, potentials": (pcl.ConditionalLoss(), pcl.WithPotentials(potential_dim=1), 8.0),
    "one-sided": (pcl.ConditionalLoss(2, 0), pcl.Cosine(), 0.07),
    "joint": (pcl.JointLoss(), pcl.Cosine(), 0.07),
    "two-sided, Laplace": (pcl.ConditionalLoss(), pcl.Laplace(), 0.5),
    "two-sided, sum of kernels": (pcl.ConditionalLoss(), pcl.SumMixture(8.0, 1.0), 1.0),
    "two-sided, concatenated kernels": (pcl.ConditionalLoss(), pcl.ConcatMixture(8.0, 1.0), 1.0),
    "RINCE, cosine": (pcl.RINCELoss(0.5), pcl.Cosine(), 0.07),
    "f-MICL (JS), f-Gaussian": (pcl.FMICLLoss("js", 40), pcl.FGaussian(), 1.0),
    "sigmoid, cosine": (pcl.SigmoidLoss(), pcl.Cosine(), 0.1),
    "spectral, inner product": (pcl.SpectralLoss(), pcl.InnerProduct(), 8.0),
    "means of rows": (lambda s: s.mean(torch.exp, 1).log().mean(), pcl.Cosine(), 0.07),
}
PRODUCT = "one matrix product"
NOTE = "Value and gradient, single precision, tiles. against: time over that of the first loss."


def main() -> None:
    command = parser(__doc__, "benchmarks.reductions")
    command.add_argument("--pairs", type=int, default=8192)
    command.add_argument("--width", type=int, nargs="+", default=[64, 256])
    arguments = command.parse_args()
    device = prepare(arguments)
    rows: list[Row] = []
    for d in arguments.width:
        u, v = (torch.randn(arguments.pairs, d, device=device, requires_grad=True) for _ in range(2))
        calls: dict[str, Call] = {name: _step(u, v, *case) for name, case in CASES.items()}
        calls[PRODUCT] = products(u.detach(), v.detach(), count=1)
        found = side_by_side(calls, arguments.repeats, device)
        rows += [
            {
                "reduction": name,
                "d": str(d),
                "ms": 1e3 * measured.seconds,
                "against": measured.seconds / found[FIRST].seconds,
                "MB": measured.memory / 1e6,
            }
            for name, measured in found.items()
        ]
    publish(f"Losses and alignments, {arguments.pairs:,} pairs", rows, "reductions", device, NOTE)


def _step(u: Tensor, v: Tensor, reduce: Reduce, alignment: pcl.Alignment, temperature: float) -> Callable[[], None]:
    def step() -> None:
        reduce(pcl.Scores(u, v, alignment, temperature, "tiled")).backward()

    return step


if __name__ == "__main__":
    main()
