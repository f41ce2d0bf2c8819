"""What do 10,000 exact Gaussian conditionals cost, one for each of as many v?"""

from collections.abc import Callable

import torch
from torch import Tensor

import probcl as pcl
from applications.tables import Row
from benchmarks.measure import side_by_side
from benchmarks.report import parser, prepare, publish
from probcl.conditional import Conditional, GaussianConditional
from probcl.information import Information, QuadraticFeatures

TOKENS = 4
NOTE = (
    "Single precision, k components of u with a dense Gaussian prior. Linear: linear encoders under L2, one covariance "
    f"for all v. Information: quadratic features and the encoder of sets, {TOKENS} observations each, a covariance for "
    "each v. Embed: the encoder of v alone. Condition: embedding v, and mean, factor of the precision and normaliser. "
    "Sample: the same and one draw for each v. Moments: the same and the variances."
)


def main() -> None:
    command = parser(__doc__, "benchmarks.conditionals")
    command.add_argument("--conditions", type=int, default=10_000)
    command.add_argument("--components", type=int, nargs="+", default=[3, 20, 32])
    arguments = command.parse_args()
    device = prepare(arguments)
    rows: list[Row] = []
    for k in arguments.components:
        for route, make in ROUTES.items():
            conditional, context = make(k, arguments.conditions, device)
            found = side_by_side(_calls(conditional, context), arguments.repeats, device)
            seconds = {f"{name}, ms": 1e3 * measured.seconds for name, measured in found.items()}
            rows.append({"route": route, "k": str(k), **seconds, "MB": found["sample"].memory / 1e6})
    publish(f"{arguments.conditions:,} Gaussian conditionals", rows, "conditionals", device, NOTE)


def _prior(k: int, device: torch.device) -> pcl.GaussianPrior:
    root = torch.randn(k, k, device=device)
    return pcl.GaussianPrior(torch.randn(k, device=device), root @ root.mT / k + torch.eye(k, device=device))


def _linear(k: int, conditions: int, device: torch.device) -> tuple[Conditional, Tensor]:
    model = pcl.BimodalModel(pcl.encoders.Linear(k, k), pcl.encoders.Linear(k, k), pcl.L2()).to(device)
    return model.u_given_v(_prior(k, device)), torch.randn(conditions, k, device=device)


def _information(k: int, conditions: int, device: torch.device) -> tuple[Conditional, Tensor]:
    prior, encoder = _prior(k, device), Information(2, k, values=1, hidden=(32,))
    torch.nn.init.normal_(encoder.gain.weight, std=0.1)  # a new encoder has no information
    model = pcl.BimodalModel(QuadraticFeatures.of(prior), encoder).to(device)
    observations = torch.randn(conditions, TOKENS, 4, device=device)
    observations[..., -1] = 1
    return model.u_given_v(prior), observations


ROUTES: dict[str, Callable[[int, int, torch.device], tuple[Conditional, Tensor]]] = {
    "linear": _linear,
    "information": _information,
}


def _calls(conditional: Conditional, context: Tensor) -> dict[str, Callable[[], object]]:
    assert isinstance(conditional.condition(context[:1]), GaussianConditional)
    return {
        "embed": lambda: conditional.embed_given(context),
        "condition": lambda: conditional.condition(context),
        "sample": lambda: conditional.condition(context).sample(),
        "moments": lambda: conditional.condition(context).variance,
    }


if __name__ == "__main__":
    main()
