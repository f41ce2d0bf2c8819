"""How many digits of a small loss, and of its gradient, are left in single precision?"""

import torch
from torch import Tensor

from applications.tables import Row
from benchmarks.peers import Loss, as_linear_cross_entropy, as_open_clip, by_logsumexp, ours
from benchmarks.report import parser, prepare, publish

LOSSES: dict[str, Loss] = {
    "probcl": ours,
    "log-sum-exp": by_logsumexp,
    "open_clip's formula": as_open_clip,
    "linear_cross_entropy": as_linear_cross_entropy,
}
PAIRS, WIDTH, NOISE = 2048, 64, 0.1
TEMPERATURES = (1.0, 0.2, 0.1, 0.05, 0.03, 0.02)
NOTE = (
    f"{PAIRS} pairs of width {WIDTH}, v = u + {NOISE} · noise, cosine: relative errors, the gradient's in norm, "
    "against plain torch in float64 on the same single-precision embeddings."
)


def main() -> None:
    device = prepare(parser(__doc__, "benchmarks.accuracy").parse_args())
    u = torch.randn(PAIRS, WIDTH, device=device)
    v = u + NOISE * torch.randn(PAIRS, WIDTH, device=device)
    rows: list[Row] = []
    for temperature in TEMPERATURES:
        exact, exact_gradient = _value_and_gradient(_in_float64, u.double(), v.double(), temperature)
        for name, loss in LOSSES.items():
            value, gradient = _value_and_gradient(loss, u, v, temperature)
            rows.append(
                {
                    "loss": name,
                    "τ": f"{temperature:g}",
                    "true value": f"{float(exact):.1e}",
                    "error": f"{float((value.double() - exact).abs() / exact):.1e}",
                    "of gradient": f"{float((gradient.double() - exact_gradient).norm() / exact_gradient.norm()):.1e}",
                }
            )
    publish("Digits near convergence", rows, "accuracy", device, NOTE)


def _in_float64(u: Tensor, v: Tensor, temperature: float) -> Tensor:
    """Off the diagonal by masking, so that float64 itself does not lose the digits that are asked for."""
    u, v = torch.nn.functional.normalize(u), torch.nn.functional.normalize(v)
    scores = u @ v.mT / temperature
    others = scores.masked_fill(torch.eye(len(u), dtype=torch.bool, device=u.device), -torch.inf)
    margins = torch.stack([others.logsumexp(dim) - scores.diagonal() for dim in (0, 1)])
    return torch.log1p(margins.exp()).mean()


def _value_and_gradient(loss: Loss, u: Tensor, v: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    u, v = u.clone().requires_grad_(), v.clone().requires_grad_()
    value = loss(u, v, temperature)
    return value.detach(), torch.cat(torch.autograd.grad(value, (u, v)))


if __name__ == "__main__":
    main()
